//! The kernel memory of the tables follows the memory of the machine, and tables of any size do their work.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    process::{self, Command},
};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    kernel::{Kernel, compile},
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use knock_user::{
    config,
    kernel::program::LoadOptions,
    model::table_sizes::{Limits, TableSizes},
};
use nix::sys::signal::Signal::SIGINT;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LOCKOUT: &str = "lockout = { failures = 2, for = \"10m\" }\n";

/// The least sizes that can be configured.
const SMALLEST: &str = "[limits]\n\
    first_knocks = 131072\n\
    attempts = 4096\n\
    grants = 256\n\
    flows = 4096\n\
    failures = 4096\n\
    events = \"64KiB\"\n\
    used_sequences = 256\n";

#[test]
fn the_tables_take_what_the_machine_can_spare() {
    for (name, memory, share) in [
        ("512 MB", 512 * MIB, 16 * MIB),
        ("4 GB", 4096 * MIB, 128 * MIB),
        ("64 GB", 65_536 * MIB, 128 * MIB),
    ] {
        for (what, text) in [
            ("a door", DOOR.to_owned()),
            ("a door and lockouts", format!("{LOCKOUT}{DOOR}")),
        ] {
            let uses = config::parse(&text, "seq.toml").unwrap().settings.uses();
            let sizes = TableSizes::choose(&Limits::default(), uses, Some(memory));
            let options = LoadOptions {
                sizes,
                ..LoadOptions::default()
            };
            let mut kernel = Kernel::with(&compile(&text).unwrap(), options).unwrap();
            let tables = kernel.memory().unwrap();
            let taken: u64 = tables.iter().map(|(_, octets)| octets).sum();
            let computed = sizes.octets(uses);
            println!("{name}, {what}: {taken} of {computed} octets");
            assert!(
                taken <= share,
                "{name}, {what}: {taken} of {share}: {tables:?}"
            );
            // What `check` prints before anything is loaded.
            assert!(
                taken <= computed,
                "{name}, {what}: {taken}, not {computed}: {tables:?}"
            );
            assert!(
                computed - taken < computed / 20,
                "{name}, {what}: {taken}, far from {computed}"
            );
        }
    }
}

/// The limit of the service's control group counts as the memory of the machine, and the kernel keeps to it.
#[test]
fn a_control_group_limits_the_tables() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for (limit, most, first_knocks) in [
            (512 * MIB, 512 * MIB / 32, 1_048_576),
            // Everything has to fit into this: the tables keep their least sizes.
            (96 * MIB, 11 * MIB, 524_288),
        ] {
            let group = MemoryGroup::new();
            let file = config_file(DOOR.as_bytes());
            let mut command = group.command(limit);
            let user = binaries().user.as_os_str();
            command.arg(user).arg("--config").arg(file.path());
            command.args(["--json", "--iface", SERVER_LINK]);
            let process = Process::start(&net.server, &mut command);
            daemon::wait_for_event(&process, &json!({"event": "protecting"}));
            let tables = tables(net);
            let memory = tables["memory"].as_u64().unwrap();
            assert!(memory <= most, "{limit}: {tables}");
            assert_eq!(tables["first_knocks"], first_knocks, "{limit}: {tables}");
            let client = net.new_source(Family::V4);
            client.knock(KNOCKS);
            client.finds(true, SSH, "it opens");
            let (code, output) = daemon::ask(&net.server, &["reload"]);
            assert_eq!(code, Some(0), "{limit}: a reload fits beside it: {output}");
            assert!(process.stop(SIGINT).status.success());
        }
    });
}

