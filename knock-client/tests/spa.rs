//! Single packet authorization: the packets that are sent, and key files.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use knock_sequence::spa::{DoorId, PrivateKey};
use peers::machine::{ClientMachine, ended};
use peers::spa::OpenedPacket;
use peers::{LOOPBACKS, ReservedPort};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

#[test]
fn a_packet_asks_for_what_the_options_say() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let [v6, v4] = ["2001:db8::7", "203.0.113.7"];
    let mapped = Ipv4Addr::new(203, 0, 113, 7).to_ipv6_mapped();
    let any = Ipv6Addr::UNSPECIFIED;
    let (first, ssh) = (DoorId::FIRST, DoorId::of_name("ssh"));
    type Row<'a> = (&'a str, &'a [&'a str], DoorId, u32, u8, Ipv6Addr);
    let rows: [Row<'_>; 8] = [
        ("nothing more", &[], first, 0, 0, any),
        ("a door", &["--door", "ssh"], ssh, 0, 0, any),
        ("a time", &["--for", "10m"], first, 600, 0, any),
        ("to close", &["--close"], first, 0, 1, any),
        (
            "to close a door",
            &["--close", "--door", "ssh"],
            ssh,
            0,
            1,
            any,
        ),
        ("an address", &["--source", v4], first, 0, 0, mapped),
        (
            "of the other family",
            &["--source", v6],
            first,
            0,
            0,
            v6.parse().expect("an address"),
        ),
        (
            "whichever address",
            &["--source", "0.0.0.0"],
            first,
            0,
            0,
            any,
        ),
    ];
    for (name, words, door, seconds, action, source) in rows {
        let opened = machine.asks(words);
        assert_eq!(opened.door, door.octets(), "{name}");
        assert_eq!((opened.seconds, opened.action), (seconds, action), "{name}");
        assert_eq!(opened.source, source, "{name}");
    }
    assert!(machine.host.is_silent(), "one packet each");

    let v6 = ClientMachine::new(LOOPBACKS[1]);
    assert_eq!(v6.asks(&[]).source, Ipv6Addr::LOCALHOST, "its own address");
    assert_eq!(
        v6.asks(&["--source", "::"]).source,
        any,
        "whichever address"
    );
}

#[test]
fn packets_have_increasing_stamps_and_no_common_octets() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let all: Vec<OpenedPacket> = (0..12).map(|_| machine.asks(&[])).collect();
    assert!(all.windows(2).all(|pair| pair[0].stamp < pair[1].stamp));
    let mut lengths: Vec<usize> = all.iter().map(|opened| opened.datagram.len()).collect();
    lengths.dedup();
    assert!(lengths.len() > 1, "{lengths:?}");
    for at in 0..72 {
        let first = all[0].datagram[at];
        // Twelve equal random octets have a probability of 2⁻⁸⁸.
        assert!(
            all.iter().any(|opened| opened.datagram[at] != first),
            "octet {at}"
        );
    }
}

#[test]
fn a_profile_has_the_settings() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let place = machine.home.path().join("knock");
    fs::rename(place.join("key"), place.join("laptop")).expect("renamed");
    let profile = format!(
        "[profile.home]\nhost = \"127.0.0.1\"\nspa = \"{}\"\nkey = \"laptop\"\nport = {}\ndoor = \"ssh\"\n\
         for = \"10m\"\n",
        machine.host.key(),
        machine.host.port()
    );
    fs::write(place.join("config.toml"), profile).expect("a file");
    let (ssh, wiki) = (DoorId::of_name("ssh"), DoorId::of_name("wiki"));
    let rows: [(&str, &[&str], DoorId, u32, u8); 4] = [
        ("as it is", &["home"], ssh, 600, 0),
        ("by its host", &["127.0.0.1"], ssh, 600, 0),
        (
            "with options",
            &["home", "--door", "wiki", "--for", "1m"],
            wiki,
            60,
            0,
        ),
        ("to close", &["home", "--close"], ssh, 0, 1),
    ];
    for (name, words, door, seconds, action) in rows {
        let words = [words, &["--no-answer"]].concat();
        let child = machine.command(&words).spawn().expect("the command runs");
        let opened = machine.host.receive();
        assert_eq!(ended(child).code, Some(0), "{name}");
        assert_eq!(opened.door, door.octets(), "{name}");
        assert_eq!((opened.seconds, opened.action), (seconds, action), "{name}");
    }
}

