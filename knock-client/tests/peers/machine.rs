//! A machine that runs knock-client against a host in this process.

use super::spa::{AnswerContent, OpenedPacket, SpaHost};
use knock_common::reason::Reason;
use knock_sequence::spa::PrivateKey;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A machine with a key, and the host that has its public key.
pub(crate) struct ClientMachine {
    pub(crate) home: TempDir,
    pub(crate) host: SpaHost,
    pub(crate) ip: IpAddr,
}

impl ClientMachine {
    pub(crate) fn new(ip: IpAddr) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let key = PrivateKey::from_octets([0x22; 32]);
        fs::create_dir(home.path().join("knock")).expect("a directory");
        let place = home.path().join("knock/key");
        fs::write(&place, key.line().as_bytes()).expect("a file");
        // Otherwise the program warns of the file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        let host = SpaHost::new(ip, key.public());
        Self { home, host, ip }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
        command.args(words).env("XDG_CONFIG_HOME", self.home.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a run against the host.
    pub(crate) fn start(&self, words: &[&str]) -> Child {
        let (ip, key, port) = (
            self.ip.to_string(),
            self.host.key(),
            self.host.port().to_string(),
        );
        let all = [&[&ip, "--spa", &key, "--port", &port], words].concat();
        self.command(&all).spawn().expect("the command runs")
    }

    /// Runs to the end without an answer, and returns the requests.
    pub(crate) fn asks(&self, words: &[&str]) -> OpenedPacket {
        let child = self.start(&[words, &["--no-answer"]].concat());
        let opened = self.host.receive();
        let outcome = ended(child);
        assert_eq!(
            (outcome.code, outcome.err.as_str()),
            (Some(0), ""),
            "{words:?}"
        );
        opened
    }

    /// Answers once, and returns the outcome of the run.
    pub(crate) fn is_answered(&self, words: &[&str], content: AnswerContent) -> AnswerOutcome {
        let child = self.start(words);
        let opened = self.host.receive();
        self.host.answer(&opened, content_of(&opened, content));
        ended(child)
    }
}

pub(crate) struct AnswerOutcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

pub(crate) fn ended(child: Child) -> AnswerOutcome {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    AnswerOutcome {
        out: text(stdout),
        err: text(stderr),
        code: status.code(),
    }
}

/// Returns an answer with this outcome, for the source as the host sees it and the time of the packet plus `time`.
pub(crate) fn content_of(opened: &OpenedPacket, content: AnswerContent) -> AnswerContent {
    AnswerContent {
        source: opened.from.ip(),
        time: opened.stamp.wrapping_add(content.time),
        ..content
    }
}

pub(crate) fn outcome(reason: Reason, port: u16, seconds: u32) -> AnswerContent {
    AnswerContent {
        outcome: reason as u8,
        port,
        seconds,
        source: Ipv4Addr::UNSPECIFIED.into(),
        time: 0,
    }
}
