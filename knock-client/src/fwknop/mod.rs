//! `import-fwknop`: converts the stanzas of fwknop's client to profiles.
//!
//! ```text
//! .fwknoprc ─▶ rc (stanzas, directives) ─▶ profile ─▶ profiles and comments
//! ```
//!
//! This client sends no packets of fwknop, so a profile has a key of its own instead of fwknop's, and the public
//! key of a host that runs knock-user. No value of a directive is printed unless it is known to be no secret.

pub(crate) mod error;
mod profile;
mod rc;

pub use error::ImportError;

use crate::failure::Failure;
use crate::sequence::bytes;
use crate::spa::HostPublicKey;
use clap::Args;
use std::collections::HashSet;
use std::convert::Infallible;
use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Arguments of `import-fwknop`.
#[derive(Args, Debug)]
pub struct ImportFwknop {
    /// Convert this file [default: ~/.fwknoprc]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Use this public key of the host, for all stanzas or for the one with this name
    #[arg(long, value_name = "[STANZA=]KEY")]
    pub spa: Vec<StanzaKey>,
}

/// The public key of a host, for one stanza or for all.
#[derive(Clone, Debug)]
pub struct StanzaKey {
    stanza: Option<String>,
    key: HostPublicKey,
}

impl FromStr for StanzaKey {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        let (stanza, key) = match word.rsplit_once('=') {
            Some((stanza, key)) => (Some(stanza.to_owned()), key),
            None => (None, word),
        };
        Ok(Self {
            stanza,
            key: key.parse()?,
        })
    }
}

/// Converts a file: writes profiles with comments to `out`, and the steps that remain to `err`.
///
/// # Errors
///
/// The file can't be read or has no host, a key is wrong, or `out` can't be written.
pub fn run(args: &ImportFwknop, out: &mut impl Write, err: &mut impl Write) -> Result<(), Failure> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => env::home_dir()
            .ok_or(ImportError::NoHome)?
            .join(".fwknoprc"),
    };
    let text = bytes(&path, FILE_MAX).map_err(|cause| ImportError::Unreadable {
        path: path.clone(),
        cause,
    })?;
    // Comments may be in any encoding.
    let converted = convert(&String::from_utf8_lossy(&text), &path, &args.spa)?;
    let written = out
        .write_all(converted.toml.as_bytes())
        .and_then(|()| out.flush());
    written.map_err(Failure::Output)?;
    let _unread = writeln!(err, "{}", converted.left);
    Ok(())
}

/// A converted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedRc {
    /// The profiles, with comments.
    pub toml: String,
    /// The steps that remain for the user.
    pub left: String,
}

/// Converts the text of a file, which comments and errors call `path`.
///
/// # Errors
///
/// The file has no host, or a key is wrong.
pub fn convert(text: &str, path: &Path, keys: &[StanzaKey]) -> Result<ConvertedRc, ImportError> {
    let stanzas = rc::stanzas(text);
    for key in keys {
        key.key.key().map_err(ImportError::Key)?;
        let Some(stanza) = &key.stanza else { continue };
        if !stanzas.iter().any(|other| &other.name == stanza) {
            let names: Vec<_> = stanzas
                .iter()
                .map(|other| format!("[{}]", other.name))
                .collect();
            return Err(ImportError::NoStanza {
                stanza: stanza.escape_debug().to_string(),
                path: path.to_owned(),
                others: names.join(", "),
            });
        }
    }
    let mut toml = profile::comment(&format!(
        "From {} by knock-client import-fwknop. fwknop's keys are not used: `knock-client keygen` makes the key \
         of this machine, and each host needs its public key in a [[user]].",
        path.display()
    ));
    let mut without_key = 0;
    let mut names = HashSet::new();
    for stanza in &stanzas {
        let own = keys
            .iter()
            .find(|key| key.stanza.as_ref() == Some(&stanza.name));
        let key = own.or_else(|| keys.iter().find(|key| key.stanza.is_none()));
        let key = key.and_then(|key| key.key.key().ok());
        let Some(name) = profile::name(stanza) else {
            continue;
        };
        toml.push('\n');
        if !names.insert(name) {
            toml += &profile::comment(&format!(
                "[{}]: another stanza has the same name",
                stanza.name
            ));
            continue;
        }
        toml += &profile::of(stanza, name, key);
        without_key += usize::from(key.is_none());
    }
    let count = names.len();
    if count == 0 {
        return Err(ImportError::Empty(path.to_owned()));
    }
    let left = match without_key {
        0 => {
            format!("{count} converted; compare the comments, then add the profiles to config.toml")
        }
        _ => format!(
            "{count} converted, {without_key} without the public key of the host, as comments: `knock-user keygen` \
             prints it there; give it with --spa STANZA=knock1:…"
        ),
    };
    Ok(ConvertedRc { toml, left })
}

#[cfg(test)]
mod tests;
