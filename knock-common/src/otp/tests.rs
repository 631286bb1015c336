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
