//! Parses and formats single values: prefixes, addresses, TCP flags.

use std::{net::IpAddr, str::FromStr};

use knock_common::{layout::FlagClass, packet::flag};
use knock_sequence::Invalid;

use super::settings::Prefix;

type Parsed<T> = Result<T, Invalid>;

fn invalid<T>(reason: String) -> Parsed<T> {
    Err(Invalid::new(reason))
}

impl FromStr for Prefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Parsed<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let whole = Self::of(self::address(address)?);
        let Some(bits) = bits else { return Ok(whole) };
        let bits = match bits.parse() {
            Ok(bits) if bits <= whole.bits => bits,
            _ => {
                return invalid(format!(
                    "{text:?} is not a prefix: its length goes from 0 to {}",
                    whole.bits
                ));
            }
        };
        let prefix = Self { bits, ..whole };
        let cleared = prefix.cleared();
        if cleared != prefix {
            return invalid(format!(
                "{text:?} has bits set after its first {bits}: write \"{cleared}\" for the \
                 network, or \"{}\" for the one address",
                prefix.address
            ));
        }
        Ok(prefix)
    }
}

/// Parses an IP address.
///
/// # Errors
/// The form to write instead.
pub fn address(text: &str) -> Parsed<IpAddr> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return invalid(format!(
            "{text:?} is not an IP address: write one like \"192.0.2.1\" or \"2001:db8::1\""
        ));
    };
    let canonical = address.to_canonical();
    if canonical != address {
        return invalid(format!(
            "{text:?} is an IPv4-mapped IPv6 address: write \"{canonical}\""
        ));
    }
    Ok(address)
}

const FLAGS: [(&str, u8); 6] = [
    ("fin", flag::FIN),
    ("syn", flag::SYN),
    ("rst", flag::RST),
    ("psh", flag::PSH),
    ("ack", flag::ACK),
    ("urg", flag::URG),
];

/// Reads TCP flags in knockd's notation: `syn,!ack`.
///
/// # Errors
/// The form to write instead.
pub fn tcp_flags(text: &str) -> Parsed<FlagClass> {
    let mut class = FlagClass::default();
    for item in text.split(',') {
        let item = item.trim();
        let (name, set) = match item.strip_prefix('!') {
            Some(name) => (name.trim_start(), false),
            None => (item, true),
        };
        let Some(bit) = FLAGS
            .iter()
            .find_map(|&(known, bit)| known.eq_ignore_ascii_case(name).then_some(bit))
        else {
            return invalid(format!(
                "{item:?} is not a TCP flag: they are fin, syn, rst, psh, ack and urg, \
                 with ! before those that must not be set, as in \"syn,!ack\""
            ));
        };
        if class.mask & bit != 0 && (class.value & bit != 0) != set {
            return invalid(format!(
                "{text:?} requires {name} both set and unset: remove one of the two"
            ));
        }
        class.mask |= bit;
        if set {
            class.value |= bit;
        }
    }
    Ok(class)
}

/// Writes TCP flags as [`tcp_flags`] reads them.
pub fn spell_flags(class: FlagClass) -> String {
    let named = FLAGS.iter().filter(|(_, bit)| class.mask & bit != 0);
    let words: Vec<String> = named
        .map(|(name, bit)| match class.value & bit {
            0 => format!("!{name}"),
            _ => (*name).to_owned(),
        })
        .collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use knock_common::Address;

    use super::*;

    #[test]
    fn formatted_values_can_be_parsed() {
        for text in ["10.0.0.0/8", "192.0.2.1", "fd00::/8", "::/0", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        for text in ["syn,!ack", "fin,!syn,rst,psh,ack,urg"] {
            assert_eq!(spell_flags(tcp_flags(text).unwrap()), text);
        }
    }

    #[test]
    fn flags_of_knockd_are_parsed() {
        assert_eq!(tcp_flags("syn,!ack"), Ok(FlagClass::SYN));
        assert_eq!(tcp_flags(" SYN , ! ack "), Ok(FlagClass::SYN));
    }

    #[test]
    fn prefixes_are_mapped_for_the_maps() {
        let row = |text: &str| text.parse::<Prefix>().unwrap().mapped();
        assert_eq!(row("10.0.0.0/8"), (Address::from_v4([10, 0, 0, 0]), 104));
        assert_eq!(row("0.0.0.0/0"), (Address::from_v4([0; 4]), 96));
        assert_eq!(row("::/0"), (Address::ANY, 0));
    }
}
