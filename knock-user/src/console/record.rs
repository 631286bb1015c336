//! The data of an event.

use std::net::IpAddr;

use serde::Serialize;

use crate::model::settings::Prefix;

/// One line of `--json`; docs/control.md describes the fields.
#[derive(Debug, Default, Serialize)]
pub(super) struct Record<'a> {
    pub(super) time: String,
    pub(super) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Prefix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) door: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stage: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stages: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked_from: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked_for: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) doors: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events_suppressed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sources: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events_lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changes: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequences_left: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds_behind: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dry_run: bool,
}

impl<'a> Record<'a> {
    /// Returns a record about an interface.
    pub(super) fn of_interface(interface: &'a str) -> Self {
        Self {
            interface: Some(interface),
            ..Self::default()
        }
    }

    /// Returns a record about ports on an interface.
    pub(super) fn of_ports(ports: &'a [String], interface: &'a str) -> Self {
        Self {
            ports: Some(ports),
            ..Self::of_interface(interface)
        }
    }
}

/// The kind of a line. docs/control.md lists the kinds, and `ValueEnum` enumerates them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum EventKind {
    /// A door opened.
    Opened,
    /// A door stays open for longer.
    Refreshed,
    /// A door or a connection is closed again.
    Closed,
    /// A connection that existed before the program continues.
    Kept,
    /// A knock was taken.
    Knock,
    /// A wrong knock, or another packet that resets the attempt.
    Reset,
    /// A knock came too late.
    Late,
    /// A packet to a protected port.
    Denied,
    /// A packet to a decoy.
    Decoy,
    /// A packet of a source that is locked out.
    LockedOut,
    /// A packet that can't be read, or a knock that could not be counted.
    Dropped,
    /// The allow map is full.
    Full,
    /// A packet that passed.
    Passed,
    /// Events that are not reported.
    Suppressed,
    /// The program is attached.
    Protecting,
    /// The driver did not accept the program, which is attached behind it.
    Fallback,
    /// The program is detached.
    Detached,
    /// The program stays attached without this process.
    LeftOn,
    /// The process ends, and it is unknown whether the program stays attached.
    Uncertain,
    /// An interface does not exist.
    Absent,
    /// An interface can't be protected.
    Refused,
    /// An interface had lost the program.
    Lost,
    /// A program of another owner was put before ours at traffic control.
    Preceded,
    /// Frames bypass the attached program.
    Bypassed,
    /// Frames reach the program again.
    Recovered,
    /// A new configuration is in force.
    Reloaded,
    /// The configuration is rolled back unless it is confirmed.
    Trial,
    /// A trial was confirmed.
    Confirmed,
    /// Something had no room.
    Pressure,
    /// A one-time sequence was used and marked.
    Used,
    /// A door can't be opened.
    Disabled,
    /// A door can be opened again.
    Enabled,
    /// A command blocked a source.
    Blocked,
    /// The block of a source has ended.
    Unblocked,
    /// The engine of the group is followed.
    InSync,
    /// The engine of the group has not answered for too long.
    CutOff,
    /// A source sends knocks that would be correct at another time.
    ClockSkew,
}

impl EventKind {
    /// Returns the value of the field `event`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Refreshed => "refreshed",
            Self::Closed => "closed",
            Self::Kept => "kept",
            Self::Knock => "knock",
            Self::Reset => "reset",
            Self::Late => "late",
            Self::Denied => "denied",
            Self::Decoy => "decoy",
            Self::LockedOut => "locked-out",
            Self::Dropped => "dropped",
            Self::Full => "full",
            Self::Passed => "passed",
            Self::Suppressed => "suppressed",
            Self::Protecting => "protecting",
            Self::Fallback => "fallback",
            Self::Detached => "detached",
            Self::LeftOn => "left-on",
            Self::Uncertain => "uncertain",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Preceded => "preceded",
            Self::Bypassed => "bypassed",
            Self::Recovered => "recovered",
            Self::Reloaded => "reloaded",
            Self::Trial => "trial",
            Self::Confirmed => "confirmed",
            Self::Pressure => "pressure",
            Self::Used => "used",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Blocked => "blocked",
            Self::Unblocked => "unblocked",
            Self::InSync => "in-sync",
            Self::CutOff => "cut-off",
            Self::ClockSkew => "clock-skew",
        }
    }

    /// Returns the word on the console.
    pub(super) const fn word(self, dry_run: bool) -> &'static str {
        match self {
            Self::Denied | Self::Dropped if dry_run => "would drop",
            Self::Opened
            | Self::Refreshed
            | Self::Closed
            | Self::Kept
            | Self::Knock
            | Self::Reset
            | Self::Late
            | Self::Denied
            | Self::Decoy
            | Self::LockedOut
            | Self::Dropped
            | Self::Full
            | Self::Passed
            | Self::Suppressed
            | Self::Protecting
            | Self::Fallback
            | Self::Detached
            | Self::LeftOn
            | Self::Uncertain
            | Self::Absent
            | Self::Refused
            | Self::Lost
            | Self::Preceded
            | Self::Bypassed
            | Self::Recovered
            | Self::Reloaded
            | Self::Trial
            | Self::Confirmed
            | Self::Pressure
            | Self::Used
            | Self::Disabled
            | Self::Enabled
            | Self::Blocked
            | Self::Unblocked
            | Self::InSync
            | Self::CutOff
            | Self::ClockSkew => self.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use clap::ValueEnum as _;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/control.md");

    /// Returns the words in backquotes in the first cells of the tables under a heading.
    fn listed(heading: &str) -> BTreeSet<&'static str> {
        let (_, section) = PAGE.split_once(&format!("\n### {heading}\n")).unwrap();
        let section = section.split_once("\n##").map_or(section, |(this, _)| this);
        let cells = section.lines().filter_map(|line| line.strip_prefix("| "));
        let cells = cells.filter_map(|row| row.split('|').next());
        cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect()
    }

    #[test]
    fn every_event_is_on_the_page() {
        let names = EventKind::value_variants().iter().map(|what| what.name());
        assert_eq!(listed("Events"), names.collect());
    }

    #[test]
    fn every_field_is_on_the_page() {
        // Without `..`, so that a new field has to be added here.
        let record = Record {
            time: String::new(),
            event: "",
            source: Some(Prefix::of(Ipv4Addr::LOCALHOST.into())),
            door: Some(""),
            protocol: Some(""),
            port: Some(0),
            source_port: Some(0),
            destination: Some(Ipv4Addr::LOCALHOST.into()),
            stage: Some(0),
            stages: Some(0),
            reason: Some(""),
            by: Some(""),
            user: Some(""),
            asked_from: Some(Ipv4Addr::LOCALHOST.into()),
            asked_for: Some(Ipv4Addr::LOCALHOST.into()),
            until: Some(String::new()),
            seconds: Some(0.0),
            ports: Some(&[]),
            interface: Some(""),
            current_name: Some(""),
            mode: Some(""),
            because: Some(""),
            doors: Some(0),
            events_suppressed: Some(0),
            kind: Some(""),
            sources: Some(0),
            events_lost: Some(0),
            count: Some(0),
            changes: Some(&[]),
            line: Some(0),
            sequences_left: Some(0),
            seconds_behind: Some(0),
            dry_run: true,
        };
        let value = serde_json::to_value(&record).unwrap();
        let fields = value.as_object().unwrap().keys().map(String::as_str);
        assert_eq!(listed("Fields of events"), fields.collect());
    }
}
