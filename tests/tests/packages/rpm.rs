//! The rpm package, installed on a Debian with systemd, whose user and directory it creates.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use knock_tests::namespace::{run, text};

use crate::{
    EARLIER, VERSION,
    files::{assert_same, expected},
    system::{System, packages, with_systemd},
};

fn package(version: &str) -> PathBuf {
    file("knock", version)
}

/// Returns the file of a package of either name.
pub(crate) fn file(name: &str, version: &str) -> PathBuf {
    packages().join(format!("{name}-{version}-1.x86_64.rpm"))
}

fn query(question: &str) -> String {
    query_file(question, &package(VERSION))
}

/// Asks rpm about the file of a package.
pub(crate) fn query_file(question: &str, file: &Path) -> String {
    let mut rpm = Command::new("rpm");
    run(rpm.args(["--query", question, "--package"]).arg(file))
}

/// Returns what a package of this system requires, without what rpm itself provides.
pub(crate) fn requires(file: &Path) -> BTreeSet<String> {
    let requires = query_file("--requires", file);
    let foreign = |line: &&str| !line.starts_with("rpmlib(") && !line.starts_with("config(");
    let requires = requires.lines().filter(foreign);
    requires.map(|line| line.trim_end().to_owned()).collect()
}

/// Runs rpm on another system: its own database there is made at the first use.
fn rpm(system: &System, words: &[&str], file: Option<&Path>) -> Output {
    // The systemd that it requires is there, but not as an rpm.
    let words: Vec<&str> = match file {
        Some(_) => words.iter().copied().chain(["--nodeps"]).collect(),
        None => words.to_vec(),
    };
    rpm_with(system, &words, file)
}

/// Runs rpm on another system, with its dependencies.
pub(crate) fn rpm_with(system: &System, words: &[&str], file: Option<&Path>) -> Output {
    let mut rpm = Command::new("rpm");
    rpm.arg("--root").arg(system.root()).args(words).args(file);
    rpm.output().unwrap()
}

#[track_caller]
pub(crate) fn succeeds(output: &Output, row: &str) -> String {
    assert!(output.status.success(), "{row}: {}", text(output));
    text(output)
}

#[test]
fn it_has_these_files() {
    let listed = query("--list").lines().map(str::to_owned).collect();
    assert_same(&listed, &expected(), "rpm");
    assert_eq!(query("--configfiles"), "/etc/knock/seq.toml\n");
    let expected = ["/bin/sh", "systemd"].map(str::to_owned);
    assert_eq!(requires(&package(VERSION)), BTreeSet::from(expected));
}

#[test]
fn its_scripts_are_those_of_the_repository() {
    let scripts = query("--scripts");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/rpm");
    let mut left = scripts.clone();
    for (title, file) in [
        ("postinstall scriptlet", "post.sh"),
        ("preuninstall scriptlet", "preun.sh"),
    ] {
        let script = fs::read_to_string(directory.join(file)).unwrap();
        assert!(scripts.contains(script.trim_end()), "{file}: {scripts}");
        let is_title = scripts.lines().any(|line| line.starts_with(title));
        assert!(is_title, "{title}: {scripts}");
        left = left.replace(script.trim_end(), "");
    }
    let left: Vec<_> = left
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(left.len(), 2, "other scripts: {left:?}");
}

#[test]
fn it_installs_upgrades_and_removes() {
    let system = System::new(&with_systemd());
    let before = system.files();
    let printed = rpm(&system, &["--install"], Some(&package(EARLIER)));
    succeeds(&printed, "install");
    for (path, rights) in [
        ("/etc/knock/seq.toml", "root:knock 640"),
        ("/var/lib/knock", "knock:knock 700"),
        ("/usr/bin/knock-user", "root:root 755"),
        ("/usr/share/knock/crowdsec/knock-bouncer", "root:root 755"),
    ] {
        assert_eq!(system.rights(path), rights, "{path}");
    }
    let enabled = system.run("systemctl is-enabled knock-user");
    assert_eq!(text(&enabled).trim(), "disabled");

    system.succeeds("echo '# mine' >>/etc/knock/seq.toml; echo used >/var/lib/knock/once");
    let printed = rpm(&system, &["--upgrade"], Some(&package(VERSION)));
    succeeds(&printed, "upgrade");
    let version = rpm(&system, &["--query", "knock"], None);
    assert_eq!(
        succeeds(&version, "query"),
        format!("knock-{VERSION}-1.x86_64\n")
    );
    let config = fs::read_to_string(system.path("/etc/knock/seq.toml")).unwrap();
    assert!(config.ends_with("# mine\n"), "{config}");

    let printed = rpm(&system, &["--erase", "knock"], None);
    succeeds(&printed, "removal");
    let after = system.files();
    let left: BTreeSet<String> = after
        .difference(&before)
        // sysusers keeps the former versions of /etc/passwd and its relatives.
        .filter(|path| !(path.starts_with("/etc/") && path.ends_with('-')))
        .filter(|path| !path.starts_with("/etc/.pwd"))
        .cloned()
        .collect();
    let expected = ["/etc/knock/seq.toml.rpmsave", "/var/lib/knock/once"].map(str::to_owned);
    assert_same(&left, &BTreeSet::from(expected), "removed");
}
