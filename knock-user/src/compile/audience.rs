//! The sources that ports with handshakes answer.

use std::collections::{BTreeMap, BTreeSet};

use knock_common::{
    Address,
    layout::{Audience, PortKind, PortRule},
    packet::Protocol,
};

use super::handshake;
use crate::model::settings::{Door, Sequences, Verify};

/// Marks the knock ports of doors with handshakes and `from`: each answers the sources that one of its doors admits.
///
/// A port of several doors with different prefixes answers those of all such doors.
pub(super) fn mark(
    rules: &mut BTreeMap<(Protocol, u16), PortRule>,
    doors: &[Door],
    numbers: &[u16],
    sequences: &Sequences,
) {
    if limited(doors).next().is_none() {
        return;
    }
    let mut audiences = BTreeMap::new();
    for (index, door) in verified(doors) {
        let own = of_door(door, numbers.get(index).copied());
        for range in handshake::ports(index, door, sequences) {
            for port in range.first..=range.last {
                let audience = audiences.entry(port).or_insert(own);
                *audience = joined(*audience, own);
            }
        }
    }
    for (port, audience) in audiences {
        let rule = rules.get_mut(&(Protocol::Tcp, port));
        if let Some(rule) = rule.filter(|rule| rule.kind() == PortKind::Knock) {
            *rule = rule.answering(audience);
        }
    }
}

/// Returns a decoy with handshakes, which answers the sources that any door with handshakes admits.
pub(super) fn decoy(doors: &[Door], numbers: &[u16]) -> PortRule {
    let own = verified(doors).map(|(index, door)| of_door(door, numbers.get(index).copied()));
    let audience = own.reduce(joined).unwrap_or(Audience::EVERYONE);
    PortRule::DECOY.with_handshake().answering(audience)
}

/// Returns the prefixes of [`Audience::OF_SEVERAL`], each once.
pub(super) fn of_several(doors: &[Door]) -> BTreeSet<(Address, u32)> {
    if limited(doors).count() < 2 {
        return BTreeSet::new();
    }
    let prefixes = limited(doors).flat_map(|door| &door.from);
    prefixes.map(|prefix| prefix.mapped()).collect()
}

/// Returns the doors with handshakes, and their indices.
fn verified(doors: &[Door]) -> impl Iterator<Item = (usize, &Door)> {
    let doors = doors.iter().enumerate();
    doors.filter(|(_, door)| door.verify == Verify::Handshake)
}

/// Returns the doors with handshakes that only some sources may use.
fn limited(doors: &[Door]) -> impl Iterator<Item = &Door> {
    let doors = verified(doors).map(|(_, door)| door);
    doors.filter(|door| !door.from.is_empty())
}

fn of_door(door: &Door, number: Option<u16>) -> Audience {
    match number {
        Some(number) if !door.from.is_empty() => Audience::of_door(number),
        _ => Audience::EVERYONE,
    }
}

fn joined(one: Audience, other: Audience) -> Audience {
    if one == other {
        one
    } else if one == Audience::EVERYONE || other == Audience::EVERYONE {
        Audience::EVERYONE
    } else {
        Audience::OF_SEVERAL
    }
}

#[cfg(test)]
mod tests {
    use knock_common::{
        Reason, judge,
        packet::flag::{ACK, FIN, RST, SYN},
    };

    use super::super::{Input, StableIds, Tables, compile};
    use super::*;
    use crate::{config, host::Host};

    const HERE: &str = "{ name = \"here\", verify = \"handshake\", knock = [\"tcp/7000\", \"tcp/9000\", \
        \"tcp/8000\"], open = [\"tcp/22\"], from = [\"198.51.100.0/24\"] }";
    const THERE: &str = "{ name = \"there\", verify = \"handshake\", knock = [\"tcp/7500\", \"tcp/9000\", \
        \"tcp/8500\"], open = [\"tcp/22\"], from = [\"203.0.113.0/24\", \"2001:db8:b::/48\"] }";
    const ALL: &str = "{ name = \"all\", verify = \"handshake\", knock = [\"tcp/7700\", \"tcp/8000\", \
        \"tcp/9700\"], open = [\"tcp/22\"] }";
    const SILENT: &str = "{ name = \"silent\", knock = [\"tcp/7100\", \"tcp/9100\", \"tcp/8100\"], \
        open = [\"tcp/22\"], from = [\"192.0.2.64/26\"] }";

