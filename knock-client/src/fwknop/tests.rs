//! The whole conversion: its output can be used, and contains no secret.

use super::*;
use crate::profile as profiles;

const KEY: &str = "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM";

/// Every directive of fwknop 2.6.10; each secret has SECRET in it.
const EVERYTHING: &str = "\
[default]
VERBOSE 1

[home]
SPA_SERVER          gate.example.org
SPA_SERVER_PORT     4000
SPA_SERVER_PROTO    udp
SPA_SOURCE_PORT     5000
ACCESS              tcp/22,udp/53
ALLOW_IP            source
FW_TIMEOUT          3600
KEY                 SECRET1
KEY_BASE64          SECRET2
KEY_FILE            /home/me/SECRET
USE_HMAC            Y
HMAC_KEY            SECRET3
HMAC_KEY_BASE64     SECRET4
HMAC_KEY_FILE       /home/me/SECRET
HMAC_DIGEST_TYPE    SHA512
DIGEST_TYPE         SHA256
ENCRYPTION_MODE     CBC
USE_GPG             Y
USE_GPG_AGENT       N
GPG_AGENT_INFO      SECRET5
GPG_SIGNING_PW      SECRET6
GPG_SIGNING_PW_BASE64 SECRET7
GPG_NO_SIGNING_PW   N
GPG_SIGNER          me
GPG_RECIPIENT       you
GPG_HOMEDIR         /home/me/.gnupg
GPG_EXE             /usr/bin/gpg
RESOLVE_IP_HTTP     N
RESOLVE_IP_HTTPS    Y
RESOLVE_HTTP_ONLY   N
RESOLVE_URL         https://example.org/myip
WGET_CMD            /usr/bin/wget
HTTP_USER_AGENT     me
USE_WGET_USER_AGENT Y
SPOOF_USER          alice
SPOOF_SOURCE_IP     203.0.113.9
RAND_PORT           Y
NAT_ACCESS          192.168.1.10:22
NAT_LOCAL           N
NAT_PORT            22
NAT_RAND_PORT       N
TIME_OFFSET         60
NO_SAVE_ARGS        Y
SERVER_RESOLVE_IPV4 Y
";

fn converted(text: &str, keys: &[&str]) -> Result<ConvertedRc, String> {
    let keys: Vec<StanzaKey> = keys
        .iter()
        .map(|key| match key.parse() {
            Ok(key) => key,
            Err(never) => match never {},
        })
        .collect();
    convert(text, Path::new("rc"), &keys).map_err(|error| error.to_string())
}

/// Returns the profile with a name, as a run reads it.
fn read(toml: &str, name: &str) -> Option<profiles::Profile> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, toml).expect("a file");
    profiles::find(&path, name, true).unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

#[test]
fn every_directive_is_converted_or_named() {
    let found = converted(EVERYTHING, &[KEY]).unwrap_or_else(|error| panic!("{error}"));
    let toml = &found.toml;
    assert!(!toml.contains("SECRET"), "{toml}");
    assert!(!toml.contains("is not a directive"), "{toml}");
    let (_, keys) = toml.split_once("[profile.home]\n").expect("a profile");
    let expected = format!(
        "host = \"gate.example.org\"\nspa = \"{KEY}\"\nport = \"udp/4000\"\nsource = \"::\"\nfor = \"1h\"\n\
         family = \"ipv4\"\n"
    );
    assert_eq!(keys, expected);
    let comments = toml.replace(
        "
#   ", " ",
    );
    let silent = [
        "SPA_SERVER",
        "SPA_SERVER_PROTO",
        "ALLOW_IP",
        "SERVER_RESOLVE_IPV4",
    ];
    for line in EVERYTHING.lines().filter(|line| line.contains(' ')) {
        let name = line.split(' ').next().expect("a word");
        let is_named = comments.contains(&format!("{name} (line "));
        assert_eq!(is_named, !silent.contains(&name), "{name}: {toml}");
    }
    assert!(read(toml, "home").is_some_and(|profile| profile.spa_settings().host.is_some()));
    assert!(
        found.left.starts_with("1 converted; compare"),
        "{}",
        found.left
    );
}

