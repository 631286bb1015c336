//! `knock-user keygen`: draws the host's private key.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use knock_sequence::spa::{PrivateKey, read_private_key};
use serde::Serialize;

use crate::{
    host::{files, private_files},
    model::spa::HOST_KEY,
};

/// Where the key is written.
#[derive(Args, Clone, Debug)]
pub struct KeygenOptions {
    /// Write the private key to this new file
    #[arg(short, long, value_name = "FILE", default_value = HOST_KEY)]
    pub out: PathBuf,
    /// Print the result as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// The result as JSON.
#[derive(Serialize)]
struct GeneratedKey<'a> {
    public_key: String,
    file: &'a Path,
}

/// Draws a key, writes it to a new file that only its owner can read, and prints the public key.
///
/// # Errors
/// The file exists or can't be written, or the system gives no random numbers.
pub fn run(options: &KeygenOptions, out: &mut impl Write) -> Result<()> {
    let key = PrivateKey::generate()?;
    let file = options.out.as_path();
    private_files::create(file, key.line().as_bytes()).map_err(|error| refused(file, &error))?;
    let public_key = key.public().to_string();
    let line = match options.json {
        true => serde_json::to_string(&GeneratedKey { public_key, file })?,
        false => public_key,
    };
    writeln!(out, "{line}").context("writing the public key")
}

/// Returns the error about a file that was not written.
fn refused(file: &Path, error: &io::Error) -> anyhow::Error {
    let shown = file.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        let existing = files::open_regular(file, "").ok();
        let existing = existing.and_then(|file| read_private_key(file).ok());
        let whose = existing.map_or_else(String::new, |key| {
            format!(", with the key whose public key is {}", key.public())
        });
        return anyhow!(
            "{shown} exists{whose}: it is not replaced, since clients of the old key would no \
             longer get in; name another file with --out"
        );
    }
    anyhow!(private_files::not_created(file, error, "--out"))
}
