//! The main job on real packets, shown step by step: two network namespaces with a link between them,
//! knock-user on the one side, a client on the other. Needs root and about ten seconds.

use std::{
    env,
    io::{self, IsTerminal as _},
    net::TcpStream,
    panic,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use knock_tests::{
    binary::{Binaries, binaries},
    daemon::{self, config_file},
    namespace,
    net::{Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    source::{FIRST_SYN, Source, echoes},
    wait,
};
use nix::{sys::signal::Signal, unistd::Uid};
use tokio::signal::unix::{SignalKind, signal};

const SSH: u16 = 22;
const KNOCKS: [&str; 3] = ["tcp/7000", "udp/8000", "tcp/9000"];
const CONFIG: &str = r#"[[door]]
name = "ssh"
knock = ["tcp/7000", "udp/8000", "tcp/9000"]
open = ["tcp/22"]
open_for = "3s"
"#;
/// How long a port must be silent to count as closed.
const SILENCE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if !Uid::effective().is_root() {
        eprintln!("demo: namespaces and XDP need root: `cargo xtask demo` asks for it");
        return ExitCode::FAILURE;
    }
    namespace::panic_in_plain_words();
    let stop = Arc::new(AtomicBool::new(false));
    watch_for_signals(&stop);
    // The harness reports its errors by panics; everything has been removed by the time they arrive here.
    let outcome = panic::catch_unwind(|| play(&stop));
    match outcome {
        Err(_) => ExitCode::FAILURE,
        Ok(Err(Halt::Interrupted)) => {
            println!("\ninterrupted: everything is removed");
            ExitCode::from(130)
        }
        Ok(Err(Halt::Ended)) => {
            println!("\nknock-user ended too early; everything is removed.");
            ExitCode::FAILURE
        }
        Ok(Ok(missing)) if missing.is_empty() => {
            println!("\nEvery step was seen; everything is removed.");
            ExitCode::SUCCESS
        }
        Ok(Ok(missing)) => {
            println!("\nNot seen: {}", missing.join("; "));
            ExitCode::FAILURE
        }
    }
}

/// Why the demo ended early.
enum Halt {
    /// A signal asked for it.
    Interrupted,
    /// The steps can't continue.
    Ended,
}

/// Sets the flag on Ctrl-C and similar signals, so that everything is removed at the end.
fn watch_for_signals(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    thread::spawn(move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                stop.store(true, Ordering::Relaxed);
            }
        })
    });
}

/// Plays all steps; returns what was expected and not seen.
fn play(stop: &AtomicBool) -> Result<Vec<String>, Halt> {
    let Binaries { client, .. } = binaries();
    let net = Net::new();
    let server = Server::tcp(&net.server, &[SSH]);
    let config = config_file(CONFIG.as_bytes());
    let [v4, v6] = Family::ALL.map(|family| net.native(family));
    let unauthorized = net.new_source(Family::V4);

    let mut stage = DemoOutput::new(stop);
    println!(
        "client {} ───── veth ───── server {}, which listens on tcp/22\n",
        v4.from, v4.to
    );
    stage.quote(CONFIG);

    stage.step("Protect the server")?;
    stage.command(&format!(
        "knock-user --iface {SERVER_LINK} --config seq.toml"
    ));
    let mut command = daemon::command(&config);
    stage.console = Some(Process::start(
        &net.server,
        command.args(["--iface", SERVER_LINK]),
    ));
    stage.await_line("the program is attached", &["protecting tcp/22"])?;

    stage.step("Connect without knocking: nobody answers, as if there were no server")?;
    stage.silence(&v4, "tcp/22 is closed before the knock");
    stage.await_line("the attempt is reported", &["denied", &v4.name()])?;

    stage.step("Knock, and connect in the same moment")?;
    let mut established = stage.knock(&net, client, &v4);
    stage.await_line("the door opens", &["opened", &v4.name(), "ssh"])?;
    let echoed = established.as_mut().is_some_and(echoes);
    stage.seen(echoed, "a connection carries data", "hello ⇄ hello");

    stage.step("The door is open for the client, and for nobody else")?;
    stage.silence(&unauthorized, "tcp/22 is closed for others");
    stage.await_line(
        "the other attempt is reported",
        &["denied", &unauthorized.name()],
    )?;

    stage.step("Wait: the grant ends by itself")?;
    stage.await_line("the door closes", &["closed", &v4.name(), "ssh"])?;
    stage.silence(&v4, "tcp/22 is closed again");
    stage.await_line("the late attempt is reported", &["denied", &v4.name()])?;
    let echoed = established.as_mut().is_some_and(echoes);
    stage.seen(
        echoed,
        "the established connection continues",
        "the connection from before still carries data",
    );

    stage.step("The same over IPv6")?;
    stage.silence(&v6, "tcp/22 is closed over IPv6");
    stage.await_line("the attempt over IPv6 is reported", &["denied", &v6.name()])?;
    let connected = stage.knock(&net, client, &v6);
    stage.await_line("the door opens over IPv6", &["opened", &v6.name(), "ssh"])?;
    stage.seen(connected.is_some(), "a connection over IPv6", "connected");

    stage.step("Stop")?;
    stage.command("^C");
    stage.stop()?;
    let met = server.met(unauthorized.from, SSH);
    stage.seen(
        !met,
        "the server never met the other source",
        "the server met nobody uninvited",
    );
    Ok(stage.missing)
}

