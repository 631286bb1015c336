//! The judgement of a packet of fwknop as subprograms. All memory that they share is the scratch, so none of them takes
//! much of the stack; three of them follow each other, because one around them would take too much.

use knock_common::{
    Address, Reason,
    fwknop::{FwknopScratch, Passphrase, aes, judge, md5, text::Request},
    hmac_sha256::HmacKey,
    spa::layout::FwknopKey,
};

use crate::maps::Maps;

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn admits(key: *const FwknopKey, source: *const Address) -> u64 {
    // SAFETY: a key in a map, which lives during the call, or null.
    let key = unsafe { key.as_ref() };
    // SAFETY: the caller's address, which lives during the call, or null.
    let source = unsafe { source.as_ref() };
    match (key, source) {
        (Some(key), Some(source)) => key.admits(*source).into(),
        _ => 0,
    }
}

/// Finds a door of a user, whose number is `user`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_fwknop_door(
    scratch: *mut FwknopScratch,
    index: u32,
    user: u32,
    left_ms: u64,
) -> u64 {
    // SAFETY: the caller's `FwknopScratch`, which only this function uses during the call, or null.
    let scratch = unsafe { scratch.as_mut() };
    let is_allowed = scratch.is_some_and(|scratch| {
        judge::find_door(&Maps::new(), scratch, index, user as u16, left_ms)
    });
    is_allowed.into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn open_fwknop_door(scratch: *const FwknopScratch, index: u32) -> u64 {
    // SAFETY: as in `find_fwknop_door`.
    let scratch = unsafe { scratch.as_ref() };
    let reason = scratch.map(|scratch| judge::open_door(&Maps::new(), scratch, index));
    reason.unwrap_or(Reason::SpaNotAllowed) as u64
}

/// Defines a subprogram around a function of memory that the caller passes. A step without a result returns 0.
macro_rules! subprograms {
    ($($name:ident($memory:ident: $type:ty $(, $more:ident: $also:ty)?) $body:expr;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub(crate) extern "C" fn $name($memory: *mut $type $(, $more: $also)?) -> u64 {
                // SAFETY: the caller's memory, which only this function uses during the call, or null.
                match unsafe { $memory.as_mut() } {
                    Some($memory) => $body.into(),
                    None => 0,
                }
            }
        )+
    };
}

subprograms! {
    find_fwknop_key(scratch: FwknopScratch) judge::find_key(&Maps::new(), scratch);
    refuse_fwknop(scratch: FwknopScratch) judge::refuse_unknown(&Maps::new(), scratch).to_word();
    decide_fwknop(scratch: FwknopScratch, key: u32) judge::decide(&Maps::new(), scratch, key).to_word();
    open_fwknop(scratch: FwknopScratch) judge::open_doors(&Maps::new(), scratch) as u64;
    compress_md5(work: md5::Md5Work) { md5::compress(work); 0_u64 };
    expand_key(work: aes::AesWork) { aes::expand(work); 0_u64 };
    decrypt_block(work: aes::AesWork) { aes::decrypt(work); 0_u64 };
    // An argument of eight bits has no bounds for the verifier.
    read_character(request: Request, character: u32) { request.read(character as u8); 0_u64 };
    begin_fwknop(scratch: FwknopScratch) scratch.begin();
    is_authentic(scratch: FwknopScratch, key: *const HmacKey) {
        // SAFETY: a key in a map, which lives during the call, or null.
        let key = unsafe { key.as_ref() };
        key.is_some_and(|key| scratch.is_authentic(&Maps::new(), key))
    };
    decode(scratch: FwknopScratch) scratch.decode();
    derive_key(scratch: FwknopScratch, passphrase: *const Passphrase) {
        // SAFETY: a passphrase in a map, which lives during the call, or null.
        let passphrase = unsafe { passphrase.as_ref() };
        if let Some(passphrase) = passphrase {
            scratch.derive_key(&Maps::new(), passphrase);
        }
        0_u64
    };
    begins_with_digits(scratch: FwknopScratch) scratch.begins_with_digits(&Maps::new());
    decrypt(scratch: FwknopScratch) { scratch.decrypt(&Maps::new()); 0_u64 };
    unpad(scratch: FwknopScratch) scratch.unpad();
    read_text(scratch: FwknopScratch) { scratch.read(&Maps::new()); 0_u64 };
}
