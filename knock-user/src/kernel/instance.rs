//! Where the kernel objects of one set of interfaces live, so that they outlive the process, and
//! who may change them.
//!
//! ```text
//! /sys/fs/bpf/knock/4/eth0@ns1/            layout version, first interface, network namespace
//!     maps/ALLOW …                         what every configuration shares
//!     links/eth0 …                         what keeps the program attached
//!     gates/2 …                            what lets nothing in while it can't be, by interface number
//!     program                              the program of the configuration that was settled last
//!     next                                 the program of a configuration that is not settled yet
//!     ports                                its port table, for when there is no registry
//! /run/knock/eth0@ns1.json                 the registry
//!                    .settled .next        the texts of these configurations
//!                    .lock .sock           the process that may change all this, and its ear
//! ```
//!
//! The number of a network namespace is its cookie: the kernel gives it to no other one.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use knock_common::layout;
use nix::libc;

use crate::{
    host::{
        interface::{self, Interface},
        netns, os_error,
        paths::RUN,
        private_files,
    },
    kernel::{
        barrier,
        bpffs::{self, DIRECTORY as PINS},
        pins,
        registry::Registry,
    },
    model::problem::Misuse,
};

/// Whoever can read a pinned map can see who may pass.
const PINS_MODE: u32 = 0o700;
/// How long to wait for a process that has an instance in its hands to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(20);

/// One set of interfaces that is protected together.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instance {
    /// `eth0@ns1`.
    name: String,
    /// The version of the map layout that its pins have.
    layout: String,
}

impl Instance {
    /// The instances of this network namespace that this program can take over.
    ///
    /// # Errors
    /// The pins can't be read.
    pub fn all_here() -> Result<Vec<Self>> {
        let current = layout::VERSION.to_string();
        let mut all = Self::of_all_layouts()?;
        all.retain(|instance| instance.layout == current);
        Ok(all)
    }

    /// The instances of this network namespace, also those of older and newer programs, and those
    /// that protect an interface which was moved here from another namespace.
    ///
    /// # Errors
    /// The pins or the interfaces can't be read.
    pub fn of_all_layouts() -> Result<Vec<Self>> {
        let (mut here, elsewhere) = Self::pinned()?;
        if !elsewhere.is_empty() {
            let all = interface::list()?;
            here.extend(
                elsewhere
                    .into_iter()
                    .filter(|instance| instance.is_attached_to(&all)),
            );
            here.sort();
        }
        Ok(here)
    }

    /// All instances that have pins: those that began in this network namespace, and those that
    /// began in others.
    ///
    /// # Errors
    /// The pins can't be read.
    pub fn pinned() -> Result<(Vec<Self>, Vec<Self>)> {
        let suffix = suffix()?;
        let mut all = Vec::new();
        for layout in names_in(Path::new(PINS))? {
            for name in names_in(&Path::new(PINS).join(&layout))? {
                let layout = layout.clone();
                all.push(Self { name, layout });
            }
        }
        all.sort();
        Ok(all
            .into_iter()
            .partition(|instance| instance.name.ends_with(&suffix)))
    }

    /// Whether one of its links keeps a program on one of these interfaces.
    fn is_attached_to(&self, all: &[Interface]) -> bool {
        // What can't be read is nothing that could be taken over.
        let links = pins::links(self).unwrap_or_default();
        all.iter().any(|interface| pins::is_ours(&links, interface))
    }

