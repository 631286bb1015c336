//! Time-based sequences, compatible with the fork of knockd that has `otp =`.
//!
//! Time is divided into numbered periods. The HMAC-SHA1 of a period's number with a secret as the key gives an octet
//! for each knock; the knock's port is the base plus the octet. A second half may follow, whose key is the secret
//! followed by the text of the source address.

use crate::{
    Address, Env,
    hmac::{HashInput, HmacScratch, KEY_MOST, MESSAGE_MOST},
    layout::Symbol,
    packet::Protocol,
    packet_info::PacketInfo,
    secret::{SECRET_MOST, Secret},
    sha1::{DIGEST_BYTES, DIGEST_WORDS, Sha1Work, compress},
    source_knocks::{OtpPosition, SourceKnocks},
};

/// The most knocks of a half.
pub const HALF_MOST: usize = 32;
/// The default period, in seconds; defaults are those of the fork's examples.
pub const PERIOD_SECS: u64 = 45;
/// The default of the port to which octets are added.
pub const BASE: u16 = 20_000;
/// The default protocols of a half.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Tcp];
/// Octets until they repeat: the fork reads one more than a digest has, which is zero.
const CYCLE: u8 = DIGEST_BYTES as u8 + 1;

/// The longest text of an address: eight groups of four digits.
const ADDRESS_TEXT_MOST: usize = 39;
const _: () = assert!(SECRET_MOST + ADDRESS_TEXT_MOST <= KEY_MOST);
/// The longest text of a number of 64 bits.
const NUMBER_TEXT_MOST: usize = 20;
const _: () = assert!(NUMBER_TEXT_MOST <= MESSAGE_MOST);

/// The octets of a half of a sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Octets([u32; DIGEST_WORDS]);

impl Octets {
    /// Computes the octets of a period; with a source, those of the half that depends on it.
    pub fn of(secret: &Secret, source: Option<Address>, period: u64) -> Self {
        let mut scratch = HmacScratch::empty();
        Self(*digest(&mut scratch, secret, source, period, compress))
    }

    /// Returns the octet of a knock, counted from 0 within its half.
    pub fn get(&self, knock: u8) -> u8 {
        octet(&self.0, knock)
    }

    /// Returns the port of a knock.
    pub fn port(&self, base: u16, knock: u8) -> u16 {
        base.wrapping_add(u16::from(self.get(knock)))
    }
}

/// Returns the digest with the octets of a half.
#[inline(always)]
fn digest<'s>(
    scratch: &'s mut HmacScratch,
    secret: &Secret,
    source: Option<Address>,
    period: u64,
    compress: impl Fn(&mut Sha1Work),
) -> &'s [u32; DIGEST_WORDS] {
    scratch.key.clear();
    scratch.message.clear();
    secret.write(&mut scratch.key);
    if let Some(source) = source {
        write_address(&mut scratch.key, source);
    }
    write_decimal(&mut scratch.message, period);
    scratch.digest(compress)
}

/// Returns the octet of a knock, counted from 0 within its half. After the last byte of the digest follow
/// the zero that the fork reads there, and then the first byte again.
#[inline(always)]
fn octet(digest: &[u32; DIGEST_WORDS], knock: u8) -> u8 {
    let knock = knock.checked_rem(CYCLE).unwrap_or(0);
    // One word after the other: the verifier allows no unknown number as an index into the stack.
    let mut octet = 0;
    for (at, word) in (0..).zip(digest) {
        if knock >> 2 == at {
            octet = word.wrapping_shl(8_u32.wrapping_mul(u32::from(knock & 3))) >> 24;
        }
    }
    octet as u8
}

/// Computes the knocks of a source at a position.
#[inline(always)]
pub fn source_knocks<E: Env>(
    env: &E,
    info: &PacketInfo,
    position: OtpPosition,
    scratch: &mut HmacScratch,
    compress: impl Fn(&mut Sha1Work),
) -> SourceKnocks {
    let Some(door) = env.door(position.sequence.wrapping_sub(1).into()) else {
        return SourceKnocks::NONE;
    };
    let Some(otp) = env.otp(door.number) else {
        return SourceKnocks::NONE;
    };
    let (period, source) = (u64::from(door.sequence_id), Some(info.source));
    let digest = digest(scratch, &otp.secret, source, period, compress);
    let symbol = |knock: u8| {
        let port = otp.base.wrapping_add(octet(digest, knock).into());
        Symbol::new(otp.protocol(knock), port)
    };
    let last = position.knock.checked_sub(2).map(symbol);
    SourceKnocks::new(position, symbol(position.knock.wrapping_sub(1)), last)
}

