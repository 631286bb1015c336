//! One-time sequences of `knock-client`, beside knockd, and the port that names the next line.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::text,
    net::{self, Family, Net},
    process::Process,
    server::Server,
    source::{FIRST_SYN, Source},
    ssh::SSH,
    wait,
};
use serde_json::json;

use crate::{HostFile, ONCE, WEB, unused, used};

const INDEX: u16 = 7001;

#[test]
fn generated_files_open_for_knock_client() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempfile::tempdir().unwrap();
        let [here, there] = ["host", "client"].map(|name| directory.path().join(name));
        let mut generate = Command::new(&binaries().user);
        generate.args(["generate", "--one-time", "3", "--knocks", "6", "--export"]);
        let output = generate.arg(&here).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        fs::copy(&here, &there).unwrap();
        let config = String::from_utf8(output.stdout).unwrap();
        let daemon = Daemon::start(&net.server, &config);
        for (number, family) in (1..).zip([Family::V4, Family::V6, Family::V4]) {
            let host = family.server().to_string();
            let there = there.to_str().unwrap();
            succeeds(net, &[&host, "--one-time", there, "--then-connect", "22"]);
            wait::until("both sides have marked the same", || {
                let [here, there] = [&here, Path::new(there)].map(fs::read);
                here.unwrap() == there.unwrap()
            });
            // The next line is accepted when this one is reported.
            let used = json!({"event": "used"});
            wait::until("it is reported", || {
                daemon.events_like(&used).len() == number
            });
        }
        daemon.wait_for_event(&json!({"event": "disabled", "door": "ssh"}));
        daemon.stop();
    });
}

/// Debian's knockd and knock-user treat the same file alike.
#[test]
fn knockd_runs_beside_knock_user() {
    const WEB_KNOCKS: &str = "tcp/7000 tcp/8000 tcp/9000";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let one_time_text = HostFile::of(2);
        let place = |name: &str| one_time_text.directory.path().join(name);
        let (conf, log, path) = (place("conf"), place("log"), one_time_text.path.display());
        let text = format!(
            "[once]\none_time_sequences = {path}\ntcpflags = syn\n\
             command = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
             [web]\nsequence = 7000,8000,9000\ntcpflags = syn\n\
             command = iptables -A INPUT -s %IP% -p tcp --dport 80 -j ACCEPT\n"
        );
        fs::write(&conf, &text).unwrap();
        let toml = knock_user::tools::import::import(&text, "knockd.conf")
            .unwrap()
            .toml;

        // knock-user, with a copy of the file under the same name.
        let daemon = Daemon::start(&net.server, &toml);
        let source = net.new_source(Family::V4);
        source.knock(ONCE[0].0);
        source.finds(true, SSH, "the first line");
        daemon.wait_for_event(&used(1));
        let ours = one_time_text.text();
        net.new_source(Family::V4).knock(ONCE[1].0);
        daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
        one_time_text.is_marked(2, 2);
        let source = net.new_source(Family::V4);
        source.knock(WEB_KNOCKS);
        source.finds(true, WEB, "the other door, when the file is used up");
        daemon.stop();

        // knockd only logs: its commands need not do anything.
        fs::write(&one_time_text.path, unused(0..2)).unwrap();
        let quiet = text.replace("command = iptables", "command = /bin/true");
        fs::write(&conf, quiet).unwrap();
        let mut knockd = Command::new("knockd");
        knockd.args(["-i", "b0", "-c"]).arg(&conf);
        knockd.arg("-p").arg(place("pid")).arg("-g").arg(&log);
        let mut knockd = Process::start(&net.server, &mut knockd);
        let log_text = || fs::read_to_string(&log).unwrap_or_default();
        wait::until("knockd listens", || log_text().contains("listening on b0"));
        // knockd misses knocks without a pause between them.
        let slowly = |knocks: &str| knocks.replace(' ', " wait/50ms ");
        net.new_source(Family::V4).knock(&slowly(ONCE[0].0));
        wait::until("knockd opens", || log_text().contains("once: OPEN SESAME"));
        wait::until("knockd marks as we do", || one_time_text.text() == ours);
        // It accepts the next line a moment after it has marked the previous one.
        wait::until("knockd ends with its last line", || {
            net.new_source(Family::V4).knock(&slowly(ONCE[1].0));
            !knockd.is_running()
        });
    });
}

