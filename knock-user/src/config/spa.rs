//! Reads `[spa]`.

use std::time::Duration;

use knock_sequence::{Ports, Protocol, spa::WINDOW};

use super::section::{KeyLines, Section, TomlItem};
use crate::model::{
    problem::ProblemReport,
    spa::{HOST_KEY, Otherwise, Spa},
};

const KEYS: &[&str] = &["ports", "key", "old_key", "window", "otherwise", "bind"];

/// Clocks that NTP keeps are closer than this.
const WINDOW_LEAST: Duration = Duration::from_secs(1);
/// How long a packet that was held back can still be delivered.
const WINDOW_MOST: Duration = Duration::from_secs(10 * 60);

/// Reads the table, and the lines of its keys; `None` if it is missing.
pub(super) fn read(
    top: &mut Section<'_, '_>,
    report: &mut ProblemReport,
) -> Option<(Spa, KeyLines)> {
    let item = top.item("spa", report)?;
    let mut section = item.section("[spa]", KEYS, report)?;
    let default = Spa::default();
    let spa = Spa {
        ports: section.or("ports", report, default.ports, ports),
        key: section.or("key", report, HOST_KEY.into(), TomlItem::secret_path),
        old_key: section.get("old_key", report, TomlItem::secret_path),
        window: section.or("window", report, WINDOW, |item, report| {
            item.duration(report, WINDOW_LEAST, WINDOW_MOST)
        }),
        otherwise: section.or("otherwise", report, Otherwise::default(), |item, report| {
            item.word(report, &Otherwise::WORDS)
        }),
        bind: section.or("bind", report, false, TomlItem::boolean),
        host_keys: Vec::new(),
    };
    Some((spa, section.lines))
}

fn ports(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<Ports>> {
    let before = report.problems.len();
    let ports = item.list(report, |text| {
        let ports: Ports = text.parse().map_err(|error| format!("{error}"))?;
        match ports.protocol {
            Protocol::Udp => Ok(ports),
            Protocol::Tcp => Err(format!(
                "\"{ports}\" is TCP, and a SPA packet is a UDP datagram: write \"{}\"",
                Ports {
                    protocol: Protocol::Udp,
                    ..ports
                }
            )),
        }
    })?;
    if ports.is_empty() && report.problems.len() == before {
        return item.wrong(
            report,
            "empty: name a UDP port, or remove the key for udp/62201",
        );
    }
    Some(ports)
}
