//! A machine in QEMU: its start, a root shell on its console, and its ends.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use knock_tests::{
    namespace::{Namespace, run},
    wait,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a boot, or a command in the machine, may take: minutes, where other programs run beside the emulation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// The name of the state of a booted machine in its disk.
const BOOTED: &str = "booted";
/// The link of the machine's card.
pub(crate) const TAP: &str = "t0";

/// What `cargo xtask machine` has made.
#[derive(Debug, Deserialize)]
pub(crate) struct MachineFiles {
    place: PathBuf,
    disk: PathBuf,
    initramfs: PathBuf,
    /// By their series.
    kernels: BTreeMap<String, PathBuf>,
    qemu: Vec<String>,
    variables: BTreeMap<String, String>,
    /// The version of the package under test.
    pub(crate) version: String,
    /// The version from which it is upgraded.
    pub(crate) earlier: String,
}

/// Reads the description of the parts.
pub(crate) fn parts() -> &'static MachineFiles {
    static PARTS: LazyLock<MachineFiles> = LazyLock::new(|| {
        let path = env::var_os("KNOCK_MACHINE");
        let path = path.expect("run `cargo xtask machine`, which makes the machine first");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    });
    &PARTS
}

/// A network card, and the kernel whose driver it gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Card {
    /// Native on Debian 12's kernel.
    VirtioNet,
    /// Has no native mode.
    E1000e,
    /// Native since Linux 6.6.
    Vmxnet3,
}

impl Card {
    /// Returns the name of its device in QEMU.
    const fn device(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio-net-pci",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    const fn series(self) -> &'static str {
        match self {
            Self::VirtioNet => "6.1",
            Self::E1000e | Self::Vmxnet3 => "6.12",
        }
    }
}

/// Makes a disk that stores what differs from another one.
pub(crate) fn disk(name: &str, below: &Path) -> PathBuf {
    let path = parts().place.join(format!("{name}.qcow2"));
    let format = if below == parts().disk {
        "raw"
    } else {
        "qcow2"
    };
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]);
    run(create.args([below, &path]));
    path
}

/// Returns the disk of a Debian without the package.
pub(crate) fn pristine() -> &'static Path {
    &parts().disk
}

/// A running machine.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    shell: UnixStream,
    monitor: UnixStream,
    serial: PathBuf,
    commands: u32,
}

/// The end of a command.
#[derive(Debug)]
pub(crate) struct ShellResult {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its output.
    pub(crate) text: String,
}

impl Machine {
    /// Switches a machine on, in the namespace that has its tap.
    pub(crate) fn boot(namespace: &Namespace, card: Card, disk: &Path) -> Self {
        Self::start(namespace, card, disk, &[])
    }

    /// Starts a machine where `save` left it, on the disk that it had then, and sets its clock.
    pub(crate) fn restore(namespace: &Namespace, card: Card, disk: &Path) -> Self {
        let mut machine = Self::start(namespace, card, disk, &["-loadvm", BOOTED]);
        machine.is_up();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        machine.succeeds(&format!("date --set @{}", now.unwrap().as_secs_f64()));
        machine
    }

