//! A network namespace, made by `ip netns` and removed when it is dropped.

use std::{
    fs::File,
    io::{self, Write as _},
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use knock_user::kernel::instance::Instance;
use nix::{
    sched::{CloneFlags, setns},
    sys::signal,
    unistd::Pid,
};

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "knock-";
/// In the directory of [`Namespace::state`].
pub const STATE_FILE: &str = "used-sequences.json";
/// The mark that users may have used packets in this boot.
pub const SPA_MARK: &str = "/run/knock/spa-boot.json";

/// A network namespace of this process.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes the namespace `knock-ROLE-PID-N`.
    ///
    /// # Panics
    /// `ip` refuses.
    #[track_caller]
    pub fn new(role: &str) -> Self {
        // Another test may have lost its record, which is none of this namespace.
        let _removed = std::fs::remove_file(SPA_MARK);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{role}-{}-{next}", process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let path = Path::new(DIRECTORY).join(&name);
        let file =
            File::open(&path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
        Self { name, file }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does some work inside, in a thread of its own: sockets made there stay there, and so do the
    /// processes that are started there.
    ///
    /// This is not `ip netns exec`, which mounts another `/sys`: BPF pins would not be seen.
    ///
    /// # Panics
    /// When `work` does, or when the namespace can't be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            if let Err(error) = setns(&self.file, CloneFlags::CLONE_NEWNET) {
                panic!("entering {}: {error}", self.name);
            }
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Runs `ip` with these words, split at blanks.
    ///
    /// # Panics
    /// It fails; the error shows the command and its output.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(words.split_whitespace()));
    }

    /// Runs `ip` with many lines at once.
    ///
    /// # Panics
    /// It fails; the error shows its output.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        let output = fed(&mut command, lines).and_then(process::Child::wait_with_output);
        check(&command, output);
    }

    /// Runs a program inside and gives back what it printed.
    ///
    /// # Panics
    /// It can't be started or fails.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.enter(|| command.output());
        check(&command, output)
    }

    /// Returns the directory where a knock-user of this namespace keeps which sequences were used: at first
    /// it records that none was.
    ///
    /// # Panics
    /// It can't be made.
    #[track_caller]
    pub fn state(&self) -> PathBuf {
        const NONE_USED: &str = r#"{"open": {}, "unknown_before_ms": 0, "used": []}"#;
        let directory = state(&self.name);
        if !directory.exists() {
            let made = std::fs::create_dir(&directory);
            let made = made.and_then(|()| std::fs::write(directory.join(STATE_FILE), NONE_USED));
            if let Err(error) = made {
                panic!("making {}: {error}", directory.display());
            }
        }
        directory
    }

    /// Holds the lock of a file in [`Self::state`] until the result is dropped, as another process
    /// does: `used-sequences.lock`. A knock-user that starts to use such a file waits meanwhile.
    ///
    /// # Panics
    /// It can't be locked.
    #[track_caller]
    pub fn hold(&self, lock: &str) -> File {
        let path = self.state().join(lock);
        let file = File::options().create(true).append(true).open(&path);
        match file.and_then(|file| file.lock().map(|()| file)) {
            Ok(file) => file,
            Err(error) => panic!("locking {}: {error}", path.display()),
        }
    }

    /// Forgets which sequences were used, for the next knock-user with the same secret.
    pub fn forget_used(&self) {
        let _removed = std::fs::remove_dir_all(state(&self.name));
    }

    /// Runs a program inside, whether or not it fails.
    ///
    /// # Panics
    /// It can't be started.
    #[track_caller]
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.env("STATE_DIRECTORY", self.state());
        match self.enter(|| command.output()) {
            Ok(output) => output,
            Err(error) => panic!("{}", not_started(&command, &error)),
        }
    }

    /// Sets what is below `/proc/sys/net`.
    ///
    /// # Panics
    /// The kernel refuses.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        if let Err(error) = self.enter(|| std::fs::write(&path, value)) {
            panic!("{} = {value} in {}: {error}", path.display(), self.name);
        }
    }

    /// Removes it, and leaves what outlives it: pins and files.
    ///
    /// # Panics
    /// `ip` refuses.
    #[track_caller]
    pub fn abandon(mut self) {
        let name = std::mem::take(&mut self.name);
        let _removed = std::fs::remove_dir_all(state(&name));
        run(Command::new("ip").args(["netns", "delete", &name]));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            remove(&self.name);
        }
    }
}

/// Namespaces of this kind whose makers are gone, and those of this process.
///
/// # Panics
/// The directory of namespaces can't be read.
pub fn leftovers() -> Vec<String> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("reading {DIRECTORY}: {error}"),
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            maker(name).is_some_and(|pid| {
                pid == Pid::this() || signal::kill(pid, None) == Err(nix::errno::Errno::ESRCH)
            })
        })
        .collect()
}

/// Removes what processes left that were killed before they could.
///
/// # Panics
/// As [`leftovers`].
pub fn remove_leftovers() {
    for name in leftovers() {
        remove(&name);
    }
}

fn maker(name: &str) -> Option<Pid> {
    let (_role, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (pid, _number) = rest.split_once('-')?;
    pid.parse().ok().map(Pid::from_raw)
}

/// Returns where it is without its namespace, too.
fn state(name: &str) -> PathBuf {
    Path::new("/run").join(format!("{name}.state"))
}

fn remove(name: &str) {
    // There is none if nothing ran there.
    let _removed = std::fs::remove_dir_all(state(name));
    if let Ok(namespace) = File::open(Path::new(DIRECTORY).join(name)) {
        remove_pins(&namespace);
    }
    let mut command = Command::new("ip");
    command.args(["netns", "delete", name]);
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!("{}: {}", line(&command), text(&output)),
        Err(error) => eprintln!("{}: {error}", line(&command)),
    }
}

/// Removes what a knock-user that was killed, or kept its protection, left behind: its maps would
/// take memory until another knock-user finds that their namespace is gone.
fn remove_pins(namespace: &File) {
    let inside = || -> anyhow::Result<()> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        for instance in Instance::of_all_layouts()? {
            instance.remove()?;
        }
        Ok(())
    };
    match thread::scope(|scope| scope.spawn(inside).join()) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("removing pins: {error:#}"),
        Err(_) => eprintln!("removing pins panicked"),
    }
}

/// Runs a command to its end and gives back what it printed.
///
/// # Panics
/// It can't be started, or fails; the error shows the command and its output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    check(command, output)
}

fn fed(command: &mut Command, input: &str) -> io::Result<process::Child> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    Ok(child)
}

#[track_caller]
fn check(command: &Command, output: io::Result<Output>) -> String {
    match output {
        Ok(output) if output.status.success() => text(&output),
        Ok(output) => panic!("`{}` {}:\n{}", line(command), output.status, text(&output)),
        Err(error) => panic!("{}", not_started(command, &error)),
    }
}

/// Returns why a command could not be started, and what to do about it.
pub fn not_started(command: &Command, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        let program = command.get_program().to_string_lossy();
        return format!(
            "`{}`: there is no program `{program}` on this system; `cargo xtask setup --test` \
             installs what tests and demo run, or names the packages",
            line(command)
        );
    }
    format!("`{}` can't be started: {error}", line(command))
}

/// Has a panic of this process print its message and nothing else, for programs that people run: a
/// place in the source and a backtrace don't help them.
pub fn panic_in_plain_words() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        eprintln!("error: {}", message.unwrap_or("an unknown failure"));
    }));
}

/// Returns what a program printed: standard output, then standard error.
pub fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    text
}

/// Returns a command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