/// Prints the steps, with the lines of knock-user between them.
struct DemoOutput<'s> {
    stop: &'s AtomicBool,
    console: Option<Process>,
    shown: usize,
    steps: u32,
    missing: Vec<String>,
    colour: bool,
}

impl<'s> DemoOutput<'s> {
    fn new(stop: &'s AtomicBool) -> Self {
        Self {
            stop,
            console: None,
            shown: 0,
            steps: 0,
            missing: Vec::new(),
            colour: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
        }
    }

    fn step(&mut self, title: &str) -> Result<(), Halt> {
        self.steps += 1;
        println!("\n{}", self.paint("1", &format!("{}. {title}", self.steps)));
        self.check_interrupt()
    }

    fn check_interrupt(&self) -> Result<(), Halt> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Halt::Interrupted);
        }
        Ok(())
    }

    fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("   {}", self.paint("2", line));
        }
    }

    fn command(&self, line: &str) {
        println!("   {} {line}", self.paint("2", "$"));
    }

    fn seen(&mut self, seen: bool, what: &str, words: &str) {
        if seen {
            println!("   {} {words}", self.paint("32", "✓"));
        } else {
            println!("   {} {what}", self.paint("31", "✗ not seen:"));
            self.missing.push(what.to_owned());
        }
    }

    /// Expects no answer on tcp/22.
    fn silence(&mut self, source: &Source<'_>, what: &str) {
        self.command(&format!(
            "nc {} 22          # from {}",
            source.to, source.from
        ));
        let silent = matches!(source.connect(SSH, SILENCE),
            Err(error) if error.kind() == io::ErrorKind::TimedOut);
        self.seen(silent, what, "no answer");
    }

    /// Knocks with knock-client, which connects once; returns a second connection.
    fn knock(
        &mut self,
        net: &Net,
        client: &std::path::Path,
        source: &Source<'_>,
    ) -> Option<TcpStream> {
        let host = source.to.to_string();
        let knocks = KNOCKS.join(" ");
        self.command(&format!("knock-client {host} {knocks} --then-connect 22"));
        let mut command = Command::new(client);
        command
            .arg(&host)
            .args(KNOCKS)
            .args(["--then-connect", "22"]);
        let ended = Process::start(&net.client, &mut command).wait();
        let printed = ended.stdout.iter().map(String::as_str);
        for line in printed.chain(ended.stderr.lines()) {
            println!("   {line}");
        }
        let first = ended.stdout.iter().any(|line| line.contains("(attempt 1)"));
        self.seen(
            ended.status.success() && first,
            "the client connects at its first attempt",
            "open for the very next packet",
        );
        source.connect(SSH, FIRST_SYN).ok()
    }

    /// Shows the lines of knock-user until one has these words.
    fn await_line(&mut self, what: &str, words: &[&str]) -> Result<(), Halt> {
        let has_all = |line: &String| words.iter().all(|word| line.contains(word));
        let found = wait::poll(wait::PATIENCE, || {
            // First, so that lines from before its end are read.
            let running = self.console.as_mut().is_some_and(Process::is_running);
            let found = self.show().iter().any(has_all);
            (found || !running || self.check_interrupt().is_err()).then_some((found, running))
        });
        self.check_interrupt()?;
        match found {
            Some((true, _)) => return Ok(()),
            Some((false, false)) => {
                let printed = self.console.as_ref().map(Process::stderr);
                self.quote(&printed.unwrap_or_default());
                self.seen(false, what, "");
                return Err(Halt::Ended);
            }
            Some((false, true)) | None => self.seen(false, what, ""),
        }
        Ok(())
    }

    /// Shows the new lines of knock-user and returns them.
    fn show(&mut self) -> Vec<String> {
        let lines = self
            .console
            .as_ref()
            .map(Process::stdout)
            .unwrap_or_default();
        let new = lines.get(self.shown..).unwrap_or_default().to_vec();
        self.shown = lines.len();
        for line in &new {
            println!(
                "   {} {}",
                self.paint("36", "│"),
                self.paint(tint(line), line)
            );
        }
        new
    }

    fn stop(&mut self) -> Result<(), Halt> {
        self.check_interrupt()?;
        if let Some(console) = &mut self.console {
            console.signal(Signal::SIGINT);
        }
        self.await_line(
            "it reports what is open now",
            &["detached", "no longer protected"],
        )?;
        let ended = self.console.take().map(Process::wait);
        let clean = ended.is_some_and(|ended| ended.status.success());
        self.seen(clean, "a clean end", "detached");
        Ok(())
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Returns the colour of a line of knock-user.
fn tint(line: &str) -> &'static str {
    let rows = [("opened", "32"), ("closed", "33"), ("denied", "31")];
    let row = rows.iter().find(|(word, _)| line.contains(word));
    row.map_or("", |(_, code)| code)
}
