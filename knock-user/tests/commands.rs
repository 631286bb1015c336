//! Commands of doors, run as processes.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a helper of a test unwraps is the test's finding"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use knock_user::{
    commands::{CommandReport, CommandResult, Job, Occasion, RUNNING_MAX, Runner, WAITING_MAX},
    model::settings::{Command, Prefix},
};
use nix::{errno::Errno, sys::signal::killpg, unistd::Pid};
use tokio::{sync::mpsc::Receiver, time::timeout};

/// The time limit of each wait; only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_result_of_a_command_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let garbage = file("garbage", "\u{7f}not a program", 0o755);
    let missing = directory
        .path()
        .join("missing")
        .to_str()
        .unwrap()
        .to_owned();
    let run = |program: &str| job(Occasion::Close, "2001:db8::9", program, &[]);
    #[rustfmt::skip]
    let rows = [
        ("success", script("true"), true, r#"door "ssh": on_open = "/bin/sh" for 203.0.113.9: done"#.to_owned()),
        ("failure", script("echo out; echo err >&2; exit 3"), false, r#"door "ssh": on_open = "/bin/sh" for 203.0.113.9: exit status 3; it printed: out | err"#.to_owned()),
        ("signal", script("kill -9 $$"), false, r#"door "ssh": on_open = "/bin/sh" for 203.0.113.9: ended by signal 9"#.to_owned()),
        ("control characters", script(r"printf 'a\033[2Jb\n'; exit 1"), false, r#"door "ssh": on_open = "/bin/sh" for 203.0.113.9: exit status 1; it printed: a\u{1b}[2Jb"#.to_owned()),
        ("missing", run(&missing), false, format!(r#"door "ssh": on_close = "{missing}" for 2001:db8::9: there is no such program (or it is a script without its interpreter); install it, or correct the path in the configuration"#)),
        ("not executable", run(&plain), false, format!(r#"door "ssh": on_close = "{plain}" for 2001:db8::9: is not executable; make it so with chmod +x"#)),
        ("not a program", run(&garbage), false, format!(r#"door "ssh": on_close = "{garbage}" for 2001:db8::9: is not a program; a script begins with #! and the path of its interpreter"#)),
    ];
    for (name, job, is_success, text) in rows {
        let report = outcome_of(job).await;
        assert_eq!(report.to_string(), text, "{name}");
        assert_eq!(report.is_success(), is_success, "{name}");
    }
}

#[tokio::test]
async fn a_command_receives_its_occasion_in_the_environment() {
    // The third field behind the name in /proc/PID/stat is the process group.
    let print = r#"echo "$1/$2/$3/$4/$5"; env | sort; cat; read -r stat </proc/$$/stat; set -- ${stat##*) }; [ "$3" = $$ ] && echo leader; exit 1"#;
    let arguments = [
        "-c",
        print,
        "sh",
        "{source}",
        "{door}",
        "{port}",
        "{family}",
        "{other} $HOME `id`",
    ];
    for (name, occasion, source, port, first, environment) in [
        (
            "IPv4",
            Occasion::Open,
            "203.0.113.9",
            Some(22),
            "203.0.113.9/ssh/22/ipv4/{other} $HOME `id`",
            "KNOCK_DOOR=ssh KNOCK_EVENT=open KNOCK_FAMILY=ipv4 KNOCK_PORT=22 KNOCK_SOURCE=203.0.113.9 KNOCK_USER=alice",
        ),
        (
            "IPv6, no port",
            Occasion::Close,
            "2001:db8::9",
            None,
            "2001:db8::9/ssh//ipv6/{other} $HOME `id`",
            "KNOCK_DOOR=ssh KNOCK_EVENT=close KNOCK_FAMILY=ipv6 KNOCK_PORT= KNOCK_SOURCE=2001:db8::9 KNOCK_USER=alice",
        ),
    ] {
        let mut job = job(occasion, source, "/bin/sh", &arguments);
        job.port = port;
        let mut lines = outcome_of(job).await.output;
        assert_eq!(lines.remove(0), first, "{name}");
        assert_eq!(lines.pop().as_deref(), Some("leader"), "{name}");
        // The shell adds variables of its own.
        lines.retain(|line| {
            !["PWD=", "OLDPWD=", "SHLVL=", "_="]
                .iter()
                .any(|own| line.starts_with(own))
        });
        let path = lines.pop().unwrap();
        assert!(path.starts_with("PATH=/"), "{name}: {path}");
        assert_eq!(lines.join(" "), environment, "{name}: and nothing else");
    }
}

#[tokio::test]
async fn the_whole_group_ends_at_the_time_limit() {
    for (name, text) in [
        ("asked", "echo $$; sleep 1000"),
        (
            "ignores SIGTERM",
            "trap '' TERM; echo $$; while :; do sleep 1000; done",
        ),
        (
            "children",
            "echo $$; for i in 1 2 3 4 5 6 7 8; do (trap '' TERM; while :; do sleep 1000; done) & done; wait",
        ),
        (
            "the first process goes, its children stay",
            "trap 'exit 0' TERM; echo $$; (trap '' TERM; while :; do sleep 1000; done) & while :; do sleep 0.01; done",
        ),
        ("prints without end", "echo $$; exec yes >&2"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("group");
        let mut job = script(&text.replace("echo $$", &format!("echo $$ > {}", path.display())));
        job.command.timeout = Duration::from_millis(300);
        let begin = Instant::now();
        let report = outcome_of(job).await;
        assert!(
            matches!(report.outcome, CommandResult::TimedOut),
            "{name}: {report}"
        );
        assert!(
            report.to_string().contains("stopped after 300ms"),
            "{name}: {report}"
        );
        assert!(begin.elapsed() < Duration::from_secs(10), "{name}");
        let group = read(&path);
        until(name, || group_is_gone(&group)).await;
    }
}

#[tokio::test]
async fn a_flood_of_output_is_bounded() {
    let report = outcome_of(script("yes | head -c 20000000; echo; echo last; exit 1")).await;
    let bytes: usize = report.output.iter().map(String::len).sum();
    assert!(bytes <= 4_096, "{bytes}");
    assert_eq!(report.output.last().map(String::as_str), Some("last"));
}

#[tokio::test]
async fn a_background_process_does_not_delay_the_report() {
    let report = outcome_of(script("sleep 1000 & echo $!; exit 1")).await;
    let [pid] = report.output.as_slice() else {
        panic!("{report}");
    };
    let pid = Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("left alone");
}

#[tokio::test]
async fn closing_never_overtakes_opening() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (runner, mut reports) = Runner::new();
    let write = |occasion, source, text: &str| {
        let text = format!("{text}; echo {source} $KNOCK_EVENT >> {}", log.display());
        job(occasion, source, "/bin/sh", &["-c", &text])
    };
    let gate = directory.path().join("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
    runner
        .run(write(Occasion::Open, "192.0.2.1", &wait))
        .unwrap();
    runner
        .run(write(Occasion::Close, "192.0.2.1", ":"))
        .unwrap();
    runner.run(write(Occasion::Open, "192.0.2.1", ":")).unwrap();
    runner.run(write(Occasion::Open, "192.0.2.2", ":")).unwrap();
    assert_eq!(
        next(&mut reports).await.job.source,
        Prefix::of([192, 0, 2, 2].into()),
        "other commands run"
    );
    assert_eq!(runner.pending(), 3);
    fs::write(&gate, "").unwrap();
    for _ in 0..3 {
        next(&mut reports).await;
    }
    assert_eq!(
        read(&log),
        "192.0.2.2 open\n192.0.2.1 open\n192.0.2.1 close\n192.0.2.1 open\n"
    );
}

#[tokio::test]
async fn waiting_commands_are_bounded_and_omitted_ones_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (runner, mut reports) = Runner::new();
    let started = || fs::read_dir(directory.path()).unwrap().count();
    let text = format!("echo > {}/$$; sleep 1000", directory.path().display());
    let nth = |occasion, number: usize| {
        let source = format!("10.0.{}.{}", number / 256, number % 256);
        job(occasion, &source, "/bin/sh", &["-c", &text])
    };
    for number in 0..RUNNING_MAX + WAITING_MAX {
        runner.run(nth(Occasion::Open, number)).unwrap();
    }
    // The newest of a network with more that wait makes room for one of a network with fewer.
    let last = RUNNING_MAX + WAITING_MAX - 1;
    let refused = runner.run(nth(Occasion::Open, 1_023)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"door "ssh": on_open for 10.0.3.255 was left out: too many commands wait"#
    );
    let refused = runner.run(nth(Occasion::Open, 60_000)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"door "ssh": on_open for 10.0.3.255 was left out: too many commands wait"#
    );
    assert_eq!(runner.pending(), last + 1);
    for number in 0..WAITING_MAX {
        runner
            .run(nth(Occasion::Close, number))
            .expect("room for closing");
    }
    runner.run(nth(Occasion::Close, 60_000)).unwrap_err();
    until("all started", || started() == RUNNING_MAX).await;
    let groups: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();

    let cut_off = runner.finish(Duration::from_millis(100)).await;
    assert_eq!(cut_off, RUNNING_MAX + 2 * WAITING_MAX);
    for group in groups {
        until("killed", || group_is_gone(&group)).await;
    }
    assert_eq!(started(), RUNNING_MAX, "nothing more started");
    assert!(reports.recv().await.is_none(), "nothing more comes");
}

#[tokio::test]
async fn finishing_waits_for_running_commands() {
    let (runner, mut reports) = Runner::new();
    runner.run(script("sleep 0.1")).unwrap();
    runner.run(script("exit 4")).unwrap();
    assert_eq!(runner.finish(PATIENCE).await, 0);
    assert!(next(&mut reports).await.is_success());
    assert!(!next(&mut reports).await.is_success());
    assert!(reports.recv().await.is_none());
}

#[tokio::test]
async fn dropping_the_runner_kills_running_commands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("group");
    let (runner, _reports) = Runner::new();
    runner
        .run(script(&format!(
            "echo $$ > {}; sleep 1000 & wait",
            path.display()
        )))
        .unwrap();
    until("started", || read(&path).ends_with('\n')).await;
    drop(runner);
    let group = read(&path);
    until("killed", || group_is_gone(&group)).await;
}

fn job(occasion: Occasion, source: &str, program: &str, arguments: &[&str]) -> Job {
    Job {
        occasion,
        source: Prefix::of(source.parse().unwrap()),
        door: "ssh".to_owned(),
        user: Some("alice".to_owned()),
        port: Some(22),
        command: Command {
            program: PathBuf::from(program),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            timeout: PATIENCE,
        },
    }
}

fn script(text: &str) -> Job {
    job(Occasion::Open, "203.0.113.9", "/bin/sh", &["-c", text])
}

async fn next(reports: &mut Receiver<CommandReport>) -> CommandReport {
    timeout(PATIENCE, reports.recv())
        .await
        .expect("in time")
        .expect("a report")
}

async fn outcome_of(job: Job) -> CommandReport {
    let (runner, mut reports) = Runner::new();
    runner.run(job).unwrap();
    next(&mut reports).await
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn group_is_gone(group: &str) -> bool {
    let group = Pid::from_raw(group.trim().parse().unwrap());
    killpg(group, None) == Err(Errno::ESRCH)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
