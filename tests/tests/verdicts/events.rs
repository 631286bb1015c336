//! The events that user space receives.

use std::net::IpAddr;

use knock_common::{
    Address,
    Reason::{Duplicate, NoGrant, OutOfSequence},
    Stat,
    event::{Event, NO_DOOR},
};
use knock_tests::{
    frame::eth,
    kernel::{Kernel, now},
};
use knock_user::kernel::program::LoadOptions;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    access::GRANTS,
    table::{FrameFamily, RowPacket, Table, syn, udp},
};

#[test]
fn an_event_has_the_fields_of_its_packet() {
    let mut table = Table::new(GRANTS, LoadOptions::default());
    let mut judge = |packet: RowPacket| {
        let frame = FrameFamily::V6.frame("2001:db8:18::1", packet).bytes();
        let before = now().unwrap();
        let judged = table.kernel.judge(&frame).unwrap();
        let after = now().unwrap();
        let &[event] = &judged.events[..] else {
            panic!("not one event, but {:?}", judged.events);
        };
        // The clock is that of the last timer tick: 10 ms at the most.
        let begin = before.nanos().saturating_sub(10_000_000);
        assert!((begin..=after.nanos()).contains(&event.at_ns), "{event:?}");
        event
    };
    judge(syn(7000));
    let opened = judge(udp(8000).over_port(12_345));
    let expected = Event {
        at_ns: opened.at_ns,
        until_ms: opened.at_ns / 1_000_000 + 60_000,
        source: Address::from("2001:db8:18::1".parse::<IpAddr>().unwrap()),
        destination: Address::from("2001:db8::2".parse::<IpAddr>().unwrap()),
        door: 0,
        source_port: 12_345,
        port: 8000,
        protocol: 1,
        reason: 57,
        stage: 2,
        user: 0,
        other: Address::ANY,
        // Test runs have the loopback interface of their namespace.
        interface: opened.interface,
    };
    assert_eq!(opened, expected);
    judge(syn(7002));
    let closed = judge(udp(8000));
    assert_eq!(closed.until_ms, closed.at_ns / 1_000_000);
    let refused = judge(syn(22));
    assert_eq!((refused.until_ms, refused.door), (0, NO_DOOR));
}

/// An event limit admits 64 events of all CPUs together in 268 ms.
#[test]
fn events_of_each_kind_are_limited() {
    const TIMES: u64 = 10_000;
    let mut table = Table::new(GRANTS, LoadOptions::default());
    let frame = |packet| FrameFamily::V4.frame("198.18.0.1", packet).bytes();
    let kernel = &mut table.kernel;
    let mut flood = |packet, reason, left_out_least: u64| {
        let run = kernel.repeat(&frame(packet), TIMES as u32).unwrap();
        assert_eq!(run.reasons, [(reason, TIMES)]);
        let reported = run.events.len() as u64;
        let all: Vec<_> = run.events.iter().map(|event| event.reason()).collect();
        assert!(all.iter().all(|reported| *reported == Some(reason)));
        assert!(reported >= 64, "{reported}");
        assert_eq!(run.stats, [(Stat::EventsSuppressed, TIMES - reported)]);
        assert!(
            TIMES - reported >= left_out_least,
            "{reported} were reported"
        );
    };
    flood(syn(22), NoGrant, TIMES / 2);
    // Knocks have an event limit of their own.
    flood(udp(8000), OutOfSequence, TIMES / 2);
    // An opening is always reported, and a duplicate never.
    kernel.repeat(&frame(syn(7000)), 1).unwrap();
    let opened = kernel.repeat(&frame(udp(8000)), 1).unwrap();
    assert_eq!(opened.events.len(), 1, "{opened:?}");
    let again = kernel.repeat(&frame(udp(8000)), 100).unwrap();
    assert_eq!(again.reasons, [(Duplicate, 100)]);
    assert_eq!((again.events.len(), again.stats), (0, vec![]));
}

/// Events that no process reads are lost when the buffer is full, and counted.
#[test]
fn a_full_ring_buffer_counts_lost_events() {
    let text = r#"
        [[door]]
        name = "one"
        knock = ["udp/6000"]
        open = ["tcp/22"]
    "#;
    let mut kernel = Kernel::load(text).unwrap();
    let frame = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        let source = format!("198.{b}.{c}.{d}");
        eth().ip4(&source, "192.0.2.2").udp(1, 6000).bytes()
    };
    // Each source opens the door, which no limit suppresses.
    let sources = 20_000;
    let lost = kernel
        .judge_without_reading((0..sources).map(frame))
        .unwrap();
    assert!(lost > 0);
    let reported = kernel.repeat(&frame(0), 1).unwrap().events.len();
    println!("the ring buffer holds {reported} events");
    assert!(reported > 10_000);
    assert_eq!(reported as u64 + lost, u64::from(sources));
}

/// One limit holds for the events of all CPUs.
#[test]
fn all_cpus_share_one_event_limit() {
    const TIMES: u32 = 20_000;
    // The window of an event limit.
    let window_ns: u64 = 1 << 28;
    let mut table = Table::new(GRANTS, LoadOptions::default());
    let frame = FrameFamily::V4.frame("198.18.0.1", syn(22)).bytes();
    let kernel = &mut table.kernel;
    let cpus = allowed_cpus();
    assert!(cpus.len() > 1, "one CPU shows nothing");
    kernel.reset_event_limits().unwrap();
    let begun = now().unwrap().nanos();
    let mut reported = 0;
    for &cpu in cpus.iter().cycle().take(4 * cpus.len()) {
        run_on(cpu);
        reported += kernel.repeat(&frame, TIMES / 8).unwrap().events.len() as u64;
    }
    let windows = now().unwrap().nanos() / window_ns - begun / window_ns + 1;
    assert!(reported <= 64 * windows, "{reported} in {windows} windows");
}

fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap())
        .collect()
}

fn run_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}