/// The knocks of a client were lost twice.
#[test]
fn a_client_within_the_lookahead_catches_up() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let nowhere = Family::V4.source(250).to_string();
        for (row, lookahead, index, expected) in [
            ("nothing helps", 1, false, false),
            ("later lines are listened to", 3, false, true),
            ("the client asks", 1, true, true),
        ] {
            for family in Family::ALL {
                let [one_time_text, own] = [HostFile::of(4), HostFile::of(4)];
                let daemon =
                    Daemon::start(&net.server, &(listen() + &one_time_text.door(lookahead)));
                let file = own.path.to_str().unwrap();
                for _ in 0..2 {
                    succeeds(net, &[&nowhere, "--one-time", file]);
                }
                let host = family.server().to_string();
                let port = format!("{INDEX}/once");
                let mut words = vec![host.as_str(), "--one-time", file];
                words.extend(["--then-connect", "22", "--timeout"]);
                words.push(if expected { "10s" } else { "300ms" });
                if index {
                    words.extend(["--next-line", &port]);
                }
                let output = client(net, &words);
                let row = format!("{row}, {family}: {}", text(&output));
                assert_eq!(output.status.success(), expected, "{row}");
                if expected {
                    let line = if index { 1 } else { 3 };
                    daemon.wait_for_event(&used(line));
                }
                daemon.stop();
            }
        }
    });
}

/// The next-line port answers each client, and a request during an attempt does not end the attempt.
#[test]
fn the_next_line_server_names_the_next_line() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = HostFile::of(3);
        let mut daemon = Daemon::start(&net.server, &(listen() + &one_time_text.door(1)));
        for family in Family::ALL {
            let line = family.pick(1, 2);
            let source = net.new_source(family);
            for (question, answer) in [
                ("once\n", format!("{line}\n")),
                ("\n", format!("{line}\n")),
                ("other\n", String::new()),
                ("GET / HTTP/1.1\r\n\r\n", String::new()),
                ("once", String::new()),
            ] {
                assert_eq!(asked(&source, question), answer, "{family}: {question:?}");
            }
            let (begins, last) = ONCE[line - 1].0.rsplit_once(' ').unwrap();
            source.knock(begins);
            asked(&source, "once\n");
            source.knock(last);
            source.finds(true, SSH, &format!("{family}: asked in between"));
            daemon.wait_for_event(&used(u32::try_from(line).unwrap()));
        }
        let source = net.new_source(Family::V4);
        assert_eq!(asked(&source, "once\n"), "3\n");
        daemon.reload(&one_time_text.door(1));
        wait::until("the port is closed", || {
            source.connect(INDEX, FIRST_SYN).is_err()
        });
        daemon.reload(&(listen() + &one_time_text.door(1)));
        assert_eq!(asked(&source, "once\n"), "3\n", "it listens again");
        daemon.stop();
    });
}

/// Returns the client with these arguments, and without the profiles of the user who runs the tests.
fn client(net: &Net, words: &[&str]) -> Output {
    let mut command = Command::new(&binaries().client);
    command.args(words).env("XDG_CONFIG_HOME", "/nonexistent");
    net.client.enter(|| command.output()).unwrap()
}

fn succeeds(net: &Net, words: &[&str]) {
    let output = client(net, words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
}

fn listen() -> String {
    format!("[next_line]\nlisten = \"[::]:{INDEX}\"\n")
}

fn asked(source: &Source<'_>, question: &str) -> String {
    let ask = |mut stream: TcpStream| {
        stream.write_all(question.as_bytes())?;
        // A client that sends no request is not waited for.
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut answer = String::new();
        // Unread octets reset the connection.
        let _reset = stream.read_to_string(&mut answer);
        Ok::<_, std::io::Error>(answer)
    };
    let stream = source.connect(INDEX, FIRST_SYN).unwrap();
    ask(stream).unwrap()
}