    /// The names of instances that have files in the directory of registries and sockets.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn with_files() -> Result<Vec<Self>> {
        let names = names_in(Path::new(RUN))?;
        let names = names.iter().filter_map(|file| file.rsplit_once('.'));
        let names: BTreeSet<_> = names.map(|(name, _)| name.to_owned()).collect();
        Ok(names.iter().map(|name| Self::named(name)).collect())
    }

    /// The instance with a name, whether or not it has pins and files.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            layout: layout::VERSION.to_string(),
        }
    }

    /// The instances of this network namespace that have a control socket: what also those find who
    /// may not see pins.
    ///
    /// # Errors
    /// The directory of the sockets can't be read.
    pub fn listening_here() -> Result<Vec<Self>> {
        let suffix = suffix()?;
        let names = names_in(Path::new(RUN))?.into_iter();
        let mut all: Vec<_> = names
            .filter_map(|name| Some(name.strip_suffix(".sock")?.to_owned()))
            .filter(|name| name.ends_with(&suffix))
            .map(|name| Self {
                name,
                layout: layout::VERSION.to_string(),
            })
            .collect();
        all.sort();
        Ok(all)
    }

    /// The instance that protects one of these interfaces, or a new one. Makes sure that there is
    /// where to pin it.
    ///
    /// # Errors
    /// Nothing can be pinned, several instances protect them, or one with another map layout does.
    pub fn of(interfaces: &[String]) -> Result<Self> {
        if let Some(name) = interfaces.iter().find(|name| !is_name(name)) {
            return Err(Misuse(format!(
                "{name:?} can't be the name of an interface: `ip link` shows those that there are"
            ))
            .into());
        }
        bpffs::ensure(Path::new(PINS))?;
        let mut owners = Self::of_all_layouts()?;
        owners.retain(|instance| instance.has_any(interfaces));
        let current = layout::VERSION.to_string();
        if let Some(other) = owners.iter().find(|owner| owner.layout != current) {
            bail!(
                "{} is protected by a knock-user whose maps have layout {}, and this one has \
                 layout {current}: grants can't be taken over. `knock-user detach` ends that \
                 protection and its grants, and the ports are open until the next start: start \
                 again right after it",
                other.interfaces().join(", "),
                other.layout
            );
        }
        match owners.as_slice() {
            [] => Self::new(interfaces, &current),
            [owner] => Ok(owner.clone()),
            [..] => {
                let list: Vec<_> = owners
                    .iter()
                    .map(|owner| owner.interfaces().join(" and "))
                    .collect();
                bail!(
                    "several instances of knock-user protect {}: {}. Start one for each, or end \
                     one, which opens its ports: `knock-user detach --iface {}`",
                    interfaces.join(", "),
                    list.join("; "),
                    owners.last().map_or_else(String::new, |last| last.first())
                )
            }
        }
    }

    fn new(interfaces: &[String], layout: &str) -> Result<Self> {
        let first = interfaces.first().map_or("none", String::as_str);
        let suffix = suffix()?;
        let names = (1..).map(|count: u32| match count {
            1 => format!("{}{suffix}", escaped(first)),
            _ => format!("{}~{count}{suffix}", escaped(first)),
        });
        let free = names
            .map(|name| Self {
                name,
                layout: layout.to_owned(),
            })
            // What a start leaves that is killed at its beginning is nobody's.
            .find(|instance| !instance.pins().exists() || instance.interfaces().is_empty());
        free.context("there are too many instances")
    }

    /// Whether it protects one of these interfaces, or waits for one.
    pub fn has_any(&self, interfaces: &[String]) -> bool {
        let mine = self.interfaces();
        if interfaces.iter().any(|interface| mine.contains(interface)) {
            return true;
        }
        // One may be asked for under its name, and the other under an alternative name.
        let all = interface::list().unwrap_or_default();
        // Or it was renamed since: what keeps the program on it knows it by its number.
        let links = pins::links(self).unwrap_or_default();
        let asked = interfaces.iter();
        let mut asked = asked.filter_map(|name| interface::named(name, &all));
        if asked.any(|interface| pins::is_ours(&links, interface)) {
            return true;
        }
        let number = |name: &String| interface::named(name, &all).map(|found| found.index);
        let mine: BTreeSet<_> = mine.iter().filter_map(number).collect();
        let mut asked_for = interfaces.iter().filter_map(number);
        asked_for.any(|index| mine.contains(&index))
    }

    /// The interfaces that it protects or waits for.
    pub fn interfaces(&self) -> Vec<String> {
        let mut all = self.linked();
        if let Ok(Some(registry)) = Registry::read(&self.registry()) {
            all.extend(registry.interfaces);
        }
        all.sort();
        all.dedup();
        all
    }

    /// The interfaces that have a pinned link, attached or left over.
    pub fn linked(&self) -> Vec<String> {
        let names = names_in(&self.links()).unwrap_or_default();
        names.iter().map(|name| unescaped(name)).collect()
    }

    fn first(&self) -> String {
        let interfaces = self.interfaces();
        interfaces.into_iter().next().unwrap_or_default()
    }

    /// Its name: the first of the interfaces that it began with, and the network namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of its pins.
    pub fn pins(&self) -> PathBuf {
        Path::new(PINS).join(&self.layout).join(&self.name)
    }

    /// Where its maps are pinned.
    pub fn maps(&self) -> PathBuf {
        self.pins().join("maps")
    }

    /// Where its links are pinned.
    pub fn links(&self) -> PathBuf {
        self.pins().join("links")
    }

    /// Where the link to an interface is pinned.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(escaped(interface))
    }

    /// Where its gates are pinned.
    pub fn barriers(&self) -> PathBuf {
        self.pins().join("barriers")
    }

    /// Where the barrier of the interface with this number is pinned.
    pub fn barrier(&self, index: u32) -> PathBuf {
        self.barriers().join(index.to_string())
    }

    /// Where its program is pinned.
    pub fn program(&self) -> PathBuf {
        self.pins().join("program")
    }

    /// Where a program is pinned that takes the place of that one when its configuration is settled.
    pub fn next_program(&self) -> PathBuf {
        self.pins().join("next")
    }

    /// Where the port table of its program is pinned: what says which ports are closed when the
    /// registry can't be read.
    pub fn ports(&self) -> PathBuf {
        self.pins().join("ports")
    }

    /// The file of its registry.
    pub fn registry(&self) -> PathBuf {
        self.run("json")
    }

    /// The text of the configuration that was settled last; see [`crate::apply::texts`].
    pub(crate) fn settled_text(&self) -> PathBuf {
        self.run("settled")
    }

    /// The text of the configuration that is being put in place, or is on trial.
    pub(crate) fn next_text(&self) -> PathBuf {
        self.run("next")
    }

    /// The socket of its control.
    pub fn socket(&self) -> PathBuf {
        self.run("sock")
    }

    fn run(&self, extension: &str) -> PathBuf {
        Path::new(RUN).join(format!("{}.{extension}", self.name))
    }

    /// The file that its process locks.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.run("lock")
    }

    /// The process that has it in its hands.
    pub fn owner(&self) -> Option<u32> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.run("lock"))
            .ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => pid_in(&mut file).or(Some(0)),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }

    /// Takes it into the hands of this process, until what is returned is dropped. A process that
    /// has it may be about to end, so for that it waits up to two seconds.
    ///
    /// # Errors
    /// Another process has it (named), or the directories can't be made.
    pub fn lock(self) -> Result<Locked> {
        make_directory(Path::new(RUN))?;
        let path = self.run("lock");
        let patience = Instant::now() + PATIENCE;
        let mut file = loop {
            let mut file = private_files::open(&path).map_err(|error| not_made(&path, &error))?;
            match file.try_lock() {
                // Whoever had it may have removed it since it was opened.
                Ok(()) if is_at(&file, &path) => break file,
                Ok(()) => {}
                // The kernel takes a moment to end a process that was killed, and only then lets
                // go of its lock. Somebody may also just look who has it.
                Err(TryLockError::WouldBlock) if Instant::now() < patience => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(self.taken(&mut file)),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            }
        };
        file.set_len(0)
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .with_context(|| format!("writing {}", path.display()))?;
        for directory in [self.maps(), self.links()] {
            DirBuilder::new()
                .recursive(true)
                .mode(PINS_MODE)
                .create(&directory)
                .map_err(|error| not_made(&directory, &error))?;
        }
        Ok(Locked {
            instance: self,
            _lock: file,
        })
    }

    fn taken(&self, lock: &mut File) -> anyhow::Error {
        let pid = pid_in(lock).map_or_else(String::new, |pid| pid.to_string());
        let does = match self.interfaces().as_slice() {
            [] => "is just starting".to_owned(),
            interfaces => format!("protects {}", interfaces.join(", ")),
        };
        anyhow!(
            "another knock-user, process {pid}, {does}: `knock-user status` shows it, \
             `knock-user reload` gives it another configuration, `kill {pid}` ends it and opens \
             its ports unless it was started with --on-exit keep"
        )
    }

    /// Removes all that it has: what is attached is detached by that. Whoever does this has locked
    /// it, or knows that nobody else will.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn remove(&self) -> Result<()> {
        let programs = self.attached();
        // The links first: without maps they would still protect, the other way round they can't.
        barrier::open_all(self)?;
        for directory in [self.links(), self.barriers(), self.maps(), self.pins()] {
            for name in names_in(&directory)? {
                let path = directory.join(name);
                if !path.is_dir() {
                    gone(fs::remove_file(&path), &path)?;
                }
            }
        }
        for directory in [self.links(), self.barriers(), self.maps(), self.pins()] {
            gone(fs::remove_dir(&directory), &directory)?;
        }
        self.remove_files()?;
        wait_for_end(&programs);
        Ok(())
    }

    /// Removes its registry, its socket and its lock; otherwise as [`Instance::remove`].
    ///
    /// # Errors
    /// One can't be removed.
    pub(crate) fn remove_files(&self) -> Result<()> {
        // The lock last: as long as it is there, nobody begins anew.
        for path in [
            self.next_text(),
            self.settled_text(),
            self.registry(),
            self.socket(),
            self.lock_file(),
        ] {
            gone(fs::remove_file(&path), &path)?;
        }
        Ok(())
    }

    /// The programs that its links keep on interfaces.
    fn attached(&self) -> Vec<u32> {
        // What can't be seen is not waited for.
        let links = pins::links(self).unwrap_or_default();
        let attached = links.iter().filter(|link| link.index != 0);
        attached.map(|link| link.program).collect()
    }
}

