//! A container engine that runs in the server's network namespace.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
};

use knock_tests::{
    binary::binaries,
    namespace::{Namespace, run, text},
    net::Net,
    process::Process,
    wait,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// The published port.
pub(super) const PORT: u16 = 8080;

/// The image of a service that sends back what it receives, and its command.
const SERVICE: &str = "localhost/service:latest";
const ECHO: &str = r#"CMD ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/cat"]"#;

/// The image of knock-user.
const KNOCK: &str = "localhost/knock:latest";
const ENTRYPOINT: &str = r#"ENTRYPOINT ["/usr/bin/knock-user"]"#;

/// The user without rights, and the ids that its containers may have.
const USER: u32 = 65_534;
const SUBORDINATE: &str = "nobody:100000:65536\n";

/// The program and its way of publishing ports.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// podman of root, by translation.
    Podman { ipv6: bool },
    /// podman of an ordinary user, by a process of that user.
    Rootless,
    /// dockerd, by translation, with or without its proxy for what is not translated.
    Docker { proxy: bool },
}

/// An engine, and what it keeps.
pub(super) struct Engine<'n> {
    kind: Kind,
    namespace: &'n Namespace,
    place: TempDir,
    daemon: Option<Process>,
}

impl<'n> Engine<'n> {
    /// Starts an engine that has the image.
    ///
    /// # Panics
    /// It refuses.
    #[track_caller]
    pub(super) fn start(net: &'n Net, kind: Kind) -> Self {
        mount();
        let mut engine = Self {
            kind,
            namespace: &net.server,
            place: tempfile::tempdir().unwrap(),
            daemon: None,
        };
        let place = engine.place.path().to_owned();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&place, open).unwrap();
        if matches!(kind, Kind::Rootless) {
            let home = engine.home();
            fs::create_dir_all(home.join("run")).unwrap();
            for path in [&home, &home.join("run")] {
                chown(path, Some(USER), None).unwrap();
            }
        }
        engine.serve();
        engine.import(SERVICE, ECHO, &[(Path::new("/bin/busybox"), "bin/busybox")]);
        let program = &binaries().user;
        engine.import(KNOCK, ENTRYPOINT, &[(program, "usr/bin/knock-user")]);
        if matches!(kind, Kind::Podman { ipv6: true }) {
            engine.run(&["network", "create", "--ipv6", "--disable-dns", "both"]);
        }
        engine
    }

    /// Starts a container that serves the published port.
    #[track_caller]
    pub(super) fn publish(&self) {
        let mut words = vec!["run", "--detach", "--name", "web", "--publish", "8080:80"];
        match self.kind {
            Kind::Podman { ipv6: true } => words.extend(["--network", "both"]),
            Kind::Rootless => words.push("--cgroups=disabled"),
            Kind::Podman { ipv6: false } | Kind::Docker { .. } => {}
        }
        words.push(SERVICE);
        self.run(&words);
    }

    /// Starts a container in the host's network that runs knock-user on the server's interface.
    #[track_caller]
    pub(super) fn run_knock_user(
        &self,
        config: &str,
        capabilities: &[&str],
        profile: Option<&str>,
    ) {
        let directory = self.place.path().join("etc");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("seq.toml"), config).unwrap();
        let volume = format!("{}:/etc/knock:ro", directory.display());
        let mut words = vec!["run", "--detach", "--name", "knock", "--network", "host"];
        words.extend(["--cap-drop", "all"]);
        for capability in capabilities {
            words.extend(["--cap-add", capability]);
        }
        words.extend(
            profile
                .iter()
                .flat_map(|profile| ["--security-opt", profile]),
        );
        for volume in ["/sys/fs/bpf:/sys/fs/bpf", &volume] {
            words.extend(["--volume", volume]);
        }
        words.extend([KNOCK, "--config", "/etc/knock/seq.toml", "--iface", "b0"]);
        self.run(&words);
    }

    /// Returns what knock-user has printed in its container.
    pub(super) fn logs(&self) -> String {
        let mut command = self.command(&["logs", "knock"]);
        text(&self.namespace.enter(|| command.output()).unwrap())
    }

    /// Restarts the container that serves.
    #[track_caller]
    pub(super) fn restart_container(&self) {
        // A process with number 1 ignores SIGTERM unless it handles it.
        self.run(&["restart", "--time", "0", "web"]);
    }

    /// Restarts the engine and then the container; returns whether the engine is a process of its own.
    #[track_caller]
    pub(super) fn restart(&mut self) -> bool {
        let Some(daemon) = self.daemon.take() else {
            return false;
        };
        daemon.stop(Signal::SIGTERM);
        self.serve();
        self.run(&["start", "web"]);
        true
    }

    /// Removes the containers and ends the engine.
    #[track_caller]
    pub(super) fn stop(mut self) {
        let all = self.run(&["ps", "--all", "--quiet"]);
        for container in all.split_whitespace() {
            // One that others depend on is gone with the first of them.
            match self.kind {
                Kind::Podman { .. } | Kind::Rootless => {
                    self.run(&["rm", "--force", "--ignore", "--depend", container])
                }
                Kind::Docker { .. } => self.run(&["rm", "--force", container]),
            };
        }
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(Signal::SIGTERM);
        }
    }

    /// Gives the images the names that the guide has.
    #[track_caller]
    pub(super) fn tag_for_guide(&self) {
        self.run(&["tag", SERVICE, "docker.io/library/nginx:latest"]);
        self.run(&["tag", KNOCK, "localhost/knock:0.1.0"]);
    }

    /// Makes an image of these programs, each with its place, and of the libraries that they load.
    #[track_caller]
    fn import(&self, name: &str, change: &str, programs: &[(&Path, &str)]) {
        let image = tempfile::tempdir_in(self.place.path()).unwrap();
        let copy = |from: &Path, to: &Path| {
            let to = image.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        for (program, place) in programs {
            copy(program, Path::new(place));
            // It fails for a static program.
            let libraries = Command::new("ldd").arg(program).output().unwrap();
            let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
            let words = libraries.split_whitespace();
            for library in words.filter(|word| word.starts_with('/')).map(Path::new) {
                copy(library, library.strip_prefix("/").unwrap());
            }
        }
        let busybox = image.path().join("bin/busybox");
        if busybox.exists() {
            symlink("busybox", image.path().join("bin/cat")).unwrap();
        }
        let archive = self.place.path().join("image.tar");
        let mut tar = Command::new("tar");
        run(tar
            .arg("-C")
            .arg(image.path())
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        let archive = archive.display().to_string();
        self.run(&["import", "--change", change, &archive, name]);
    }

    /// Runs commands of a shell that start podman without options, as an administrator does.
    #[track_caller]
    pub(super) fn shell(&self, commands: &str) -> (bool, String) {
        let place = self.place.path();
        let config = place.join("storage.conf");
        let (root, run) = (place.join("root"), place.join("run"));
        let text_of_config =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = {root:?}\nrunroot = {run:?}\n");
        fs::write(&config, text_of_config).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-euc", commands]).current_dir(place);
        shell.env("CONTAINERS_STORAGE_CONF", config);
        let output = self.namespace.enter(|| shell.stdin(Stdio::null()).output());
        let output = output.unwrap();
        (output.status.success(), text(&output))
    }

    fn serve(&mut self) {
        let Kind::Docker { proxy } = self.kind else {
            return;
        };
        let place = self.place.path();
        let at = |name: &str| place.join(name).display().to_string();
        let config = serde_json::json!({
            "data-root": at("root"),
            "exec-root": at("exec"),
            "pidfile": at("pid"),
            "hosts": [format!("unix://{}", at("socket"))],
            "storage-driver": "vfs",
            "userland-proxy": proxy,
            "ipv6": true,
            "experimental": true,
            "ip6tables": true,
            "fixed-cidr-v6": "fd00:17::/64",
        });
        fs::write(place.join("daemon.json"), config.to_string()).unwrap();
        let mut dockerd = Command::new("dockerd");
        dockerd.args(["--config-file", &at("daemon.json")]);
        let daemon = Process::start(self.namespace, dockerd.stdin(Stdio::null()));
        wait::until("dockerd", || {
            let mut command = self.command(&["version"]);
            self.namespace
                .enter(|| command.output())
                .unwrap()
                .status
                .success()
        });
        self.daemon = Some(daemon);
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let mut command = self.command(words);
        let output = self
            .namespace
            .enter(|| command.stdin(Stdio::null()).output());
        let output = output.unwrap();
        let printed = text(&output);
        assert!(
            output.status.success(),
            "{:?} {words:?}: {printed}",
            self.kind
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    fn command(&self, words: &[&str]) -> Command {
        let place = self.place.path();
        let mut command = match self.kind {
            Kind::Podman { .. } => {
                let mut podman = Command::new("podman");
                podman.arg("--root").arg(place.join("root"));
                podman.arg("--runroot").arg(place.join("run"));
                podman
                    .args(["--network-config-dir"])
                    .arg(place.join("networks"));
                podman
            }
            Kind::Rootless => {
                let mut setpriv = Command::new("setpriv");
                setpriv.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string()]);
                setpriv.args(["--clear-groups", "podman"]);
                setpriv.env("HOME", self.home());
                setpriv.env("XDG_RUNTIME_DIR", self.home().join("run"));
                setpriv
            }
            Kind::Docker { .. } => {
                // Another client may come first on the path.
                let mut docker = Command::new("/usr/bin/docker");
                let socket = place.join("socket");
                docker.args(["--host", &format!("unix://{}", socket.display())]);
                docker
            }
        };
        if !matches!(self.kind, Kind::Docker { .. }) {
            // A driver that needs no file system of its own; cgroups without systemd.
            command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        }
        command.args(words).current_dir(place);
        command
    }
}

/// Mounts what engines expect, in the mount namespace of this program: control groups, and files of
/// `/etc` and `/dev` that this program may change.
#[track_caller]
fn mount() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let groups = Path::new("/sys/fs/cgroup");
        let is_empty = fs::read_dir(groups).is_ok_and(|mut entries| entries.next().is_none());
        assert!(
            is_empty,
            "{} is mounted: run `cargo xtask containers`, which gives this program mounts of its own",
            groups.display()
        );
        mount_groups(groups);
        for name in ["etc", "etc/upper", "etc/work"] {
            fs::create_dir(Path::new("/run").join(name)).unwrap();
        }
        let layers = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
        run(Command::new("mount").args(["-t", "overlay", "-o", layers, "overlay", "/etc"]));
        for file in ["/etc/subuid", "/etc/subgid"] {
            fs::write(file, SUBORDINATE).unwrap();
        }
        let tun = Path::new("/dev/net/tun");
        let mode = fs::metadata(tun).map_or(0, |found| found.permissions().mode());
        if mode & 0o006 != 0o006 {
            run(Command::new("mknod").args(["--mode", "666", "/run/tun", "c", "10", "200"]));
            run(Command::new("mount").args(["--bind", "/run/tun"]).arg(tun));
        }
    });
}

/// Mounts each hierarchy that this host has, either those of version 1 or that of version 2: engines
/// refuse both at a time.
fn mount_groups(place: &Path) {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let controllers: Vec<_> = own
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|controllers| !controllers.is_empty())
        .collect();
    if controllers.iter().all(|name| name.starts_with("name=")) {
        run(Command::new("mount")
            .args(["-t", "cgroup2", "cgroup"])
            .arg(place));
        return;
    }
    run(Command::new("mount")
        .args(["-t", "tmpfs", "groups"])
        .arg(place));
    for controllers in controllers {
        let at = place.join(controllers.trim_start_matches("name="));
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        run(mount
            .args(["-t", "cgroup", "-o", controllers, "cgroup"])
            .arg(at));
    }
}
