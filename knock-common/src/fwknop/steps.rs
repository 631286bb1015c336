//! The steps that the kernel side makes BPF subprograms.

use super::{aes, md5, passphrase::Passphrase, scratch::Scratch, text::Request};
use crate::{Address, hmac_sha256::Key, sha256, spa::layout::FwknopKey};

/// The steps that the kernel side makes BPF subprograms; see [`crate::Subprograms`].
pub trait Steps: Sized {
    /// See [`sha256::compress`].
    fn compress_sha256(&self, work: &mut sha256::Work);

    /// See [`md5::compress`].
    fn compress_md5(&self, work: &mut md5::Work);

    /// See [`aes::expand`].
    fn expand_key(&self, work: &mut aes::Work);

    /// See [`aes::decrypt`].
    fn decrypt_block(&self, work: &mut aes::Work);

    /// See [`Request::read`].
    fn read_character(&self, request: &mut Request, character: u8);

    /// See [`FwknopKey::admits`].
    fn admits(&self, key: &FwknopKey, source: &Address) -> bool;

    /// See [`Scratch::begin`].
    fn begin(&self, scratch: &mut Scratch) -> bool;

    /// See [`Scratch::is_authentic`].
    fn is_authentic(&self, scratch: &mut Scratch, key: &Key) -> bool;

    /// See [`Scratch::decode`].
    fn decode(&self, scratch: &mut Scratch) -> bool;

    /// See [`Scratch::derive_key`].
    fn derive_key(&self, scratch: &mut Scratch, passphrase: &Passphrase);

    /// See [`Scratch::begins_with_digits`].
    fn begins_with_digits(&self, scratch: &mut Scratch) -> bool;

    /// See [`Scratch::decrypt`].
    fn decrypt(&self, scratch: &mut Scratch);

    /// See [`Scratch::unpad`].
    fn unpad(&self, scratch: &mut Scratch) -> bool;

    /// See [`Scratch::read`].
    fn read(&self, scratch: &mut Scratch);
}
