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

    /// The octet of a knock, counted from 0 within its half.
    pub fn get(&self, knock: u8) -> u8 {
        octet(&self.0, knock)
    }

    /// The port of a knock.
    pub fn port(&self, base: u16, knock: u8) -> u16 {
        base.wrapping_add(u16::from(self.get(knock)))
    }
}

/// The digest with the octets of a half.
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

/// The octet of a knock, counted from 0 within its half. After the last byte of the digest follow
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

/// The groups that two colons stand for, as bits: the first of the longest runs of zeros with at least two groups
/// (RFC 5952, 4.2).
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

/// The lowest four bits of a number as a digit.
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
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
        string::{String, ToString as _},
        vec::Vec,
    };

    use bytemuck::Zeroable as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use proptest::prelude::*;
    use sha1::Sha1;

    use super::*;

    const BASE: u16 = 20_000;
    const PERIOD: u64 = 45;
    const README: &str = "AAgR%XXx30O$#";

    fn ports(secret: &str, source: Option<&str>, time: u64, count: u8) -> Vec<u16> {
        let secret = Secret::new(secret.as_bytes()).expect("a secret");
        let source = source.map(|source| source.parse::<IpAddr>().expect("an address").into());
        let octets = Octets::of(&secret, source, time / PERIOD);
        (0..count).map(|knock| octets.port(BASE, knock)).collect()
    }

    #[test]
    fn ports_are_those_of_the_fork() {
        let source = "203.0.113.7";
        for (name, time, secret, source, timed, source_knocks) in [
            (
                "the first second",
                0,
                README,
                source,
                [20077, 20078, 20127],
                [20119, 20228, 20023],
            ),
            (
                "the last of its period",
                44,
                README,
                source,
                [20077, 20078, 20127],
                [20119, 20228, 20023],
            ),
            (
                "the next period",
                45,
                README,
                source,
                [20057, 20137, 20037],
                [20121, 20053, 20180],
            ),
            (
                "2021",
                1_615_298_957,
                README,
                source,
                [20150, 20222, 20137],
                [20061, 20113, 20040],
            ),
            (
                "2023",
                1_700_000_000,
                README,
                source,
                [20171, 20182, 20070],
                [20127, 20094, 20017],
            ),
            (
                "2025",
                1_763_716_680,
                README,
                source,
                [20236, 20198, 20145],
                [20253, 20153, 20130],
            ),
            (
                "the secret after its script",
                1_700_000_000,
                "AAgR%XXx30O0",
                source,
                [20104, 20074, 20044],
                [20152, 20025, 20102],
            ),
            (
                "another source",
                1_700_000_000,
                "seedseed",
                "198.51.100.20",
                [20207, 20078, 20085],
                [20087, 20103, 20129],
            ),
        ] {
            assert_eq!(ports(secret, None, time, 3), timed, "{name}");
            assert_eq!(
                ports(secret, Some(source), time, 3),
                source_knocks,
                "{name}, per source"
            );
        }
    }

    #[test]
    fn digests_are_those_of_the_fork() {
        for (name, source, digest) in [
            (
                "half without the source",
                None,
                "abb646282956d4f76fda05cfc4398e3a3b709ab0",
            ),
            (
                "half with the source",
                Some("203.0.113.7"),
                "7f5e11b2e2dbee04b554fdcb87320e18ac8929de",
            ),
        ] {
            let secret = Secret::new(README.as_bytes()).expect("a secret");
            let source = source.map(|source| source.parse::<IpAddr>().expect("an address").into());
            let Octets(words) = Octets::of(&secret, source, 37_777_777);
            let found: String = words
                .iter()
                .map(|word| std::format!("{word:08x}"))
                .collect();
            assert_eq!(found, digest, "{name}");
        }
    }

    #[test]
    fn the_octet_after_the_last_is_zero() {
        assert_eq!(
            ports(README, None, 1_700_000_000, 24),
            [
                20171, 20182, 20070, 20040, 20041, 20086, 20212, 20247, 20111, 20218, 20005, 20207,
                20196, 20057, 20142, 20058, 20059, 20112, 20154, 20176, 20000, 20171, 20182, 20070
            ]
        );
        let secret = Secret::new(b"secret").expect("a secret");
        let octets = Octets::of(&secret, None, 1);
        assert_eq!((octets.get(20), octets.get(41)), (0, 0));
        assert_eq!(
            octets.port(65_535, 0),
            65_535_u16.wrapping_add(octets.get(0).into())
        );
    }

    #[test]
    fn a_secret_has_1_to_31_bytes() {
        for (name, text, fits) in [
            ("empty", &b""[..], false),
            ("one byte", b"x", true),
            ("the longest", &[7; 31], true),
            ("one byte more", &[7; 32], false),
            ("too long for its count", &[7; 256 + 8], false),
        ] {
            assert_eq!(Secret::new(text).is_some(), fits, "{name}");
        }
        let shown = std::format!("{:?}", Secret::new(b"hunter2"));
        assert!(
            !shown.contains("hunter2") && !shown.contains("104"),
            "{shown}"
        );
    }

    fn address_text(address: IpAddr) -> String {
        let mut text = HashInput::zeroed();
        write_address(&mut text, address.into());
        String::from_utf8(text.as_bytes().to_vec()).expect("ASCII")
    }

    #[test]
    fn addresses_are_written_as_in_rfc_5952() {
        for text in [
            "0.0.0.0",
            "9.10.99.100",
            "255.255.255.255",
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "2001:db8:0:1:1:1:1:1",
            "2001:0:0:1::1",
            "2001:db8::1:0:0:1",
            "1:2:3:4:5:6:7:8",
            "::2:3:4:5:6:7",
            "1:0:3:0:5:0:7:0",
            "fe80::abcd:ef01:2345:6789",
            "1111:2222:3333:4444:5555:6666:7777:8888",
        ] {
            assert_eq!(address_text(text.parse().expect(text)), text);
        }
    }

    /// Groups that are often zero, which random ones almost never are.
    fn groups() -> impl Strategy<Value = [u16; 8]> {
        prop::array::uniform8(prop_oneof![Just(0), 0..0x20_u16, any::<u16>()])
    }

    proptest! {
        #[test]
        fn ipv4_addresses_agree_with_the_standard_library(octets: [u8; 4]) {
            let address = Ipv4Addr::from(octets);
            prop_assert_eq!(address_text(address.into()), address.to_string());
        }

        #[test]
        fn ipv6_addresses_agree_with_the_standard_library(groups in groups()) {
            let address = IpAddr::from(Ipv6Addr::from(groups)).to_canonical();
            prop_assert_eq!(address_text(address), address.to_string());
        }

        #[test]
        fn numbers_agree_with_the_standard_library(number: u64, shift in 0..64_u32) {
            let number = number >> shift;
            let mut text = HashInput::zeroed();
            write_decimal(&mut text, number);
            let number = number.to_string();
            prop_assert_eq!(text.as_bytes(), number.as_bytes());
        }

        #[test]
        fn digests_agree_with_another_library(
            secret in prop::collection::vec(any::<u8>(), 1..=SECRET_MOST),
            source in prop::option::of(groups()),
            period: u64,
        ) {
            let source = source.map(|groups| IpAddr::from(Ipv6Addr::from(groups)).to_canonical());
            let mut key = secret.clone();
            if let Some(source) = source {
                key.extend(source.to_string().bytes());
            }
            let mut mac = Hmac::<Sha1>::new_from_slice(&key).expect("any key");
            mac.update(period.to_string().as_bytes());
            let expected = mac.finalize().into_bytes();
            let secret = Secret::new(&secret).expect("a secret");
            let octets = Octets::of(&secret, source.map(Address::from), period);
            let found: Vec<u8> = (0..20).map(|knock| octets.get(knock)).collect();
            prop_assert_eq!(&found[..], &expected[..]);
        }
    }
}
