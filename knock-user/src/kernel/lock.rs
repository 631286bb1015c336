//! Locks an instance for one process, and removes its pins and files.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::loaded_programs;
use nix::libc;

use super::instance::{Instance, names_in};
use crate::{
    host::{
        interface::{self, Interface},
        os_error,
        paths::RUN,
        private_files,
    },
    kernel::{barrier, pins, tcx},
};

/// A user who can read a pinned map can see the sources with grants.
const PINS_MODE: u32 = 0o700;
/// How long to wait for the process that serves an instance to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

impl Instance {
    /// Returns the id of the process that serves the instance.
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

    /// Locks the instance for this process until the returned value is dropped. The current owner
    /// may be about to end, so this waits for it for up to two seconds.
    ///
    /// # Errors
    /// Another process serves the instance ([`LockTaken`]), or the directories can't be created.
    pub fn lock(self) -> Result<Locked> {
        make_directory(Path::new(RUN))?;
        let path = self.run("lock");
        let patience = Instant::now() + PATIENCE;
        let mut file = loop {
            let mut file =
                private_files::open(&path).map_err(|error| creation_error(&path, &error))?;
            match file.try_lock() {
                // The previous owner may have removed the file since it was opened.
                Ok(()) if is_at(&file, &path) => break file,
                Ok(()) => {}
                // The kernel releases the lock of a killed process after a moment. Another process
                // may also just be looking for the owner.
                Err(TryLockError::WouldBlock) if Instant::now() < patience => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(self.taken_error(&mut file)),
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
                .map_err(|error| creation_error(&directory, &error))?;
        }
        Ok(Locked {
            instance: self,
            _lock: file,
        })
    }

    fn taken_error(&self, lock: &mut File) -> anyhow::Error {
        let pid = pid_in(lock).map_or_else(String::new, |pid| pid.to_string());
        let does = match self.interfaces().as_slice() {
            [] => "is just starting".to_owned(),
            interfaces => format!("protects {}", interfaces.join(", ")),
        };
        LockTaken(format!(
            "another knock-user, process {pid}, {does}: `knock-user status` shows it, \
             `knock-user reload` gives it another configuration, `kill {pid}` ends it and opens \
             its ports unless it was started with --on-exit keep"
        ))
        .into()
    }

    /// Removes all pins and files of the instance, which also detaches it. The caller must have
    /// locked it, or know that no other process changes it.
    ///
    /// # Errors
    /// A pin or file can't be removed.
    pub fn remove(&self) -> Result<()> {
        let programs = self.attached();
        // Links come first: if a later step fails, no interface is protected by an instance without
        // maps.
        barrier::open_all(self)?;
        for directory in [self.links(), self.barriers(), self.maps(), self.pins()] {
            for name in names_in(&directory)? {
                let path = directory.join(name);
                if !path.is_dir() {
                    ignore_missing(fs::remove_file(&path), &path)?;
                }
            }
        }
        for directory in [self.links(), self.barriers(), self.maps(), self.pins()] {
            ignore_missing(fs::remove_dir(&directory), &directory)?;
        }
        self.remove_files()?;
        wait_for_end(&programs);
        Ok(())
    }

    /// Removes its registry, socket and lock, under the conditions of [`Instance::remove`].
    ///
    /// # Errors
    /// A file can't be removed.
    pub(crate) fn remove_files(&self) -> Result<()> {
        // The lock file comes last: while it exists, no other process starts on the instance.
        for path in [
            self.next_text(),
            self.settled_text(),
            self.registry(),
            self.socket(),
            self.lock_file(),
        ] {
            ignore_missing(fs::remove_file(&path), &path)?;
        }
        Ok(())
    }

    /// Returns the ids of the programs that its links keep on interfaces.
    fn attached(&self) -> Vec<u32> {
        // Links that can't be read are not waited for.
        let links = pins::links(self).unwrap_or_default();
        links
            .iter()
            .filter(|link| link.index != 0)
            .map(|link| link.program)
            .collect()
    }
}

/// Treats a missing file as removed.
fn ignore_missing(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until no interface has one of these programs: the kernel detaches a link a moment after
/// its file is removed, and the ports must be open when this is reported.
fn wait_for_end(programs: &[u32]) {
    const TRIES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(5);
    let is_left = |interface: &Interface| {
        let placed = tcx::ingress(interface.index).unwrap_or_default();
        let placed = placed.iter().map(|placed| placed.program);
        let mut all = interface.program.into_iter().chain(placed);
        all.any(|id| programs.contains(&id))
    };
    for _ in 0..TRIES {
        let all = interface::list().unwrap_or_default();
        if !all.iter().any(is_left) {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until the kernel has unloaded programs whose interfaces can't be listed here.
///
/// # Errors
/// One of them stays loaded, so that an interface may still have it.
pub(crate) fn wait_until_unloaded(programs: &[u32]) -> Result<()> {
    const TRIES: u32 = 400;
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..TRIES {
        let mut loaded = loaded_programs().flatten();
        if !loaded.any(|program| programs.contains(&program.id())) {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    bail!(
        "the program stays loaded, so its ports may still be closed: `bpftool link` shows what \
         keeps it"
    )
}

/// The text names the process that serves the instance.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LockTaken(String);

/// An instance that only this process may change.
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

/// Returns whether an open file is the one at this path.
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
    private_files::directory(path).map_err(|error| creation_error(path, &error))
}

fn creation_error(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let user = nix::unistd::Uid::effective();
    let directory = path.parent().filter(|parent| parent.starts_with(RUN));
    anyhow!(
        "making {}: {}; an ordinary user needs the directory made: `sudo install -d -o {user} {}`",
        path.display(),
        os_error::plain(error),
        directory.unwrap_or(path).display()
    )
}
