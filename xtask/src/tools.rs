//! The programs that each command needs beyond cargo's, and the Debian packages that contain them.

use std::{fs, path::Path};

use anyhow::{Result, bail, ensure};

use crate::{package::Apt, shell};

/// A command of `cargo xtask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `demo`.
    Demo,
    /// `flood`.
    Flood,
    /// `bench`.
    Bench,
    /// `test`, with the tests that need root.
    Test,
    /// `vm`, the tests on other kernels.
    Vm,
    /// `machine`, the tests of a booted system.
    Machine,
    /// `packages`, the tests of packages.
    Packages,
    /// `containers`, the tests of container engines.
    Containers,
    /// `fleet`, the tests of knock-fleet.
    Fleet,
    /// `elsewhere`, the client on other systems.
    Elsewhere,
    /// `dist`.
    Dist,
    /// `pictures`.
    Pictures,
    /// `fresh`.
    Fresh,
    /// `fuzz`.
    Fuzz,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Demo,
        Self::Flood,
        Self::Bench,
        Self::Test,
        Self::Vm,
        Self::Machine,
        Self::Packages,
        Self::Containers,
        Self::Fleet,
        Self::Elsewhere,
        Self::Dist,
        Self::Pictures,
        Self::Fresh,
        Self::Fuzz,
    ];

    /// Returns its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Flood => "flood",
            Self::Bench => "bench",
            Self::Test => "test",
            Self::Vm => "vm",
            Self::Machine => "machine",
            Self::Packages => "packages",
            Self::Containers => "containers",
            Self::Fleet => "fleet",
            Self::Elsewhere => "elsewhere",
            Self::Dist => "dist",
            Self::Pictures => "pictures",
            Self::Fresh => "fresh",
            Self::Fuzz => "fuzz",
        }
    }
}

/// A program, the Debian package that has it, and what runs it.
struct Tool {
    program: &'static str,
    package: &'static str,
    verbs: &'static [Verb],
}

const fn tool(program: &'static str, package: &'static str, verbs: &'static [Verb]) -> Tool {
    Tool {
        program,
        package,
        verbs,
    }
}

