//! Commands that were left out, told in at most one line a second.

use std::time::{Duration, Instant};

use crate::commands::LeftOut;

/// How long the next line waits.
const PAUSE: Duration = Duration::from_secs(1);

/// What was left out and not told yet.
#[derive(Debug, Default)]
pub(super) struct LeftOuts {
    last: Option<LeftOut>,
    count: u64,
    told: Option<Instant>,
}

impl LeftOuts {
    /// Notes that a command was left out.
    pub(super) fn note(&mut self, left_out: LeftOut) {
        self.count = self.count.saturating_add(1);
        self.last = Some(left_out);
    }

    /// The line to tell, if one is due: the last command, and how many there were.
    pub(super) fn line(&mut self, now: Instant) -> Option<String> {
        let is_soon = |told: Instant| now.saturating_duration_since(told) < PAUSE;
        if self.told.is_some_and(is_soon) {
            return None;
        }
        let last = self.last.take()?;
        self.told = Some(now);
        Some(match std::mem::take(&mut self.count) {
            0 | 1 => last.to_string(),
            count => format!("{last}, and {} more commands before it", count - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        commands::{Job, Occasion},
        config::checked::Command,
    };

    #[test]
    fn one_line_a_second() {
        let left_out = |host: u8| {
            LeftOut(Box::new(Job {
                occasion: Occasion::Open,
                source: [203, 0, 113, host].into(),
                door: "ssh".to_owned(),
                port: None,
                command: Command {
                    program: PathBuf::from("true"),
                    arguments: Vec::new(),
                    timeout: PAUSE,
                },
            }))
        };
        let begun = Instant::now();
        let mut left_outs = LeftOuts::default();
        let mut lines = Vec::new();
        for millis in 0..2_500 {
            left_outs.note(left_out((millis % 250) as u8));
            lines.extend(left_outs.line(begun + Duration::from_millis(millis)));
        }
        let line = |host: u8, more: &str| {
            format!(
                "door \"ssh\": on_open for 203.0.113.{host} was left out: too many commands wait{more}"
            )
        };
        assert_eq!(
            lines,
            [
                line(0, ""),
                line(0, ", and 999 more commands before it"),
                line(0, ", and 999 more commands before it"),
            ]
        );
        // The rest is told when nothing more comes.
        let later = begun + Duration::from_secs(9);
        assert_eq!(
            left_outs.line(later),
            Some(line(249, ", and 498 more commands before it"))
        );
        assert_eq!(left_outs.line(later + PAUSE), None);
    }
}
