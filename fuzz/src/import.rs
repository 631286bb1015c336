//! knockd's files: the result of any input is a configuration without errors that opens no port and has
//! no knock that the file does not name.

use std::collections::BTreeSet;

use knock_common::packet::Protocol;
use knock_sequence::Ports;
use knock_user::{
    config,
    model::settings::Door,
    tools::import::{self, ImportedConf, SERVICES},
};

use crate::text::assert_harmless;

const FILE: &str = "knockd.conf";

/// Imports bytes.
pub fn check(bytes: &[u8]) {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    let check_line = |line: Option<usize>| {
        assert!(
            line.is_none_or(|line| (1..=lines).contains(&line)),
            "line {line:?} of {lines}"
        );
    };
    let ImportedConf { toml, notes } = match import::import_bytes(bytes, FILE) {
        Ok(imported) => imported,
        Err(problems) => {
            assert!(!problems.list.is_empty(), "refused without a reason");
            problems
                .list
                .iter()
                .for_each(|problem| check_line(problem.line));
            return assert_harmless(&problems.to_string());
        }
    };
    for note in &notes {
        check_line(note.line);
        assert_harmless(&note.render("note", FILE));
    }
    let settings = match config::parse(&toml, FILE) {
        Ok(checked) => checked.settings,
        Err(problems) => panic!("{problems}\nin\n{toml}"),
    };
    let named = named_ports(&String::from_utf8_lossy(bytes));
    let is_named = |ports: &Ports| named.contains(&ports.first) && named.contains(&ports.last);
    for door in &settings.doors {
        for ports in door.opened().iter().chain(door.closed()) {
            let is_whole =
                *ports == Ports::all(Protocol::Tcp) || *ports == Ports::all(Protocol::Udp);
            assert!(
                is_whole || is_named(ports),
                "{ports} is nowhere in the file\n{toml}"
            );
        }
        assert!(has_named_knocks(door, &named), "{:?}\n{toml}", door.knock);
    }
}

fn has_named_knocks(door: &Door, named: &BTreeSet<u16>) -> bool {
    door.knock.iter().all(|knock| named.contains(&knock.port))
}

/// Returns every number that a text could mean as a port.
fn named_ports(text: &str) -> BTreeSet<u16> {
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut named: BTreeSet<u16> = numbers.filter_map(|number| number.parse().ok()).collect();
    let lower = text.to_lowercase();
    let port_groups = SERVICES.iter().filter(|(name, _)| lower.contains(name));
    named.extend(port_groups.map(|(_, port)| port));
    named
}
