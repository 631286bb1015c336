//! The steps as ordinary functions.

use super::{
    aes, md5, passphrase::Passphrase, scratch::FwknopScratch, steps::Steps, text::Request,
};
use crate::{Address, hmac_sha256::HmacKey, sha256, spa::layout::FwknopKey};

/// A type whose [`Steps`] are ordinary functions.
pub trait NativeSteps: Sized {}

impl<T: NativeSteps> Steps for T {
    fn compress_sha256(&self, work: &mut sha256::Sha256Work) {
        sha256::compress(work);
    }

    fn compress_md5(&self, work: &mut md5::Md5Work) {
        md5::compress(work);
    }

    fn expand_key(&self, work: &mut aes::AesWork) {
        aes::expand(work);
    }

    fn decrypt_block(&self, work: &mut aes::AesWork) {
        aes::decrypt(work);
    }

    fn read_character(&self, request: &mut Request, character: u8) {
        request.read(character);
    }

    fn admits(&self, key: &FwknopKey, source: &Address) -> bool {
        key.admits(*source)
    }

    fn begin(&self, scratch: &mut FwknopScratch) -> bool {
        scratch.begin()
    }

    fn is_authentic(&self, scratch: &mut FwknopScratch, key: &HmacKey) -> bool {
        scratch.is_authentic(self, key)
    }

    fn decode(&self, scratch: &mut FwknopScratch) -> bool {
        scratch.decode()
    }

    fn derive_key(&self, scratch: &mut FwknopScratch, passphrase: &Passphrase) {
        scratch.derive_key(self, passphrase);
    }

    fn begins_with_digits(&self, scratch: &mut FwknopScratch) -> bool {
        scratch.begins_with_digits(self)
    }

    fn decrypt(&self, scratch: &mut FwknopScratch) {
        scratch.decrypt(self);
    }

    fn unpad(&self, scratch: &mut FwknopScratch) -> bool {
        scratch.unpad()
    }

    fn read(&self, scratch: &mut FwknopScratch) {
        scratch.read(self);
    }
}

/// The steps as ordinary functions.
#[derive(Clone, Copy, Debug, Default)]
pub struct FwknopNative;

impl NativeSteps for FwknopNative {}
