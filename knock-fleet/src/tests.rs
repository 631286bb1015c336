//! Whole sessions with an engine in memory: what can't be brought about with a real one at will.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for the reports that it is about"
)]

use std::{collections::BTreeMap, time::Duration};

use knock_wire::{
    Cause, Condition, LONGEST_QUEUE, Octets, Open, PROTOCOL, Put, Report, Request, Watch, Write,
    read_line, to_line,
};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf,
        WriteHalf, duplex, split,
    },
    task::{LocalSet, spawn_local},
    time::timeout,
};

use crate::{
    engine::memory::{Fault, Memory},
    pauses::Pauses,
    session,
};

const QUICK: Pauses = Pauses {
    first: Duration::ZERO,
    shortest: Duration::from_millis(1),
    longest: Duration::from_millis(10),
};

const PREFIX: &str = "/knock/1/web/";

/// The daemon's side of a session.
struct Daemon {
    from: Lines<BufReader<ReadHalf<DuplexStream>>>,
    to: WriteHalf<DuplexStream>,
}

impl Daemon {
    /// Begins a session that watches the prefix.
    async fn begin(memory: &Memory, watches: u8) -> Self {
        let (ours, theirs) = duplex(1 << 16);
        let engine = memory.clone();
        spawn_local(async move {
            let (from, to) = split(theirs);
            session::run(from, to, QUICK, |_| engine).await.unwrap();
        });
        let (from, to) = split(ours);
        let mut daemon = Self {
            from: BufReader::new(from).lines(),
            to,
        };
        daemon
            .send(&Request::Open(Open {
                protocol: PROTOCOL,
                servers: vec!["memory:0".to_owned(), "memory:1".to_owned()],
                ca: None,
                cert: None,
                key: None,
                watches,
            }))
            .await;
        daemon
            .send(&Request::Watch(Watch {
                prefix: PREFIX.to_owned(),
                after: None,
            }))
            .await;
        daemon
    }

