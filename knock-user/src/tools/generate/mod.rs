//! `knock-user generate`: prints a door with a random sequence.

mod draw;

use std::{
    collections::HashSet,
    io::Write,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, ValueEnum};
use knock_common::{layout::KNOCKS_MAX, packet::Protocol};
use knock_sequence::{Knock, Ports, spa::PublicKey};
use rand::CryptoRng;

pub use self::draw::{Unsuitable, Urn};
use crate::{
    config::{self, Checked},
    host::private_files,
    strength::{Strength, View},
    tools::toml_text::{comment, commented, list, string},
};

/// Shorter sequences are guessed quickly.
const KNOCKS_LEAST: usize = 3;
/// Enough for fourteen a day during twenty years.
const ONE_TIME_MOST: usize = 100_000;
/// Below are ports of services; above are those that Linux uses for outgoing connections.
const RANGE: &str = "1024-32767";

/// Headings of `--help`.
const DOOR: &str = "The door";
const SEQUENCE: &str = "Its sequence";

/// The properties of the sequence to draw.
#[derive(Args, Clone, Debug)]
pub struct GenerateOptions {
    /// Draw this many knocks, such as 6, or a random number of them, such as 10..100
    #[arg(long, value_name = "NUMBER", default_value = "6", value_parser = knocks, help_heading = SEQUENCE)]
    pub knocks: RangeInclusive<usize>,
    /// Draw from these ports; each is used at most once in a sequence
    #[arg(long, value_name = "FIRST-LAST", default_value = RANGE, value_parser = knock_sequence::ports::range, help_heading = SEQUENCE)]
    pub range: RangeInclusive<u16>,
    /// Draw TCP knocks, UDP knocks or both
    #[arg(long, value_name = "PROTOCOL", default_value = "both", help_heading = SEQUENCE)]
    pub protocol: KnockProtocols,
    /// Name the door
    #[arg(long, value_name = "NAME", default_value = "ssh", help_heading = DOOR)]
    pub name: String,
    /// Let the door open this port; repeat for more
    #[arg(long, value_name = "PORT", default_value = "tcp/22", help_heading = DOOR)]
    pub open: Vec<Ports>,
    /// Let this user open the door with SPA packets, instead of knocks; needs --key
    #[arg(long, value_name = "NAME", requires = "key", help_heading = DOOR)]
    pub user: Option<String>,
    /// Name a public key of the user, which `knock-client keygen` prints; repeat for more
    #[arg(long, value_name = "KEY", requires = "user", help_heading = DOOR)]
    pub key: Vec<PublicKey>,
    /// Draw this many one-time sequences; host and client each need a copy of the file
    #[arg(long, value_name = "NUMBER", value_parser = one_time, conflicts_with = "user", help_heading = SEQUENCE)]
    pub one_time: Option<usize>,
    /// Write the sequences to this new file, for `knock-client --file` or `--one-time`
    #[arg(long, value_name = "FILE", conflicts_with = "user", help_heading = SEQUENCE)]
    pub export: Option<PathBuf>,
    /// Print the profile of knock-client, too, for a client that knows this host by this name or address
    #[arg(long, value_name = "HOST", value_parser = client_host, help_heading = DOOR)]
    pub client: Option<String>,
}

/// The text in front of a sequence.
const RECOMMENDATION: &str = "Anyone who records this sequence can repeat it. Where clients can run knock-client, use keys \
                              instead: knock-user keygen, and docs/guides/spa.md.";

/// The protocols of knocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KnockProtocols {
    /// SYNs.
    Tcp,
    /// Datagrams.
    Udp,
    /// TCP or UDP for each knock.
    Both,
}

impl KnockProtocols {
    fn list(self) -> Vec<Protocol> {
        match self {
            Self::Tcp => vec![Protocol::Tcp],
            Self::Udp => vec![Protocol::Udp],
            Self::Both => vec![Protocol::Tcp, Protocol::Udp],
        }
    }
}

/// Draws and prints.
///
/// # Errors
/// Returns [`Unsuitable`] if such sequences can't be drawn, or an error if they can't be written.
pub fn run(options: &GenerateOptions, out: &mut impl Write) -> Result<()> {
    let GeneratedDoor { door, export } = generate(options, &mut rand::rng())?;
    if let (Some(path), Some(text)) = (&options.export, export) {
        write_new(path, &text)?;
    }
    out.write_all(door.as_bytes()).context("writing the door")
}

