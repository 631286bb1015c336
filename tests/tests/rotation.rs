//! Files to which knock-user writes its lines are moved away and truncated.

use std::{fs, process::Command};

use knock_tests::{
    daemon::{self, config_file},
    net::{self, SERVER_LINK},
    process::Process,
    wait,
};
use nix::sys::signal::Signal;

const DOOR: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
"#;

#[test]
fn lines_follow_a_rotated_file() {
    net::test(|net| {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("knock.log");
        let old = directory.path().join("knock.log.1");
        let config = config_file(DOOR.as_bytes());
        let user = daemon::command(&config);
        // With `>`, so that only the program itself has lines appended.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "exec \"$@\" > \"$0\""])
            .arg(&log)
            .arg(user.get_program())
            .args(user.get_args())
            .args(["--iface", SERVER_LINK]);
        let mut process = Process::start(&net.server, &mut command);
        let has = |line: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(line));
        wait::until("the start is in the file", || has("protecting tcp/22"));

        fs::rename(&log, &old).unwrap();
        process.signal(Signal::SIGHUP);
        wait::until("the reload is in a new file", || has("reloaded"));
        let before = fs::read_to_string(&old).unwrap();
        assert!(!before.contains("reloaded"), "moved away: {before}");

        fs::File::create(&log).unwrap();
        process.signal(Signal::SIGHUP);
        wait::until("the next is in the truncated file", || has("reloaded"));
        let text = fs::read_to_string(&log).unwrap();
        assert!(!text.contains('\0'), "truncated: {text:?}");

        let ended = process.stop(Signal::SIGINT);
        assert!(ended.status.success(), "{ended:?}");
        assert!(has("detached: "), "the end is in the file");
    });
}
