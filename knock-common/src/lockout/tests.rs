use proptest::prelude::*;

use super::*;
use crate::{Env, sim::Sim};

const A: Address = Address {
    words: [1, 0, 0, 0],
};
const B: Address = Address {
    words: [2, 0, 0, 0],
};

fn config(failures: u32, ms: u64) -> Config {
    Config {
        lockout_failures: failures,
        lockout_ms: ms,
        ..Config::default()
    }
}

fn with_lockout(config: Config) -> Sim {
    Sim {
        config,
        features: Features::LOCKOUT,
        ..Sim::default()
    }
}

fn info(source: Address, ms: u64) -> PacketInfo {
    PacketInfo {
        source,
        now_ns: at(ms).nanos(),
        ..PacketInfo::default()
    }
}

const fn at(ms: u64) -> Moment {
    Moment::from_nanos(ms * 1_000_000)
}

#[test]
fn failures_lock_out_until_they_expire() {
    const SOURCE: Features = Features::LOCKOUT;
    const GLOBAL: Features = SOURCE.with(Features::LOCKOUT_GLOBAL);
    // Three failures lock out for 1000 ms. A fails at the given milliseconds: are A and B locked out at `now`?
    for (name, features, fails, now, a, b) in [
        ("never", SOURCE, &[][..], 0, false, false),
        ("too few", SOURCE, &[10, 20], 30, false, false),
        ("enough", SOURCE, &[10, 20, 30], 30, true, false),
        ("more", SOURCE, &[10, 20, 30, 40], 41, true, false),
        (
            "to the last millisecond",
            SOURCE,
            &[10, 20, 30],
            1029,
            true,
            false,
        ),
        ("expired", SOURCE, &[10, 20, 30], 1030, false, false),
        (
            "each before the previous one expires",
            SOURCE,
            &[10, 1009, 2008],
            2009,
            true,
            false,
        ),
        ("one expired", SOURCE, &[10, 20, 1020], 1021, false, false),
        ("all sources", GLOBAL, &[10, 20, 30], 30, true, true),
        (
            "all sources, expired",
            GLOBAL,
            &[10, 20, 30],
            1030,
            false,
            false,
        ),
        ("off", Features(0), &[10, 20, 30], 30, false, false),
    ] {
        let sim = Sim {
            features,
            config: config(3, 1000),
            ..Sim::default()
        };
        for &ms in fails {
            fail(&sim, &info(A, ms));
        }
        let locked_out = |who| is_locked_out(&sim, &info(who, now));
        assert_eq!((locked_out(A), locked_out(B)), (a, b), "{name}");
    }
}

#[test]
fn the_count_stops_at_its_greatest_value() {
    let sim = with_lockout(config(1, u64::MAX));
    for _ in 0..2_000 {
        fail(&sim, &info(A, 5));
    }
    let most = Failures {
        last_ms: 5,
        count: 1023,
    };
    let held = failures(&sim, A, &sim.config, at(5));
    assert_eq!(held, Some(most));
}

const FORGED: u32 = 232_448;

fn forged(number: u32) -> Address {
    let [a, b, c, d] = number.to_be_bytes();
    Address::from_v4([a | 64, b, c, d])
}

/// Any number of failures of forged sources ends no lockout. Forged sources are locked out themselves while
/// there is room.
#[test]
fn forged_sources_do_not_end_a_lockout() {
    let sim = with_lockout(config(2, 600_000));
    let v6 = Address::from_v6((0x2001_0db8_u128 << 96 | 1).to_be_bytes());
    let punished = [A, Address::from_v4([192, 0, 2, 7]), v6];
    for source in punished {
        fail(&sim, &info(source, 10));
        fail(&sim, &info(source, 10));
    }
    for number in 0..FORGED {
        let now_ms = 20 + u64::from(number) / 100;
        fail(&sim, &info(forged(number), now_ms));
        fail(&sim, &info(forged(number), now_ms));
    }
    for source in punished {
        assert!(is_locked_out(&sim, &info(source, 600_009)), "{source:?}");
        assert!(!is_locked_out(&sim, &info(source, 600_010)), "{source:?}");
    }
    let out = (0..FORGED).filter(|&number| is_locked_out(&sim, &info(forged(number), 9_000)));
    let out = out.count();
    println!("{out} of {FORGED} forged sources are locked out");
    assert!(out > FORGED as usize * 95 / 100, "{out}");
    // Other sources are not.
    let others = (0..100_000).map(|number| forged(FORGED + number));
    let innocent = others.filter(|&source| is_locked_out(&sim, &info(source, 9_000)));
    assert!(innocent.count() <= 3);
}

#[test]
fn a_full_bucket_replaces_expired_cells_then_the_fewest_failures() {
    // Each cell has a time and a count of failures; then another source fails. Which cell is replaced?
    let full = |odd: (u64, u16)| -> [(u64, u16); WAYS] {
        std::array::from_fn(|way| if way == 3 { odd } else { (100, 3) })
    };
    for (name, cells, gone) in [
        ("the fewest failures", full((150, 1)), Some(3)),
        ("the oldest", full((90, 3)), Some(3)),
        ("fewer failures before older ones", full((90, 4)), None),
        ("expired, with any count", full((0, 9)), Some(3)),
        ("all lock out", [(100, 5); WAYS], None),
    ] {
        let mut config = config(5, 1000);
        config.lockout_failures = 5;
        let sim = with_lockout(config);
        let bucket = Env::lockouts(&sim, 7).unwrap();
        for (way, (last_ms, count)) in cells.into_iter().enumerate() {
            let tag = 100 + way as u64;
            let word = tag << TAG_SHIFT | Failures { last_ms, count }.to_word();
            bucket.cell(way).unwrap().store(word);
        }
        let now_ms = if name.starts_with("expired") {
            1000
        } else {
            200
        };
        assert!(count_once(&sim, 7, 1, now_ms), "{name}");
        let is_counted = recall_cell(&sim, 7, 1) != 0;
        let all_locked_out = name == "all lock out";
        assert_eq!(is_counted, !all_locked_out, "{name}");
        let stats = sim.stats.borrow();
        let full = stats.get(&Stat::LockoutsFull).copied();
        assert_eq!(full, all_locked_out.then_some(1), "{name}");
        if let Some(way) = gone {
            assert_eq!(recall_cell(&sim, 7, 100 + way), 0, "{name}");
        } else {
            assert_ne!(recall_cell(&sim, 7, 103), 0, "{name}");
        }
    }
}

proptest! {
    #[test]
    fn failures_survive_their_word(last_ms in 0..=MS_MASK, count in 0_u16..1024) {
        let failures = Failures { last_ms, count };
        prop_assert_eq!(Failures::from_word(failures.to_word()), failures);
    }

    #[test]
    fn any_cell_is_read_without_a_panic(word: u64, now: u64, ms: u64, most: u32) {
        let sim = with_lockout(config(most, ms));
        let address = address_of(&sim, A).unwrap();
        let bucket = Env::lockouts(&sim, address.bucket).unwrap();
        for way in 0..WAYS {
            bucket.cell(way).unwrap().store(word.rotate_left(8 * way as u32));
        }
        let info = PacketInfo { source: A, now_ns: now, ..PacketInfo::default() };
        is_locked_out(&sim, &info);
        fail(&sim, &info);
    }
}