#[test]
fn a_profile_without_the_hosts_key_is_a_comment() {
    let found = converted(
        "[a]\nSPA_SERVER a.example\n[b]\nSPA_SERVER b.example\n",
        &[&format!("b={KEY}")],
    );
    let found = found.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        found
            .left
            .starts_with("2 converted, 1 without the public key"),
        "{}",
        found.left
    );
    assert!(
        found
            .toml
            .contains("# [profile.a]\n# host = \"a.example\"\n# spa = \"knock1:…\""),
        "{}",
        found.toml
    );
    assert_eq!(read(&found.toml, "a"), None);
    let b = read(&found.toml, "b").expect("a profile");
    assert_eq!(b.host.as_deref(), Some("b.example"));
}

#[test]
fn values_that_do_not_fit_are_named() {
    for (name, line, expected) in [
        (
            "ports for a host",
            "SPA_SERVER p/22,udp/53",
            "SPA_SERVER (line 3) is not a host",
        ),
        (
            "TCP",
            "SPA_SERVER_PROTO tcp",
            "SPA_SERVER_PROTO (line 3): packets are sent over UDP only",
        ),
        (
            "port 0",
            "SPA_SERVER_PORT 0",
            "SPA_SERVER_PORT (line 3): it is not a port",
        ),
        (
            "a time in words",
            "FW_TIMEOUT 1h",
            "FW_TIMEOUT (line 3): it is not a number of seconds",
        ),
        (
            "to resolve",
            "ALLOW_IP resolve",
            "ALLOW_IP (line 3): no web service is asked",
        ),
        (
            "a name",
            "ALLOW_IP me.example.org",
            "ALLOW_IP (line 3): a name can't be used",
        ),
        (
            "an address",
            "ALLOW_IP 203.0.113.7",
            "ALLOW_IP (line 3): if the packet comes from another",
        ),
        (
            "an unknown directive",
            "SPA_PORT 22",
            "line 3 is not a directive of fwknop",
        ),
        (
            "half a line",
            "SECRET=",
            "line 3 is not a directive of fwknop",
        ),
    ] {
        let text = format!("[h]\nSPA_SERVER h.example\n{line}\n");
        let found = converted(&text, &[KEY]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found.toml.contains(expected), "{name}: {}", found.toml);
        assert!(!found.toml.contains("SECRET"), "{name}: {}", found.toml);
        assert!(read(&found.toml, "h").is_some(), "{name}");
    }
}

#[test]
fn names_of_stanzas_are_kept() {
    let text = "SPA_SERVER d.example\n[a b]\nSPA_SERVER x\n[\"q\u{1b}]\nSPA_SERVER y\n[10.0.0.1]\n";
    let found = converted(text, &[KEY]).unwrap_or_else(|error| panic!("{error}"));
    for (name, host) in [
        ("d.example", None),
        ("a b", Some("x")),
        ("\"q\u{1b}", Some("y")),
        ("10.0.0.1", None),
    ] {
        let profile = read(&found.toml, name).unwrap_or_else(|| panic!("{name}: {}", found.toml));
        let expected = if name == "10.0.0.1" {
            Some("d.example")
        } else {
            host
        };
        assert_eq!(profile.host.as_deref(), expected, "{name}");
    }
    assert!(!found.toml.contains('\u{1b}'), "{:?}", found.toml);
}

#[test]
fn a_name_is_used_once() {
    let text = "[default]\nSPA_SERVER a\n[a]\nSPA_SERVER b\n";
    let found = converted(text, &[KEY]).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        found
            .toml
            .contains("# [a]: another stanza has the same name"),
        "{}",
        found.toml
    );
    assert!(found.left.starts_with("1 converted"), "{}", found.left);
    assert!(read(&found.toml, "a").is_some());
}

#[test]
fn a_value_that_cannot_be_converted_is_an_error() {
    let private = "knock1-private:ERERERERERERERERERERERERERERERERERERERERERE";
    let home = "[home]\nSPA_SERVER h\n";
    for (name, text, key, expected) in [
        ("an empty file", "", KEY, "rc has no stanza with SPA_SERVER"),
        (
            "only defaults",
            "[default]\nUSE_HMAC Y\n",
            KEY,
            "rc has no stanza with SPA_SERVER",
        ),
        (
            "another stanza",
            home,
            &format!("work={KEY}"),
            "--spa work=…: rc has no stanza [work]; it has [home]",
        ),
        (
            "a private key",
            home,
            private,
            "--spa: this is a private key",
        ),
        ("no key", home, "home=", "--spa: not a public key"),
    ] {
        let error = converted(text, &[key]).err().unwrap_or_default();
        assert!(error.starts_with(expected), "{name}: {error}");
        assert!(!error.contains("ERER"), "{name}: {error}");
    }
}
