//! `knock-user metrics`.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{
    command::{self, Caller, Command, SubcommandOutcome},
    instances::At,
    text::LocalTime,
};
use crate::{daemon::Daemon, host::os_error, kernel::instance::Instance, metrics::Format};

mod facts;
mod families;
mod offline;
mod served;

/// The mode of the file: node_exporter runs as another user.
const FILE_MODE: u32 = 0o644;

/// Print metrics for Prometheus
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// Choose the format
    #[arg(long, value_enum, default_value_t = Format::Classic)]
    format: Format,
    /// Replace this file in one step, as node_exporter's textfile collector needs it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The fields of a request.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    format: Format,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The format of the text.
    pub format: Format,
    /// The metrics.
    pub text: String,
}

impl Command for Args {
    const NAME: &'static str = "metrics";
    const ANSWER: &'static str = "metrics";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            format: self.format,
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        answer.text.lines().map(str::to_owned).collect()
    }

    fn answer<W: Write>(
        Request { format }: Request,
        daemon: &mut Daemon<W>,
        caller: Caller<Answer>,
    ) {
        match served::facts(daemon) {
            // Reading the tables takes longer the fuller they are; the loop does not wait for that.
            Ok(facts) => {
                tokio::task::spawn_blocking(move || {
                    let facts = facts.complete();
                    caller.answer(facts.map(|facts| answer(format, &facts)));
                });
            }
            Err(error) => caller.answer(Err(error)),
        }
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        Ok(answer(self.format, &offline::facts(instance)?))
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        let answer = command::ask(self, &command::instance(&self.at)?)?;
        let Some(file) = &self.out else {
            return command::write::<Self>(&answer, &self.at, out);
        };
        let text = match self.at.json {
            true => serde_json::to_string(&answer)? + "\n",
            false => answer.text,
        };
        replace(file, &text)?;
        Ok(SubcommandOutcome::Done)
    }
}

fn answer(format: Format, facts: &facts::MetricFacts) -> Answer {
    Answer {
        format,
        text: format.write(&families::families(facts)),
    }
}

/// Replaces a file in one step: a reader finds the old text or the new one, and never a part.
fn replace(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        anyhow!(
            "{shown} can't be written: {}",
            os_error::reason(&error, &shown.to_string())
        )
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    // The collector skips files that don't end in `.prom`.
    let mut file = NamedTempFile::with_prefix_in(".knock-user.", directory).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let mode = Permissions::from_mode(FILE_MODE);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_everyone_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("knock.prom");
        for text in ["knock_in_force 1\n", "", "knock_in_force 0\n"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let missing = directory.path().join("none/knock.prom");
        let error = replace(&missing, "").unwrap_err().to_string();
        assert!(
            error.contains("none/knock.prom can't be written: "),
            "{error}"
        );
        let error = replace(directory.path(), "").unwrap_err().to_string();
        assert!(error.contains("can't be written: "), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