#[test]
fn proxy_relays_behind_the_packet() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let door = ReservedPort::new(machine.ip);
    let port = door.port().to_string();
    let (key, spa_port) = (machine.host.key(), machine.host.port().to_string());
    let words = [
        "proxy",
        "127.0.0.1",
        &port,
        "--spa",
        &key,
        "--port",
        &spa_port,
    ];
    let mut command = machine.command(&words);
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    machine.host.receive();
    let listener = door.open();
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.write_all(b"SSH-2.0-test\r\n").expect("sent");
    drop(stream);
    drop(child.stdin.take());
    let found = ended(child);
    assert_eq!(
        (found.out.as_str(), found.code),
        ("SSH-2.0-test\r\n", Some(0)),
        "{}",
        found.err
    );
}

#[test]
fn wrong_usage_is_reported_and_sends_nothing() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let key = machine.host.key();
    let own = PrivateKey::from_octets([0x22; 32]);
    let (own_public, own_private) = (own.public().to_string(), own.line().trim_end().to_owned());
    let weak = "knock1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let missing = machine.home.path().join("nothing").display().to_string();
    let rows: [(&str, &[&str], i32, &str); 12] = [
        (
            "no host's key",
            &["h", "--door", "ssh"],
            2,
            "--door needs the public key of the host",
        ),
        (
            "knocks and a door",
            &["h", "tcp/1", "--door", "ssh"],
            2,
            "--door needs the public key",
        ),
        (
            "knocks and a time",
            &["h", "tcp/1", "--for", "1m"],
            2,
            "--for needs the public key",
        ),
        (
            "a private key",
            &["h", "--spa", &own_private],
            2,
            "--spa: this is a private key",
        ),
        (
            "its own key",
            &["h", "--spa", &own_public],
            2,
            "--spa has the public key of ",
        ),
        (
            "a weak key",
            &["h", "--spa", weak],
            2,
            "the host's key: the public key is weak",
        ),
        (
            "no key of its own",
            &["h", "--spa", &key, "--key", &missing],
            1,
            "there is no key ",
        ),
        (
            "to close and connect",
            &["h", "--spa", &key, "--close", "--then-connect", "22"],
            2,
            "--close closes the door, so there is nothing to connect to",
        ),
        (
            "to close and relay",
            &["proxy", "h", "22", "--spa", &key, "--close"],
            2,
            "--close closes the door, so there is nothing to connect to",
        ),
        (
            "a reply without an answer",
            &["h", "--spa", &key, "--then-connect", "reply", "--no-answer"],
            2,
            "--then-connect reply takes the port from the host's answer",
        ),
        (
            "knocks, too",
            &["h", "tcp/1", "--spa", &key],
            2,
            "the argument '[KNOCK]...' cannot be used",
        ),
        (
            "a TCP port",
            &["h", "--spa", &key, "--port", "tcp/1"],
            2,
            "invalid value 'tcp/1' for '--port",
        ),
    ];
    for (name, words, code, expected) in rows {
        let found = ended(machine.command(words).spawn().expect("the command runs"));
        let error = found
            .err
            .trim_start_matches("knock-client: ")
            .trim_start_matches("error: ");
        assert!(error.starts_with(expected), "{name}: {error}");
        assert!(!found.err.contains(&own_private), "{name}: {error}");
        assert_eq!((found.code, found.out.as_str()), (Some(code), ""), "{name}");
    }
}

#[test]
fn keygen_prints_the_line_for_the_host_and_keeps_a_key() {
    let home = tempfile::tempdir().expect("a directory");
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
        command
            .args(words)
            .env("XDG_CONFIG_HOME", home.path())
            .stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(command.spawn().expect("the command runs"))
    };
    let made = run(&["keygen"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let path = home.path().join("knock/key");
    let text = fs::read_to_string(&path).expect("the key");
    let private: PrivateKey = text.trim_end().parse().expect("a private key");
    assert_eq!(made.out, format!("keys = [\"{}\"]\n", private.public()));
    assert!(
        made.err
            .starts_with(&format!("wrote the private key to {}", path.display()))
    );
    assert!(!format!("{}{}", made.out, made.err).contains(text.trim_end()));

    let again = run(&["keygen"]);
    assert_eq!((again.code, again.out.as_str()), (Some(1), ""));
    assert!(again.err.contains("exists and is kept"), "{}", again.err);
    assert_eq!(fs::read_to_string(&path).expect("the key"), text);
    let shown = run(&["keygen", "--public"]);
    assert_eq!((shown.code, shown.out), (Some(0), made.out.clone()));

    let other = home.path().join("phone").display().to_string();
    let phone = run(&["keygen", "--out", &other]);
    assert_eq!(phone.code, Some(0), "{}", phone.err);
    assert_ne!(phone.out, made.out);
    assert_eq!(run(&["keygen", "--out", &other]).code, Some(1));
    assert_eq!(run(&["keygen", "--out", &other, "--public"]).out, phone.out);
}