#[test]
fn the_smallest_tables_do_their_work() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{LOCKOUT}{SMALLEST}{DOOR}"));
        let expected = json!({
            "first_knocks": 131_072, "attempts": 4_096, "grants": 256, "flows": 4_096, "failures": 4_096,
        });
        assert!(daemon::has(&tables(net), &expected), "{}", tables(net));
        for family in Family::ALL {
            for _ in 0..8 {
                let client = net.new_source(family);
                client.finds_closed(SSH, "before the knocks");
                client.knock(KNOCKS);
                client.finds(true, SSH, "after them");
            }
            let failing = net.new_source(family);
            for _ in 0..2 {
                failing.knock("tcp/7000 tcp/9000");
            }
            failing.knock(KNOCKS);
            failing.finds_closed(SSH, "locked out");
        }
        let (code, text) = daemon::ask(&net.server, &["status"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("room for 131072 first knocks, 4096 attempts, 256 grants"),
            "{text}"
        );
        daemon.stop();
    });
}

/// What outlives a reload keeps its size until the protection is made again, and the reload reports that.
#[test]
fn a_reload_reports_sizes_that_stay() {
    const OTHER: &str =
        "[limits]\nfirst_knocks = 262144\nattempts = 8000\ngrants = 300\nflows = 5000\n";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{SMALLEST}{DOOR}"));
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "before the reload");
        daemon.rewrite(&format!("{LOCKOUT}{OTHER}{DOOR}"));
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{output}");
        // The last two are set by hand no longer.
        let warning = "the size of flows (4096, not 5000), grants (256, not 300), events (65536, not 1048576), \
                       used_sequences (256, not 65536) is not changed";
        assert!(output.contains(warning), "{output}");
        let printed = daemon.process().stderr();
        assert!(printed.contains(warning), "{printed}");
        let expected = json!({
            "first_knocks": 262_144, "attempts": 8_000, "grants": 256, "flows": 4_096,
        });
        assert!(daemon::has(&tables(net), &expected), "{}", tables(net));
        client.finds(true, SSH, "the grant continues");
        let other = net.new_source(Family::V4);
        other.knock(KNOCKS);
        other.finds(true, SSH, "after the reload");
        let failing = net.new_source(Family::V4);
        for _ in 0..2 {
            failing.knock("tcp/7000 tcp/9000");
        }
        failing.knock(KNOCKS);
        failing.finds_closed(SSH, "the lockout that the reload began");
        daemon.stop();

        let daemon = Daemon::start(&net.server, &format!("{OTHER}{DOOR}"));
        let expected = json!({"grants": 300, "flows": 5_000, "failures": Value::Null});
        assert!(daemon::has(&tables(net), &expected), "{}", tables(net));
        daemon.stop();
    });
}

/// Grants by hand are never ended, so a table that they fill is reported once and not as a flood of forged sources.
#[test]
fn grants_by_hand_that_leave_no_room_are_reported_once() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{SMALLEST}{DOOR}"));
        let give = |numbers: std::ops::RangeInclusive<u32>| {
            for number in numbers {
                let source = format!("10.8.{}.{}", number / 200, number % 200 + 1);
                let grant = ["grant", &source, "--door", "ssh", "--for", "10m"];
                let (code, output) = daemon::ask(&net.server, &grant);
                assert_eq!(code, Some(0), "{number}: {output}");
            }
        };
        let status = || daemon::ask(&net.server, &["status"]).1;
        give(1..=223);
        assert!(!status().contains("given by hand"), "{}", status());
        give(224..=225);
        let noted = "225 of 256 entries, and 225 of them are given by hand";
        wait::until("status has it", || status().contains(noted));
        // Each grant that a client opens is ended, so the daemon has looked again.
        for _ in 0..2 {
            let client = net.new_source(Family::V4);
            client.knock(KNOCKS);
            let closed = json!({"event": "closed", "source": client.name()});
            daemon.wait_for_event(&closed);
        }
        give(226..=256);
        let noted = "the table of grants is full (256), and all are given by hand";
        wait::until("status has it", || status().contains(noted));
        let printed = daemon.process().stderr();
        assert_eq!(printed.matches("given by hand").count(), 1, "{printed}");
        assert!(!printed.contains("forging"), "{printed}");
        daemon.stop();
    });
}

