//! `knock-user import-knockd`: converts a knockd configuration.
//!
//! ```text
//! knockd.conf ─▶ conf (its lines) ─▶ meaning (what its commands do) ─▶ door ─▶ seq.toml
//! ```
//!
//! The result has no errors: a door that would cause one becomes a comment with the reason.

mod conf;
mod door;
mod door_commands;
mod draft;
mod encoding;
mod helper;
mod iptables;
mod meaning;
mod nft;
mod notes;
mod page;
mod rights;
mod rule;
mod rule_parts;
mod shell;
mod ufw;
mod values;

use std::{io::Write, path::Path};

use anyhow::{Context as _, Result};

use self::page::TomlPage;
pub use self::rule_parts::SERVICES;
use crate::{
    config,
    host::os_error,
    model::problem::{Problem, Problems},
};

/// A converted file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImportedConf {
    /// The configuration.
    pub toml: String,
    /// Notes about differences, in the order of the lines of knockd's file.
    pub notes: Vec<Problem>,
}

/// Prints the converted file to `out`, and notes about differences to `stderr`.
///
/// # Errors
/// Returns [`Problems`] if knockd's file has errors, or an error if the result can't be written.
pub fn run(path: &Path, out: &mut impl Write, stderr: &mut impl Write) -> Result<()> {
    let file = path.display().to_string();
    let problems = |list| Problems {
        file: file.as_str().into(),
        list,
    };
    let bytes = config::read_bytes(path).map_err(|error| {
        problems(vec![Problem {
            line: None,
            key: String::new(),
            reason: format!("can't be read: {}", os_error::reason(&error, &file)),
        }])
    })?;
    let ImportedConf { toml, notes } = import_bytes(&bytes, &file)?;
    out.write_all(toml.as_bytes())
        .context("writing the configuration")?;
    for note in notes {
        writeln!(stderr, "{}", note.render("note", &file)).context("writing the notes")?;
    }
    Ok(())
}

/// Converts the bytes of knockd's file, which errors call `file`. Comments may be in Latin-1.
///
/// # Errors
/// Returns every problem of the file.
pub fn import_bytes(bytes: &[u8], file: &str) -> Result<ImportedConf, Problems> {
    let text = encoding::decode(bytes).map_err(|list| Problems {
        file: file.into(),
        list,
    })?;
    import(&text, file)
}

/// Converts the text of knockd's file, which errors call `file`.
///
/// # Errors
/// Returns every problem of the file.
pub fn import(text: &str, file: &str) -> Result<ImportedConf, Problems> {
    let conf = conf::parse(text).map_err(|list| Problems {
        file: file.into(),
        list,
    })?;
    if conf.doors.is_empty() {
        return Err(Problems {
            file: file.into(),
            list: vec![Problem {
                line: None,
                key: String::new(),
                reason: "it has no section with a sequence, so there is nothing to import"
                    .to_owned(),
            }],
        });
    }
    let mut page = TomlPage::new(&conf, file);
    loop {
        let (toml, places) = page.write();
        let Err(problems) = config::parse(&toml, file) else {
            break;
        };
        page.leave_out(problems.list, &places);
    }
    notes::annotate(&mut page.doors, &conf.doors);
    let (toml, _) = page.write();
    let mut notes = page.notes();
    notes.sort();
    Ok(ImportedConf { toml, notes })
}
