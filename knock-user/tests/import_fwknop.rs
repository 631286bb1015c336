//! Converting the configuration of fwknop's server.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{fs, os::unix::fs::MetadataExt as _};

use knock_sequence::Ports;
use knock_user::{
    config,
    tools::import_fwknop::{self, ImportOptions, ImportedAccess, import},
};

const KEY: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
const HMAC_KEY: &str = "SE1BQy1rZXktb2Ytc29tZS1sZW5ndGg=";

#[test]
fn a_stanza_becomes_a_user_with_doors() {
    let access = format!(
        "# a comment\nSOURCE 192.0.2.7/24, 203.0.113.1\nKEY_BASE64: {KEY}\nHMAC_KEY_BASE64: \
         {HMAC_KEY};\nOPEN_PORTS tcp/22,udp/1194\nRESTRICT_PORTS udp/53\nFW_ACCESS_TIMEOUT \
         60\nMAX_FW_TIMEOUT 600\nREQUIRE_USERNAME bob\nREQUIRE_SOURCE_ADDRESS Y\nACCESS_EXPIRE \
         02/01/2030\nDESTINATION 192.0.2.2\n{}",
        stanza("REQUIRE_USERNAME carol").replace(HMAC_KEY, "QW5vdGhlciBITUFDIGtleQ==")
    );
    let server = "PCAP_INTF eth1\nPCAP_FILTER udp port 4000;\nMAX_SPA_PACKET_AGE 120\nVERBOSE 1\n";
    let imported = import(&access, Some(server), &[]);
    let expected = "\
# Converted from the configuration of fwknop. The keys are in files beside this one.
interfaces = [\"eth1\"]

[spa]
ports = [\"udp/4000\"]

[[user]]
name = \"bob\"
fwknop = \"bob.fwknop\"
doors = [\"ssh\", \"udp-1194\"]
username = \"bob\"
source = [\"192.0.2.0/24\", \"203.0.113.1\"]
bind = true
until = 2030-01-31

[[user]]
name = \"carol\"
fwknop = \"carol.fwknop\"
doors = [\"ssh-2\"]
username = \"carol\"

[[door]]
name = \"ssh\"
open = [\"tcp/22\"]
open_for = \"60s\"
open_for_max = \"600s\"
target = \"192.0.2.2\"

[[door]]
name = \"udp-1194\"
open = [\"udp/1194\"]
open_for = \"60s\"
open_for_max = \"600s\"
target = \"192.0.2.2\"

[[door]]
name = \"ssh-2\"
open = [\"tcp/22\"]
open_for = \"30s\"
open_for_max = \"300s\"
";
    assert_eq!(imported.toml, expected);
    assert_eq!(imported.notes, []);
    let notes: Vec<_> = imported
        .server_notes
        .iter()
        .map(|note| note.render("", "f"))
        .collect();
    assert_eq!(notes, ["f:4: VERBOSE: not used"]);
    let checked = read(&imported).unwrap();
    assert_eq!(checked.settings.users.len(), 2);
}

#[test]
fn an_unsupported_setting_is_a_comment_with_the_reason() {
    let rows = [
        (
            "no HMAC",
            format!("SOURCE ANY\nKEY_BASE64 {KEY}\nOPEN_PORTS tcp/22\n"),
            "HMAC_KEY_BASE64 is missing",
        ),
        (
            "GPG",
            "SOURCE ANY\nGPG_REMOTE_ID ABCD1234\nGPG_DECRYPT_PW s3cret\nOPEN_PORTS tcp/22\n"
                .to_owned(),
            "encrypted with GnuPG",
        ),
        (
            "a key file",
            "SOURCE ANY\n%include_keys /etc/keys\nOPEN_PORTS tcp/22\n".to_owned(),
            "KEY_BASE64 is missing",
        ),
        (
            "a key to be replaced",
            stanza("").replace(HMAC_KEY, "__CHANGEME__"),
            "HMAC_KEY_BASE64: is not base64",
        ),
        (
            "no ports",
            stanza("").replace("OPEN_PORTS tcp/22\n", ""),
            "the client chooses the ports",
        ),
        (
            "NAT",
            stanza("FORCE_NAT 192.168.1.1 22"),
            "can't ask for address translation",
        ),
        (
            "commands",
            stanza("ENABLE_CMD_EXEC Y"),
            "can't bring commands",
        ),
        (
            "exclusions",
            stanza("").replace("SOURCE ANY", "SOURCE !10.0.0.0/8"),
            "an exclusion can't be written",
        ),
        (
            "another digest",
            stanza("HMAC_DIGEST_TYPE SHA512"),
            "only SHA256 is supported",
        ),
        (
            "legacy",
            stanza("ENCRYPTION_MODE legacy"),
            "only CBC is supported",
        ),
        (
            "ICMP",
            stanza("").replace("tcp/22", "icmp/0"),
            "is not tcp or udp with a port",
        ),
        (
            "a protocol without ports in RESTRICT_PORTS",
            stanza("RESTRICT_PORTS tcp/23, icmp/0"),
            "RESTRICT_PORTS: \"icmp/0\" is not tcp or udp with a port",
        ),
        (
            "a name in RESTRICT_PORTS",
            stanza("RESTRICT_PORTS ssh"),
            "RESTRICT_PORTS: \"ssh\" is not tcp or udp with a port",
        ),
        (
            "a range in RESTRICT_PORTS",
            stanza("RESTRICT_PORTS tcp/20-30"),
            "RESTRICT_PORTS: \"tcp/20-30\" is a range",
        ),
        (
            "a range in OPEN_PORTS",
            stanza("").replace("tcp/22", "tcp/20-30"),
            "OPEN_PORTS: \"tcp/20-30\" is a range",
        ),
        (
            "RESTRICT_PORTS without a value",
            stanza("RESTRICT_PORTS"),
            "RESTRICT_PORTS: no value",
        ),
        (
            "SOURCE without a value",
            stanza("").replace("SOURCE ANY", "SOURCE"),
            "SOURCE: no value",
        ),
        (
            "SOURCE with commas alone",
            stanza("").replace("SOURCE ANY", "SOURCE , ,"),
            "SOURCE: no address is named",
        ),
        (
            "an exclusion behind ANY",
            stanza("").replace("SOURCE ANY", "SOURCE ANY, !10.0.0.0/8"),
            "an exclusion can't be written",
        ),
        (
            "a name behind ANY",
            stanza("").replace("SOURCE ANY", "SOURCE ANY, example.org"),
            "\"example.org\" is not an address",
        ),
        (
            "more sources than a user may have",
            stanza("").replace(
                "SOURCE ANY",
                &format!("SOURCE {}", ["192.0.2.1"; 17].join(",")),
            ),
            "17 prefixes, and a user may have 16",
        ),
        (
            "a user name without a value",
            stanza("REQUIRE_USERNAME;"),
            "REQUIRE_USERNAME: no value",
        ),
        (
            "a shell",
            stanza("CMD_CYCLE_OPEN sh -c \"x\""),
            "the command needs a shell",
        ),
        (
            "a bad date",
            stanza("ACCESS_EXPIRE tomorrow"),
            "not a date of the form",
        ),
        (
            "a network",
            stanza("DESTINATION 192.0.2.0/24"),
            "a door is for one address",
        ),
    ];
    for (name, text, expected) in rows {
        let good = stanza("");
        let imported = import(&format!("{text}{good}"), None, &[]);
        assert!(
            imported.toml.contains("# Left out") && imported.toml.contains(expected),
            "{name}:\n{}",
            imported.toml
        );
        let notes = imported.notes.iter().map(|note| note.render("", "f"));
        let notes = notes.collect::<String>();
        assert!(notes.contains(expected), "{name}: {notes}");
        let checked = read(&imported).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(checked.settings.users.len(), 1, "{name}");
        for secret in [KEY, HMAC_KEY, "s3cret"] {
            assert!(!imported.toml.contains(secret), "{name}: {}", imported.toml);
            assert!(!notes.contains(secret), "{name}: {notes}");
        }
    }
}

/// The last line with a key counts, a value ends at its semicolon, and a word with the first letter of yes is yes.
#[test]
fn lines_are_read_as_fwknopd_reads_them() {
    let bound = |lines: &str| {
        import(&stanza(lines), None, &[])
            .toml
            .contains("bind = true\n")
    };
    for (name, lines, is_bound) in [
        ("yes", "REQUIRE_SOURCE_ADDRESS Y", true),
        (
            "with a colon and a semicolon",
            "REQUIRE_SOURCE_ADDRESS: Y;",
            true,
        ),
        ("a word", "REQUIRE_SOURCE_ADDRESS yes", true),
        (
            "a comment behind it",
            "REQUIRE_SOURCE_ADDRESS Y; # always",
            true,
        ),
        ("the short name", "REQUIRE_SOURCE Y", true),
        ("no", "REQUIRE_SOURCE_ADDRESS N", false),
        (
            "no, then yes",
            "REQUIRE_SOURCE_ADDRESS N\nREQUIRE_SOURCE_ADDRESS Y",
            true,
        ),
        (
            "yes, then no",
            "REQUIRE_SOURCE_ADDRESS Y\nREQUIRE_SOURCE_ADDRESS N",
            false,
        ),
        (
            "yes, then no by the short name",
            "REQUIRE_SOURCE_ADDRESS Y\nREQUIRE_SOURCE N",
            false,
        ),
    ] {
        assert_eq!(bound(lines), is_bound, "{name}");
    }
    let text = format!(
        "SOURCE: ANY;\nOPEN_PORTS: tcp/80\nOPEN_PORTS: tcp/22, tcp/443;\nKEY_BASE64: {KEY}; # Bob's\n\
         HMAC_KEY_BASE64: {HMAC_KEY};\nENABLE_CMD_EXEC: no;\nFORWARD_ALL: No\n"
    );
    let imported = import(&text, None, &[]);
    assert_eq!(
        notes(&imported),
        ["f:2: OPEN_PORTS: not used: line 3 takes its place"]
    );
    assert!(
        imported.toml.contains("doors = [\"ssh\", \"https\"]\n"),
        "{}",
        imported.toml
    );
    let keys = format!("KEY_BASE64 {KEY}\nHMAC_KEY_BASE64 {HMAC_KEY}\n");
    assert_eq!(imported.keys, [("user1.fwknop".to_owned(), keys)]);
    read(&imported).unwrap();
}

#[test]
fn commands_run_with_the_source() {
    let text =
        stanza("CMD_CYCLE_OPEN /bin/open $IP $PORT\nCMD_CYCLE_CLOSE NONE\nCMD_CYCLE_TIMER 30");
    let imported = import(&text, None, &[]);
    let line = "on_open = [\"/bin/open\", \"{source}\", \"{port}\"]\n";
    assert!(imported.toml.contains(line), "{}", imported.toml);
    assert!(!imported.toml.contains("on_close"), "{}", imported.toml);
    let notes: Vec<_> = imported
        .notes
        .iter()
        .map(|note| note.key.as_str())
        .collect();
    assert_eq!(notes, ["CMD_CYCLE_OPEN", "CMD_CYCLE_TIMER"]);
    read(&imported).unwrap();
}

/// fwknopd lets clients choose ports where a stanza names none; a door names them.
#[test]
fn stanzas_without_ports_open_those_of_an_option() {
    let stanza = |lines: &str| stanza(lines);
    let without = |lines: &str| stanza(lines).replace("OPEN_PORTS tcp/22\n", "");
    let ports = |text: &str| -> Vec<Ports> {
        let items = text.split(' ').filter(|item| !item.is_empty());
        items.map(|item| item.parse().unwrap()).collect()
    };
    for (name, text, open, expected) in [
        ("one", without(""), "tcp/22", Ok("tcp/22")),
        (
            "a range with a restricted port",
            without("RESTRICT_PORTS tcp/22,tcp/30,udp/25"),
            "tcp/20-30 udp/25",
            Ok("tcp/20-21 tcp/23-29"),
        ),
        (
            "a range that begins with restricted ports",
            without("RESTRICT_PORTS tcp/20,tcp/21"),
            "tcp/20-30",
            Ok("tcp/22-30"),
        ),
        (
            "several",
            without(""),
            "udp/53 tcp/22 tcp/22 tcp/8000-8010",
            Ok("tcp/22 tcp/8000-8010 udp/53"),
        ),
        ("a stanza with ports", stanza(""), "tcp/443", Ok("tcp/22")),
        (
            "a restricted one",
            without("RESTRICT_PORTS tcp/22"),
            "tcp/22 tcp/443",
            Ok("tcp/443"),
        ),
        (
            "none is left",
            without("RESTRICT_PORTS TCP/22"),
            "tcp/22",
            Err("it has all ports of --open"),
        ),
        (
            "none is named",
            without(""),
            "",
            Err("name them with --open, as in --open tcp/22"),
        ),
    ] {
        let imported = import(&text, None, &ports(open));
        match expected {
            Ok(expected) => {
                let checked = read(&imported).unwrap_or_else(|error| panic!("{name}: {error}"));
                let doors = checked.settings.doors.iter();
                let mut opened: Vec<_> = doors.flat_map(|door| door.opened().to_vec()).collect();
                opened.sort();
                let opened: Vec<_> = opened.iter().map(ToString::to_string).collect();
                assert_eq!(opened.join(" "), expected, "{name}");
            }
            Err(reason) => {
                let notes = imported.notes.iter().map(|note| note.render("", "f"));
                let notes = notes.collect::<String>();
                assert!(notes.contains(reason), "{name}: {notes}");
                assert_eq!(imported.keys, [], "{name}");
            }
        }
    }
}

#[test]
fn every_line_is_used_or_named() {
    let text = format!(
        "%include /etc/other.conf\n{}",
        stanza("GPG_REQUIRE_SIG N\nSOME_NEW_KEY 7\nENABLE_CMD_EXEC N\n%include_folder /etc/others")
    );
    let imported = import(&text, None, &[]);
    let expected = [
        "f:1: %include: other files are not read: convert each of them",
        "f:6: GPG_REQUIRE_SIG: not used: only packets with a symmetric key are accepted",
        "f:7: SOME_NEW_KEY: not used",
        "f:9: %include_folder: other files are not read: convert each of them",
    ];
    assert_eq!(notes(&imported), expected);
}

/// The last of several lines for the same thing counts, and the others are named.
#[test]
fn a_line_that_is_replaced_is_named() {
    const OTHER: &str = "QW5vdGhlciBrZXk=";
    for (name, lines, toml, key, expected) in [
        (
            "a restriction",
            "RESTRICT_PORTS tcp/22\nRESTRICT_PORTS tcp/23",
            "doors = [\"ssh\"]",
            KEY,
            "f:5: RESTRICT_PORTS: not used: line 6 takes its place",
        ),
        (
            "the key",
            &format!("KEY_BASE64 {OTHER}"),
            "doors = [\"ssh\"]",
            OTHER,
            "f:2: KEY_BASE64: not used: line 5 takes its place",
        ),
        (
            "the key, in another form",
            "KEY passphrase",
            "doors = [\"ssh\"]",
            "KEY passphrase",
            "f:2: KEY_BASE64: not used: line 5 takes its place",
        ),
        (
            "the HMAC key, in another form",
            "HMAC_KEY passphrase",
            "doors = [\"ssh\"]",
            "HMAC_KEY passphrase",
            "f:3: HMAC_KEY_BASE64: not used: line 5 takes its place",
        ),
        (
            "the last day",
            "ACCESS_EXPIRE_EPOCH 1900000000\nACCESS_EXPIRE 02/01/2030",
            "until = 2030-01-31",
            KEY,
            "f:5: ACCESS_EXPIRE_EPOCH: not used: line 6 takes its place",
        ),
    ] {
        let imported = import(&stanza(lines), None, &[]);
        assert_eq!(notes(&imported), [expected], "{name}");
        assert!(imported.toml.contains(toml), "{name}: {}", imported.toml);
        let keys: String = imported.keys.iter().map(|(_, text)| &**text).collect();
        assert!(keys.contains(key), "{name}: {keys}");
        read(&imported).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Lines in which a key is not where fwknop expects it are not shown either.
#[test]
fn no_form_of_a_key_is_printed() {
    for (name, lines) in [
        ("no blank", format!("KEY_BASE64:{KEY}")),
        ("an equals sign", format!("KEY_BASE64={KEY}")),
        ("equals signs and blanks", format!("KEY_BASE64 = {KEY}")),
        ("small letters", format!("key_base64 {KEY}")),
        ("a line that was broken", format!("KEY_BASE64\n{KEY}")),
        ("another key", format!("SPA_PASSPHRASE {KEY}")),
        ("a quotation mark", format!("\"KEY_BASE64\" \"{KEY}\"")),
    ] {
        let in_front = format!("{lines}\nSOURCE ANY\n");
        let left_out = format!("SOURCE ANY\n{lines}\nFORCE_NAT 192.0.2.1 22\n");
        let noted = stanza(&lines);
        for text in [in_front, left_out, noted] {
            let imported = import(&text, Some(&lines), &[]);
            let server = imported
                .server_notes
                .iter()
                .map(|note| note.render("", "s"));
            let printed =
                imported.toml.clone() + &notes(&imported).concat() + &server.collect::<String>();
            assert!(!printed.contains(KEY), "{name}: {printed}");
        }
    }
}

fn notes(imported: &ImportedAccess) -> Vec<String> {
    let notes = imported.notes.iter();
    notes.map(|note| note.render("", "f")).collect()
}

/// What is left of more stanzas than a host has users of fwknop for is a configuration without errors.
#[test]
fn sixteen_stanzas_are_converted() {
    let one = |number: u32| {
        let name = format!("REQUIRE_USERNAME u{number}");
        // Keys in base64, each another one.
        stanza(&name).replace(
            "HMAC_KEY_BASE64 SE1B",
            &format!("HMAC_KEY_BASE64 {number:04}"),
        )
    };
    for (count, left_out) in [(16, 0), (17, 1), (20, 4)] {
        let text: String = (1..=count).map(one).collect();
        let imported = import(&text, None, &[]);
        let checked = read(&imported).unwrap_or_else(|error| panic!("{count}: {error}"));
        assert_eq!(checked.settings.users.len(), 16, "{count}");
        assert_eq!(imported.keys.len(), 16, "{count}");
        let said = notes(&imported);
        let reason = ": SOURCE: a host has at most 16 users of fwknop, ";
        assert!(
            said.iter().all(|note| note.contains(reason)),
            "{count}: {said:?}"
        );
        assert_eq!(said.len(), left_out, "{count}: {said:?}");
    }
}

/// Packets of two stanzas can't be distinguished if they have one HMAC key and an address in common.
#[test]
fn stanzas_with_one_hmac_key_need_other_sources() {
    let of = |source: &str| stanza("").replace("SOURCE ANY", &format!("SOURCE {source}"));
    for (name, sources, left_out) in [
        ("all addresses", ["ANY", "ANY"], true),
        ("all, and some", ["ANY", "192.0.2.0/24"], true),
        ("one in the other", ["192.0.2.0/24", "192.0.2.7"], true),
        ("others", ["192.0.2.0/24", "198.51.100.0/24"], false),
    ] {
        let text = sources.map(of).concat();
        let imported = import(&text, None, &[]);
        let checked = read(&imported).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            checked.settings.users.len(),
            2 - usize::from(left_out),
            "{name}"
        );
        let expected = "f:6: SOURCE: the stanza on line 1 has the same HMAC key, ";
        let said = notes(&imported).concat();
        assert_eq!(said.starts_with(expected), left_out, "{name}: {said}");
    }
}

/// Ports of fwknopd.conf that no packet can be sent to, and files of other systems.
#[test]
fn files_are_read_in_the_forms_that_editors_write() {
    for (name, server, ports, noted) in [
        (
            "no port",
            "PCAP_FILTER udp port 0",
            "",
            "s:1: PCAP_FILTER: not used: ",
        ),
        (
            "no port of the server",
            "ENABLE_UDP_SERVER Y\nUDPSERV_PORT 0",
            "",
            "s:2: UDPSERV_PORT: not used: it is not a port",
        ),
        (
            "a mark",
            "\u{feff}PCAP_FILTER udp port 4000\r\n",
            "udp/4000",
            "",
        ),
    ] {
        let text = format!("\u{feff}{}", stanza("").replace('\n', "\r\n"));
        let imported = import(&text, Some(server), &[]);
        assert_eq!(imported.toml.contains("[spa]"), !ports.is_empty(), "{name}");
        assert!(imported.toml.contains(ports), "{name}: {}", imported.toml);
        let said = imported
            .server_notes
            .iter()
            .map(|note| note.render("", "s"));
        let said: String = said.collect();
        assert!(
            said.starts_with(noted) && said.is_empty() == noted.is_empty(),
            "{name}: {said}"
        );
        assert_eq!(imported.notes, [], "{name}");
        read(&imported).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_file_without_stanzas_is_an_error_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let access = directory.path().join("access.conf");
    for (name, text, expected) in [
        ("an empty file", "", "has no stanza to convert"),
        ("comments", "# SOURCE ANY\n", "has no stanza to convert"),
        ("lines in front", "KEY x\n", "has no stanza to convert"),
        (
            "stanzas without keys",
            "SOURCE ANY\n",
            "the notes give the reasons",
        ),
    ] {
        fs::write(&access, text).unwrap();
        let options = ImportOptions {
            access: access.clone(),
            server: None,
            keys: directory.path().to_owned(),
            open: Vec::new(),
        };
        let error = import_fwknop::run(&options, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn keys_go_to_files_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let access = directory.path().join("access.conf");
    fs::write(&access, stanza("REQUIRE_USERNAME bob")).unwrap();
    let options = ImportOptions {
        access,
        server: None,
        keys: directory.path().to_owned(),
        open: Vec::new(),
    };
    let run = || {
        let (mut out, mut stderr) = (Vec::new(), Vec::new());
        let done = import_fwknop::run(&options, &mut out, &mut stderr);
        let printed = String::from_utf8([out, stderr].concat()).unwrap();
        assert!(
            !printed.contains(KEY) && !printed.contains(HMAC_KEY),
            "{printed}"
        );
        done.map_err(|error| error.to_string())
    };
    run().unwrap();
    let file = directory.path().join("bob.fwknop");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        format!("KEY_BASE64 {KEY}\nHMAC_KEY_BASE64 {HMAC_KEY}\n")
    );
    run().unwrap();
    fs::write(&file, "KEY_BASE64 another\n").unwrap();
    let error = run().unwrap_err();
    assert!(error.contains("exists with other content"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "KEY_BASE64 another\n");
}

fn stanza(lines: &str) -> String {
    format!(
        "SOURCE ANY\nKEY_BASE64 {KEY}\nHMAC_KEY_BASE64 {HMAC_KEY}\nOPEN_PORTS tcp/22\n{lines}\n"
    )
}

/// Returns the configuration with its key files in a directory.
fn read(imported: &ImportedAccess) -> Result<config::Checked, String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in &imported.keys {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let path = directory.path().join("seq.toml");
    fs::write(&path, &imported.toml).unwrap();
    config::read(&path).map_err(|problems| format!("{problems}\n{}", imported.toml))
}
