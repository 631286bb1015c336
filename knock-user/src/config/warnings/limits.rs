//! Warns about sizes of tables.

use super::Advice;
use crate::model::table_sizes::SizedTable;

impl Advice<'_> {
    /// Warns of tables set by hand that are smaller than what the documentation promises.
    pub(super) fn limits(&mut self) {
        for table in SizedTable::ALL {
            let limits = &self.settings().limits;
            let Some(size) = limits.get(table).filter(|size| *size < table.least()) else {
                continue;
            };
            let risk = match table {
                // Computed: eight or more of them hit a given bucket with a probability of 0.08 %.
                SizedTable::FirstKnocks => {
                    let forged = u64::from(table.rounded(size)) / 4;
                    format!(
                        "{forged} forged first knocks between two knocks of a client end one attempt in a thousand"
                    )
                }
                SizedTable::Flows => {
                    "more kept connections than that are forgotten, the least recently used first".to_owned()
                }
                SizedTable::Attempts => {
                    "more sources past their first knock than that end the attempts of each other".to_owned()
                }
                SizedTable::Grants => "more grants than that are refused".to_owned(),
                SizedTable::Failures => {
                    "so few locked-out sources keep others from being counted".to_owned()
                }
                SizedTable::Events => {
                    "a burst of events may be lost while the daemon is busy".to_owned()
                }
                SizedTable::Used => {
                    "more uses of changing sequences than that are refused until the daemon has recorded them"
                        .to_owned()
                }
            };
            let line = self.checked.places.limits.get(table.key()).copied();
            let least = match table {
                SizedTable::Events => format!("\"{}KiB\"", table.least() >> 10),
                SizedTable::FirstKnocks
                | SizedTable::Flows
                | SizedTable::Attempts
                | SizedTable::Grants
                | SizedTable::Failures
                | SizedTable::Used => table.least().to_string(),
            };
            self.add(line, table.key(), format!("{risk}: write {least} or more"));
        }
    }
}
