//! Lists the gateways of this host: a gateway that translates addresses makes its clients look like
//! itself.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Returns the gateways in the main routing tables; none if they can't be read.
pub fn gateways() -> BTreeSet<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let v4 = read("/proc/net/route");
    let v6 = read("/proc/net/ipv6_route");
    v4.lines()
        .filter_map(v4_gateway)
        .chain(v6.lines().filter_map(v6_gateway))
        .collect()
}

/// Parses `eth0 00000000 010200C0 0003 …`: interface, destination and gateway in host byte order.
fn v4_gateway(line: &str) -> Option<IpAddr> {
    let number = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
    let address = Ipv4Addr::from(number.to_ne_bytes());
    (!address.is_unspecified()).then_some(address.into())
}

/// Parses destination, length, source, length and next hop, all in hexadecimal digits.
fn v6_gateway(line: &str) -> Option<IpAddr> {
    let address = Ipv6Addr::from(u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?);
    (!address.is_unspecified()).then_some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_have_gateways() {
        let stored = u32::from_ne_bytes([192, 0, 2, 1]);
        let rows = [
            (
                format!("eth0\t00000000\t{stored:08X}\t0003\t0\t0\t0\t00000000"),
                Some("192.0.2.1"),
            ),
            ("eth0\t000200C0\t00000000\t0001".to_owned(), None),
            ("Iface\tDestination\tGateway \tFlags".to_owned(), None),
        ];
        for (line, expected) in rows {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(v4_gateway(&line), expected, "{line}");
        }
        let any = "0".repeat(32);
        let hop = "fe800000000000000000000000000001";
        let line = format!("{any} 00 {any} 00 {hop} 00000400 00000001 00000000 00000003 eth0");
        assert_eq!(v6_gateway(&line), Some("fe80::1".parse().unwrap()));
        assert_eq!(v6_gateway(&line.replace(hop, &any)), None);
    }
}
