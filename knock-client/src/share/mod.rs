//! `share` and `add`: a profile as a `knock://` URI, for another machine or a phone.
//!
//! ```text
//! knock://home?host=example.org&spa=knock1%3A…&door=ssh&then_connect=22
//! ```
//!
//! The host of the URI is the name of the profile, the query has keys of the profile, and `private` has a private key,
//! which `add` writes to a file of its own.

pub mod error;

use error::ShareError;

use crate::failure::Failure;
use crate::profile::{self, Profile, ProfileError};
use crate::reply::ConnectTo;
use crate::spa::{GrantTime, SpaError, store};
use clap::Args;
use form_urlencoded::Serializer;
use knock_sequence::duration::spell;
use knock_sequence::spa::PrivateKey;
use knock_sequence::terminal::harmless;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use toml::{Table, Value};

const SCHEME: &str = "knock://";
/// The part of the query that is not a key of a profile.
const PRIVATE: &str = "private";
/// The keys of a profile that a URI may have.
const KEYS: [&str; 10] = [
    "host",
    "spa",
    "knock",
    "door",
    "for",
    "port",
    "then_connect",
    "delay",
    "handshake",
    "open_for",
];
/// The longest URI that is read.
const URI_MAX: u64 = 16 * 1024;

/// Arguments of `share`.
#[derive(Args, Debug)]
pub struct Share {
    /// Print the URI of this profile
    #[arg(value_name = "PROFILE")]
    pub name: String,

    /// Put the knocks, or a new private key for the receiver, into the URI
    #[arg(long)]
    pub with_secret: bool,

    /// Print a QR code, too [default: only on a terminal]
    #[arg(long)]
    pub qr: bool,

    /// Read profiles from this file [default: ~/.config/knock/config.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `add`.
#[derive(Args, Debug)]
pub struct Add {
    /// Add the profile in this URI; "-" reads it from standard input, so that no other user sees it
    #[arg(value_name = "URI")]
    pub uri: String,

    /// Give the profile this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Add it to this file [default: ~/.config/knock/config.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Prints the URI, and its QR code if `shows_code`, to `out`; what remains to be done to `err`.
///
/// # Errors
///
/// There is no such profile, it can't be shared, or `out` can't be written.
pub fn share(
    args: &Share,
    shows_code: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    let path = profile::path(args.config.as_deref()).ok_or(ProfileError::NoHome)?;
    let profile = profile::named(&path, &args.name)?;
    let key = match (&profile.spa, args.with_secret) {
        (Some(_), true) => {
            Some(PrivateKey::generate().map_err(|error| SpaError::Key(error.into()))?)
        }
        (Some(_), false) | (None, _) => None,
    };
    let uri = uri(&args.name, &profile, args.with_secret, key.as_ref())?;
    let code = QrCode::new(&uri).ok().filter(|_| shows_code || args.qr);
    let code = code.map_or(String::new(), |code| {
        // Terminals are dark, codes are on paper.
        let mut renderer = code.render::<Dense1x2>();
        renderer
            .dark_color(Dense1x2::Dark)
            .light_color(Dense1x2::Light);
        renderer.build() + "\n"
    });
    let written = write!(out, "{uri}\n{code}").and_then(|()| out.flush());
    written.map_err(Failure::Output)?;
    let _unread = match (&key, profile.spa) {
        (Some(key), _) => writeln!(
            err,
            "the URI has a new private key: add its public key to a [[user]] on the host: keys = [\"{}\"]",
            key.public()
        ),
        (None, Some(_)) => writeln!(
            err,
            "the URI has no secret: the receiver makes a key with `knock-client keygen`"
        ),
        (None, None) => writeln!(err, "anyone who has this URI can open the door"),
    };
    Ok(())
}

fn check_name(name: &str) -> Result<(), ShareError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        true => Err(ShareError::Name {
            name: name.to_owned(),
        }),
        false => Ok(()),
    }
}

