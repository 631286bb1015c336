//! Keeps the texts of configurations beside the registry: the file may have changed by the time a
//! process has to roll back.
//!
//! ```text
//! eth0@ns1.settled      the configuration that was committed last
//! eth0@ns1.next         the configuration that is being put in force, or is on trial
//! ```
//!
//! The registry has the digest of each text, so a process may be killed between any two steps. The
//! files have mode 0600 because they contain sequences.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    config::{self, Checked},
    host::private_files,
    kernel::{instance::Instance, registry::Registry},
};

/// Stores the text of a configuration before it is put in force.
///
/// # Errors
/// It can't be written.
pub fn keep_next(instance: &Instance, text: &str) -> Result<()> {
    let path = instance.next_text();
    private_files::replace(&path, text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// Makes the text that was stored last that of the committed configuration.
///
/// # Errors
/// The file can't be renamed.
pub fn commit(instance: &Instance) -> Result<()> {
    let (next, settled) = (instance.next_text(), instance.settled_text());
    match fs::rename(&next, &settled) {
        // The step was already done by a process that was killed afterwards.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => {
            done.with_context(|| format!("renaming {} to {}", next.display(), settled.display()))
        }
    }
}

/// Commits the text that was stored last if the registry has its digest, and deletes it otherwise.
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

/// Deletes the text of a configuration that is not put in force.
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

/// Reads and checks the configuration of a registry from its stored text.
///
/// # Errors
/// The text is no longer stored, or this program does not accept it.
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
        "the text that {} had is no longer stored in {}",
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
