//! The control socket: clients that break the protocol, and requests and answers.
#![expect(
    clippy::unwrap_used,
    reason = "what a helper of a test unwraps is the test's finding"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Parser;
use jiff::{Timestamp, tz::TimeZone};
use knock_user::{
    admin::{
        self,
        command::{Command, received, sent},
        confirm, detach, explain, grant, list, reload, revoke, status, watch,
    },
    console::{
        self, Console, LinePrefix, Style,
        watch::{Form, WAITING_MAX, WATCHERS_MAX, Watchers},
    },
    control::{
        ControlServer, Reply, Request, SocketAccess,
        conversation::{CONNECTIONS_MAX, REQUEST_MAX},
    },
};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The time limit of each wait; only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_daemon_understands_the_lines_that_clients_send() {
    // The standard output of a test is not a terminal.
    #[rustfmt::skip]
    let rows = [
        (line::<status::Args>(""), r#"{"protocol":1,"command":"status"}"#),
        (line::<list::Args>("--json"), r#"{"protocol":1,"command":"list"}"#),
        (line::<watch::Args>("--json"), r#"{"protocol":1,"command":"watch","json":true,"dated":true}"#),
        (line::<explain::Args>("203.0.113.9 tcp/22"), r#"{"protocol":1,"command":"explain","source":"203.0.113.9","port":"tcp/22"}"#),
        (line::<explain::Args>("203.0.113.9 tcp/22 --to 192.0.2.1"), r#"{"protocol":1,"command":"explain","source":"203.0.113.9","port":"tcp/22","destination":"192.0.2.1"}"#),
        (line::<grant::Args>("203.0.113.9 --door ssh --for 10m"), r#"{"protocol":1,"command":"grant","source":"203.0.113.9","door":"ssh","for_ms":600000}"#),
        (line::<grant::Args>("2001:db8::9 --door ssh"), r#"{"protocol":1,"command":"grant","source":"2001:db8::9","door":"ssh"}"#),
        (line::<revoke::Args>("203.0.113.9"), r#"{"protocol":1,"command":"revoke","source":"203.0.113.9"}"#),
        (line::<revoke::Args>("203.0.113.9 --door ssh"), r#"{"protocol":1,"command":"revoke","source":"203.0.113.9","door":"ssh"}"#),
        (line::<reload::Args>(""), r#"{"protocol":1,"command":"reload"}"#),
        (line::<reload::Args>("--confirm 60s"), r#"{"protocol":1,"command":"reload","confirm_ms":60000}"#),
        (confirm(), r#"{"protocol":1,"command":"confirm"}"#),
        (line::<detach::Args>(""), r#"{"protocol":1,"command":"detach"}"#),
    ];
    for (line, wanted) in rows {
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(wanted));
        let request = Request::from_line(line.as_bytes()).unwrap();
        assert_eq!(request.to_line(), line);
        assert_eq!(admin::check(&request), Ok(()), "{line}");
    }
}

#[test]
fn a_client_reads_the_replies_that_daemons_send() {
    for (reply, wanted) in [
        (
            confirmed(),
            r#"{"protocol":1,"done":{"confirmed":{"was_on_trial":true}}}"#,
        ),
        (
            Reply::failed("no"),
            r#"{"protocol":1,"failed":{"message":"no","bad_configuration":false}}"#,
        ),
        (
            Reply::bad("line 1\nline 2"),
            r#"{"protocol":1,"failed":{"message":"line 1\nline 2","bad_configuration":true}}"#,
        ),
    ] {
        let line = reply.to_line();
        assert_eq!(line, format!("{wanted}\n"));
        assert_eq!(Reply::from_line(line.as_bytes()), Ok(reply), "{line}");
    }
}

#[test]
fn invalid_requests_are_refused_and_others_answered() {
    let running = TestServer::start();
    let long = vec![b'x'; 2 * REQUEST_MAX];
    let long_request = format!(
        r#"{{"protocol":1,"command":"confirm","x":"{}"}}"#,
        "x".repeat(REQUEST_MAX)
    );
    let deep = [&b"[".repeat(10_000)[..], b"\n"].concat();
    #[rustfmt::skip]
    let rows: [(&str, &[u8], &str); 15] = [
        ("garbage", b"\x00\xff\xfegarbage\n", "not a JSON object"),
        ("an empty line", b"\n", "not a JSON object"),
        ("http", b"GET / HTTP/1.1\r\n\r\n", "not a JSON object"),
        ("a number", b"1\n", "not a JSON object"),
        ("deeply nested", &deep, "not a JSON object"),
        ("no protocol", b"{\"command\":\"status\"}\n", "no \"protocol\""),
        ("a protocol in words", b"{\"protocol\":\"1\",\"command\":\"status\"}\n", "no \"protocol\""),
        ("a later protocol", b"{\"protocol\":2,\"command\":\"status\"}\n", "speaks protocol 2, and this one 1"),
        ("no command", b"{\"protocol\":1}\n", "unknown command \"\""),
        ("an unknown command", b"{\"protocol\":1,\"command\":\"open\"}\n", "unknown command \"open\": it is one of status, list, users, watch"),
        ("a field too many", b"{\"protocol\":1,\"command\":\"confirm\",\"really\":true}\n", "can't understand confirm: unknown field `really`"),
        ("no address", b"{\"protocol\":1,\"command\":\"grant\",\"source\":\"somebody\",\"door\":\"ssh\"}\n", "can't understand grant: invalid IP address syntax"),
        ("too long", &long, "longer than 64 KiB"),
        ("too long, otherwise fine", long_request.as_bytes(), "longer than 64 KiB"),
        ("a number that is none", b"{\"protocol\":1,\"command\":\"grant\",\"source\":\"203.0.113.9\",\"door\":\"ssh\",\"for_ms\":-1}\n", "can't understand grant"),
    ];
    for (name, bytes, reason) in rows {
        let reply = running.ask(bytes);
        let (message, bad) = message(&reply);
        assert!(message.contains(reason), "{name}: {message}");
        assert!(bad, "{name}");
        running.is_well();
    }
}

#[test]
fn a_request_without_a_line_end_is_refused() {
    let running = TestServer::start();
    for (name, bytes) in [
        ("half a line", &b"{\"protocol\":1,"[..]),
        (
            "a line without its end",
            b"{\"protocol\":1,\"command\":\"confirm\"}",
        ),
    ] {
        let mut stream = running.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let reply = reply(&mut BufReader::new(stream));
        assert!(message(&reply).0.contains("ends in the middle"), "{name}");
    }
    let mut silent = running.connect();
    silent.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "a silent connection gets no answer");
    running.is_well();
}

#[test]
fn a_request_may_arrive_in_pieces() {
    let running = TestServer::start();
    let mut stream = running.connect();
    for byte in confirm().bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(reply(&mut BufReader::new(stream)), confirmed());
}

#[test]
fn ten_requests_are_answered_beside_idle_connections() {
    let running = TestServer::start();
    let silent: Vec<_> = (0..3).map(|_| running.connect()).collect();
    let mut halting = running.connect();
    halting.write_all(b"{\"proto").unwrap();
    // The daemon never answers this one.
    let mut waiting = running.connect();
    let reload = line::<reload::Args>("");
    waiting.write_all(reload.as_bytes()).unwrap();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(|| running.is_well())).collect();
        for asking in asking {
            asking.join().unwrap();
        }
    });
    drop((silent, halting, waiting));
}

#[test]
fn a_full_server_answers_once_idle_connections_time_out() {
    let running = TestServer::start();
    let silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| running.connect()).collect();
    running.is_well();
    for stream in silent {
        let reply = reply(&mut BufReader::new(stream));
        let (message, _) = message(&reply);
        assert_eq!(message, "no request came within 5 s");
    }
}

#[test]
fn a_client_that_disconnects_early_is_dropped() {
    let running = TestServer::start();
    for _ in 0..2 * CONNECTIONS_MAX {
        let mut stream = running.connect();
        stream.write_all(confirm().as_bytes()).unwrap();
    }
    running.is_well();
}

#[test]
fn a_daemon_that_does_not_answer_is_reported() {
    let running = TestServer::start();
    let list = line::<list::Args>("");
    assert_eq!(
        running.ask(list.as_bytes()),
        Reply::failed("the daemon is ending")
    );
}

#[test]
fn the_end_of_the_daemon_ends_connections() {
    let mut running = TestServer::start();
    let mut waiting = running.connect();
    let reload = line::<reload::Args>("");
    waiting.write_all(reload.as_bytes()).unwrap();
    let silent = running.connect();
    let watching = watching(&running, false);
    running.is_well();
    print_events(&mut running, 1);
    let path = socket(&running.directory);
    assert!(path.exists());
    running.stop();
    assert!(!path.exists());
    assert_eq!(
        reply(&mut BufReader::new(waiting)),
        Reply::failed("the daemon is ending")
    );
    let mut rest = String::new();
    BufReader::new(silent).read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    let lines: Vec<_> = watching.lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["protecting number 0 on eth0 (native), 0 doors"]);
}

#[test]
fn only_its_owner_may_use_the_socket() {
    let running = TestServer::start();
    let file = fs::metadata(socket(&running.directory)).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_group_may_be_given_access() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket(&directory);
    let own = nix::unistd::Group::from_gid(nix::unistd::Gid::effective());
    let own = own.unwrap().unwrap();
    let access = SocketAccess::new(Some(&own.name)).unwrap();
    let _server = ControlServer::listen(&path, access, Watchers::default()).unwrap();
    let file = fs::metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn other_files_at_the_path_of_the_socket_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deeper").join("eth0.sock");
    let listen = || {
        let access = SocketAccess::new(None).unwrap();
        ControlServer::listen(&path, access, Watchers::default()).map(|_| ())
    };
    listen().unwrap();
    assert!(!path.exists(), "removed with the server");

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    listen().unwrap();

    let another = UnixListener::bind(&path).unwrap();
    let error = format!("{:#}", listen().unwrap_err());
    assert!(error.contains("another knock-user listens on"), "{error}");
    assert!(path.exists(), "and stays");
    drop(another);
    fs::remove_file(&path).unwrap();

    fs::write(&path, "mine").unwrap();
    let error = format!("{:#}", listen().unwrap_err());
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn each_watcher_receives_its_own_form() {
    let mut running = TestServer::start();
    let mut text = watching(&running, false);
    let mut json = watching(&running, true);
    print_events(&mut running, 1);
    let mut line = String::new();
    text.read_line(&mut line).unwrap();
    assert_eq!(line, "protecting number 0 on eth0 (native), 0 doors\n");
    line.clear();
    json.read_line(&mut line).unwrap();
    assert_eq!(
        line,
        "{\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"protecting\",\
         \"ports\":[\"number 0\"],\"interface\":\"eth0\",\"mode\":\"native\",\"doors\":0}\n"
    );
}

#[test]
fn sixteen_clients_may_watch_while_others_ask() {
    let running = TestServer::start();
    let mut watching: Vec<_> = (0..WATCHERS_MAX)
        .map(|_| watching(&running, false))
        .collect();
    running.is_well();
    let one_more = running.ask(watch_line(false).as_bytes());
    assert!(message(&one_more).0.contains("too many watchers"));
    drop(watching.pop());
    // The server detects this without a further request.
    let deadline = std::time::Instant::now() + PATIENCE;
    while running.console.watchers().count() == WATCHERS_MAX {
        assert!(std::time::Instant::now() < deadline);
        thread::yield_now();
    }
    watching.push(self::watching(&running, false));
}

#[tokio::test]
async fn missed_lines_are_counted_where_they_are_missed() {
    for (missed, wanted) in [
        (0, None),
        (1, Some("missed 1 line, which was not read in time\n")),
        (2, Some("missed 2 lines, which were not read in time\n")),
    ] {
        let mut console = console();
        let mut watcher = console.watchers().watch(Form::Text).unwrap();
        let mut send = |number: usize| {
            let ports = [format!("number {number}")];
            let mode = console::AttachMode::Native;
            console.protecting(&ports, "eth0", mode, 0);
            format!("protecting number {number} on eth0 (native), 0 doors\n")
        };
        let mut lines: Vec<_> = (0..WAITING_MAX).map(&mut send).collect();
        for number in 0..missed {
            send(WAITING_MAX + number);
        }
        lines.extend(wanted.map(str::to_owned));
        let mut next = lines.into_iter();
        // Then there is room again, behind the line with the number of missed events.
        for line in next.by_ref().take(2) {
            assert_eq!(*watcher.next().await.unwrap(), *line, "{missed} missed");
        }
        let last = send(WAITING_MAX + missed);
        for line in next.chain([last]) {
            assert_eq!(*watcher.next().await.unwrap(), *line, "{missed} missed");
        }
    }
}

#[test]
fn a_slow_watcher_receives_the_number_of_missed_lines() {
    let mut running = TestServer::start();
    let reader = watching(&running, false);
    // More than all buffers on the way hold.
    let many = 20 * WAITING_MAX;
    print_events(&mut running, many);
    running.is_well();
    let mut next = 0;
    let mut missed = 0;
    for line in reader.lines().map(Result::unwrap) {
        if let Some(rest) = line.strip_prefix("missed ") {
            let (count, rest) = rest.split_once(' ').unwrap();
            let count = count.parse::<usize>().unwrap();
            // The number of missed lines depends on when the server runs.
            let wanted = match count {
                1 => "line, which was not read in time",
                _ => "lines, which were not read in time",
            };
            assert_eq!(rest, wanted);
            missed += count;
            next += count;
        } else {
            let wanted = format!("protecting number {next} on eth0 (native), 0 doors");
            assert_eq!(line, wanted);
            next += 1;
        }
        if next == many {
            break;
        }
    }
    assert!(missed > 0, "every line is there or counted, in its place");
}

/// A server whose daemon answers `confirm` and `watch`, keeps `reload` waiting, and drops everything else.
struct TestServer {
    directory: TempDir,
    console: Console<Vec<u8>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestServer {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let console = console();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let path = socket(&directory);
        let watchers = console.watchers();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(daemon(&path, watchers, &ready, stopped));
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self {
            directory,
            console,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(socket(&self.directory)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // A client that is refused early may find the other end closed.
        let _refused = stream.write_all(bytes);
        reply(&mut BufReader::new(stream))
    }

    fn is_well(&self) {
        assert_eq!(self.ask(confirm().as_bytes()), confirmed());
    }

    fn stop(&mut self) {
        let _stopped = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn daemon(
    path: &Path,
    watchers: Watchers,
    ready: &mpsc::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    let access = SocketAccess::new(None).unwrap();
    let mut server = ControlServer::listen(path, access, watchers.clone()).unwrap();
    ready.send(()).unwrap();
    let mut kept = Vec::new();
    loop {
        let call = tokio::select! {
            call = server.call() => call,
            _ = &mut stopped => break,
        };
        if let Err(reason) = admin::check(&call.request) {
            call.answer(Reply::bad(reason));
            continue;
        }
        match call.request.command.as_str() {
            "confirm" => call.answer(confirmed()),
            "reload" => kept.push(call),
            "watch" => {
                let (request, caller) = received::<watch::Args>(call).unwrap();
                watch::stream(&request, &watchers, caller);
            }
            _ => drop(call),
        }
    }
    server.finish().await;
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("eth0.sock")
}

/// Returns the line that a client sends for these arguments.
fn line<C: Command>(arguments: &str) -> String {
    #[derive(Parser)]
    struct ParsedLine<C: clap::Args> {
        #[command(flatten)]
        command: C,
    }
    let words = ["program"].into_iter().chain(arguments.split_whitespace());
    let request = ParsedLine::<C>::parse_from(words).command.request();
    sent::<C>(&request).unwrap().to_line()
}

fn confirm() -> String {
    line::<confirm::Args>("")
}

fn confirmed() -> Reply {
    Reply::Done(json!({"confirmed": {"was_on_trial": true}}))
}

fn reply(from: &mut BufReader<UnixStream>) -> Reply {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).unwrap();
    Reply::from_line(&line).unwrap()
}

fn message(reply: &Reply) -> (&str, bool) {
    match reply {
        Reply::Failed(failure) => (&failure.message, failure.bad_configuration),
        Reply::Done(answer) => panic!("done: {answer:?}"),
    }
}

fn watching(running: &TestServer, json: bool) -> BufReader<UnixStream> {
    let mut stream = running.connect();
    let line = watch_line(json);
    stream.write_all(line.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(reply(&mut reader), Reply::Done(json!({"watching": {}})));
    reader
}

fn watch_line(json: bool) -> String {
    let fields = json!({"json": json, "dated": false});
    Request {
        command: "watch".to_owned(),
        fields: serde_json::from_value(fields).unwrap(),
    }
    .to_line()
}

/// Prints `count` events to all watchers.
fn print_events(running: &mut TestServer, count: usize) {
    for number in 0..count {
        let ports = [format!("number {number}")];
        let mode = console::AttachMode::Native;
        running.console.protecting(&ports, "eth0", mode, 0);
    }
}

fn console() -> Console<Vec<u8>> {
    let style = Style {
        json: false,
        stamp: LinePrefix::Time,
        dry_run: false,
        zone: TimeZone::UTC,
    };
    Console::new(Vec::new(), style, Vec::new(), Timestamp::UNIX_EPOCH)
}
