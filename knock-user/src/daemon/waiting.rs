//! Finds interfaces that stay unprotected for longer than an interface takes to appear.

use std::collections::BTreeMap;

/// For how long an interface may be missing before that is a warning, in milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// After what time the warning is repeated, in milliseconds.
const AGAIN_MS: u64 = 3_600_000;

/// The unprotected interfaces, by name.
#[derive(Debug, Default)]
pub(super) struct PendingInterfaces(BTreeMap<String, Since>);

#[derive(Clone, Copy, Debug)]
struct Since {
    since_ms: u64,
    warned_ms: Option<u64>,
}

impl PendingInterfaces {
    /// Takes the interfaces that are unprotected now; returns those that need a warning, each with the
    /// milliseconds for which it has been unprotected.
    pub(super) fn overdue<'n>(
        &mut self,
        unprotected: impl IntoIterator<Item = &'n str>,
        now_ms: u64,
    ) -> Vec<(String, u64)> {
        let before = std::mem::take(&mut self.0);
        let mut overdue = Vec::new();
        for name in unprotected {
            let mut since = before.get(name).copied().unwrap_or(Since {
                since_ms: now_ms,
                warned_ms: None,
            });
            let waited_ms = now_ms.saturating_sub(since.since_ms);
            let is_early = |at_ms: u64| now_ms < at_ms.saturating_add(AGAIN_MS);
            if waited_ms > PATIENCE_MS && !since.warned_ms.is_some_and(is_early) {
                since.warned_ms = Some(now_ms);
                overdue.push((name.to_owned(), waited_ms));
            }
            self.0.insert(name.to_owned(), since);
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_after_a_minute_and_then_each_hour() {
        let mut waiting = PendingInterfaces::default();
        for (name, unprotected, at_s, warned) in [
            ("both begin", &["eth0", "eth1"][..], 0, &[][..]),
            ("not yet", &["eth0", "eth1"], 60, &[]),
            ("one came", &["eth1"], 61, &[("eth1", 61)]),
            ("warned", &["eth1"], 90, &[]),
            ("the other one went again", &["eth0", "eth1"], 100, &[]),
            (
                "it waits by itself",
                &["eth0", "eth1"],
                161,
                &[("eth0", 61)],
            ),
            ("an hour later", &["eth1"], 3_661, &[("eth1", 3_661)]),
            ("all are there", &[], 3_700, &[]),
            ("and disappear again", &["eth1"], 8_000, &[]),
        ] {
            let overdue = waiting.overdue(unprotected.iter().copied(), at_s * 1_000);
            let overdue: Vec<_> = overdue
                .iter()
                .map(|(name, ms)| (name.as_str(), ms / 1_000))
                .collect();
            assert_eq!(overdue, warned, "{name}");
        }
    }
}
