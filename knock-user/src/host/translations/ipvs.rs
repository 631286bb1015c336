//! Parses the virtual services of IPVS, which it sends to real servers after all rules.

use std::net::{IpAddr, Ipv4Addr};

use knock_common::packet::Protocol;
use knock_sequence::Ports;

use super::reading::{Reading, Translation};

/// Adds the services in a list (`ip_vs_info_seq_show`): each begins with a line of its own, and lines with an arrow
/// have its real servers.
pub(super) fn take(text: &str, reading: &mut Reading) {
    let mut from = None;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["TCP", place, ..] => from = ports(Protocol::Tcp, place),
            ["UDP", place, ..] => from = ports(Protocol::Udp, place),
            ["FWM", mark, ..] => {
                from = None;
                reading.unread.push(format!(
                    "a service of IPVS has ports that are chosen elsewhere, by the mark 0x{mark}"
                ));
            }
            ["->", place, how, ..] => {
                let Some((from, (to, port))) = from.zip(parse(place)) else {
                    continue;
                };
                // Other ways of forwarding leave packets as they are.
                let is_translated = *how == "Masq" && port != 0;
                reading.translations.push(Translation {
                    from,
                    to: Some(to),
                    port: is_translated.then_some((port, port)),
                });
            }
            _ => from = None,
        }
    }
}

/// Returns the port of a service; all of them for port 0.
fn ports(protocol: Protocol, place: &str) -> Option<Ports> {
    let (_, port) = parse(place)?;
    let (first, last) = if port == 0 {
        (0, u16::MAX)
    } else {
        (port, port)
    };
    Some(Ports {
        protocol,
        first,
        last,
    })
}

/// Parses `C0000202:1F90` or `[2001:0db8:0000:0000:0000:0000:0000:0002]:1F90`.
fn parse(place: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = place.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(v6) => IpAddr::V6(v6.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::translations::ask::services_version;

    const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
                          Prot LocalAddress:Port Scheduler Flags\n  \
                          -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    #[test]
    fn services_of_ipvs_are_translations() {
        let rows: [(&str, &str, &[&str], usize); 6] = [
            ("none", "", &[], 0),
            (
                "two servers",
                "TCP  C0000202:1F90 rr \n  -> 0A000002:0016      Masq    1      0          0         \n  \
                 -> 0A000003:0017      Masq    1      2          0         \n",
                &["tcp/8080 10.0.0.2 22", "tcp/8080 10.0.0.3 23"],
                0,
            ),
            (
                "IPv6",
                "UDP  [2001:0db8:0000:0000:0000:0000:0000:0002]:0035 wlc persistent 300\n  \
                 -> [fd00:0000:0000:0000:0000:0000:0000:0009]:14EB      Masq    1      0          0\n",
                &["udp/53 fd00::9 5355"],
                0,
            ),
            (
                "routed",
                "TCP  C0000202:0050 rr \n  -> 0A000002:0050      Route   1      0          0\n",
                &["tcp/80 10.0.0.2 -"],
                0,
            ),
            (
                "all ports",
                "TCP  C0000202:0000 rr persistent 300\n  -> 0A000002:0000      Masq    1      0          0\n",
                &["tcp/0-65535 10.0.0.2 -"],
                0,
            ),
            (
                "by a mark",
                "FWM  00000007 rr \n  -> 0A000002:0016      Masq    1      0          0\n",
                &[],
                1,
            ),
        ];
        for (name, text, expected, unread) in rows {
            let mut reading = Reading::default();
            take(&format!("{HEADER}{text}"), &mut reading);
            let found = reading.translations.iter().map(|one| {
                let to = one.to.map(|to| to.to_string()).unwrap_or_default();
                let port = one
                    .port
                    .map_or("-".to_owned(), |(port, _)| port.to_string());
                format!("{} {to} {port}", one.from)
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
            assert_eq!(reading.unread.len(), unread, "{name}");
        }
    }

    #[test]
    fn the_version_is_that_of_the_services() {
        let line = |port: &str, connections: &str| {
            format!(
                "{HEADER}TCP  C0000202:{port} rr \n  -> 0A000002:0016      Masq    1      {connections}          0\n"
            )
        };
        let one = services_version(&line("1F90", "0"));
        assert_eq!(
            one,
            services_version(&line("1F90", "7")),
            "more connections"
        );
        assert_ne!(one, services_version(&line("1F91", "0")), "another port");
    }
}
