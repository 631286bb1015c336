//! The packages of knock-fleet, beside `knock`: a program and its page, which touch nothing else.

use std::{collections::BTreeSet, process::Output};

use knock_tests::namespace::text;

use crate::{
    EARLIER, VERSION,
    archives::{assert_static, run_there, unpacked},
    deb::{added, install, install_file},
    files::{assert_same, below},
    rpm::{file, query_file, requires, rpm_with, succeeds},
    system::{System, minimal, own_lines, with_systemd},
};

const NAME: &str = "knock-fleet";

/// What the program prints where an administrator starts it.
const BY_HAND: &str = "knock-fleet: error: standard input is no connected socket; a daemon starts this program, \
                       which is not started by hand\n";

/// What `knock` installs and its user: none of it belongs to the other package.
const OF_KNOCK: &str = "id knock; stat --format '%n %U:%G %a %s %Y' /etc/knock/seq.toml /var/lib/knock /usr/bin/knock-user \
                        /usr/lib/systemd/system/knock-user.service; find /etc -path '*systemd*'";

fn package(version: &str) -> String {
    format!("{NAME}_{version}-1_amd64.deb")
}

fn set(files: &[&str]) -> BTreeSet<String> {
    files.iter().map(|file| (*file).to_owned()).collect()
}

/// Asserts that the program starts, and says what it needs.
#[track_caller]
fn runs(output: &Output, version: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    assert_eq!(text(output), BY_HAND);
    assert_eq!(text(version), format!("{NAME} {VERSION}\n"));
}

#[test]
fn the_deb_installs_upgrades_and_removes_beside_knock() {
    let system = System::new(&minimal());
    let path = system.bring(&package(VERSION));
    let alone = system.run(&format!("dpkg --install {path}"));
    assert_eq!(alone.status.code(), Some(1), "{}", text(&alone));
    let expected = "knock-fleet depends on knock";
    assert!(text(&alone).contains(expected), "{}", text(&alone));
    system.succeeds(&format!("dpkg --purge {NAME}"));

    install(&system, VERSION);
    let before = system.files();
    let knock = system.succeeds(OF_KNOCK);
    assert_eq!(install_file(&system, &package(EARLIER)), [""; 0]);
    assert_eq!(install_file(&system, &package(VERSION)), [""; 0]);
    let files = set(&[
        "/usr/bin/knock-fleet",
        "/usr/share/doc/knock-fleet/changelog.Debian.gz",
        "/usr/share/doc/knock-fleet/copyright",
        "/usr/share/man/man8/knock-fleet.8.gz",
    ]);
    assert_same(&added(&system, &before), &files, "installed");
    assert_eq!(system.rights("/usr/bin/knock-fleet"), "root:root 755");
    let [run, version] = ["", "--version"].map(|word| system.run(&format!("{NAME} {word}")));
    runs(&run, &version);
    let page = system.succeeds("zcat /usr/share/man/man8/knock-fleet.8.gz");
    assert!(page.contains("Connect this host to the engine"), "{page}");
    assert_eq!(system.succeeds(OF_KNOCK), knock);

    // It can't run without the daemon, which therefore stays.
    let refused = system.run("dpkg --remove knock");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains(expected), "{}", text(&refused));
    let printed = system.succeeds(&format!("dpkg --remove {NAME}"));
    assert_eq!(own_lines(&printed), [""; 0]);
    assert_same(&added(&system, &before), &BTreeSet::new(), "removed");
    assert_eq!(system.succeeds(OF_KNOCK), knock);
}

#[test]
fn the_rpm_installs_upgrades_and_removes_beside_knock() {
    let new = file(NAME, VERSION);
    let files = set(&[
        "/usr/bin/knock-fleet",
        "/usr/share/doc/knock-fleet/LICENSE-APACHE",
        "/usr/share/doc/knock-fleet/LICENSE-MIT",
        "/usr/share/man/man8/knock-fleet.8",
    ]);
    let listed = query_file("--list", &new);
    assert_same(&listed.lines().map(str::to_owned).collect(), &files, "rpm");
    assert_eq!(query_file("--scripts", &new), "");
    assert_eq!(requires(&new), set(&["knock"]));

    let system = System::new(&with_systemd());
    let alone = rpm_with(&system, &["--install"], Some(&new));
    assert!(!alone.status.success(), "{}", text(&alone));
    let expected = "knock is needed by knock-fleet";
    assert!(text(&alone).contains(expected), "{}", text(&alone));
    let knock = rpm_with(
        &system,
        &["--install", "--nodeps"],
        Some(&file("knock", VERSION)),
    );
    succeeds(&knock, "knock");
    let before = system.files();
    let knock = system.succeeds(OF_KNOCK);
    let earlier = rpm_with(&system, &["--install"], Some(&file(NAME, EARLIER)));
    succeeds(&earlier, "install");
    succeeds(&rpm_with(&system, &["--upgrade"], Some(&new)), "upgrade");
    let there = rpm_with(&system, &["--query", NAME], None);
    assert_eq!(
        succeeds(&there, "query"),
        format!("{NAME}-{VERSION}-1.x86_64\n")
    );
    assert_same(&added(&system, &before), &files, "installed");
    let [run, version] = ["", "--version"].map(|word| system.run(&format!("{NAME} {word}")));
    runs(&run, &version);
    let removed = rpm_with(&system, &["--erase", NAME], None);
    succeeds(&removed, "removal");
    assert_same(&added(&system, &before), &BTreeSet::new(), "removed");
    assert_eq!(system.succeeds(OF_KNOCK), knock);
}

#[test]
fn the_archive_runs_on_a_bare_root() {
    let root = unpacked(NAME);
    let [run, version] = [&[][..], &["--version"]].map(|words| run_there(root.path(), NAME, words));
    runs(&run, &version);
    let program = root.path().join("usr/local/bin").join(NAME);
    assert_static(&program);
    let found = below(root.path(), "/usr/local").into_iter().collect();
    let files = set(&[
        "/usr/local/bin/knock-fleet",
        "/usr/local/share/doc/knock-fleet/LICENSE-APACHE",
        "/usr/local/share/doc/knock-fleet/LICENSE-MIT",
        "/usr/local/share/man/man8/knock-fleet.8",
    ]);
    assert_same(&found, &files, "archive");
}