fn uri(
    name: &str,
    profile: &Profile,
    with_secret: bool,
    key: Option<&PrivateKey>,
) -> Result<String, Failure> {
    check_name(name)?;
    let owned = || name.to_owned();
    if profile.knock.is_none() && profile.spa.is_none() {
        let (name, method) = (owned(), profile.method());
        return Err(ShareError::File { name, method }.into());
    }
    if profile.knock.is_some() && !with_secret {
        return Err(ShareError::Secret { name: owned() }.into());
    }
    let mut query = Serializer::new(String::new());
    query.append_pair("host", profile.host.as_deref().unwrap_or(name));
    if let Some(host) = &profile.spa {
        let host = host.key().map_err(SpaError::Host)?;
        query.append_pair("spa", &host.to_string());
    }
    if let Some(knocks) = &profile.knock {
        let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
        query.append_pair("knock", &words.join(","));
    }
    let goal = profile.then_connect.map(|goal| match goal {
        ConnectTo::Port(port) => port.to_string(),
        ConnectTo::Reply => "reply".to_owned(),
    });
    let time = profile.time.map(GrantTime::seconds);
    for (key, value) in [
        ("door", profile.door.as_ref().map(ToString::to_string)),
        ("for", time.map(|seconds| format!("{seconds}s"))),
        ("port", profile.port.map(|port| port.to_string())),
        ("then_connect", goal),
        ("delay", profile.delay.map(spell)),
        ("handshake", profile.handshake.then(|| true.to_string())),
        ("open_for", profile.open_for.map(spell)),
    ] {
        if let Some(value) = value {
            query.append_pair(key, &value);
        }
    }
    if let Some(key) = key {
        query.append_pair(PRIVATE, key.line().trim_end());
    }
    Ok(format!("{SCHEME}{name}?{}", query.finish()))
}

/// Adds the profile in a URI to the file of profiles, and a private key to a file beside it.
///
/// # Errors
///
/// The text is no such URI, the name is taken, or a file can't be written.
pub fn add(args: &Add, input: impl Read, err: &mut impl Write) -> Result<(), Failure> {
    let mut text = args.uri.clone();
    if text == "-" {
        text.clear();
        let read = input.take(URI_MAX).read_to_string(&mut text);
        read.map_err(|_unreadable| wrong("standard input has no text"))?;
    }
    let (given, mut table, private) = parsed(text.trim())?;
    let name = args.name.clone().unwrap_or(given);
    check_name(&name)?;
    let path = profile::path(args.config.as_deref()).ok_or(ProfileError::NoHome)?;
    if profile::all(&path, false)?.contains_key(&name) {
        return Err(ShareError::Exists { path, name }.into());
    }
    let key_name = format!("{name}.key");
    if private.is_some() {
        table.insert("key".to_owned(), Value::String(key_name.clone()));
    }
    let lines: String = table
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    let text = format!("[profile.\"{name}\"]\n{lines}");
    // The program must be able to read what it writes.
    profile::all_in(&text, &path).map_err(|error| match error {
        ProfileError::Wrong { reason, .. } => wrong(&reason),
        ProfileError::Unreadable { .. } | ProfileError::Unnamed { .. } | ProfileError::NoHome => {
            wrong("a value is wrong")
        }
    })?;
    if let Some(key) = &private {
        store(&path.with_file_name(&key_name), key)?;
    }
    let unwritable = |cause| ShareError::Unwritable {
        path: path.clone(),
        cause,
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(unwritable)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("\n{text}").as_bytes()));
    written.map_err(unwritable)?;
    let _unread = writeln!(
        err,
        "added [profile.{name}] to {}: `knock-client {name}` opens the door",
        harmless(&path.display().to_string())
    );
    Ok(())
}

fn wrong(reason: &str) -> ShareError {
    ShareError::Uri {
        reason: reason.to_owned(),
    }
}

/// Returns the name, the keys of the profile, and the private key.
fn parsed(uri: &str) -> Result<(String, Table, Option<PrivateKey>), ShareError> {
    let rest = uri
        .strip_prefix(SCHEME)
        .ok_or_else(|| wrong("it does not begin with knock://"))?;
    let (name, query) = rest
        .split_once('?')
        .ok_or_else(|| wrong("it has no settings"))?;
    let mut table = Table::new();
    let mut private = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = match &*key {
            PRIVATE if private.is_none() => {
                let parsed = value.parse::<PrivateKey>();
                private = Some(parsed.map_err(|reason| wrong(&reason.to_string()))?);
                continue;
            }
            "knock" => Value::Array(
                value
                    .split(',')
                    .map(|word| Value::String(word.to_owned()))
                    .collect(),
            ),
            "handshake" => Value::Boolean(value == "true"),
            known if KEYS.contains(&known) => Value::String(value.into_owned()),
            _ => {
                return Err(wrong(
                    "it has a setting that this version does not know, or one twice",
                ));
            }
        };
        if table.insert(key.into_owned(), value).is_some() {
            return Err(wrong("it has a setting twice"));
        }
    }
    if private.is_some() && !table.contains_key("spa") {
        return Err(wrong("it has a private key, but no key of a host"));
    }
    Ok((name.to_owned(), table, private))
}
