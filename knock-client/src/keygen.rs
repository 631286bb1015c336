//! `keygen`: makes this machine's key for single packet authorization.

use crate::failure::Failure;
use crate::spa::{create, default_path, read};
use clap::Args;
use knock_sequence::terminal::harmless;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `keygen`.
#[derive(Args, Debug)]
pub struct Keygen {
    /// Write the private key to this new file [default: ~/.config/knock/key]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print the public key of the existing file, and make none
    #[arg(long)]
    pub public: bool,
}

/// Makes a key, or reads it; prints the line of its public key for `[[user]]` on the host to `out`, and what
/// to do with it to `err`.
///
/// # Errors
///
/// The key exists or can't be written; with `--public`, it can't be read. Or `out` can't be written.
pub fn run(args: &Keygen, out: &mut impl Write, err: &mut impl Write) -> Result<(), Failure> {
    let path = match &args.out {
        Some(path) => path.clone(),
        None => default_path()?,
    };
    let public = match args.public {
        true => *read(&path)?.public(),
        false => create(&path)?,
    };
    let line = writeln!(out, "keys = [\"{public}\"]").and_then(|()| out.flush());
    line.map_err(Failure::Output)?;
    let place = path.display().to_string();
    let place = harmless(&place);
    let _unread = match args.public {
        true => writeln!(err, "the public key of {place}, for [[user]] on the host"),
        false => writeln!(
            err,
            "wrote the private key to {place}, which stays on this machine; add the line to a [[user]] \
             on the host, then `knock-user reload` there"
        ),
    };
    Ok(())
}