    /// A source of `here`, two of `there`, one of `silent`, one of no door.
    const SOURCES: [&str; 5] = [
        "198.51.100.9",
        "203.0.113.9",
        "2001:db8:b::9",
        "192.0.2.65",
        "198.18.0.9",
    ];
    const DECOY: u16 = 2222;

    fn tables(doors: &[&str]) -> Tables {
        let text = format!(
            "decoys = {{ ports = [\"tcp/{DECOY}\"] }}\ndoor = [{}]\n",
            doors.join(", ")
        );
        let checked = config::parse(&text, "test.toml").unwrap();
        let input = &mut Input {
            host: &Host::default(),
            cell_key: [3; 12],
            known: &StableIds::default(),
            draw: &mut || 0,
            sequences: &Sequences::new(),
            before: None,
        };
        compile(&checked.settings, input).unwrap()
    }

    fn segment(source: &str, port: u16, flags: u8) -> Vec<u8> {
        let eth = knock_frame::eth();
        let frame = match source.contains(':') {
            true => eth.ip6(source, "2001:db8::2"),
            false => eth.ip4(source, "192.0.2.2"),
        };
        frame.tcp(40_000, port, flags).bytes()
    }

    #[test]
    fn a_port_answers_only_sources_that_one_of_its_doors_admits() {
        let [here, there, there_too, silent, nobody] = SOURCES;
        for (name, doors, port, answered) in [
            ("one door", &[HERE][..], 7000, &[here][..]),
            ("its decoy", &[HERE], DECOY, &[here]),
            ("beside a silent one", &[HERE, SILENT], 7000, &[here]),
            ("its decoy", &[HERE, SILENT], DECOY, &[here]),
            ("the first of two", &[HERE, THERE], 7000, &[here]),
            (
                "the second of two",
                &[HERE, THERE],
                8500,
                &[there, there_too],
            ),
            (
                "a port of both",
                &[HERE, THERE],
                9000,
                &[here, there, there_too],
            ),
            (
                "their decoy",
                &[HERE, THERE],
                DECOY,
                &[here, there, there_too],
            ),
            ("the first of three", &[HERE, THERE, ALL], 7000, &[here]),
            (
                "a port of two of three",
                &[ALL, HERE, THERE],
                9000,
                &[here, there, there_too],
            ),
            (
                "a port of one for all",
                &[HERE, THERE, ALL],
                8000,
                &[here, there, there_too, silent, nobody],
            ),
            (
                "a decoy beside one for all",
                &[HERE, ALL],
                DECOY,
                &[here, there, there_too, silent, nobody],
            ),
        ] {
            let sim = tables(doors).simulate();
            for source in SOURCES {
                let is_answered = answered.contains(&source);
                for (flags, expected) in [
                    (SYN, Reason::SynCookieSent),
                    (ACK, Reason::BadCookie),
                    (FIN | ACK, Reason::HandshakeClosed),
                    (RST, Reason::HandshakeRest),
                ] {
                    sim.answer.set(None);
                    let reason = judge(&segment(source, port, flags)[..], &sim);
                    let row = format!("{name}: tcp/{port}, flags {flags:#x}, {source}");
                    if is_answered {
                        assert_eq!(reason, expected, "{row}");
                    } else {
                        assert_eq!(reason, Reason::SourceNotAllowed, "{row}");
                        assert_eq!(sim.answer.get(), None, "{row}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_ports_of_doors_with_from_have_an_audience() {
        let audience = |doors: &[&str], port| {
            let tables = tables(doors);
            (
                tables.ports[&(Protocol::Tcp, port)].audience(),
                tables.from.len(),
            )
        };
        assert_eq!(audience(&[ALL], 8000), (Audience::EVERYONE, 0));
        assert_eq!(audience(&[SILENT], 7100), (Audience::EVERYONE, 1));
        assert_eq!(audience(&[HERE, THERE], 9000), (Audience::OF_SEVERAL, 6));
    }
}
