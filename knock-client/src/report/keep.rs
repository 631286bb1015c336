//! Lines about a door that is kept open.

use super::lines::ReportLine;
use super::{ReportStyle, Reporter, Sends};
use knock_sequence::duration::spell;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

const ALWAYS: &[ReportStyle] = &[ReportStyle::Quiet, ReportStyle::Verbose];

impl<W: Write> Reporter<W> {
    /// Reports what happens from now on: once, since a line for each renewal would hide everything else.
    pub(crate) fn keeping(&mut self, sends: Sends, next: Duration, has_command: bool) {
        let what = match sends {
            Sends::Knocks => "knocking again",
            Sends::Packets => "sending another packet",
        };
        let end = match has_command {
            true => "the command ends",
            false => "Ctrl-C",
        };
        let text = format!("{what} each {} until {end}", spelled(next));
        self.line(ALWAYS, &text, None);
    }

    /// Reports that a renewal was sent, and when the next one is due.
    pub(crate) fn kept(&mut self, grant: Duration, next: Duration) {
        let text = format!("next renewal in {}", spelled(next));
        let line = ReportLine::Kept {
            seconds: grant.as_secs(),
            next_ms: milliseconds(next),
        };
        self.line(&[ReportStyle::Verbose], &text, Some(line));
    }

    /// Reports this machine's address: another one, or the first one after a time without a route.
    pub(crate) fn moved(&mut self, to: IpAddr, from: Option<IpAddr>) {
        let text = match from {
            Some(from) => format!("this machine's address is {to} now, not {from}: renewing"),
            None => format!("the network is back, with the address {to}: renewing"),
        };
        let line = ReportLine::Moved {
            address: to.to_string(),
            previous: from.map(|from| from.to_string()),
        };
        self.line(ALWAYS, &text, Some(line));
    }

    /// Reports a renewal that failed. The same reason is printed once, since the network can be away for hours.
    pub(crate) fn not_renewed(&mut self, message: &str, next: Duration, is_new: bool) {
        let styles = match is_new {
            true => ALWAYS,
            false => &[ReportStyle::Verbose],
        };
        let text = format!("not renewed: {message}; next try in {}", spelled(next));
        let line = ReportLine::NotRenewed {
            next_ms: Some(milliseconds(next)),
            message: message.to_owned(),
        };
        self.line(styles, &text, Some(line));
    }

    /// Reports that this machine has no route to the host.
    pub(crate) fn lost(&mut self, host: &str) {
        let message = format!("this machine has no route to {host}");
        let text = format!("{message}: waiting for the network");
        let line = ReportLine::NotRenewed {
            next_ms: None,
            message,
        };
        self.line(ALWAYS, &text, Some(line));
    }

    /// Reports the end, how long the last grant lasts at most, when it was obtained, and whether it was confirmed.
    pub(crate) fn ended(&mut self, left: Duration, age: Duration, is_confirmed: bool) {
        let text = match (left.is_zero(), is_confirmed) {
            (true, _) => format!("ended: the last success was {} ago", spelled(age)),
            (false, true) => format!("ended: the grant expires within {}", spelled(left)),
            (false, false) => format!(
                "ended: if the door opened, the grant expires within {}",
                spelled(left)
            ),
        };
        let line = ReportLine::Ended {
            seconds: left.as_secs(),
        };
        self.line(ALWAYS, &text, Some(line));
    }
}

/// Spells whole seconds, rounded up; below a second, milliseconds.
fn spelled(time: Duration) -> String {
    match time.as_secs() {
        0 => spell(Duration::from_millis(milliseconds(time))),
        seconds if time.subsec_nanos() > 0 => spell(Duration::from_secs(seconds.saturating_add(1))),
        _ => spell(time),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