    fn start(namespace: &Namespace, card: Card, disk: &Path, more: &[&str]) -> Self {
        let MachineFiles {
            place,
            initramfs,
            kernels,
            qemu,
            variables,
            ..
        } = parts();
        let [shell, monitor, serial] = ["shell", "monitor", "serial"].map(|name| place.join(name));
        for path in [&shell, &monitor, &serial] {
            let _ = fs::remove_file(path);
        }
        let mut command = Command::new(&qemu[0]);
        command.args(&qemu[1..]).envs(variables);
        // One processor: with several, QEMU 7.2 continues with code that another one has changed.
        command.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "768"]);
        command.args(["-machine", "q35", "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&kernels[card.series()]);
        command.arg("-initrd").arg(initramfs);
        // On a busy host the check of the timer fails. After a panic QEMU ends, because of -no-reboot.
        let kernel = "root=/dev/vda console=ttyS0 net.ifnames=0 quiet mitigations=off no_timer_check panic=-1";
        command.args(["-append", kernel]);
        let drive = format!("file={},if=none,id=disk,format=qcow2", disk.display());
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
        let tap = format!("tap,id=net,ifname={TAP},script=no,downscript=no");
        let card = format!("{},netdev=net,mac=52:54:00:00:00:01", card.device());
        command.args(["-netdev", &tap, "-device", &card]);
        let socket = |id: &str, path: &Path| {
            format!("socket,id={id},path={},server=on,wait=off", path.display())
        };
        command.args(["-device", "virtio-serial-pci"]);
        command.args(["-chardev", &socket("shell", &shell)]);
        command.args(["-device", "virtconsole,chardev=shell"]);
        command.args(["-chardev", &socket("monitor", &monitor)]);
        command.args(["-mon", "chardev=monitor,mode=control"]);
        command
            .arg("-serial")
            .arg(format!("file:{}", serial.display()));
        command.args(["-device", "virtio-rng-pci"]).args(more);
        let errors = fs::File::create(place.join("qemu.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut qemu = namespace.enter(|| command.spawn()).unwrap();
        let mut connect = |path: &Path| {
            let found = wait::poll(wait::PATIENCE, || {
                let ended = qemu.try_wait().unwrap().is_some();
                let log = || fs::read_to_string(place.join("qemu.log")).unwrap();
                assert!(!ended, "QEMU ended: {}", log());
                UnixStream::connect(path).ok()
            });
            let stream = found.expect("QEMU makes its sockets");
            stream
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            stream
        };
        let (shell, monitor) = (connect(&shell), connect(&monitor));
        let mut machine = Self {
            qemu,
            shell,
            monitor,
            serial,
            commands: 0,
        };
        machine.answer();
        machine.ask(&json!({"execute": "qmp_capabilities"}));
        machine
    }

    /// Waits until the shell answers.
    pub(crate) fn is_up(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut answer = Vec::new();
        while Instant::now() < deadline {
            // A console that does not read yet drops it.
            self.shell.write_all(b"echo; echo 'I am' up\n").unwrap();
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until {
                self.read(&mut answer);
                if String::from_utf8_lossy(&answer).contains("\nI am up\n") {
                    return;
                }
            }
        }
        panic!(
            "no shell:\n{}\n{}",
            String::from_utf8_lossy(&answer),
            self.console()
        );
    }

    /// Waits until all services have started.
    pub(crate) fn is_booted(&mut self) {
        self.is_up();
        let state = self.run("systemctl is-system-running --wait");
        let failed = self.run("systemctl --failed --no-legend").text;
        assert_eq!((state.code, failed.as_str()), (0, ""), "{}", state.text);
    }

    /// Runs a command of bash.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str) -> ShellResult {
        self.commands += 1;
        let number = self.commands;
        // The quotes keep the line itself from looking like its answer.
        let line = format!(
            "echo begin''-{number}; {{ {command}\n}} </dev/null 2>&1; code=$?; echo; echo end''-{number}=$code\n"
        );
        self.shell.write_all(line.as_bytes()).unwrap();
        let (begin, end) = (format!("begin-{number}\n"), format!("\nend-{number}="));
        let deadline = Instant::now() + PATIENCE;
        let mut answer = Vec::new();
        while Instant::now() < deadline {
            self.read(&mut answer);
            let text = String::from_utf8_lossy(&answer).into_owned();
            // What the shell answer to `is_up` may come first.
            let text = text.split_once(&begin).map(|(_before, text)| text);
            if let Some((text, code)) = text.and_then(|text| text.split_once(&end))
                && let Some(code) = code.strip_suffix('\n')
            {
                return ShellResult {
                    code: code.parse().unwrap(),
                    text: text.trim_matches('\n').to_owned(),
                };
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        panic!("`{command}` does not end:\n{answer}\n{}", self.console());
    }

    /// Runs a command that must succeed; returns its output.
    #[track_caller]
    pub(crate) fn succeeds(&mut self, command: &str) -> String {
        let ShellResult { code, text } = self.run(command);
        assert_eq!(code, 0, "`{command}`:\n{text}");
        text
    }

    /// Waits until a command succeeds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, command: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ran = self.run(command);
            if ran.code == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: `{command}`: {}",
                ran.text
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Stores the state of the machine in its disk.
    pub(crate) fn save(&mut self) {
        let answer = self.human(&format!("savevm {BOOTED}"));
        assert_eq!(answer, "");
    }

    /// Ends the machine as a power cut does.
    pub(crate) fn cut_power(self) {
        drop(self);
    }

    /// Ends the machine by its own shutdown.
    pub(crate) fn shut_down(mut self) {
        self.shell.write_all(b"systemctl poweroff\n").unwrap();
        let ended = wait::poll(PATIENCE, || self.qemu.try_wait().unwrap());
        assert!(ended.is_some(), "no end: {}", self.console());
    }

    /// Returns a command of QEMU's monitor for people.
    fn human(&mut self, line: &str) -> String {
        let arguments = json!({"command-line": line});
        let answer = self.ask(&json!({"execute": "human-monitor-command", "arguments": arguments}));
        answer["return"].as_str().unwrap_or("no answer").to_owned()
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.monitor, "{question}").unwrap();
        loop {
            let answer = self.answer();
            if answer.get("event").is_none() {
                return answer;
            }
        }
    }

    fn answer(&mut self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut line = Vec::new();
        while Instant::now() < deadline {
            let mut byte = [0];
            match self.monitor.read(&mut byte) {
                Ok(0) => panic!("QEMU ended: {}", self.console()),
                Ok(_) if byte[0] == b'\n' => return serde_json::from_slice(&line).unwrap(),
                Ok(_) => line.push(byte[0]),
                Err(error) if is_late(&error) => {}
                Err(error) => panic!("QEMU's monitor: {error}"),
            }
        }
        panic!("QEMU's monitor does not answer");
    }

    fn read(&mut self, answer: &mut Vec<u8>) {
        let mut buffer = [0; 4096];
        match self.shell.read(&mut buffer) {
            Ok(0) => panic!("QEMU ended: {}", self.console()),
            Ok(count) => answer.extend(buffer[..count].iter().filter(|byte| **byte != b'\r')),
            Err(error) if is_late(&error) => {}
            Err(error) => panic!("the machine's console: {error}"),
        }
    }

    /// Returns what its serial line has answer.
    fn console(&self) -> String {
        fs::read_to_string(&self.serial).unwrap_or_default()
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
