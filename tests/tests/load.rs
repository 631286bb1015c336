//! The kernel loads the program within budgets: instructions that the verifier walks, and memory.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::fmt::Write as _;

use knock_common::{
    fwknop::Passphrase,
    layout::{DOORS_MAX, FLAG_CLASSES, Features, PortRule, TARGETS_MAX},
    spa::{
        layout::{FWKNOP_KEYS_MAX, FWKNOP_SOURCES_MAX, FwknopKey},
        port::{Otherwise, SpaFormats, SpaPort},
    },
};
use knock_tests::{
    entry::Entry,
    kernel::{Kernel, compile, version},
    spa,
};
use knock_user::{compile::Tables, kernel::program::LoadOptions};

/// The most instructions that the verifier may walk. Its limit is a million; kernels that walk more than this one need
/// the room.
const INSTRUCTIONS_MOST: u32 = 200_000;

/// Linux 6.1 walks up to twice as many, since it recognizes fewer states as already seen, and since it also walks the
/// subprograms that nothing calls; 6.12 does neither.
const INSTRUCTIONS_MOST_BEFORE_6_12: u32 = 450_000;

/// Bounds for the memory of the maps, in bytes: their entries, what the kernel adds to each, and room
/// for the words of a few hundred CPUs.
const MEMORY_MOST: &[(&str, u64)] = &[
    ("ALLOW", 8 << 20),
    ("ANSWER", 8 << 10),
    ("AYA_LOGS", 512 << 10),
    ("BLOCK", 1 << 20),
    ("BLOCKED", 8 << 10),
    ("CLAIMS", 256 << 10),
    ("CLOCK", 8 << 10),
    ("CONFIG", 8 << 10),
    ("COUNTERS", 256 << 10),
    ("DOORS", 1 << 20),
    ("EDGES", 16 << 20),
    ("EVENTS", 2 << 20),
    ("EVENT_LIMITS", 8 << 10),
    ("FIRST_KNOCKS", 33 << 20),
    ("FLOWS", 30 << 20),
    ("FRAMES_SEEN", 16 << 10),
    ("FROM", 1 << 20),
    ("FWKNOP_KEYS", 16 << 10),
    ("FWKNOP_SCRATCH", 512 << 10),
    ("LOCKOUTS", 5 << 20),
    ("NODES", 8 << 20),
    ("OTP", 512 << 10),
    ("PORTS", 2 << 20),
    ("PRESENCE", 3 << 20),
    ("PROGRESS", 8 << 20),
    ("SCRATCH", 512 << 10),
    ("SPA_GATES", 8 << 10),
    ("SPA_KEYS", 8 << 10),
    ("SPA_LAST", 2 << 20),
    ("SPA_MAY", 2 << 20),
    ("SPA_OTHER", 8 << 10),
    ("SPA_SCRATCH", 512 << 10),
    ("SPA_SEEN", 2 << 20),
    ("TARGETS", 1 << 20),
    ("TRUST", 1 << 20),
    ("USED", 8 << 20),
    ("WALL_CLOCK", 8 << 10),
];

#[test]
fn the_largest_configuration_loads() {
    let tables = largest();
    assert_eq!(tables.names.len(), DOORS_MAX as usize);
    assert_eq!(tables.targets.len(), TARGETS_MAX as usize);
    println!("{} nodes, {} edges", tables.nodes.len(), tables.edges.len());
    let most = match version() < (6, 12) {
        true => INSTRUCTIONS_MOST_BEFORE_6_12,
        false => INSTRUCTIONS_MOST,
    };
    for (users, formats) in [
        ("knock", SpaFormats::KNOCK),
        ("fwknop", SpaFormats::FWKNOP),
        ("both", SpaFormats::KNOCK.with(SpaFormats::FWKNOP)),
    ] {
        let tables = with_users(&tables, formats);
        for (level, log_level) in [("off", 0), ("trace", 5)] {
            let options = LoadOptions {
                log_level,
                ..LoadOptions::default()
            };
            // Each kind of user costs alike in all entries, so the others are loaded with everything only.
            let has_everything = users == "both" && log_level != 0;
            for entry in Entry::ALL {
                if entry != Entry::Xdp && !(has_everything) {
                    continue;
                }
                let mut kernel = Kernel::with_entry(&tables, options, entry).unwrap();
                let instructions = entry.info(kernel.program().ebpf()).unwrap();
                // Kernels before 5.16 don't report it (aba64c7da983).
                let instructions = instructions.verified_instruction_count().unwrap();
                let name = format!("{}, {users} users, log {level}", entry.name());
                println!("{name}: {instructions} instructions verified");
                assert!(instructions < most, "{name}: {instructions} of {most}");
            }
        }
    }
}