/// The result of a draw.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GeneratedDoor {
    /// The text to print: a configuration.
    pub door: String,
    /// The content of the file, if one was asked for.
    pub export: Option<String>,
}

/// Draws a sequence and writes its door.
///
/// # Errors
/// Returns an error if such sequences can't be drawn.
pub fn generate(
    options: &GenerateOptions,
    random: &mut impl CryptoRng,
) -> Result<GeneratedDoor, Unsuitable> {
    let GenerateOptions {
        knocks,
        range,
        protocol,
        open,
        one_time,
        export,
        ..
    } = options;
    if let Some(user) = &options.user {
        return of_user(options, user);
    }
    let urn = Urn::new(knocks.clone(), range.clone(), protocol.list(), open)?;
    let check = |knocks: &[Knock]| config::parse(&door(options, "knock", &list(knocks)), "door");
    // Only sequences in order can be refused, so the others need not be parsed.
    let is_accepted = |knocks: &[Knock]| !config::is_scan(knocks) || check(knocks).is_ok();
    // A problem of every sequence is a problem of the door.
    let mut shortest = urn.clone();
    shortest.knocks = *knocks.start()..=*knocks.start();
    let sample = check(&shortest.draw(random, |knocks| !config::is_scan(knocks))?)?;
    let Some(count) = one_time else {
        let knocks = urn.draw(random, is_accepted)?;
        let space = comment(&space(options, &urn, knocks.len()));
        let seen = comment(&seen(&check(&knocks)?));
        return Ok(GeneratedDoor {
            door: comment(RECOMMENDATION)
                + &space
                + &seen
                + &door(options, "knock", &list(&knocks))
                + &client(options, &format!("knock = {}", list(&knocks))),
            export: export.as_ref().map(|_| sequence_file(&knocks)),
        });
    };

    let mut drawn: HashSet<Vec<Knock>> = HashSet::new();
    let mut lines = String::new();
    for _ in 0..*count {
        let is_new = |knocks: &[Knock]| !drawn.contains(knocks) && is_accepted(knocks);
        let knocks = urn.draw(random, is_new)?;
        lines += &one_time_line(&knocks);
        drawn.insert(knocks);
    }
    let file = export.as_deref().unwrap_or(Path::new("FILE"));
    // The configuration may be saved in another directory.
    let file = match export {
        Some(_) => std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
        None => file.to_owned(),
    };
    // The client has a copy of the file beside its profiles.
    let copy = file.file_name().unwrap_or(file.as_os_str());
    let client = client(
        options,
        &format!("one_time = {}", string(&copy.to_string_lossy())),
    );
    let door = door(options, "one_time", &string(&file.display().to_string()));
    let space = space(options, &urn, *knocks.start()) + " " + &seen(&sample);
    let head = comment(&format!(
        "{count} sequences, each of which works once. Give the host and the client a copy of \
         this file, and nobody else. A # in front marks those that were used. {space}"
    ));
    Ok(match export {
        Some(_) => GeneratedDoor {
            door: comment(&space) + &door + &client,
            export: Some(head + &lines),
        },
        None => GeneratedDoor {
            door: head + &commented(&door) + &client + &lines,
            export: None,
        },
    })
}

fn door(options: &GenerateOptions, key: &str, value: &str) -> String {
    let GenerateOptions { name, open, .. } = options;
    format!(
        "[[door]]\nname = {}\n{key} = {value}\nopen = {}\n",
        string(name),
        list(open)
    )
}

/// Writes the profile of the client as comments, if one is asked for; `opens` are its lines about what opens the door.
fn client(options: &GenerateOptions, opens: &str) -> String {
    let GenerateOptions {
        name, open, client, ..
    } = options;
    let Some(host) = client else {
        return String::new();
    };
    let tcp = open.iter().find(|ports| ports.protocol == Protocol::Tcp);
    let goal = tcp.map_or(String::new(), |ports| {
        format!("\nthen_connect = {}", ports.first)
    });
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let key = match name.chars().all(is_bare) {
        true => name.clone(),
        false => string(name),
    };
    let place = match options.user {
        Some(_) => {
            "For the client, in ~/.config/knock/config.toml, with the public key of this host in place of KEY:"
        }
        None => "For the client, in ~/.config/knock/config.toml:",
    };
    let profile = format!("[profile.{key}]\nhost = {}\n{opens}{goal}", string(host));
    format!("\n{}{}", comment(place), commented(&profile))
}

