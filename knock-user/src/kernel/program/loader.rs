//! The loader of the kernel object, which can be made ahead.
//!
//! aya reads the types of the running kernel (`/sys/kernel/btf/vmlinux`, 6 MB) for each loader, whether or not the
//! object needs them; this one does not. That takes 20 ms and 20 MB. A thread of its own makes the loader and drops the
//! types, so that the memory goes back to the system when it ends.

use std::{
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use aya::EbpfLoader;

/// A loader that was made ahead.
static AHEAD: Mutex<Option<EbpfLoader<'static>>> = Mutex::new(None);

/// A loader that another thread makes.
#[derive(Debug)]
pub struct LoaderAhead(JoinHandle<EbpfLoader<'static>>);

impl LoaderAhead {
    /// Begins to make a loader.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin() -> Result<Self> {
        Ok(Self(begin()?))
    }

    /// Waits for the loader, which the next program is loaded with. Its thread has ended then.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn finish(self) -> Result<()> {
        let loader = end(self.0)?;
        *AHEAD.lock().unwrap_or_else(PoisonError::into_inner) = Some(loader);
        Ok(())
    }
}

/// Returns the loader that was made ahead, or makes one.
///
/// # Errors
/// No thread can be started.
pub(super) fn loader<'a>() -> Result<EbpfLoader<'a>> {
    let ahead = AHEAD.lock().unwrap_or_else(PoisonError::into_inner).take();
    match ahead {
        Some(loader) => Ok(loader),
        None => end(begin()?),
    }
}

fn begin() -> Result<JoinHandle<EbpfLoader<'static>>> {
    let make = || {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        loader
    };
    let thread = thread::Builder::new().name("loader".to_owned());
    thread.spawn(make).context("starting a thread")
}

fn end(thread: JoinHandle<EbpfLoader<'static>>) -> Result<EbpfLoader<'static>> {
    thread
        .join()
        .map_err(|_| anyhow!("preparing to load the program has panicked"))
}
