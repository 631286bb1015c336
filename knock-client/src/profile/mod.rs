//! Profiles: the settings behind `knock-client home`.

mod values;

use crate::destination::{self, Families, can_be_host};
use crate::home;
use crate::next_line::NextLineAddress;
use crate::otp;
use crate::refused;
use crate::reply::ConnectTo;
use crate::sequence::text;
use crate::spa::{DoorName, GrantTime, HostPublicKey, PacketPort, SpaSettings};
use knock_sequence::Knock;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest file that is read; a thousand profiles are shorter.
const FILE_MAX: u64 = 1 << 20;

/// The file of profiles.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

/// The settings for a host: `[profile.home]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name or address, if it differs from the profile's name.
    pub host: Option<String>,
    /// The knocks.
    #[serde(default, deserialize_with = "values::knocks")]
    pub knock: Option<Vec<Knock>>,
    /// A file with the knocks.
    pub file: Option<PathBuf>,
    /// A file of one-time sequences.
    pub one_time: Option<PathBuf>,
    /// The settings of time-based sequences.
    pub otp: Option<otp::OtpSettings>,
    /// The host's public key, for single packet authorization.
    pub spa: Option<HostPublicKey>,
    /// The door to open with it.
    pub door: Option<DoorName>,
    /// For how long to open it.
    #[serde(rename = "for")]
    pub time: Option<GrantTime>,
    /// The port of the packet.
    #[serde(default, deserialize_with = "values::spa_port")]
    pub port: Option<PacketPort>,
    /// The file with this client's private key.
    pub key: Option<PathBuf>,
    /// The address to open for.
    #[serde(default, deserialize_with = "destination::source")]
    pub source: Option<IpAddr>,
    /// The server that names the next line of the one-time file.
    #[serde(default, deserialize_with = "values::next_line")]
    pub next_line: Option<NextLineAddress>,
    /// The pause between knocks.
    #[serde(default, deserialize_with = "values::duration")]
    pub delay: Option<Duration>,
    /// How long to try to connect.
    #[serde(default, deserialize_with = "values::timeout")]
    pub timeout: Option<Duration>,
    /// The port to connect to.
    #[serde(default, deserialize_with = "values::goal")]
    pub then_connect: Option<ConnectTo>,
    /// Whether each TCP knock completes a connection.
    #[serde(default)]
    pub handshake: bool,
    /// How long the door stays open after a knock.
    #[serde(default, deserialize_with = "values::duration")]
    pub open_for: Option<Duration>,
    /// How many times to knock again.
    pub retries: Option<u32>,
    /// Which versions of IP.
    pub family: Option<Families>,
    /// The log file.
    pub log: Option<PathBuf>,
}

/// A file of profiles that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It can't be read.
    #[error("cannot read {}: {}", path.display(), refused::of_file(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// It has no profile of that name.
    #[error("{} has no [profile.{name}]: `knock-client profiles` lists those that it has", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// There is no place for a file.
    #[error("this user has no home directory: name the file of profiles with --config")]
    NoHome,
}

/// Returns the file of profiles: the given one, or `~/.config/knock/config.toml`.
///
/// `None` means that this user has no home directory.
#[must_use]
pub fn path(given: Option<&Path>) -> Option<PathBuf> {
    given
        .map(Path::to_owned)
        .or_else(|| home::config_file("config.toml"))
}

/// Returns the profile of that name, or else one for that host.
///
/// A missing file has no profiles, unless it `must_exist`.
///
/// # Errors
///
/// The file can't be read, or one of its profiles is wrong.
pub fn find(path: &Path, name: &str, must_exist: bool) -> Result<Option<Profile>, ProfileError> {
    Ok(choose(all(path, must_exist)?, name))
}

/// Returns the profile of that name, or else one for that host, in the text of the file at `path`.
///
/// # Errors
///
/// One of the profiles is wrong.
pub fn find_in(text: &str, path: &Path, name: &str) -> Result<Option<Profile>, ProfileError> {
    Ok(choose(all_in(text, path)?, name))
}

fn choose(mut profiles: BTreeMap<String, Profile>, name: &str) -> Option<Profile> {
    profiles.remove(name).or_else(|| {
        let mut others = profiles.into_values();
        others.find(|profile| profile.host.as_deref() == Some(name))
    })
}