/// Without a process, `status` knows the tables that are pinned, and the next start takes them over with their sizes.
#[test]
fn kept_tables_keep_their_sizes() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{SMALLEST}{DOOR}"));
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "it opens");
        daemon.kill();
        let expected = json!({"memory": Value::Null, "grants": 256, "flows": 4_096});
        assert!(daemon::has(&tables(net), &expected), "{}", tables(net));
        let daemon = Daemon::start(&net.server, DOOR);
        assert!(
            daemon::has(&tables(net), &json!({"grants": 256})),
            "{}",
            tables(net)
        );
        client.finds(true, SSH, "the grant continues");
        daemon.stop();
    });
}

#[test]
fn check_prints_what_the_tables_take() {
    net::test(|net| {
        for (limits, expected) in [
            ("", "in the kernel (a thirty-second of "),
            (
                "[limits]\nmemory = \"16MB\"\n",
                "tables: 15.9 MB in the kernel (limit 16.0 MB), room for 1048576 first",
            ),
            ("[limits]\nflows = 4096\n", " 4096 kept connections"),
        ] {
            let file = config_file(format!("{limits}{DOOR}").as_bytes());
            let path = file.path().to_str().unwrap();
            let (code, text) = daemon::ask(&net.server, &["check", "--config", path]);
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains(expected), "{limits}: {text}");
        }
    });
}

/// The memory that an idle daemon has of its own; the pages of its program come on top, which depend on the build.
#[test]
fn an_idle_daemon_has_little_memory_of_its_own() {
    // With the source lines of the kernel object it would be three times as much.
    const MOST_KB: u64 = 12 << 10;
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let own = || {
            let path = format!("/proc/{}/status", daemon.process().id());
            let status = fs::read_to_string(path).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"));
            let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
            kilobytes.parse::<u64>().unwrap()
        };
        // What the start needed is given back.
        wait::until("an idle daemon has at most 12 MB", || own() <= MOST_KB);
        daemon.stop();
    });
}

/// Returns what `status` reports of the tables.
#[track_caller]
fn tables(net: &Net) -> Value {
    let (_, text) = daemon::ask(&net.server, &["status", "--json"]);
    let answer: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    answer["tables"].clone()
}

/// Mounts the hierarchy with the controller of memory, in mounts of its own. The group is `$0`, the rest is for
/// [`CREATE`] or [`REMOVE`].
const MOUNT: &str = "set -e\n\
    root=/sys/fs/cgroup\n\
    if grep -q :memory: /proc/self/cgroup; then\n\
    mount -t tmpfs groups $root; mkdir $root/memory; mount -t cgroup -o memory cgroup $root/memory\n\
    root=$root/memory; file=memory.limit_in_bytes\n\
    else\n\
    mount -t cgroup2 cgroup $root; echo +memory >$root/cgroup.subtree_control; file=memory.max\n\
    fi\n";
/// Runs a command in the group with a limit: the first argument, in octets.
const CREATE: &str =
    "mkdir $root/$0; echo $1 >$root/$0/$file; echo $$ >$root/$0/cgroup.procs; shift; exec \"$@\"\n";
/// Removes the group.
const REMOVE: &str = "rmdir $root/$0\n";

/// A control group, which ends with this.
struct MemoryGroup(String);

impl MemoryGroup {
    fn new() -> Self {
        Self(format!("knock-test-{}", process::id()))
    }

    /// Returns a command that runs its arguments in the group, with a limit of memory in octets.
    fn command(&self, limit: u64) -> Command {
        let mut command = self.script(CREATE);
        command.arg(limit.to_string());
        command
    }

    fn script(&self, what: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg([MOUNT, what].concat()).arg(&self.0);
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes have ended, unless the test has failed.
        let _left = self.script(REMOVE).status();
    }
}
