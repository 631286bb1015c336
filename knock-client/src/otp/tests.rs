use super::*;
use knock_sequence::{Knock, Protocol};
use std::fs;
use std::net::SocketAddr;

fn destination(address: &str) -> Destination {
    let ip: IpAddr = address.parse().expect("an address");
    SocketAddr::new(ip, 0).into()
}

fn settings(secret: &str) -> OtpSettings {
    OtpSettings {
        secret: Some(Hidden(secret.to_owned())),
        ..OtpSettings::default()
    }
}

fn words(sequence: &[Knock]) -> String {
    let words: Vec<String> = sequence.iter().map(ToString::to_string).collect();
    words.join(" ")
}

#[test]
fn no_sequence_is_sent_twice() {
    let otp = OtpSettings {
        bind_source: Some(false),
        ..settings("AAgR%XXx30O$#")
    };
    let otp = otp.check().expect("settings");
    let mut used = BTreeSet::new();
    // The period is 45 s: three are accepted at a time.
    for (name, now, expected) in [
        ("the current one", 450, Ok(10)),
        ("the next one", 451, Ok(11)),
        ("the previous one", 452, Ok(9)),
        ("none", 453, Err("begins in 42s")),
        ("a period later, the one after it", 495, Ok(12)),
        ("and none", 496, Err("begins in 44s")),
        ("two periods later", 540, Ok(13)),
    ] {
        let found = otp.unused_sequence_at(now, &destination("192.0.2.1"), &mut used);
        match (found, expected) {
            (Ok(found), Ok(period)) => {
                let whole = otp.sequence_at(period * 45, &destination("192.0.2.1"), 0);
                assert_eq!(found, whole.expect("a sequence"), "{name}");
            }
            (Err(error), Err(text)) => {
                let error = error.to_string();
                assert!(error.ends_with(text), "{name}: {error}");
            }
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

/// The expected knocks were computed by knockd's fork.
#[test]
fn the_knocks_are_those_of_the_period() {
    let otp = OtpSettings {
        source: Some("203.0.113.7".parse().expect("an address")),
        ..settings("AAgR%XXx30O$#")
    };
    let tcp = Some(Protocols(vec![Protocol::Tcp; 3]));
    let unbound = OtpSettings {
        bind_source: Some(false),
        protocols: tcp,
        ..otp.clone()
    };
    let first = "tcp/20077 udp/20078 tcp/20127";
    let next = "tcp/20057 udp/20137 tcp/20037";
    for (name, settings, now, round, expected) in [
        (
            "bound",
            &otp,
            0,
            0,
            format!("{first} tcp/20119 udp/20228 tcp/20023"),
        ),
        (
            "the next period",
            &otp,
            45,
            0,
            format!("{next} tcp/20121 udp/20053 tcp/20180"),
        ),
        (
            "the next one's, a period before",
            &otp,
            44,
            1,
            format!("{next} tcp/20121 udp/20053 tcp/20180"),
        ),
        (
            "the previous one's, a period later",
            &otp,
            89,
            2,
            format!("{first} tcp/20119 udp/20228 tcp/20023"),
        ),
        (
            "and from the start",
            &otp,
            44,
            3,
            format!("{first} tcp/20119 udp/20228 tcp/20023"),
        ),
        (
            "one half, TCP",
            &unbound,
            44,
            0,
            "tcp/20077 tcp/20078 tcp/20127".to_owned(),
        ),
    ] {
        let otp = settings.check().expect(name);
        let sequence = otp.sequence_at(now, &destination("192.0.2.1"), round);
        assert_eq!(words(&sequence.expect(name)), expected, "{name}");
    }
}

#[test]
fn the_source_address_is_found() {
    let otp = settings("secret");
    for own in ["127.0.0.1", "::1"] {
        let expected = OtpSettings {
            source: Some(own.parse().expect("an address")),
            ..otp.clone()
        };
        let [found, expected] = [&otp, &expected].map(|settings| {
            let otp = settings.check().expect("a secret");
            otp.sequence_at(1_700_000_000, &destination(own), 0)
                .expect(own)
        });
        assert_eq!(found, expected, "{own}");
    }
    let other = OtpSettings {
        source: Some("::1".parse().expect("an address")),
        ..otp
    };
    let other = other.check().expect("a secret");
    let error = other.sequence_at(0, &destination("127.0.0.1"), 0);
    let message = error.expect_err("IPv6 for IPv4").to_string();
    assert!(
        message.starts_with("::1 can't be the source of knocks on 127.0.0.1"),
        "{message}"
    );
}

#[test]
fn a_sequence_with_port_0_is_refused() {
    let otp = OtpSettings {
        port_base: Some(65_281),
        bind_source: Some(false),
        ..settings("secret")
    };
    let otp = otp.check().expect("a secret");
    let mut times = (0..)
        .step_by(45)
        .map(|now| otp.sequence_at(now, &destination("192.0.2.1"), 0));
    let error = times.find_map(Result::err).expect("some day");
    assert!(
        matches!(error, OtpError::Zero(left) if left.as_secs() == 45),
        "{error}"
    );
}

#[test]
fn the_secret_is_read_from_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("secret");
    let in_file = |text: &str| {
        fs::write(&path, text).expect("a file");
        OtpSettings {
            secret_file: Some(path.clone()),
            ..OtpSettings::default()
        }
    };
    for (name, settings, message) in [
        ("a file", in_file("hunter2\n"), None),
        ("none", OtpSettings::default(), Some("give the secret once")),
        (
            "two",
            OtpSettings {
                secret_env: Some("HOME".to_owned()),
                ..settings("hunter2")
            },
            Some("give the secret once"),
        ),
        (
            "no variable",
            OtpSettings {
                secret_env: Some("KNOCK_NOWHERE".to_owned()),
                ..OtpSettings::default()
            },
            Some("there is no environment variable KNOCK_NOWHERE"),
        ),
        (
            "too long",
            settings(&"hunter2 ".repeat(4)),
            Some("secret: the secret has 32 bytes"),
        ),
    ] {
        let checked = settings.check();
        match (checked, message) {
            (Ok(otp), None) => assert!(!format!("{otp:?} {settings:?}").contains("hunter2")),
            (Err(error), Some(message)) => {
                let error = error.to_string();
                assert!(
                    error.starts_with(message) && !error.contains("hunter2"),
                    "{name}: {error}"
                );
            }
            (checked, _) => panic!("{name}: {checked:?}"),
        }
    }
    for (name, text, message) in [
        ("empty", "", "the secret is empty"),
        (
            "two lines",
            "hunter2\nhunter3\n",
            "the secret has more than one line",
        ),
        (
            "long",
            &"hunter2".repeat(1_000),
            "it is too long for a secret",
        ),
    ] {
        let error = in_file(text).check().expect_err(name).to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn wrong_settings_are_refused() {
    for word in ["45", "0s", "500ms", "1500ms", "2d", "soon"] {
        assert!(word.parse::<Period>().is_err(), "{word}");
    }
    assert_eq!("1m".parse(), Ok(Period(Duration::from_secs(60))));
    for words in ["", "icmp", "tcp,,udp", &"tcp,".repeat(33)] {
        assert!(words.parse::<Protocols>().is_err(), "{words}");
    }
    let both = Protocols(vec![Protocol::Tcp, Protocol::Udp]);
    assert_eq!("tcp, udp".parse(), Ok(both));
}
