//! The Debian package: installation, upgrade, removal and purge.

use std::{collections::BTreeSet, fs};

use knock_tests::{
    namespace::text,
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;

use crate::{
    EARLIER, VERSION,
    files::{assert_same, expected},
    system::{System, minimal, own_lines},
};

/// Files that only this format has.
const OF_THE_FORMAT: [&str; 3] = [
    "/usr/share/doc/knock/changelog.Debian.gz",
    "/usr/share/doc/knock/copyright",
    "/usr/share/lintian/overrides/knock",
];

/// Those that stay until a purge: the configuration, and marks that keep systemd from starting a unit that is gone.
const OF_A_REMOVED_ONE: [&str; 3] = [
    "/etc/knock/seq.toml",
    "/etc/systemd/system/knock-user.service",
    "/var/lib/systemd/deb-systemd-helper-masked/knock-user.service",
];

/// The files of the user that the package creates.
const OF_THE_USER: [&str; 1] = ["/etc/.pwd.lock"];

fn package(version: &str) -> String {
    format!("knock_{version}-1_amd64.deb")
}

/// Installs a version; returns what the package itself printed.
#[track_caller]
pub(crate) fn install(system: &System, version: &str) -> Vec<String> {
    install_file(system, &package(version))
}

/// Installs the file of any package.
#[track_caller]
pub(crate) fn install_file(system: &System, package: &str) -> Vec<String> {
    let path = system.bring(package);
    let printed = system.succeeds(&format!("dpkg --install {path}"));
    own_lines(&printed).into_iter().map(str::to_owned).collect()
}

/// Returns the files of the package, with the names that this format has for them.
fn files_of_the_package() -> BTreeSet<String> {
    let named = |path: String| {
        if path.contains("/share/man/") {
            format!("{path}.gz")
        } else {
            path.replace("/zsh/site-functions/", "/zsh/vendor-completions/")
        }
    };
    let mut files: BTreeSet<String> = expected().into_iter().map(named).collect();
    files.extend(OF_THE_FORMAT.map(str::to_owned));
    files
}

/// Returns the files that are there now and were not before.
pub(crate) fn added(system: &System, before: &BTreeSet<String>) -> BTreeSet<String> {
    let of_the_user = OF_THE_USER.map(str::to_owned);
    let after = system.files();
    let added = after.difference(before).filter(|path| {
        // adduser keeps the former versions of /etc/passwd and its relatives.
        let is_former = path.starts_with("/etc/") && path.ends_with('-');
        !is_former && !of_the_user.contains(path)
    });
    added.cloned().collect()
}

#[test]
fn an_installation_has_these_files_and_starts_nothing() {
    let system = System::new(&minimal());
    let before = system.files();
    assert_eq!(install(&system, VERSION), [""; 0]);
    assert_same(
        &added(&system, &before),
        &files_of_the_package(),
        "installed",
    );
    let listed = system.succeeds("dpkg-query --listfiles knock");
    let listed: BTreeSet<String> = listed
        .lines()
        .filter(|path| !system.path(path).is_dir())
        .map(str::to_owned)
        .collect();
    assert_same(&listed, &files_of_the_package(), "dpkg");
    for (path, rights) in [
        ("/etc/knock", "root:root 755"),
        ("/etc/knock/seq.toml", "root:knock 640"),
        ("/var/lib/knock", "knock:knock 700"),
        ("/usr/bin/knock-user", "root:root 755"),
        ("/usr/share/knock/crowdsec/knock-bouncer", "root:root 755"),
        (
            "/usr/lib/systemd/system/knock-user.service",
            "root:root 644",
        ),
    ] {
        assert_eq!(system.rights(path), rights, "{path}");
    }
    let user = system.succeeds("getent passwd knock");
    assert!(
        user.trim_end().ends_with(":/nonexistent:/usr/sbin/nologin"),
        "{user}"
    );
    for program in ["knock-user", "knock-client"] {
        let version = system.succeeds(&format!("{program} --version"));
        assert_eq!(version, format!("{program} {VERSION}\n"));
    }
    // Everything is commented out: a start would fail, and the message names what to edit.
    let checked = system.run("knock-user check --config /etc/knock/seq.toml");
    assert_eq!(checked.status.code(), Some(2), "{}", text(&checked));
    let unit = fs::read_to_string(system.path("/usr/lib/systemd/system/knock-user.service"));
    assert!(
        !unit.unwrap().contains("/usr/local"),
        "the unit names another directory"
    );
    assert!(
        system
            .run("ls /etc/systemd/system/*/knock-user.service")
            .status
            .code()
            != Some(0)
    );
}

#[test]
fn an_upgrade_keeps_what_the_administrator_made() {
    let system = System::new(&minimal());
    let before = system.files();
    install(&system, EARLIER);
    let earlier = added(&system, &before);
    system.succeeds(
        "echo '# mine' >>/etc/knock/seq.toml; chown root:root /etc/knock/seq.toml; \
         chmod 600 /etc/knock/seq.toml; echo used >/var/lib/knock/once; \
         echo secret >/etc/knock/host.key",
    );
    assert_eq!(install(&system, VERSION), [""; 0]);
    let version = system.succeeds("dpkg-query --show --showformat '${Version} ${Status}' knock");
    assert_eq!(version, format!("{VERSION}-1 install ok installed"));
    let config = fs::read_to_string(system.path("/etc/knock/seq.toml")).unwrap();
    assert!(config.ends_with("# mine\n"), "{config}");
    assert_eq!(system.rights("/etc/knock/seq.toml"), "root:root 600");
    let mut after = added(&system, &before);
    for own in ["/var/lib/knock/once", "/etc/knock/host.key"] {
        assert!(after.remove(own), "{own}");
    }
    assert_same(&after, &earlier, "upgraded");
}

/// Returns a network in which the installed program protects the server.
fn protect(system: &System, net: &Net) -> Process {
    protect_with(system, net, DOOR)
}

/// Protects it with another configuration.
fn protect_with(system: &System, net: &Net, config: &str) -> Process {
    let config = format!("interfaces = [\"{SERVER_LINK}\"]\n{config}");
    fs::write(system.path("/etc/knock/seq.toml"), config).unwrap();
    let mut command = system.command("exec knock-user --config /etc/knock/seq.toml --on-exit keep");
    let process = Process::start(&net.server, &mut command);
    let source = net.new_source(Family::V4);
    wait::until("protected", || {
        source
            .connect(SSH, std::time::Duration::from_millis(300))
            .is_err()
    });
    process
}

/// Runs a command of the system in the server's network.
fn run_there(system: &System, net: &Net, line: &str) -> (Option<i32>, String) {
    let mut command = system.command(line);
    let output = net.server.enter(|| command.output()).unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn an_upgrade_names_a_process_that_runs_the_previous_version() {
    net::test(|net| {
        let system = System::within(&minimal(), &net.server);
        let _server = Server::tcp(&net.server, &[SSH]);
        install(&system, EARLIER);
        let process = protect(&system, net);
        let path = system.bring(&package(VERSION));
        let (code, printed) = run_there(&system, net, &format!("dpkg --install {path}"));
        assert_eq!(code, Some(0), "{printed}");
        let lines = own_lines(&printed);
        let [line] = lines[..] else {
            panic!("{printed}");
        };
        let expected = "still runs the previous version: start it again; its ports stay closed in between only if \
                        it was started with --on-exit keep";
        assert!(line.starts_with("knock-user: process "), "{line}");
        assert!(line.ends_with(expected), "{line}");
        for family in Family::ALL {
            let source = net.new_source(family);
            source.finds_closed(SSH, "upgraded");
            source.knock(KNOCKS);
            source.finds(true, SSH, "upgraded");
        }
        process.stop(Signal::SIGTERM);
        for family in Family::ALL {
            net.new_source(family)
                .finds_closed(SSH, "ended with --on-exit keep");
        }
        run_there(&system, net, "knock-user detach");
    });
}

#[test]
fn a_removal_ends_the_protection_and_reports_it() {
    for (row, is_running, lists_interfaces) in [
        ("a process protects", true, true),
        ("pins protect", false, true),
        (
            "/sys lists the interfaces of another network namespace",
            false,
            false,
        ),
    ] {
        net::test(|net| {
            let system = match lists_interfaces {
                true => System::within(&minimal(), &net.server),
                false => System::new(&minimal()),
            };
            let before = system.files();
            let _server = Server::tcp(&net.server, &[SSH]);
            install(&system, VERSION);
            let process = protect(&system, net);
            let process = if is_running {
                Some(process)
            } else {
                process.stop(Signal::SIGTERM);
                None
            };
            for family in Family::ALL {
                net.new_source(family).finds_closed(SSH, row);
            }
            let (code, printed) = run_there(&system, net, "dpkg --remove knock");
            assert_eq!(code, Some(0), "{row}: {printed}");
            assert_eq!(
                own_lines(&printed),
                [format!("tcp/{SSH} is no longer protected on {SERVER_LINK}")],
                "{row}"
            );
            for family in Family::ALL {
                net.new_source(family).finds(true, SSH, row);
            }
            // Without anything to protect, a process that was started by hand ends by itself.
            drop(process.map(Process::wait));
            let left = BTreeSet::from(OF_A_REMOVED_ONE.map(str::to_owned));
            let files = added(&system, &before).into_iter();
            let files = files.filter(|path| !path.starts_with("/var/lib/knock/"));
            assert_same(&files.collect(), &left, row);
            assert!(system.path("/var/lib/knock").is_dir(), "{row}");

            let printed = system.succeeds("dpkg --purge knock");
            assert_eq!(own_lines(&printed), [""; 0], "{row}");
            assert_same(&added(&system, &before), &BTreeSet::new(), row);
            for directory in ["/etc/knock", "/var/lib/knock"] {
                assert!(!system.path(directory).exists(), "{row}: {directory}");
            }
        });
    }
}

#[test]
fn a_removal_ends_the_protection_in_another_network_namespace() {
    net::test(|net| {
        let system = System::new(&minimal());
        let _server = Server::tcp(&net.server, &[SSH]);
        install(&system, VERSION);
        let process = protect(&system, net);
        let printed = system.succeeds("dpkg --remove knock");
        let expected = format!(
            "tcp/{SSH} is no longer protected on {SERVER_LINK} in another network namespace"
        );
        assert_eq!(own_lines(&printed), [expected]);
        net.new_source(Family::V4).finds(true, SSH, "removed");
        drop(process.wait());
    });
}

#[test]
fn a_removal_fails_beside_a_process_that_may_protect_again() {
    net::test(|net| {
        let system = System::within(&minimal(), &net.server);
        install(&system, VERSION);
        // It starts, and waits for its configuration.
        system.succeeds("mkfifo /etc/knock/fifo");
        let mut command = system.command("exec knock-user --config /etc/knock/fifo");
        let process = Process::start(&net.server, &mut command);
        let exe = format!("/proc/{}/exe", process.id());
        wait::until("it runs", || {
            fs::read_link(&exe).is_ok_and(|exe| exe.ends_with("knock-user"))
        });
        let (code, printed) = run_there(&system, net, "dpkg --remove knock");
        assert_eq!(code, Some(1), "{printed}");
        let expected = format!(
            "knock-user: process {} still runs and may protect again: end it, then remove the package",
            process.id()
        );
        let has_line = printed.lines().any(|line| line == expected);
        assert!(has_line, "no {expected:?} in: {printed}");
        assert!(system.path("/usr/bin/knock-user").exists(), "{printed}");
        process.stop(Signal::SIGKILL);
        system.succeeds("rm /etc/knock/fifo");
        let (code, printed) = run_there(&system, net, "dpkg --remove knock");
        assert_eq!(code, Some(0), "{printed}");
        assert!(!system.path("/usr/bin/knock-user").exists(), "{printed}");
    });
}

#[test]
fn a_purge_removes_the_pins_of_used_packets_unless_another_program_uses_them() {
    const USER: &str = r#"
        [[user]]
        name = "alice"
        keys = ["knock1:D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA"]
        doors = ["ssh"]

        [[door]]
        name = "ssh"
        open = ["tcp/22"]
    "#;
    for (row, is_shared) in [("no other", false), ("another", true)] {
        net::test(|net| {
            let system = System::within(&minimal(), &net.server);
            let _server = Server::tcp(&net.server, &[SSH]);
            install(&system, VERSION);
            system.succeeds("knock-user keygen");
            protect_with(&system, net, USER).stop(Signal::SIGTERM);
            let pins = "/sys/fs/bpf/knock";
            let other = format!("{pins}/1/eth0@ns1");
            run_there(&system, net, "dpkg --remove knock");
            let stays = system.path(&format!("{pins}/spa/SPA_LAST"));
            assert!(stays.exists(), "{row}: a removal keeps what was used");
            if is_shared {
                system.succeeds(&format!("mkdir --parents {other}"));
            }
            system.succeeds("dpkg --purge knock");
            assert_eq!(stays.exists(), is_shared, "{row}");
            assert_eq!(system.path(pins).exists(), is_shared, "{row}");
            // A start before the next boot must not accept an earlier packet again.
            assert!(system.path("/run/knock/spa-boot.json").exists(), "{row}");
            system.succeeds(&format!("rm -rf {pins}"));
        });
    }
}

#[test]
fn a_purge_keeps_the_keys_of_the_administrator() {
    let system = System::new(&minimal());
    install(&system, VERSION);
    system.succeeds("echo secret >/etc/knock/host.key; echo used >/var/lib/knock/once");
    let printed = system.succeeds("dpkg --purge knock");
    assert_eq!(
        own_lines(&printed),
        ["knock-user: /etc/knock has files that are not from this package, and stays"]
    );
    assert!(system.path("/etc/knock/host.key").exists());
    assert!(!system.path("/etc/knock/seq.toml").exists());
    assert!(!system.path("/var/lib/knock").exists());
}
