//! The steps that the kernel side makes BPF subprograms.

use super::{aes, md5, passphrase::Passphrase, scratch::FwknopScratch, text::Request};
use crate::{Address, hmac_sha256::HmacKey, sha256, spa::layout::FwknopKey};

/// The steps that the kernel side makes BPF subprograms; see [`crate::Subprograms`].
pub trait Steps: Sized {
    /// See [`sha256::compress`].
    fn compress_sha256(&self, work: &mut sha256::Sha256Work);

    /// See [`md5::compress`].
    fn compress_md5(&self, work: &mut md5::Md5Work);

    /// See [`aes::expand`].
    fn expand_key(&self, work: &mut aes::AesWork);

    /// See [`aes::decrypt`].
    fn decrypt_block(&self, work: &mut aes::AesWork);

    /// See [`Request::read`].
    fn read_character(&self, request: &mut Request, character: u8);

    /// See [`FwknopKey::admits`].
    fn admits(&self, key: &FwknopKey, source: &Address) -> bool;

    /// See [`FwknopScratch::begin`].
    fn begin(&self, scratch: &mut FwknopScratch) -> bool;

    /// See [`FwknopScratch::is_authentic`].
    fn is_authentic(&self, scratch: &mut FwknopScratch, key: &HmacKey) -> bool;

    /// See [`FwknopScratch::decode`].
    fn decode(&self, scratch: &mut FwknopScratch) -> bool;

    /// See [`FwknopScratch::derive_key`].
    fn derive_key(&self, scratch: &mut FwknopScratch, passphrase: &Passphrase);

    /// See [`FwknopScratch::begins_with_digits`].
    fn begins_with_digits(&self, scratch: &mut FwknopScratch) -> bool;

    /// See [`FwknopScratch::decrypt`].
    fn decrypt(&self, scratch: &mut FwknopScratch);

    /// See [`FwknopScratch::unpad`].
    fn unpad(&self, scratch: &mut FwknopScratch) -> bool;

    /// See [`FwknopScratch::read`].
    fn read(&self, scratch: &mut FwknopScratch);
}