/// What was to be removed is not there any more.
fn gone(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until no interface has one of these programs: the kernel ends a link a moment after its
/// file is removed, and what is said to be open should be.
fn wait_for_end(programs: &[u32]) {
    const TRIES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(5);
    let is_left =
        |interface: &Interface| interface.program.is_some_and(|id| programs.contains(&id));
    for _ in 0..TRIES {
        let all = interface::list().unwrap_or_default();
        if !all.iter().any(is_left) {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// An instance that no other process changes.
#[derive(Debug)]
pub struct Locked {
    instance: Instance,
    _lock: File,
}

impl std::ops::Deref for Locked {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

/// `@ns` and the number of this thread's network namespace.
fn suffix() -> Result<String> {
    Ok(format!("@ns{}", netns::cookie()?))
}

/// Whether the kernel would give an interface this name (`dev_valid_name()`), or this alternative
/// name, which may be longer.
fn is_name(name: &str) -> bool {
    /// `ALTIFNAMSIZ`, of which one byte is for the end.
    const BYTES: usize = 128;
    let is_odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    let is_length = (1..BYTES).contains(&name.len());
    is_length && ![".", ".."].contains(&name) && !name.bytes().any(is_odd)
}

/// bpffs keeps dots in names for itself.
fn escaped(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn unescaped(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// The names in a directory; none if it is not there.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        name.with_context(|| format!("reading {}", directory.display()))
    };
    entries.map(name).collect()
}

/// Whether an open file is the one that has this path.
fn is_at(file: &File, path: &Path) -> bool {
    let number = |file: fs::Metadata| (file.dev(), file.ino());
    let here = file.metadata().map(number).ok();
    here.is_some() && here == fs::metadata(path).map(number).ok()
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn make_directory(path: &Path) -> Result<()> {
    private_files::directory(path).map_err(|error| not_made(path, &error))
}

fn not_made(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let user = nix::unistd::Uid::effective();
    let directory = path.parent().filter(|parent| parent.starts_with(RUN));
    anyhow!(
        "making {}: {}; an ordinary user needs the directory made: `sudo install -d -o {user} {}`",
        path.display(),
        os_error::plain(error),
        directory.unwrap_or(path).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_interfaces_can_have() {
        for (name, expected) in [
            ("eth0", true),
            ("eth0.100", true),
            ("enp0s31f6np1-15", true),
            ("enp0s31f6np1-016", true),
            (&"x".repeat(127), true),
            (&"x".repeat(128), false),
            ("", false),
            ("..", false),
            ("../../etc", false),
            ("eth0:1", false),
            ("eth 0", false),
        ] {
            assert_eq!(is_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn names_of_interfaces_survive_bpffs() {
        for name in ["eth0", "eth0.100", "br%2e", "a%b.c", "wg-0"] {
            let escaped = escaped(name);
            assert!(!escaped.contains('.'), "{name}");
            assert_eq!(unescaped(&escaped), name);
        }
    }
}
