//! Settings of a fleet: hosts that open together.

use std::{path::PathBuf, time::Duration};

/// The default time for which the engine may be silent.
pub const GRACE: Duration = Duration::from_secs(15);
/// The default of the longest grant of another host.
pub const LONGEST: Duration = Duration::from_secs(86_400);
/// The default number of members that are watched at a time: the faster one counts.
pub const WATCHES: u8 = 2;

/// `[fleet]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fleet {
    /// The members of the engine, as URLs; at least one.
    pub servers: Vec<String>,
    /// The group of this host.
    pub group: String,
    /// The name of this host, which no other host of the group has.
    pub host: String,
    /// The PEM file with the certificate authority of the members; none without TLS.
    pub ca: Option<PathBuf>,
    /// The PEM file with the certificate of this host.
    pub cert: Option<PathBuf>,
    /// The PEM file with the private key of this host.
    pub key: Option<PathBuf>,
    /// The files with the keys of the group: the first one seals, all open.
    pub seal: Vec<PathBuf>,
    /// What knocks do while this host is cut off.
    pub alone: Alone,
    /// For how long the engine may be silent before this host counts as cut off.
    pub grace: Duration,
    /// No grant of another host lasts longer here.
    pub longest: Duration,
    /// How many members are watched at a time, at least 1.
    pub watches: u8,
}

/// What a host does that is cut off from its group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Alone {
    /// Knocks and SPA packets open no door of the group.
    #[default]
    Closed,
    /// They open here, and the group learns of it later.
    Local,
}

impl Alone {
    /// Both values, with their words in the file.
    pub const WORDS: [(&str, Self); 2] = [("closed", Self::Closed), ("local", Self::Local)];

    /// Returns the word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Local => "local",
        }
    }
}