/// The table. QEMU is not in it, because `vm/qemu.rs` finds it. Programs that every Debian system has (dpkg, coreutils,
/// a shell) are listed if a system without dpkg may lack them.
const TOOLS: [Tool; 71] = {
    use Verb::{
        Bench, Containers, Demo, Dist, Elsewhere, Fleet, Flood, Fresh, Fuzz, Machine, Packages,
        Pictures, Test, Vm,
    };
    [
        // Networks of tests, demo and bench.
        tool(
            "ip",
            "iproute2",
            &[
                Demo, Flood, Bench, Test, Vm, Machine, Packages, Containers, Fleet, Elsewhere,
                Pictures,
            ],
        ),
        tool("tc", "iproute2", &[Test]),
        tool(
            "ethtool",
            "ethtool",
            &[
                Demo, Flood, Bench, Test, Vm, Machine, Packages, Containers, Fleet, Elsewhere,
            ],
        ),
        tool("nft", "nftables", &[Bench, Test, Vm]),
        tool("iptables-nft", "iptables", &[Test]),
        tool("iptables-legacy", "iptables", &[Test]),
        tool("ip6tables-nft", "iptables", &[Test]),
        tool("ip6tables-legacy", "iptables", &[Test]),
        tool("nstat", "iproute2", &[Flood, Bench, Test, Vm]),
        tool("ss", "iproute2", &[Test]),
        // Foreign programs with which the tests communicate.
        tool("knockd", "knockd", &[Bench, Test]),
        tool("knock", "knockd", &[Test]),
        tool("nmap", "nmap", &[Test]),
        tool("hping3", "hping3", &[Test]),
        tool("nc", "netcat-openbsd", &[Test, Pictures]),
        tool("ssh", "openssh-client", &[Test, Machine]),
        tool("ssh-keygen", "openssh-client", &[Test, Machine]),
        tool("sshd", "openssh-server", &[Test]),
        tool("systemd-analyze", "systemd", &[Test]),
        tool("journalctl", "systemd", &[Test]),
        tool("fwknopd", "fwknop-server", &[Bench]),
        tool("fwknop", "fwknop-client", &[Bench, Test]),
        tool("xdp-filter", "xdp-tools", &[Bench, Test, Vm]),
        tool("wg", "wireguard-tools", &[Test, Vm]),
        tool("prometheus", "prometheus", &[Test]),
        tool("promtool", "prometheus", &[Test]),
        tool(
            "prometheus-node-exporter",
            "prometheus-node-exporter",
            &[Test],
        ),
        tool("tmux", "tmux", &[Test, Pictures]),
        tool("fail2ban-client", "fail2ban", &[Test]),
        // Processes with other rights, priorities, mounts, buffers.
        tool("setpriv", "util-linux", &[Test, Packages, Containers]),
        tool("chrt", "util-linux", &[Bench]),
        tool(
            "unshare",
            "util-linux",
            &[
                Bench, Test, Machine, Packages, Containers, Fleet, Elsewhere, Fresh,
            ],
        ),
        tool("nsenter", "util-linux", &[Test, Pictures]),
        tool("script", "bsdutils", &[Test, Pictures]),
        tool(
            "mount",
            "mount",
            &[
                Bench, Test, Machine, Packages, Containers, Fleet, Elsewhere, Fresh,
            ],
        ),
        tool("stdbuf", "coreutils", &[Test]),
        tool("zsh", "zsh", &[Test]),
        tool("fish", "fish", &[Test]),
        tool("bash", "bash", &[Test, Pictures]),
        tool("python3", "python3", &[Bench, Test]),
        // Virtual machines: unpack kernels and pack programs.
        tool("busybox", "busybox-static", &[Vm, Machine, Containers]),
        tool("dpkg-deb", "dpkg", &[Vm, Machine, Packages]),
        tool("ldd", "libc-bin", &[Vm, Machine, Packages, Containers]),
        tool(
            "timeout",
            "coreutils",
            &[Vm, Machine, Packages, Containers, Fleet, Elsewhere],
        ),
        // A pristine system.
        tool("mmdebstrap", "mmdebstrap", &[Machine, Packages, Fresh]),
        tool("git", "git", &[Dist, Machine, Packages, Fresh]),
        // Packages.
        tool("umount", "mount", &[Packages]),
        tool("rpm", "rpm", &[Packages]),
        tool("podman", "podman", &[Packages, Containers]),
        tool("yq", "yq", &[Packages]),
        // Archives.
        tool("tar", "tar", &[Dist, Machine, Packages, Containers]),
        tool("gzip", "gzip", &[Dist, Machine, Packages]),
        tool("zip", "zip", &[Dist]),
        // Container engines. That of an ordinary user needs two more programs.
        tool("dockerd", "docker.io", &[Containers]),
        tool("docker", "docker.io", &[Containers]),
        tool("iptables", "iptables", &[Containers]),
        tool("slirp4netns", "slirp4netns", &[Containers]),
        tool("newuidmap", "uidmap", &[Containers]),
        tool("mknod", "coreutils", &[Containers]),
        // A fleet: its engine, the certificates there, and the compiler of the engine's interface.
        tool("etcd", "etcd-server", &[Fleet]),
        tool("etcdctl", "etcd-client", &[Fleet]),
        tool("openssl", "openssl", &[Fleet]),
        tool(
            "protoc",
            "protobuf-compiler",
            &[Fleet, Dist, Machine, Packages],
        ),
        // The packages of knock-fleet.
        tool("cc", "gcc", &[Dist, Machine, Packages]),
        tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", &[Dist]),
        // The client for Windows.
        tool(
            "x86_64-w64-mingw32-gcc",
            "gcc-mingw-w64-x86-64-win32",
            &[Dist, Elsewhere],
        ),
        tool(
            "x86_64-w64-mingw32-dlltool",
            "binutils-mingw-w64-x86-64",
            &[Dist, Elsewhere],
        ),
        tool("chroot", "coreutils", &[Machine, Packages, Fresh]),
        // The disks of a machine.
        tool("mkfs.ext4", "e2fsprogs", &[Machine]),
        tool("qemu-img", "qemu-utils", &[Machine]),
        // libFuzzer is C++.
        tool("c++", "g++", &[Fuzz]),
    ]
};

/// Files that programs of the table need, and the Debian packages that contain them. Other distributions may have them
/// elsewhere.
const FILES: [(&str, &str, &str); 2] = [
    (
        "protoc",
        "/usr/include/google/protobuf/descriptor.proto",
        "libprotobuf-dev",
    ),
    (
        "aarch64-linux-gnu-gcc",
        "/usr/aarch64-linux-gnu/include/stdint.h",
        "libc6-dev-arm64-cross",
    ),
];

/// Peers that `bench` measures; it leaves out those that are unavailable.
const PEERS: [&str; 4] = ["knockd", "fwknopd", "fwknop", "xdp-filter"];

/// Daemons that a package's installation could start; the kernel keeps 15 characters of a name.
const DAEMONS: [&str; 9] = [
    "knockd",
    "fwknopd",
    "sshd",
    "prometheus",
    "prometheus-node",
    "fail2ban-server",
    "dockerd",
    "containerd",
    "etcd",
];

/// Finds or installs the programs that a command runs. One line reports what was found or installed.
///
/// # Errors
/// A program is missing and can't be installed: the error names the packages and the command that
/// installs them.
pub fn get(apt: &Apt<'_>, verb: Verb) -> Result<()> {
    let missing = programs(verb).filter(|tool| shell::find_program(tool.program).is_none());
    let peers = |tool: &&Tool| verb == Verb::Bench && PEERS.contains(&tool.program);
    let (peers, needed): (Vec<&Tool>, Vec<&Tool>) = missing.partition(peers);
    install(apt, verb, &needed)?;
    for (program, file, package) in FILES {
        let is_needed = programs(verb).any(|tool| tool.program == program);
        if is_needed && Apt::is_here() && !Path::new(file).is_file() {
            apt.install(&[package], &format!("{program} needs its files"))?;
        }
    }
    if let Err(why) = install(apt, verb, &peers) {
        println!("tools for {}: left out of it: {why:#}", verb.name());
    }
    if needed.is_empty() && peers.is_empty() {
        let found: Vec<_> = programs(verb).map(|tool| tool.program).collect();
        if !found.is_empty() {
            println!("tools for {}: {} found", verb.name(), found.join(", "));
        }
    }
    Ok(())
}

