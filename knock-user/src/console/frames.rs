//! Writes lines about frames that bypass the program.

use std::io::Write;

use super::{Console, EventKind, record::Record};
use crate::{
    interfaces::watchdog::{frames::Finding, shortfall_text},
    model::{terminal::harmless, text::list},
};

impl<W: Write> Console<W> {
    /// Reports that frames bypass the program of an interface, or reach it again, and why a repair
    /// failed.
    pub fn frames(
        &mut self,
        ports: &[String],
        interface: &str,
        finding: Finding,
        failure: Option<&str>,
        at_ns: u64,
    ) {
        let (what, count) = match finding {
            Finding::Rearm(frames) | Finding::Generic(frames) | Finding::Blind(frames) => {
                (EventKind::Bypassed, Some(frames))
            }
            Finding::Foreign { frames, .. } => (EventKind::Bypassed, Some(frames)),
            Finding::Filtered(frames) => (EventKind::Recovered, Some(frames)),
            Finding::Sees => (EventKind::Recovered, None),
        };
        let mut because = shortfall_text(finding);
        if let Some(failure) = failure {
            because.push_str(": ");
            because.push_str(failure);
        }
        let (name, because_shown) = (harmless(interface), harmless(&because));
        let text = if what == EventKind::Bypassed {
            format!("{name} is NOT protected ({}): {because_shown}", list(ports))
        } else {
            format!("{name}: {because_shown}")
        };
        let record = Record {
            ports: Some(ports),
            interface: Some(interface),
            because: Some(&because),
            count,
            ..Record::default()
        };
        self.write_sentence(at_ns, what, &text, record);
    }
}