/// Writes a number in decimal.
#[inline(never)]
fn write_decimal(text: &mut HashInput, number: u64) {
    // The greatest power of ten in 64 bits.
    let mut unit = 10_000_000_000_000_000_000_u64;
    let mut begun = false;
    for _ in 0..NUMBER_TEXT_MOST {
        let digit = number.checked_div(unit).unwrap_or(0) % 10;
        begun |= digit != 0 || unit == 1;
        if begun {
            text.push(b'0'.wrapping_add(digit as u8));
        }
        unit /= 10;
    }
}

/// Writes an address: IPv4 as a dotted quad, IPv6 as in RFC 5952.
#[inline(always)]
pub fn write_address(text: &mut HashInput, address: Address) {
    if address.is_v4() {
        write_v4(text, address);
    } else {
        write_v6(text, address);
    }
}

#[inline(never)]
fn write_v4(text: &mut HashInput, address: Address) {
    let [.., last] = address.words;
    for (number, octet) in last.to_ne_bytes().into_iter().enumerate() {
        if number > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0'.wrapping_add(octet / 100));
        }
        if octet >= 10 {
            text.push(b'0'.wrapping_add(octet / 10 % 10));
        }
        text.push(b'0'.wrapping_add(octet % 10));
    }
}

/// Groups of an IPv6 address.
const GROUPS: u32 = 8;

#[inline(never)]
fn write_v6(text: &mut HashInput, address: Address) {
    let gap = gap(address);
    for group in 0..GROUPS {
        if gap >> group & 1 != 0 {
            // Two colons for all of the gap.
            if gap << 1 >> group & 1 == 0 {
                text.push(b':');
                text.push(b':');
            }
            continue;
        }
        if group > 0 && gap << 1 >> group & 1 == 0 {
            text.push(b':');
        }
        let number = group_of(address, group);
        if number >= 0x1000 {
            text.push(hex(number >> 12));
        }
        if number >= 0x100 {
            text.push(hex(number >> 8));
        }
        if number >= 0x10 {
            text.push(hex(number >> 4));
        }
        text.push(hex(number));
    }
}

/// Returns the groups that two colons stand for, as bits: the first of the longest runs of zeros with at least two
/// groups (RFC 5952, 4.2).
#[inline(always)]
fn gap(address: Address) -> u32 {
    let mut zeros = 0;
    for group in 0..GROUPS {
        // Without a branch, since the verifier would follow each combination.
        zeros |= group_of(address, group).wrapping_sub(1) >> 31 << group;
    }
    // The starts of runs of two groups, then of three, and so on.
    let mut starts = zeros & zeros >> 1;
    if starts == 0 {
        return 0;
    }
    let mut length = 2_u32;
    for more in 2..GROUPS {
        let longer = starts & zeros >> more;
        if longer == 0 {
            break;
        }
        starts = longer;
        length = more.wrapping_add(1);
    }
    let first = starts & starts.wrapping_neg();
    first.wrapping_shl(length).wrapping_sub(first)
}

#[inline(always)]
fn group_of(address: Address, group: u32) -> u32 {
    let word = address.words.get((group >> 1) as usize & 3);
    let word = u32::from_be(word.copied().unwrap_or(0));
    if group & 1 == 0 {
        word >> 16
    } else {
        word & 0xffff
    }
}

/// Returns the lowest four bits of a number as a digit.
#[inline(always)]
const fn hex(number: u32) -> u8 {
    let digit = (number & 15) as u8;
    if digit < 10 {
        b'0'.wrapping_add(digit)
    } else {
        b'a'.wrapping_add(digit).wrapping_sub(10)
    }
}

#[cfg(test)]
mod tests;
