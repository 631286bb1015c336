//! A packet counts within the window, and once.

use super::*;

#[test]
fn a_packet_counts_within_the_window_only() {
    for (name, ahead, reason) in [
        ("on time", 0_i64, Reason::Opened),
        ("29 s ahead", 29, Reason::Opened),
        ("30 s ahead", 30, Reason::Opened),
        ("31 s ahead", 31, Reason::SpaStale),
        ("29 s behind", -29, Reason::Opened),
        ("30 s behind", -30, Reason::Opened),
        ("31 s behind", -31, Reason::SpaStale),
        ("a day behind", -86_400, Reason::SpaStale),
        ("a day ahead", 86_400, Reason::SpaStale),
    ] {
        let sim = host();
        let stamp = STAMP.wrapping_add_signed(ahead * SECOND as i64);
        let packet = sealer().seal(&Content { stamp, ..CONTENT });
        let (found, events) = judge(&sim, CLIENT, &packet);
        assert_eq!(found, reason, "{name}");
        assert_eq!(last(&sim) == stamp, reason == Reason::Opened, "{name}");
        let [event] = events[..] else {
            panic!("{name}: {events:?}");
        };
        // The packet is authentic, so the event names its user.
        assert_eq!(event.user, ALICE, "{name}");
        if reason == Reason::SpaStale {
            assert_eq!(event.until_ms as i64, ahead * 1_000, "{name}");
        }
    }
    for (name, wall_clock) in [
        ("unset", 0),
        ("before 1970", u64::MAX - BOOT),
        ("the last year", u64::MAX / 2),
    ] {
        let sim = host();
        sim.wall_clock.set(wall_clock);
        let (found, _) = judge(&sim, CLIENT, &sealer().seal(&CONTENT));
        assert_eq!(found, Reason::SpaStale, "wall clock {name}");
    }
}

#[test]
fn stamps_of_a_key_only_increase() {
    let sim = host();
    for (name, stamp, reason) in [
        ("the first", STAMP, Reason::Opened),
        ("the same", STAMP, Reason::SpaReplayed),
        ("one less", STAMP - 1, Reason::SpaReplayed),
        ("one more", STAMP + 1, Reason::Refreshed),
        ("the first again", STAMP, Reason::SpaReplayed),
        ("much later", STAMP + WINDOW, Reason::Refreshed),
        ("in between", STAMP + WINDOW / 2, Reason::SpaReplayed),
    ] {
        let packet = sealer().seal(&Content { stamp, ..CONTENT });
        assert_eq!(judge(&sim, CLIENT, &packet).0, reason, "{name}");
    }
    // The host's clock is set back: used packets stay used.
    sim.wall_clock.set(sim.wall_clock.get() - 3_600 * SECOND);
    let stamp = STAMP - 3_600 * SECOND;
    let packet = sealer().seal(&Content { stamp, ..CONTENT });
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaReplayed);
}

#[test]
fn a_refused_packet_uses_up_its_stamp() {
    let sim = host();
    let not_allowed = Content {
        door: OTHERS,
        ..CONTENT
    };
    let packet = sealer().seal(&not_allowed);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaNotAllowed);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaReplayed);
    assert_eq!(
        judge(&sim, CLIENT, &sealer().seal(&CONTENT)).0,
        Reason::SpaReplayed
    );
}

/// Between reading and writing the word, other CPUs use greater stamps.
struct Racing {
    word: Cell<u64>,
    others: Cell<Vec<u64>>,
}

impl Word for Racing {
    fn load(&self) -> u64 {
        self.word.get()
    }

    fn store(&self, value: u64) {
        self.word.set(value);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        let mut others = self.others.take();
        if !others.is_empty() {
            self.word.set(others.remove(0));
        }
        self.others.set(others);
        let is_same = self.word.get() == old;
        if is_same {
            self.word.set(new);
        }
        is_same
    }
}

#[test]
fn a_stamp_is_recorded_while_other_cpus_record_theirs() {
    for (name, others, stamp, outcome, word) in [
        ("alone", vec![], 100, None, 100),
        ("a smaller one meanwhile", vec![50], 100, None, 100),
        ("several smaller ones", vec![10, 20, 30], 100, None, 100),
        (
            "a greater one meanwhile",
            vec![200],
            100,
            Some(Reason::SpaReplayed),
            200,
        ),
        (
            "the same one meanwhile",
            vec![100],
            100,
            Some(Reason::SpaReplayed),
            100,
        ),
        (
            "endless smaller ones",
            (1..20).collect(),
            100,
            Some(Reason::Contended),
            8,
        ),
    ] {
        let racing = Racing {
            word: Cell::new(0),
            others: Cell::new(others),
        };
        assert_eq!(stamp::record(&racing, stamp), outcome, "{name}");
        assert_eq!(racing.load(), word, "{name}");
    }
}
