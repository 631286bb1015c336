//! Users and their keys: the files of host keys, `keygen`, and what `check` prints.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use knock_common::{
    layout::Features,
    packet::Protocol,
    spa::{
        layout::{SpaDoorId, SpaKey, SpaKeyId, SpaMayKey},
        port::{Otherwise, SpaFormats},
    },
};
use knock_sequence::spa::{PrivateKey, PublicKey};
use knock_user::{
    compile::{Input, Tables, compile, stable_ids::StableIds},
    config,
    host::{Host, WallClock},
    model::settings::Sequences,
    tools::{
        check,
        keygen::{self, KeygenOptions},
    },
};
use nix::unistd::{Gid, Uid, chown};
use tempfile::TempDir;

const TEXT: &str = "
    [spa]
    ports = [\"udp/443\", \"udp/1194\"]
    otherwise = \"pass\"
    bind = true
    [[user]]
    name = \"alice\"
    keys = [{ key = \"KEY\", until = 2027-01-31 }]
    until = 2027-12-31
    doors = [\"wiki\", \"ssh\"]
    [[user]]
    name = \"bob\"
    keys = [\"OTHER\"]
    doors = [\"ssh\"]
    bind = false
    for_others = true
    [[door]]
    name = \"ssh\"
    open = [\"tcp/22\"]
    open_for_max = \"1h\"
    [[door]]
    name = \"wiki\"
    knock = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]
    open = [\"udp/1194\"]
";

#[test]
fn an_unusable_host_key_is_an_error_with_its_line() {
    let client = format!("\"{}\"", public(7));
    type Written<'a> = &'a [(&'a str, &'a str)];
    let rows: [(&str, &str, Written<'_>, &str); 9] = [
        ("one key", "", &[], ""),
        ("two keys", "old_key = \"old.key\"", &[], ""),
        (
            "no file",
            "old_key = \"none.key\"",
            &[],
            "seq.toml:3: old_key: there is no file none.key: name the file of the previous key, \
             or remove old_key",
        ),
        (
            "no file for the key",
            "old_key = \"host.key\"",
            &[("host.key", "")],
            "seq.toml:2: key: host.key: the file has no key: make one with keygen\nseq.toml:3: \
             old_key: host.key: the file has no key: make one with keygen",
        ),
        (
            "empty",
            "",
            &[("host.key", "")],
            "seq.toml:2: key: host.key: the file has no key: make one with keygen",
        ),
        (
            "a public key",
            "",
            &[("host.key", &public(1))],
            "seq.toml:2: key: host.key: this is a public key: write the private key, whose line \
             begins with \"knock1-private:\"",
        ),
        (
            "a directory",
            "old_key = \"/etc\"",
            &[],
            "seq.toml:3: old_key: /etc can't be read: it is not a regular file: a reload reads \
             the key again, so write it to a file",
        ),
        (
            "the same key twice",
            "old_key = \"old.key\"",
            &[("old.key", &private(1).line())],
            "seq.toml:3: old_key: it is the same key as in key: name the file of the previous \
             key, or remove old_key",
        ),
        (
            "a missing file and a bad one",
            "old_key = \"none.key\"",
            &[("host.key", "what is this")],
            "seq.toml:2: key: host.key: not a private key: it is \"knock1-private:\" and 43 \
             characters; make one with keygen\nseq.toml:3: old_key: there is no file none.key: \
             name the file of the previous key, or remove old_key",
        ),
    ];
    for (name, spa, written, expected) in rows {
        let files = ConfigFiles::new(spa, &client);
        for (file, text) in written {
            files.write(file, text);
        }
        assert_eq!(files.problems(), expected, "{name}");
    }
}

#[test]
fn a_key_that_no_client_can_have_is_an_error() {
    let weak = PublicKey::from_octets([0; 32]).to_string();
    let rows = [
        (
            "the host's",
            public(1),
            "this is the key of this host: write the public key of the client, which \
             `knock-client keygen` prints there",
        ),
        (
            "the host's old one",
            public(2),
            "this is the key of this host: write the public key of the client, which \
             `knock-client keygen` prints there",
        ),
        (
            "weak",
            weak,
            "the public key is weak, so everybody knows the secret shared with it: make another \
             key",
        ),
    ];
    for (name, key, expected) in rows {
        let keys = format!("\n\"{}\",\n\"{key}\"", public(7));
        let files = ConfigFiles::new("old_key = \"old.key\"", &keys);
        let expected = format!("seq.toml:8: keys: {expected}");
        assert_eq!(files.problems(), expected, "{name}");
    }
}

#[test]
fn fwknop_users_with_one_hmac_key_need_other_addresses() {
    const KEYS: &str = "KEY a passphrase\nHMAC_KEY an HMAC key\n";
    const SAME: &str = "seq.toml:13: fwknop: user \"bob\" has the same HMAC key on line 8, so \
                        packets can't be assigned: make keys for each user with `fwknop \
                        --key-gen`, list all doors at one user, or give both a source without \
                        common addresses";
    let lan = "source = [\"192.0.2.0/24\"]";
    for (name, second, bob, carol, expected) in [
        ("other keys", "KEY another\nHMAC_KEY another\n", "", "", ""),
        ("the same keys", KEYS, "", "", SAME),
        (
            "another passphrase",
            "KEY another\nHMAC_KEY an HMAC key\n",
            "",
            "",
            SAME,
        ),
        (
            "a longer key that is the same for HMAC",
            "KEY another\nHMAC_KEY_BASE64 YW4gSE1BQyBrZXkA\n",
            "",
            "",
            SAME,
        ),
        ("one has everywhere", KEYS, lan, "", SAME),
        (
            "common addresses",
            KEYS,
            lan,
            "source = [\"198.51.100.1\", \"192.0.2.7\"]",
            SAME,
        ),
        (
            "no common address",
            KEYS,
            lan,
            "source = [\"198.51.100.1\", \"192.0.3.0/24\"]",
            "",
        ),
    ] {
        let files = ConfigFiles::new("", &format!("\"{}\"", public(7)));
        files.write("bob.fwknop", KEYS);
        files.write("carol.fwknop", second);
        let text = format!(
            "[spa]\nkey = \"host.key\"\n[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n[[user]]\n\
             name = \"bob\"\nfwknop = \"bob.fwknop\"\ndoors = [\"ssh\"]\n{bob}\n[[user]]\n\
             name = \"carol\"\nfwknop = \"carol.fwknop\"\ndoors = [\"ssh\"]\n{carol}\n"
        );
        files.write("seq.toml", &text);
        assert_eq!(files.problems(), expected, "{name}");
    }
}

#[test]
fn a_host_has_at_most_sixteen_users_of_fwknop() {
    const REASON: &str = "seq.toml:4: user: 17 users with fwknop, each of which costs 1.2 µs for every forged packet, \
                          are too many: the limit is 16; use fewer";
    for (count, expected) in [(16, ""), (17, REASON)] {
        let files = ConfigFiles::new("", &format!("\"{}\"", public(7)));
        let mut text = "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n".to_owned();
        for number in 0..count {
            let name = format!("user-{number}.fwknop");
            files.write(&name, &format!("KEY a\nHMAC_KEY key {number}\n"));
            text += &format!(
                "[[user]]\nname = \"user-{number}\"\nfwknop = \"{name}\"\ndoors = [\"ssh\"]\n"
            );
        }
        files.write("seq.toml", &text);
        assert_eq!(files.problems(), expected, "{count}");
    }
}

#[test]
fn a_key_file_that_has_changed_is_found() {
    let files = ConfigFiles::new("old_key = \"old.key\"", &format!("\"{}\"", public(7)));
    let checked = config::read(&files.path("seq.toml")).unwrap();
    assert_eq!(checked.other_host_keys(), []);
    files.write("old.key", &private(3).line());
    fs::remove_file(files.path("host.key")).unwrap();
    let found = checked.other_host_keys();
    let changed: Vec<_> = found
        .iter()
        .map(|(path, reason)| (path.as_path(), reason.is_some()))
        .collect();
    let [host, old] = ["host.key", "old.key"].map(|name| files.path(name));
    assert_eq!(changed, [(host.as_path(), true), (old.as_path(), false)]);
}

#[test]
fn ends_are_reported_before_they_pass() {
    const SERVED: &str = "seq.toml:1: ports: this host listens on udp/62201, and only SPA packets \
                          are accepted there: use another port, or otherwise = \"pass\"";
    let keys = format!(
        "{{ key = \"{}\", until = 2027-01-31, note = \"old phone\" }}",
        public(7)
    );
    let files = ConfigFiles::new("", &keys);
    let rows: [(&str, &[&str]); 4] = [
        ("2027-01-17T23:59:59Z", &[SERVED]),
        (
            "2027-01-18T00:00:00Z",
            &[
                SERVED,
                "seq.toml:6: keys: the key (old phone) expires in 14 days, on 2027-01-31: change \
                 its until, or remove the key",
            ],
        ),
        (
            "2027-01-31T12:00:00Z",
            &[
                SERVED,
                "seq.toml:6: keys: the key (old phone) expires in less than a day, on 2027-01-31: \
                 change its until, or remove the key",
            ],
        ),
        (
            "2027-02-01T00:00:00Z",
            &[
                SERVED,
                "seq.toml:6: keys: the key (old phone) expired on 2027-01-31: change its until, \
                 or remove the key",
                "seq.toml:9: name: nobody can open the door: the keys of all its users have \
                 expired",
            ],
        ),
    ];
    for (now, expected) in rows {
        assert_eq!(warnings(&files, now), expected, "{now}");
    }
}

#[test]
fn a_key_file_that_others_can_read_is_reported() {
    let files = ConfigFiles::new("ports = [\"udp/500\"]", &format!("\"{}\"", public(7)));
    let is_root = Uid::effective().is_root();
    let own = Gid::effective();
    // Only root gives a file to another group; nobody has this one.
    let other = Gid::from_raw(4_000_000_001);
    for (mode, group, expected) in [
        (0o600, own, None),
        (0o640, Gid::from_raw(0), None),
        (
            0o640,
            other,
            Some("members of the group 4000000001 can read"),
        ),
        (
            0o660,
            other,
            Some("members of the group 4000000001 can read and replace"),
        ),
        (
            0o620,
            other,
            Some("members of the group 4000000001 can replace"),
        ),
        (0o644, own, Some("every user of this host can read")),
        (
            0o666,
            own,
            Some("every user of this host can read and replace"),
        ),
    ] {
        if group != own && !is_root {
            continue;
        }
        let key = files.path("host.key");
        chown(&key, None, Some(group)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let found = warnings(&files, "2027-01-01T00:00:00Z");
        let expected = expected.map(|who| {
            format!(
                "seq.toml:2: key: {who} the private key in host.key, and pose as this host: chmod \
                 600 host.key"
            )
        });
        assert_eq!(found, Vec::from_iter(expected), "{mode:o}, {group}");
    }
}

#[test]
fn check_prints_users_and_their_doors() {
    let keys = format!(
        "\"{}\", {{ key = \"{}\", until = 2027-01-31, note = \"old phone\" }}",
        public(7),
        public(8)
    );
    let files = ConfigFiles::new("ports = [\"udp/500\"]", &keys);
    let checked = config::read(&files.path("seq.toml")).unwrap();
    let mut out = Vec::new();
    check::check(&checked, &Host::default(), &mut out).unwrap();
    let expected = format!(
        "door ssh\n  users    alice\n  effect   opens tcp/22 for 30s\nuser alice\n  key      {}\n  \
         key      {} (old phone) until 2027-01-31\n  doors    ssh\nSPA packets: udp/500\n\
         host key: {}\nprotected: tcp/22\n",
        public(7),
        public(8),
        public(1)
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn keygen_writes_a_new_file_and_never_replaces_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.key");
    let public = keygen(&path, false).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let key: PrivateKey = text.trim_end().parse().unwrap();
    assert_eq!(format!("{}\n", key.public()), public);

    let error = keygen(&path, false).unwrap_err();
    let shown = path.display();
    let expected = format!(
        "{shown} exists, with the key whose public key is {}: it is not replaced, since clients \
         of the old key would no longer get in; name another file with --out",
        key.public()
    );
    assert_eq!(error, expected);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let other = directory.path().join("other.key");
    let printed = keygen(&other, true).unwrap();
    let made: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let text = fs::read_to_string(&other).unwrap();
    let key: PrivateKey = text.trim_end().parse().unwrap();
    assert_eq!(made["public_key"], key.public().to_string());
    assert_eq!(made["file"], other.display().to_string());

    let nowhere = directory.path().join("none/host.key");
    let error = keygen(&nowhere, false).unwrap_err();
    let shown = directory.path().join("none");
    let shown = shown.display();
    let expected = format!("there is no directory {shown}: create it with `mkdir -p {shown}`");
    assert_eq!(error, expected);
}

#[test]
fn users_become_keys_and_doors() {
    let tables = tables(&text(), &StableIds::default());
    assert!(tables.features.has(Features::SPA));
    assert_eq!(tables.config.spa_window_ns, 30_000_000_000);
    let spa = &tables.spa;
    assert_eq!(spa.gates.iter().filter(|gate| gate.is_used == 1).count(), 2);
    // The id of the vector, ae08b31542742c32, is little-endian.
    let id = SpaKeyId(u64::from_le_bytes(0xae08_b315_4274_2c32_u64.to_be_bytes()));
    let found: Vec<_> = spa.keys.iter().filter(|(name, _)| name.id == id).collect();
    let gates: Vec<_> = found.iter().map(|(name, _)| name.gate).collect();
    assert_eq!(gates, [0, 1]);
    let [(_, with_host), (_, with_old)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_ne!(with_host.mac, with_old.mac);
    // The earlier end of the key and the user: 2027-02-01T00:00:00Z.
    assert_eq!(with_host.not_after_ns, 1_801_440_000_000_000_000);
    assert_eq!((with_host.user, with_host.flags), (1, SpaKey::BIND));
    let (_, bobs) = spa.keys.iter().find(|(name, _)| name.id != id).unwrap();
    assert_eq!((bobs.user, bobs.flags), (2, SpaKey::FOR_OTHERS));
    assert_eq!(bobs.not_after_ns, u64::MAX);

    let door = |name: &str| SpaDoorId(knock_sequence::spa::DoorId::of_name(name).number());
    let may = |user, door| {
        let key = SpaMayKey::door(user, door);
        let found = spa.may.iter().find(|(found, _)| *found == key);
        found.map(|(_, may)| tables.names[usize::from(may.entry)].as_str())
    };
    for (name, user, id, expected) in [
        ("alice's first", 1, SpaDoorId::FIRST, Some("wiki")),
        ("alice's ssh", 1, door("ssh"), Some("ssh")),
        ("bob's first", 2, SpaDoorId::FIRST, Some("ssh")),
        ("bob's wiki", 2, door("wiki"), None),
        (
            "anybody's wiki",
            SpaMayKey::ANYBODY,
            door("wiki"),
            Some("wiki"),
        ),
        (
            "anybody's first",
            SpaMayKey::ANYBODY,
            SpaDoorId::FIRST,
            None,
        ),
    ] {
        assert_eq!(may(user, id), expected, "{name}");
    }
    let key = SpaMayKey::door(2, door("ssh"));
    let (_, ssh) = spa.may.iter().find(|(found, _)| *found == key).unwrap();
    assert_eq!(
        (ssh.open_for_ms, ssh.open_for_max_ms, ssh.port),
        (30_000, 3_600_000, 22)
    );

    let rule = |port| tables.ports[&(Protocol::Udp, port)].spa_port();
    assert_eq!(rule(443).otherwise, Otherwise::Pass);
    assert!(matches!(rule(1194).otherwise, Otherwise::Protected(_)));
    assert!(rule(443).formats.has(SpaFormats::KNOCK));
}

#[test]
fn a_user_keeps_its_number() {
    let before = tables(&text(), &StableIds::default()).numbers;
    let without_alice = text().replace("\"alice\"", "\"carol\"");
    let after = tables(&without_alice, &before).numbers;
    assert_eq!(
        before.users,
        [("alice".to_owned(), 1), ("bob".to_owned(), 2)].into()
    );
    assert_eq!(
        after.users,
        [
            ("alice".to_owned(), 1),
            ("bob".to_owned(), 2),
            ("carol".to_owned(), 3)
        ]
        .into(),
        "her grants still have the number"
    );
}

fn private(octet: u8) -> PrivateKey {
    PrivateKey::from_octets([octet; 32])
}

fn public(octet: u8) -> String {
    private(octet).public().to_string()
}

/// A directory with a configuration whose users have these keys, and a host key.
struct ConfigFiles {
    directory: TempDir,
}

impl ConfigFiles {
    fn new(spa: &str, keys: &str) -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let text = format!(
            "[spa]\nkey = \"host.key\"\n{spa}\n[[user]]\nname = \"alice\"\nkeys = [{keys}]\n\
             doors = [\"ssh\"]\n[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n"
        );
        files.write("seq.toml", &text);
        files.write("host.key", &private(1).line());
        files.write("old.key", &private(2).line());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Returns the problems of the configuration, without the names of directories.
    fn problems(&self) -> String {
        let problems = config::read(&self.path("seq.toml")).err();
        let text = problems.map_or_else(String::new, |problems| problems.to_string());
        text.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

/// Returns the warnings at a time, without the names of directories.
fn warnings(files: &ConfigFiles, now: &str) -> Vec<String> {
    let checked = config::read(&files.path("seq.toml")).unwrap();
    let now: jiff::Timestamp = now.parse().unwrap();
    let host = Host {
        wall_clock: Some(WallClock {
            unix_ms: u64::try_from(now.as_millisecond()).unwrap(),
        }),
        served: ["udp/62201".parse().unwrap()].into(),
        ..Host::default()
    };
    let warnings = checked.warnings(&host).into_iter();
    // Whether the clock of this machine is right is not part of the test.
    let warnings = warnings.filter(|warning| warning.key != "window");
    let texts = warnings.map(|warning| warning.render("", "seq.toml"));
    let directory = format!("{}/", files.directory.path().display());
    texts.map(|text| text.replace(&directory, "")).collect()
}

fn keygen(path: &Path, json: bool) -> Result<String, String> {
    let mut out = Vec::new();
    let options = KeygenOptions {
        out: path.to_owned(),
        json,
    };
    match keygen::run(&options, &mut out) {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the tables of a configuration with the keys of the format's test vector: host 0x11, client 0x22.
fn tables(text: &str, known: &StableIds) -> Tables {
    let checked = config::parse(text, "seq.toml").unwrap();
    let checked = checked
        .with_keys(vec![private(0x11), private(0x33)])
        .unwrap();
    let mut input = Input {
        host: &Host::default(),
        cell_key: [1; 12],
        known,
        draw: &mut || 0,
        sequences: &Sequences::new(),
        before: None,
    };
    compile(&checked.settings, &mut input).unwrap()
}

fn text() -> String {
    let text = TEXT.replace("KEY", &public(0x22));
    text.replace("OTHER", &public(0x44))
}
