//! The texts of the configurations of an instance, kept beside its registry: the file may have
//! another text by the time a process has to go back to one.
//!
//! ```text
//! eth0@ns1.settled      what was settled last
//! eth0@ns1.next         what is being put in place, or is on trial
//! ```
//!
//! The registry says by its digest which text is which, so it does not matter between which two
//! steps a process is killed. The files have mode 0600: sequences are in them.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    config::{self, Checked},
    host::private_files,
    kernel::{instance::Instance, registry::Registry},
};

/// Keeps the text of a configuration before that is put in place.
///
/// # Errors
/// It can't be written.
pub fn keep_next(instance: &Instance, text: &str) -> Result<()> {
    let path = instance.next_text();
    private_files::replace(&path, text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// The text that was kept last is that of the configuration that is settled.
///
/// # Errors
/// The file can't be renamed.
pub fn commit(instance: &Instance) -> Result<()> {
    let (next, settled) = (instance.next_text(), instance.settled_text());
    match fs::rename(&next, &settled) {
        // Whoever was killed after this step had done it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => {
            done.with_context(|| format!("renaming {} to {}", next.display(), settled.display()))
        }
    }
}

/// Settles the text that was kept last if a registry is about that one, and forgets it otherwise.
///
/// # Errors
/// The file can't be read, renamed or removed.
pub fn settle_if(instance: &Instance, registry: &Registry) -> Result<()> {
    let next = text(&instance.next_text())?;
    match next.map(|next| Some(config::digest(&next)) == registry.text) {
        Some(true) => commit(instance),
        Some(false) => forget_next(instance),
        None => Ok(()),
    }
}

/// Forgets the text of a configuration that is not put in place.
///
/// # Errors
/// The file can't be removed.
pub fn forget_next(instance: &Instance) -> Result<()> {
    let next = instance.next_text();
    match fs::remove_file(&next) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("removing {}", next.display())),
    }
}

/// Reads and checks the configuration that a registry is about, from the text that was kept.
///
/// # Errors
/// There is no such text any more, or this program does not accept it.
pub fn read(instance: &Instance, registry: &Registry) -> Result<Checked> {
    for path in [instance.settled_text(), instance.next_text()] {
        let Some(text) = text(&path)? else {
            continue;
        };
        if registry.text == Some(config::digest(&text)) {
            let can_be_read_again = registry.config_digest.is_some();
            return Ok(config::read_kept(
                &registry.config,
                &text,
                can_be_read_again,
            )?);
        }
    }
    bail!(
        "the text that {} had is not kept in {} any more",
        registry.config.display(),
        instance.settled_text().display()
    )
}

fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text
            .map(Some)
            .with_context(|| format!("reading {}", path.display())),
    }
}