/// Writes a door that a user opens.
fn of_user(options: &GenerateOptions, user: &str) -> Result<GeneratedDoor, Unsuitable> {
    let GenerateOptions {
        name, open, key, ..
    } = options;
    let table = format!(
        "[[user]]\nname = {}\nkeys = {}\ndoors = {}\n\n[[door]]\nname = {}\nopen = {}\n",
        string(user),
        list(key),
        list(&[name]),
        string(name),
        list(open)
    );
    // Finds bad names.
    config::parse(&table, "door")?;
    Ok(GeneratedDoor {
        door: comment(
            "`knock-user keygen` makes the key of this host, and prints the public key, with \
             which clients open the door: knock-client HOST --spa KEY",
        ) + &table
            + &client(options, &format!("spa = \"KEY\"\ndoor = {}", string(name))),
        export: None,
    })
}

/// Returns how hard a sequence is to guess, in words.
fn space(options: &GenerateOptions, urn: &Urn, knocks: usize) -> String {
    let GenerateOptions {
        range, protocol, ..
    } = options;
    let kind = match protocol {
        KnockProtocols::Tcp => "TCP",
        KnockProtocols::Udp => "UDP",
        KnockProtocols::Both => "TCP and UDP",
    };
    format!(
        "Key space: {:.1} bits, {knocks} knocks on {kind} ports from {} to {}.",
        urn.bits(knocks),
        range.start(),
        range.end()
    )
}

/// Returns how hard the only door's sequence is to guess after a scan, in words.
fn seen(checked: &Checked) -> String {
    let settings = &checked.settings;
    let view = View::of(settings, []);
    let strengths = settings.doors.iter();
    let mut seen = strengths.map(|door| Strength::of(door, &door.knock, &view).scanned.to_string());
    format!(
        "After a scan, {}; [decoys] make more of them stand out.",
        seen.next().unwrap_or_default()
    )
}

/// Writes one knock a line. If all are UDP, only their ports, as other UDP knock clients expect.
fn sequence_file(knocks: &[Knock]) -> String {
    let is_udp = knocks.iter().all(|knock| knock.protocol == Protocol::Udp);
    let line = |knock: &Knock| {
        if is_udp {
            format!("{}\n", knock.port)
        } else {
            format!("{knock}\n")
        }
    };
    knocks.iter().map(line).collect()
}

/// Writes a line of a one-time file in knockd's format: a # in place of the leading blank marks it
/// as used.
fn one_time_line(knocks: &[Knock]) -> String {
    let words: Vec<String> = knocks
        .iter()
        .map(|knock| format!("{}:{}", knock.port, knock.protocol.name()))
        .collect();
    format!(" {}\n", words.join(","))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    private_files::create(path, text.as_bytes())
        .map_err(|error| anyhow!(private_files::not_created(path, &error, "--export")))
}

/// Reads a count such as `6`, or a range such as `10..100` with both ends.
fn knocks(text: &str) -> Result<RangeInclusive<usize>, String> {
    let number = |word: &str| {
        let number: Option<usize> = word.parse().ok();
        number
            .filter(|number| (KNOCKS_LEAST..=KNOCKS_MAX).contains(number))
            .ok_or_else(|| {
                format!("write a number from {KNOCKS_LEAST} to {KNOCKS_MAX}, or two as in 10..100")
            })
    };
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(format!("runs backwards: write {last}..{first}"));
    }
    Ok(first..=last)
}

fn client_host(text: &str) -> Result<String, String> {
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    match text.is_empty() || text.contains(is_wrong) {
        true => Err("write a name such as example.org, or an address".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn one_time(text: &str) -> Result<usize, String> {
    let number: Option<usize> = text.parse().ok();
    number
        .filter(|number| (1..=ONE_TIME_MOST).contains(number))
        .ok_or_else(|| format!("write a number from 1 to {ONE_TIME_MOST}"))
}