fn install(apt: &Apt<'_>, verb: Verb, missing: &[&Tool]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let before = DAEMONS.map(processes);
    let why = format!("`cargo xtask {}` runs programs of them", verb.name());
    apt.install(&packages, &why)?;
    for (daemon, before) in DAEMONS.into_iter().zip(before) {
        if processes(daemon) > before {
            bail!(
                "installing {daemon} started it: stop it with `systemctl disable --now {daemon}`"
            );
        }
    }
    let still: Vec<_> = missing
        .iter()
        .filter(|tool| shell::find_program(tool.program).is_none())
        .map(|tool| format!("{} (package {})", tool.program, tool.package))
        .collect();
    ensure!(
        still.is_empty(),
        "installed {}, but these programs are not there: {}",
        packages.join(", "),
        still.join(", ")
    );
    println!(
        "tools for {}: installed {}",
        verb.name(),
        packages.join(", ")
    );
    if packages.contains(&"openssh-server") {
        println!(
            "tools for {}: openssh-server would start with the next boot; `systemctl disable ssh` \
             if nobody shall log in",
            verb.name()
        );
    }
    Ok(())
}

fn programs(verb: Verb) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| tool.verbs.contains(&verb))
}

fn processes(named: &str) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("comm")).ok())
        .filter(|name| name.trim_end() == named)
        .count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Tests with a verb of their own.
    const OWN_VERBS: [(Verb, &str); 6] = [
        (Verb::Machine, "tests/tests/machine"),
        (Verb::Packages, "tests/tests/packages"),
        (Verb::Containers, "tests/tests/containers"),
        (Verb::Fleet, "knock-fleet/tests/etcd"),
        (Verb::Fleet, "tests/tests/fleet"),
        (Verb::Elsewhere, "tests/tests/wine.rs"),
    ];

    /// Calls that start a program; all but the first may run it in another system.
    const CALLS: [&str; 3] = ["Command::new(\"", "try_run(\"", ".run(\""];

    /// Returns the literal names in calls that start a program, such as `Command::new("ip")`, in a file or a directory.
    fn started(path: &Path, calls: &[&str], is_read: &dyn Fn(&Path) -> bool) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if !is_read(path) {
            return found;
        }
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                found.extend(started(&entry.unwrap().path(), calls, is_read));
            }
        } else if path.extension().is_some_and(|is| is == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let text: String = text.split_whitespace().collect();
            for call in calls {
                let rest = text.split(call).skip(1);
                found.extend(rest.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
        found
    }

    #[test]
    fn every_program_that_tests_and_bench_start_is_in_the_table() {
        let workspace = shell::workspace();
        let is_other = |path: &Path| {
            let mut own = OWN_VERBS.iter();
            own.any(|(_verb, place)| path == workspace.join(place))
        };
        let mut all = Vec::new();
        for (verb, directories) in [
            (Verb::Test, ["tests/src", "tests/tests"]),
            (Verb::Bench, ["bench/src", "tests/src"]),
        ] {
            let found: BTreeSet<_> = directories
                .into_iter()
                .flat_map(|place| started(&workspace.join(place), &CALLS, &|path| !is_other(path)))
                .collect();
            assert!(found.contains("ip"), "{found:?}");
            all.push((verb, found));
        }
        for (verb, place) in OWN_VERBS {
            let found = started(&workspace.join(place), &CALLS[..1], &|_| true);
            assert!(!found.is_empty(), "{place}");
            all.push((verb, found));
        }
        for (verb, found) in all {
            for program in found {
                let name = program.rsplit('/').next().unwrap();
                let is_known = name == "sh" || programs(verb).any(|tool| tool.program == name);
                assert!(is_known, "{}: `{program}` is not in the table", verb.name());
            }
        }
    }

    #[test]
    fn no_program_is_in_the_table_twice() {
        let names: BTreeSet<_> = TOOLS.iter().map(|tool| tool.program).collect();
        assert_eq!(names.len(), TOOLS.len());
        for tool in &TOOLS {
            assert!(!tool.verbs.is_empty(), "{}", tool.program);
        }
    }

    /// Every command that makes networks runs the programs of `demo`, which `setup` installs.
    #[test]
    fn networks_need_the_same_programs() {
        for demo in programs(Verb::Demo) {
            for verb in [
                Verb::Flood,
                Verb::Bench,
                Verb::Test,
                Verb::Vm,
                Verb::Machine,
                Verb::Packages,
                Verb::Containers,
                Verb::Fleet,
                Verb::Elsewhere,
            ] {
                let has = programs(verb).any(|tool| tool.program == demo.program);
                assert!(has, "{} lacks {}", verb.name(), demo.program);
            }
        }
    }
}
