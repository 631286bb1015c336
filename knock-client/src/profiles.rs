//! `profiles`: lists the profiles of this user, without their secrets.

use crate::failure::Failure;
use crate::profile::{self, Profile, ProfileError};
use crate::reply::ConnectTo;
use clap::Args;
use knock_sequence::duration::spell;
use knock_sequence::terminal::harmless;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `profiles`.
#[derive(Args, Debug)]
pub struct ListProfiles {
    /// Read profiles from this file [default: ~/.config/knock/config.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const HEAD: [&str; 4] = ["PROFILE", "HOST", "OPENS BY", "CONNECTS TO"];

/// Lists the profiles, a line each, below a head.
///
/// # Errors
///
/// The file can't be read or is wrong, or `out` can't be written.
pub fn run(args: &ListProfiles, out: &mut impl Write, err: &mut impl Write) -> Result<(), Failure> {
    let path = profile::path(args.config.as_deref()).ok_or(ProfileError::NoHome)?;
    let profiles = profile::all(&path, args.config.is_some())?;
    if profiles.is_empty() {
        let place = path.display().to_string();
        let _unread = writeln!(
            err,
            "no profiles in {}; docs/client.md shows how to write one",
            harmless(&place)
        );
        return Ok(());
    }
    let head = HEAD.map(str::to_owned);
    let rows = profiles.iter().map(|(name, profile)| row(name, profile));
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [name, host, method, goal] in &rows {
        let [first, second, third] = widths;
        let line = format!("{name:first$}  {host:second$}  {method:third$}  {goal}");
        text += line.trim_end();
        text.push('\n');
    }
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Failure::Output)
}

fn row(name: &str, profile: &Profile) -> [String; 4] {
    let mut method = profile.method();
    if let Some(door) = &profile.door {
        method += &format!(", door {door}");
    }
    if let Some(time) = profile.time {
        let time = Duration::from_secs(time.seconds().into());
        method += &format!(", for {}", spell(time));
    }
    let goal = match profile.then_connect {
        Some(ConnectTo::Port(port)) => format!("tcp/{port}"),
        Some(ConnectTo::Reply) => "the port that the host names".to_owned(),
        None => String::new(),
    };
    let host = profile.host.as_deref().unwrap_or(name);
    [name, host, &method, &goal].map(|cell| harmless(cell).into_owned())
}
