//! The error of a run, and whether a retry or another command line can help.

use crate::connect::ConnectError;
use crate::destination::{Destination, ResolveError};
use crate::fwknop::error::ImportError;
use crate::keep::error::KeepError;
use crate::log::LogError;
use crate::next_line::NextLineError;
use crate::one_time::OneTimeError;
use crate::otp::OtpError;
use crate::profile::ProfileError;
use crate::refused;
use crate::reply::NoReply;
use crate::send::SendError;
use crate::sequence::SequenceError;
use crate::share::error::ShareError;
use crate::spa::{HostRefusal, KeyFileError, NotSent, SpaError, Unanswered};
use crate::ssh_config::error::SshConfigError;
use knock_sequence::duration::spell;
use std::io;
use std::time::Duration;

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No knocks are given.
    #[error(
        "no knocks for '{host}': write them after the host, such as tcp/7000 udp/8000, or give --spa, --file \
         or --one-time, or make a profile [profile.{host}] in ~/.config/knock/config.toml"
    )]
    NoKnocks {
        /// The host or profile.
        host: String,
    },
    /// The profiles are wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// ssh's configuration can't have the profile.
    #[error(transparent)]
    SshConfig(#[from] SshConfigError),
    /// The profile can't be shared or added.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The file with the knocks is wrong.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// No unused sequence could be taken.
    #[error(transparent)]
    OneTime(#[from] OneTimeError),
    /// The time-based sequence could not be derived.
    #[error(transparent)]
    Otp(#[from] OtpError),
    /// No packet of single packet authorization can be made.
    #[error(transparent)]
    Spa(#[from] SpaError),
    /// The key can't be made.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The door can't be kept open.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The stanzas of fwknop can't be converted.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A packet could not be sent.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The host did not answer a packet.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The host refused what a packet asked for.
    #[error(transparent)]
    Refused(#[from] HostRefusal),
    /// The opened door has no TCP port.
    #[error(
        "the door is open, but {destination} names no TCP port of it: name one with --then-connect PORT"
    )]
    NoPort {
        /// The host.
        destination: Destination,
    },
    /// The host has opened the door, but the connection is not answered.
    #[error(
        "{opened}, but tcp/{port} does not answer within {}: check that the door opens this port, and \
         firewalls on the way", spell(*limit)
    )]
    OpenButSilent {
        /// The host's answer.
        opened: String,
        /// The port.
        port: u16,
        /// The time that was allowed.
        limit: Duration,
    },
    /// The number of the next line could not be obtained.
    #[error(transparent)]
    NextLine(#[from] NextLineError),
    /// A line number is asked for without a one-time file.
    #[error("--next-line needs --one-time FILE: give the file, or leave --next-line out")]
    NextLineOfNothing,
    /// The host has no usable address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A knock could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The host did not reply which port it opened.
    #[error(transparent)]
    Reply(#[from] NoReply),
    /// The port did not open.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection broke: {}; connect again", refused::plain(.0))]
    Broken(io::Error),
    /// The log could not be written, whether or not the rest succeeded.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Standard output could not be written, whether or not the rest succeeded.
    #[error("cannot write to standard output: {}; some lines are missing", refused::plain(.0))]
    Output(io::Error),
}

impl Failure {
    /// Returns whether knocking again can help.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_worth_a_retry(),
            Self::Reply(_) | Self::Unanswered(_) | Self::OpenButSilent { .. } => true,
            Self::Refused(refusal) => refusal.is_worth_a_retry(),
            Self::NoKnocks { .. }
            | Self::Profile(_)
            | Self::SshConfig(_)
            | Self::Share(_)
            | Self::Sequence(_)
            | Self::OneTime(_)
            | Self::Otp(_)
            | Self::Spa(_)
            | Self::KeyFile(_)
            | Self::Keep(_)
            | Self::Import(_)
            | Self::NotSent(_)
            | Self::NoPort { .. }
            | Self::NextLine(_)
            | Self::NextLineOfNothing
            | Self::Resolve(_)
            | Self::Send(_)
            | Self::Broken(_)
            | Self::Log(_)
            | Self::Output(_) => false,
        }
    }

    /// Returns whether the cause can pass while a door is kept open: the network is away, the host restarts, or a
    /// clock is being set.
    #[must_use]
    pub fn can_pass(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Reply(_)
            | Self::Unanswered(_)
            | Self::OpenButSilent { .. }
            | Self::Resolve(_)
            | Self::Send(_)
            | Self::NotSent(_)
            | Self::NextLine(_)
            | Self::NoPort { .. }
            | Self::Otp(OtpError::NoSource { .. } | OtpError::Zero(_) | OtpError::AllUsed(_)) => {
                true
            }
            Self::Refused(refusal) => refusal.can_pass(),
            Self::Otp(
                OtpError::Which
                | OtpError::Unreadable { .. }
                | OtpError::NoVariable(_)
                | OtpError::Bad { .. }
                | OtpError::OtherFamily { .. },
            )
            | Self::NoKnocks { .. }
            | Self::Profile(_)
            | Self::SshConfig(_)
            | Self::Share(_)
            | Self::Sequence(_)
            | Self::OneTime(_)
            | Self::Spa(_)
            | Self::KeyFile(_)
            | Self::Keep(_)
            | Self::Import(_)
            | Self::NextLineOfNothing
            | Self::Broken(_)
            | Self::Log(_)
            | Self::Output(_) => false,
        }
    }

    /// Returns whether the command line or a file has to be changed first.
    #[must_use]
    pub fn is_bad_usage(&self) -> bool {
        match self {
            Self::NoKnocks { .. }
            | Self::Profile(_)
            | Self::SshConfig(_)
            | Self::Share(
                ShareError::Secret { .. }
                | ShareError::File { .. }
                | ShareError::Name { .. }
                | ShareError::Uri { .. }
                | ShareError::Exists { .. },
            )
            | Self::Sequence(_)
            | Self::NextLineOfNothing
            | Self::OneTime(OneTimeError::Line { .. })
            | Self::Otp(
                OtpError::Which
                | OtpError::NoVariable(_)
                | OtpError::Bad { .. }
                | OtpError::OtherFamily { .. },
            )
            | Self::Spa(
                SpaError::NoHost(_)
                | SpaError::Host(_)
                | SpaError::Weak(_)
                | SpaError::Own(_)
                | SpaError::CloseAndConnect
                | SpaError::ReplyWithoutAnswer
                | SpaError::Key(KeyFileError::Bad { .. } | KeyFileError::NoHome),
            )
            | Self::KeyFile(KeyFileError::Bad { .. } | KeyFileError::NoHome)
            | Self::Keep(
                KeepError::Closes
                | KeepError::WastesLines { .. }
                | KeepError::ShorterThanPeriod { .. },
            )
            | Self::Import(
                ImportError::NoHome
                | ImportError::Empty(_)
                | ImportError::Key(_)
                | ImportError::NoStanza { .. },
            ) => true,
            Self::OneTime(
                OneTimeError::Unreadable { .. }
                | OneTimeError::Unmarkable { .. }
                | OneTimeError::NoLine { .. }
                | OneTimeError::Exhausted { .. },
            )
            | Self::Otp(
                OtpError::Unreadable { .. }
                | OtpError::NoSource { .. }
                | OtpError::Zero(_)
                | OtpError::AllUsed(_),
            )
            | Self::Spa(SpaError::Key(
                KeyFileError::Missing { .. }
                | KeyFileError::Unreadable { .. }
                | KeyFileError::Exists { .. }
                | KeyFileError::Unwritable { .. }
                | KeyFileError::NoFiles { .. }
                | KeyFileError::Random(_),
            ))
            | Self::KeyFile(
                KeyFileError::Missing { .. }
                | KeyFileError::Unreadable { .. }
                | KeyFileError::Exists { .. }
                | KeyFileError::Unwritable { .. }
                | KeyFileError::NoFiles { .. }
                | KeyFileError::Random(_),
            )
            | Self::Keep(
                KeepError::NotRun { .. } | KeepError::Signals(_) | KeepError::GaveUp { .. },
            )
            | Self::Import(ImportError::Unreadable { .. })
            | Self::Share(ShareError::Unwritable { .. })
            | Self::NotSent(_)
            | Self::Unanswered(_)
            | Self::Refused(_)
            | Self::NoPort { .. }
            | Self::OpenButSilent { .. }
            | Self::NextLine(_)
            | Self::Resolve(_)
            | Self::Send(_)
            | Self::Reply(_)
            | Self::Connect(_)
            | Self::Broken(_)
            | Self::Log(_)
            | Self::Output(_) => false,
        }
    }
}
