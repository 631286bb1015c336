//! `[limits]`: the memory of the kernel side, and the sizes of its tables.

use super::section::{KeyLines, Section, TomlItem};
use crate::model::{
    octets,
    problem::ProblemReport,
    settings::{Limits, Settings},
    table_sizes::{SizedTable, TableSizes},
};

const KEYS: &[&str] = &[
    "memory",
    SizedTable::FirstKnocks.key(),
    SizedTable::Attempts.key(),
    SizedTable::Grants.key(),
    SizedTable::Flows.key(),
    SizedTable::Failures.key(),
    SizedTable::Events.key(),
    SizedTable::Used.key(),
];

/// Reads `[limits]`, with the lines of its keys.
pub(super) fn read(
    top: &mut Section<'_, '_>,
    report: &mut ProblemReport,
) -> Option<(Limits, KeyLines)> {
    top.get("limits", report, |item, report| {
        let mut section = item.section("[limits]", KEYS, report)?;
        let mut limits = Limits::default();
        limits.memory = section.or("memory", report, None, memory);
        for table in SizedTable::ALL {
            let size = section.get(table.key(), report, |item, report| {
                size(item, report, table)
            });
            if let Some(size) = size {
                limits.set(table, size);
            }
        }
        Some((limits, section.lines))
    })
}

fn memory(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Option<u64>> {
    item.parsed(report, |text| match text {
        "auto" => Ok(None),
        text => octets::parse(text).map(Some).map_err(|reason| {
            format!("{reason}, or \"auto\" for a thirty-second of the machine's memory")
        }),
    })
}

fn size(item: &TomlItem<'_, '_>, report: &mut ProblemReport, table: SizedTable) -> Option<u32> {
    let (least, most) = (table.least_by_hand(), table.most());
    if table != SizedTable::Events {
        return item.large_number(report, least..=most);
    }
    let (least, most) = (u64::from(least), u64::from(most));
    item.parsed(report, |text| match octets::parse(text)? {
        octets if (least..=most).contains(&octets) => {
            u32::try_from(octets).map_err(|error| error.to_string())
        }
        _ => Err(format!(
            "{text} is out of range: use {}KiB to {}KiB",
            least >> 10,
            most >> 10
        )),
    })
}

/// Reports a memory that the tables don't fit into.
pub(super) fn check(settings: &Settings, lines: &KeyLines, report: &mut ProblemReport) {
    let least = TableSizes::least_memory(&settings.limits, settings.uses());
    if let Some(most) = settings.limits.memory.filter(|most| *most < least)
        && let Some(&line) = lines.get("memory")
    {
        let by_hand = SizedTable::ALL
            .into_iter()
            .any(|table| settings.limits.get(table).is_some());
        let or = match by_hand {
            true => ", or smaller tables",
            false => "",
        };
        report.add(
            line,
            "memory",
            format!(
                "{} is too little: the tables of this configuration take {} at least; write \"{}MB\" or more{or}",
                octets::spell(most),
                octets::spell(least),
                least.div_ceil(1_000_000)
            ),
        );
    }
}