#[test]
fn each_map_stays_within_its_memory_bound() {
    let both = SpaFormats::KNOCK.with(SpaFormats::FWKNOP);
    let tables = with_users(&largest(), both);
    let mut kernel = Kernel::with(&tables, LoadOptions::default()).unwrap();
    let memory = kernel.memory().unwrap();
    let mut total = 0;
    for (name, bytes) in &memory {
        println!("{name:<10} {bytes:>10}");
        total += bytes;
    }
    println!("{:<10} {total:>10}", "all");
    let names: Vec<&str> = memory.iter().map(|(name, _)| name.as_str()).collect();
    let bounded: Vec<&str> = MEMORY_MOST.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, bounded);
    for ((name, bytes), (_, most)) in memory.iter().zip(MEMORY_MOST) {
        assert!(bytes <= most, "{name} takes {bytes} bytes, not {most}");
    }
}

/// Returns the same configuration with users whose packets have these formats: one with a key, and as many of fwknop as
/// there may be.
fn with_users(tables: &Tables, formats: SpaFormats) -> Tables {
    let mut tables = tables.clone();
    let otherwise = Otherwise::Drop;
    let rule = PortRule::spa(SpaPort { formats, otherwise });
    spa::add_port(&mut tables, 62_201, rule);
    if formats.has(SpaFormats::KNOCK) {
        spa::add_user(&mut tables, 1, 0, &["bound"]);
    }
    if formats.has(SpaFormats::FWKNOP) {
        tables.features = tables.features.with(Features::FWKNOP);
        let key = FwknopKey {
            passphrase: Passphrase::new(b"0123456789abcdef").unwrap(),
            source_count: FWKNOP_SOURCES_MAX as u32,
            ..FwknopKey::default()
        };
        tables.spa.fwknop_keys = vec![key; FWKNOP_KEYS_MAX as usize];
    }
    tables
}

/// Returns as many doors, targets, trusted prefixes and flag classes as there may be; one door whose knocks
/// depend on the source; one whose grants cover prefixes.
fn largest() -> Tables {
    let mut text = String::from(
        "exempt = [\"tcp/8080\", \"udp/443\"]\n\
         lockout = { failures = 5, for = \"60s\" }\n\
         decoys = { count = 100, range = \"9000-9999\" }\n",
    );
    let trust: Vec<String> = (0..4096)
        .map(|i| match i % 2 {
            0 => format!("\"10.{}.{}.0/24\"", i >> 8, i & 255),
            _ => format!("\"fd00:{i:x}::/32\""),
        })
        .collect();
    writeln!(text, "trust = [{}]", trust.join(", ")).unwrap();
    writeln!(text, "block = {{ prefixes = [{}] }}", trust.join(", ")).unwrap();
    // Six of the sequence's ports are the digits of the door's number in base 8; flags belong to the port.
    text += "[[door]]\nname = \"bound\"\nopen = [\"udp/1\"]\ntarget = \"2001:db8::\"\n\
             otp = { secret = \"0123456789abcdef\", protocols = [\"udp\", \"udp\", \"udp\"] }\n\
             from = [\"198.51.100.0/24\", \"2001:db8::/32\"]\n";
    for door in 1..DOORS_MAX {
        let class = door % FLAG_CLASSES as u32;
        let digits = (0..6).map(|place| {
            let digit = ((door / FLAG_CLASSES as u32) >> (3 * place)) & 7;
            format!("\"tcp/{}\"", 10_000 + class * 100 + place * 10 + digit)
        });
        // Up and then down, so that no scan completes it with any flags.
        let mut knock: Vec<String> = digits.rev().collect();
        knock.rotate_right(1);
        writeln!(
            text,
            "[[door]]\nname = \"d{door}\"\nknock = [{}]\nopen = [\"tcp/{}\"]",
            knock.join(", "),
            1 + door % 1000,
        )
        .unwrap();
        if class > 0 {
            let flags = ["fin", "rst", "psh", "urg"].iter().enumerate();
            let flags = flags.map(|(bit, flag)| match class >> bit & 1 {
                0 => format!("!{flag}"),
                _ => (*flag).to_owned(),
            });
            let flags: Vec<String> = flags.collect();
            writeln!(text, "tcp_flags = \"{}\"", flags.join(",")).unwrap();
        } else {
            text += "verify = \"handshake\"\nreply = true\n";
        }
        // A door without one would be in the automaton once for each target.
        writeln!(text, "target = \"2001:db8::{:x}\"", door % TARGETS_MAX).unwrap();
    }
    let mut tables = compile(&text).unwrap();
    tables.features = tables.features.with(Features::GRANT_PREFIX);
    tables
}
