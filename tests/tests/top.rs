//! `knock-user top` in a terminal: tmux has the terminal, sends the keys, and shows what is on the screen.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon},
    namespace::Namespace,
    net::{self, Family, SERVER_LINK},
    ssh::{DOOR, KNOCKS},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;

#[test]
fn the_view_follows_what_happens_and_keys_act() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let tmux = Tmux::start(&net.server, "", 80, 24);
        tmux.shows("in force  pid");
        tmux.shows(SERVER_LINK);
        tmux.shows("GRANTS 0");
        let client = net.new_source(Family::V4);
        let name = client.name();
        client.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": name}));
        tmux.shows("GRANTS 1");
        tmux.shows(&format!("opened     {name}"));
        // The countdown, and its bar.
        let grant = tmux.line_with(&format!("{name} "), "[##");
        assert!(grant.contains(" ssh "), "{grant}");

        tmux.keys(&["/", "zzz", "Enter"]);
        tmux.shows("GRANTS 0 of 1 with \"zzz\"");
        tmux.keys(&["Escape"]);
        tmux.shows("GRANTS 1");

        tmux.keys(&["e", "tcp/22", "Enter"]);
        tmux.shows("a new connection would pass: source has a grant");
        tmux.keys(&["x"]);
        tmux.shows("q quit");

        tmux.keys(&["r"]);
        tmux.shows(&format!("revoke the grant of {name} for ssh? y/n"));
        tmux.keys(&["n"]);
        tmux.shows("q quit");
        tmux.keys(&["r", "y"]);
        tmux.shows("GRANTS 0");
        daemon.wait_for_event(&json!({"event": "closed", "source": name, "reason": "revoked"}));

        tmux.keys(&["g", "192.0.2.99 ssh 10m", "Enter"]);
        let granted = json!({"event": "opened", "source": "192.0.2.99", "reason": "granted"});
        daemon.wait_for_event(&granted);
        tmux.shows("GRANTS 1");
        tmux.keys(&["g", "192.0.2.99 nowhere", "Enter"]);
        tmux.shows("failed: no door is named nowhere");

        tmux.keys(&["q"]);
        tmux.ends(0);
        daemon.stop();
    });
}

#[test]
fn signals_end_it_and_restore_the_terminal() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let tmux = Tmux::start(&net.server, "NO_COLOR=1", 80, 24);
            tmux.shows("in force  pid");
            tmux.signal(signal);
            tmux.ends(0);
        }
        daemon.stop();
    });
}

/// As after the end of an ssh connection.
#[test]
fn a_terminal_that_goes_ends_it() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let tmux = Tmux::start(&net.server, "", 80, 24);
        tmux.shows("in force  pid");
        let stat = format!("/proc/{}/stat", tmux.pid());
        tmux.run(&["kill-server"]);
        // Nobody may be there to collect its exit status.
        wait::until("top has ended", || {
            fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        });
        daemon.stop();
    });
}

#[test]
fn a_daemon_that_ends_and_returns_is_followed() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let tmux = Tmux::start(&net.server, "", 80, 24);
        tmux.shows("in force  pid");
        daemon.kill();
        tmux.shows("NO ANSWER");
        let daemon = Daemon::start(&net.server, DOOR);
        tmux.shows(&format!("in force  pid {}", daemon.process().id()));
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        tmux.shows(&format!("opened     {}", client.name()));
        tmux.keys(&["q"]);
        tmux.ends(0);
        daemon.stop();
    });
}

#[test]
fn ten_thousand_grants_are_shown() {
    const GRANTS: u32 = 10_000;
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let instance = knock_tests::pins::instance(&net.server);
        let mut allow = knock_tests::pins::allow(&instance);
        let arguments = ["grant", "192.0.2.77", "--door", "ssh", "--for", "1h"];
        let (code, output) = daemon::ask(&net.server, &arguments);
        assert_eq!(code, Some(0), "{output}");
        let (key, word) = allow.iter().next().unwrap().unwrap();
        for number in 1..GRANTS {
            let source = std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let key = knock_common::layout::GrantKey {
                source: source.into(),
                ..key.0
            };
            let grant = knock_common::grant::Grant::from_word(word.0);
            knock_user::kernel::maps::raise(&mut allow, key, grant).unwrap();
        }
        let tmux = Tmux::start(&net.server, "", 80, 24);
        tmux.shows(&format!("GRANTS {GRANTS}"));
        tmux.shows("10.0.0.1 ");
        tmux.keys(&["End"]);
        tmux.shows("192.0.2.77 ");
        tmux.keys(&["q"]);
        tmux.ends(0);
        daemon.stop();
    });
}

#[test]
fn without_a_terminal_or_a_daemon_it_fails() {
    net::test(|net| {
        let (code, output) = daemon::ask(&net.server, &["top"]);
        assert_eq!(code, Some(2), "{output}");
        assert!(output.contains("top needs a terminal"), "{output}");
        let tmux = Tmux::start(&net.server, "", 80, 24);
        tmux.shows("nothing is protected in this network namespace");
        tmux.ends(1);
    });
}

/// A terminal with a shell that runs `knock-user top`.
struct Tmux<'n> {
    namespace: &'n Namespace,
    socket: String,
    directory: TempDir,
}

impl<'n> Tmux<'n> {
    #[track_caller]
    fn start(namespace: &'n Namespace, environment: &str, width: u32, height: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = TempDir::new().unwrap();
        let script = directory.path().join("script");
        let work = directory.path().display();
        let user = binaries().user.display();
        // A line of the terminal before, and its settings afterwards.
        let text = format!(
            "echo before\nsh -c 'echo $$ >{work}/pid; {environment} exec {user} top'\ncode=$?\n\
             stty -a | grep -q ' icanon.* echo ' && echo \"the end: $code\"\nexec sleep 600\n"
        );
        fs::write(&script, text).unwrap();
        let tmux = Self {
            namespace,
            socket: format!("knock-{}-{next}", process::id()),
            directory,
        };
        tmux.run(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
            "sh",
            script.to_str().unwrap(),
        ]);
        tmux
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let arguments = [&["-L", &self.socket], arguments].concat();
        self.namespace.run("tmux", &arguments)
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen has a text.
    #[track_caller]
    fn shows(&self, text: &str) {
        let shown = wait::poll(wait::PATIENCE, || {
            self.screen().contains(text).then_some(())
        });
        assert!(shown.is_some(), "{text:?} is not shown:\n{}", self.screen());
    }

    /// Waits until a line has both texts; returns it.
    #[track_caller]
    fn line_with(&self, one: &str, other: &str) -> String {
        let found = wait::poll(wait::PATIENCE, || {
            let screen = self.screen();
            let mut lines = screen.lines();
            let line = lines.find(|line| line.contains(one) && line.contains(other));
            line.map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no line has {one:?} and {other:?}:\n{}", self.screen()))
    }

    fn pid(&self) -> i32 {
        let pid = fs::read_to_string(self.directory.path().join("pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until the program has ended: the terminal shows what it did before, and reads lines.
    #[track_caller]
    fn ends(&self, code: i32) {
        self.shows(&format!("the end: {code}"));
        let screen = self.screen();
        assert!(screen.starts_with("before\n"), "{screen}");
        assert!(!screen.contains("GRANTS"), "{screen}");
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let mut end = Command::new("tmux");
        end.args(["-L", &self.socket, "kill-server"]);
        let _ended = self.namespace.enter(|| end.output());
    }
}