    async fn send(&mut self, request: &Request) {
        let line = to_line(request).unwrap();
        self.to.write_all(line.as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Report {
        let line = timeout(Duration::from_secs(30), self.from.next_line()).await;
        read_line(
            &line
                .expect("no report")
                .unwrap()
                .expect("the session ended"),
        )
        .unwrap()
    }

    async fn answer(&mut self, put: Put) -> Report {
        self.send(&Request::Put(put)).await;
        loop {
            let report = self.receive().await;
            if matches!(
                report,
                Report::Written { .. } | Report::Refused { .. } | Report::Failed { .. }
            ) {
                return report;
            }
        }
    }
}

/// Runs a test.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn put(id: u64, condition: Option<u64>, name: &str, value: &str, keep_s: Option<u64>) -> Put {
    Put {
        id,
        condition: condition.map(|revision| Condition {
            key: key(name),
            revision,
        }),
        writes: vec![Write {
            key: key(name),
            value: Octets(value.as_bytes().to_vec()),
            keep_s,
        }],
    }
}

#[test]
fn a_claim_whose_answer_was_lost_is_settled() {
    const KEY: &str = "/knock/1/web/o/door";
    run(async {
        for (name, faults, condition, expected) in [
            ("no fault", vec![], 2, "written at 3"),
            ("an old condition", vec![], 1, "refused for 2"),
            (
                "it was done",
                vec![Fault::AnswerLost(vec![])],
                2,
                "written at 3",
            ),
            (
                "it was not done",
                vec![Fault::Lost(vec![])],
                2,
                "written at 3",
            ),
            (
                "it was done twice over",
                vec![Fault::AnswerLost(vec![]), Fault::AnswerLost(vec![])],
                2,
                "written at 3",
            ),
            (
                "it was done, and another claim after it",
                vec![Fault::AnswerLost(vec![(KEY, "next")])],
                2,
                "written at 3",
            ),
            (
                "it was done, and two claims after it",
                vec![Fault::AnswerLost(vec![(KEY, "next"), (KEY, "last")])],
                2,
                "written at 3",
            ),
            (
                "another claim was done instead",
                vec![Fault::Lost(vec![(KEY, "other")])],
                2,
                "refused for 3",
            ),
            (
                "two others were done instead",
                vec![Fault::Lost(vec![(KEY, "other"), (KEY, "last")])],
                2,
                "refused for 4",
            ),
        ] {
            let memory = Memory::new(2);
            memory.world.borrow_mut().put(&[(KEY, b"first", 0)]);
            memory.world.borrow_mut().faults = faults.into();
            let mut daemon = Daemon::begin(&memory, 2).await;
            let answer = daemon
                .answer(put(7, Some(condition), "o/door", "mine", None))
                .await;
            let answer = match answer {
                Report::Written { id: 7, revision } => format!("written at {revision}"),
                Report::Refused {
                    id: 7,
                    found: Some(found),
                    ..
                } => format!("refused for {}", found.revision),
                other => format!("{other:?}"),
            };
            assert_eq!(answer, expected, "{name}");
        }
    });
}

#[test]
fn a_first_claim_whose_answer_was_lost_is_settled() {
    const KEY: &str = "/knock/1/web/s/1";
    run(async {
        for (name, faults, expected) in [
            ("it was done", vec![Fault::AnswerLost(vec![])], true),
            (
                "another claim was done instead",
                vec![Fault::Lost(vec![(KEY, "other")])],
                false,
            ),
            (
                "it was done, and overwritten",
                vec![Fault::AnswerLost(vec![(KEY, "other")])],
                true,
            ),
        ] {
            let memory = Memory::new(2);
            memory.world.borrow_mut().faults = faults.into();
            let mut daemon = Daemon::begin(&memory, 1).await;
            let answer = daemon.answer(put(7, Some(0), "s/1", "mine", None)).await;
            assert_eq!(
                matches!(answer, Report::Written { .. }),
                expected,
                "{name}: {answer:?}"
            );
            assert_eq!(
                matches!(answer, Report::Refused { .. }),
                !expected,
                "{name}: {answer:?}"
            );
        }
    });
}

#[test]
fn a_claim_that_is_compacted_away_stays_unclear() {
    const KEY: &str = "/knock/1/web/o/door";
    run(async {
        let memory = Memory::new(1);
        memory.world.borrow_mut().put(&[(KEY, b"first", 0)]);
        memory.world.borrow_mut().faults = [Fault::Lost(vec![(KEY, "other")])].into();
        memory.world.borrow_mut().compacted = 99;
        let mut daemon = Daemon::begin(&memory, 1).await;
        let answer = daemon.answer(put(7, Some(2), "o/door", "mine", None)).await;
        assert!(
            matches!(
                answer,
                Report::Failed {
                    may_be_written: true,
                    ..
                }
            ),
            "{answer:?}"
        );
    });
}

#[test]
fn leases_are_shared_and_made_again() {
    run(async {
        let memory = Memory::new(1);
        let mut daemon = Daemon::begin(&memory, 1).await;
        let mut lasts = 0;
        for number in 0..50 {
            let name = format!("g/{number}");
            let answer = daemon
                .answer(put(number, None, &name, "x", Some(1_000 + number / 10)))
                .await;
            assert!(matches!(answer, Report::Written { .. }), "{answer:?}");
            lasts = 1_000 + number / 10;
        }
        {
            let world = memory.world.borrow();
            // Two minutes, and the test may last into a third one.
            assert!(world.leases.len() <= 3, "{:?}", world.leases);
            assert!(
                world
                    .leases
                    .iter()
                    .all(|seconds| (1_000..=lasts + 61).contains(seconds)),
                "{:?}",
                world.leases
            );
        }
        let before = memory.world.borrow().leases.len();
        memory.world.borrow_mut().faults = [Fault::NoLease].into();
        let answer = daemon.answer(put(99, None, "g/99", "x", Some(1_000))).await;
        assert!(matches!(answer, Report::Written { .. }), "{answer:?}");
        assert!(memory.world.borrow().leases.len() > before);
    });
}

#[test]
fn a_daemon_that_reads_too_slowly_receives_a_list() {
    run(async {
        let memory = Memory::new(2);
        memory
            .world
            .borrow_mut()
            .put(&[("/knock/1/web/c", b"x", 0)]);
        let mut daemon = Daemon::begin(&memory, 2).await;
        while !matches!(daemon.receive().await, Report::Current { .. }) {}
        let count = LONGEST_QUEUE + 1_000;
        for number in 0..count {
            let key = key(&format!("h/{number}"));
            memory.world.borrow_mut().put(&[(&key, b"granted", 0)]);
        }
        let mut records = BTreeMap::new();
        let mut lists = Vec::new();
        while records.len() <= count {
            match daemon.receive().await {
                Report::List { cause, .. } => {
                    lists.push(cause);
                    records.clear();
                }
                Report::Record { key, revision, .. } => {
                    assert_eq!(records.insert(key.clone(), revision), None, "{key} twice");
                }
                _ => {}
            }
        }
        assert_eq!(lists, [Cause::Overflow]);
    });
}

#[test]
fn one_watch_delivers_while_the_other_is_silent() {
    run(async {
        let memory = Memory::new(2);
        let mut daemon = Daemon::begin(&memory, 2).await;
        while !matches!(daemon.receive().await, Report::Current { .. }) {}
        for silent in [0, 1] {
            memory.world.borrow_mut().silent = vec![silent];
            for number in 0..200 {
                let value = format!("{silent} {number}");
                let revision =
                    memory
                        .world
                        .borrow_mut()
                        .put(&[("/knock/1/web/c", value.as_bytes(), 0)]);
                loop {
                    match daemon.receive().await {
                        Report::Record { revision: at, .. } => {
                            assert!(at <= revision);
                            if at == revision {
                                break;
                            }
                        }
                        Report::Lost { reason } => panic!("{reason}"),
                        _ => {}
                    }
                }
            }
        }
        assert_eq!(memory.world.borrow().pages, 1);
    });
}
