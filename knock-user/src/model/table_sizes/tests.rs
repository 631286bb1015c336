use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PLAIN: Uses = Uses {
    lockouts: false,
    users: false,
};
const EVERYTHING: Uses = Uses {
    lockouts: true,
    users: true,
};

#[test]
fn a_machine_gives_a_thirty_second_of_its_memory() {
    for (name, memory, uses) in [
        ("512 MB", 512 * MIB, PLAIN),
        ("512 MB with everything", 512 * MIB, EVERYTHING),
        ("1 GB", GIB, PLAIN),
        ("2 GB with everything", 2 * GIB, EVERYTHING),
        ("4 GB with everything", 4 * GIB, EVERYTHING),
        ("64 GB", 64 * GIB, PLAIN),
    ] {
        let sizes = TableSizes::choose(&Limits::default(), uses, Some(memory));
        let octets = sizes.octets(uses);
        assert!(octets <= memory / 32, "{name}: {octets} for {sizes:?}");
        for table in SizedTable::ALL {
            let size = sizes.get(table);
            let key = table.key();
            assert!(size >= table.least(), "{name}: {size} {key}");
            assert!(size <= table.most(), "{name}: {size} {key}");
        }
    }
}

#[test]
fn the_sizes_are_those_of_the_page() {
    let page = include_str!("../../../../docs/memory.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("GB |") | line.contains("MB |"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut seen = 0;
    for (name, memory) in [
        ("256 MB", 256 * MIB),
        ("512 MB", 512 * MIB),
        ("1 GB", GIB),
        ("2 GB", 2 * GIB),
        ("4 GB and more", 4 * GIB),
    ] {
        let sizes = TableSizes::choose(&Limits::default(), PLAIN, Some(memory));
        let shown = [
            SizedTable::FirstKnocks,
            SizedTable::Attempts,
            SizedTable::Grants,
            SizedTable::Flows,
        ];
        let mut expected = vec![name.to_owned(), octets::spell(sizes.octets(PLAIN))];
        expected.extend(shown.map(|table| sizes.get(table).to_string()));
        let row = rows.iter().find(|row| row.first() == Some(&name));
        let row = row.unwrap_or_else(|| panic!("docs/memory.md lacks {expected:?}"));
        assert_eq!(row.get(..6).unwrap(), expected);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn a_small_machine_keeps_the_least_sizes() {
    for memory in [1, 64 * MIB, 256 * MIB] {
        let sizes = TableSizes::choose(&Limits::default(), PLAIN, Some(memory));
        for table in SizedTable::ALL {
            assert!(sizes.get(table) >= table.least(), "{memory}: {table:?}");
        }
    }
}

#[test]
fn a_large_or_unknown_machine_gets_every_table_in_full() {
    for memory in [Some(4 * GIB), Some(u64::MAX), None] {
        let sizes = TableSizes::choose(&Limits::default(), EVERYTHING, memory);
        assert_eq!(sizes, TableSizes::default(), "{memory:?}");
    }
}

#[test]
fn a_size_that_is_set_by_hand_is_kept() {
    for table in SizedTable::ALL {
        let mut limits = with_memory(64 * MIB);
        let size = table.least_by_hand() + 1;
        limits.set(table, size);
        let sizes = TableSizes::choose(&limits, EVERYTHING, Some(GIB));
        assert_eq!(sizes.get(table), table.rounded(size), "{table:?}");
        assert!(sizes.octets(EVERYTHING) <= 64 * MIB, "{table:?}");
    }
}

#[test]
fn the_least_memory_is_enough() {
    let least = TableSizes::least_memory(&Limits::default(), PLAIN);
    let limits = with_memory(least);
    let sizes = TableSizes::choose(&limits, PLAIN, Some(64 * GIB));
    assert!(sizes.octets(PLAIN) <= least);
}

#[test]
fn tables_that_keep_their_sizes_are_named() {
    let mut flows = Limits::default();
    flows.set(SizedTable::Flows, 4096);
    let small = with_memory(64 * MIB);
    let key = |table: SizedTable| table.key().to_owned();
    let all = SizedTable::ALL.map(key).to_vec();
    for (name, limits, kept_by, before, expected) in [
        (
            "nothing was ever configured",
            Limits::default(),
            flows,
            vec![],
            None,
        ),
        ("as configured", flows, flows, vec![], None),
        (
            "a size by hand",
            flows,
            Limits::default(),
            vec![],
            Some("the size of flows (262144, not 4096) is not changed"),
        ),
        (
            "a size by hand that was removed",
            Limits::default(),
            flows,
            vec!["flows".to_owned()],
            Some("the size of flows (4096, not 262144) is not changed"),
        ),
        (
            "a limit of the memory that was removed",
            Limits::default(),
            small,
            all,
            Some("flows (131072, not 262144)"),
        ),
    ] {
        let choose = |limits: &Limits| TableSizes::choose(limits, PLAIN, Some(64 * GIB));
        let (kept, chosen) = (choose(&kept_by), choose(&limits));
        let text = kept.kept_text(&chosen, &kept.unlike(&chosen, &limits, &before));
        match expected {
            None => assert_eq!(text, None, "{name}"),
            Some(words) => {
                let text = text.unwrap_or_default();
                assert!(text.contains(words), "{name}: no {words:?} in {text:?}");
            }
        }
    }
}

fn with_memory(octets: u64) -> Limits {
    Limits {
        memory: Some(octets),
        ..Limits::default()
    }
}
