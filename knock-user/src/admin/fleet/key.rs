//! `knock-user fleet key`: draws the key of a group.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

use super::super::{
    command::{SubcommandOutcome, written},
    instances::At,
};
use crate::{config::fleet_keys, fleet::GroupKey, host::private_files, model::problem::Misuse};

/// Where the key goes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct KeyOptions {
    /// Write the key to this new file, which only its owner can read, instead of printing it
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw a key that replaces the one in this file; records of both can be read while hosts have both
    #[arg(long, value_name = "FILE")]
    renew: Option<PathBuf>,
}

impl KeyOptions {
    /// Returns the instance that it is about: none, so any.
    pub(super) const fn at(&self) -> &At {
        const ANY: &At = &At {
            interface: None,
            json: false,
            pid: None,
        };
        ANY
    }
}

/// Draws a key and prints it, or writes it to a file.
///
/// # Errors
/// A file can't be read or written, or the kernel gives no random numbers.
pub(super) fn run(options: &KeyOptions, out: &mut impl Write) -> Result<SubcommandOutcome> {
    let key = match &options.renew {
        Some(old) => read(old)?.renew()?,
        None => GroupKey::generate()?,
    };
    match &options.out {
        Some(file) => {
            let text = key.text();
            private_files::create(file, text.as_bytes())
                .map_err(|error| anyhow!(private_files::not_created(file, &error, "--out")))?;
            let line = format!(
                "{}: copy it to each host of the group, and to nobody else\n",
                file.display()
            );
            written(&line, out)?;
        }
        None => written(&key.text(), out).context("writing the key")?,
    }
    Ok(SubcommandOutcome::Done)
}

fn read(file: &Path) -> Result<GroupKey> {
    fleet_keys::read_key(file).map_err(|reason| Misuse(format!("--renew: {reason}")).into())
}