/// Returns all profiles of a file, by name.
///
/// A missing file has no profiles, unless it `must_exist`.
///
/// # Errors
///
/// The file can't be read, or one of its profiles is wrong.
pub fn all(path: &Path, must_exist: bool) -> Result<BTreeMap<String, Profile>, ProfileError> {
    match text(path, FILE_MAX) {
        Ok(text) => all_in(&text, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(BTreeMap::new()),
        Err(cause) => Err(ProfileError::Unreadable {
            path: path.to_owned(),
            cause,
        }),
    }
}

/// Returns the profile of that name.
///
/// # Errors
///
/// There is none, the file can't be read, or one of its profiles is wrong.
pub fn named(path: &Path, name: &str) -> Result<Profile, ProfileError> {
    let mut profiles = all(path, true)?;
    profiles.remove(name).ok_or_else(|| ProfileError::Unnamed {
        path: path.to_owned(),
        name: name.to_owned(),
    })
}

/// Returns all profiles in the text of the file at `path`, by name.
///
/// # Errors
///
/// One of the profiles is wrong.
pub fn all_in(text: &str, path: &Path) -> Result<BTreeMap<String, Profile>, ProfileError> {
    let wrong = |line, reason| ProfileError::Wrong {
        path: path.to_owned(),
        line,
        reason,
    };
    let Contents { profile: profiles } = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        wrong(before.matches('\n').count() + 1, described(error.message()))
    })?;
    for (name, profile) in &profiles {
        if let Some(reason) = profile.flaw() {
            let header = format!("[profile.{name}]");
            let line = text.lines().position(|line| line.trim() == header);
            let reason = format!("{header} {reason}");
            return Err(wrong(line.map_or(1, |line| line + 1), reason));
        }
    }
    let absolute = |(name, profile): (String, Profile)| (name, profile.relative_to(path));
    Ok(profiles.into_iter().map(absolute).collect())
}

/// Describes an error of the parser. It calls keys fields, and gives no cure for a value.
fn described(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message.to_owned();
    };
    let key = rest.split('`').next().unwrap_or_default();
    let known: Vec<_> = rest.split('`').skip(2).step_by(2).collect();
    match known.as_slice() {
        ["profile"] => {
            format!("unknown key {key}: each profile is a table of its own, as in [profile.{key}]")
        }
        known => format!("unknown key {key}: the keys here are {}", known.join(", ")),
    }
}

impl Profile {
    /// Returns the first fault of the keys, if they have one.
    fn flaw(&self) -> Option<String> {
        let sources = [
            self.knock.is_some(),
            self.file.is_some(),
            self.one_time.is_some(),
            self.otp.is_some(),
            self.spa.is_some(),
        ];
        if sources.iter().filter(|&&is_there| is_there).count() != 1 {
            return Some("needs exactly one of knock, file, one_time, otp and spa".to_owned());
        }
        if let Some(host) = self.host.as_ref().filter(|host| !can_be_host(host)) {
            return Some(format!(
                "has host = {host:?}, which is not a host: write a name or an address"
            ));
        }
        let only_spa = [
            (self.door.is_some(), "door"),
            (self.time.is_some(), "for"),
            (self.port.is_some(), "port"),
            (self.key.is_some(), "key"),
            (self.source.is_some(), "source"),
        ];
        let only_knocks = [
            (self.handshake, "handshake"),
            (self.next_line.is_some(), "next_line"),
        ];
        let (others, reason) = match self.spa {
            Some(_) => (
                &only_knocks[..],
                "is for knocks: leave it out, or leave out spa",
            ),
            None => (
                &only_spa[..],
                "is for single packet authorization: add spa, or leave it out",
            ),
        };
        let other = others.iter().find(|(is_there, _)| *is_there);
        other.map(|(_, key)| format!("has {key}, which {reason}"))
    }

    /// Returns what opens the door, in short and without secrets.
    #[must_use]
    pub fn method(&self) -> String {
        let named = |path: &Path| path.display().to_string();
        match (&self.knock, &self.file, &self.one_time, &self.otp) {
            (Some(knocks), _, _, _) => {
                let knocks = knocks.len();
                format!("{knocks} knock{}", if knocks == 1 { "" } else { "s" })
            }
            (_, Some(file), _, _) => format!("knocks in {}", named(file)),
            (_, _, Some(file), _) => format!("one-time lines in {}", named(file)),
            (_, _, _, Some(_)) => "time-based knocks".to_owned(),
            (None, None, None, None) => "one packet".to_owned(),
        }
    }

    /// Returns whether the file itself has what opens a door.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        let has_secret = |otp: &otp::OtpSettings| otp.secret.is_some();
        self.knock.is_some() || self.otp.as_ref().is_some_and(has_secret)
    }

    /// Returns the settings of single packet authorization.
    #[must_use]
    pub fn spa_settings(&self) -> SpaSettings {
        SpaSettings {
            host: self.spa.clone(),
            door: self.door.clone(),
            time: self.time,
            port: self.port,
            key: self.key.clone(),
            source: self.source,
            timeout: self.timeout,
            ..SpaSettings::default()
        }
    }

    /// Resolves paths: `~` is the home directory, and others begin at the directory of the file.
    fn relative_to(mut self, file: &Path) -> Self {
        let directory = file.parent().unwrap_or(Path::new(""));
        let otp = self.otp.as_mut().and_then(|otp| otp.secret_file.as_mut());
        let paths = [
            &mut self.file,
            &mut self.one_time,
            &mut self.key,
            &mut self.log,
        ]
        .into_iter();
        for path in paths.flatten().chain(otp) {
            *path = match (path.strip_prefix("~"), env::home_dir()) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => directory.join(&*path),
            };
        }
        self
    }
}

#[cfg(test)]
mod tests;
