//! What could not be done.

use crate::connect::ConnectError;
use crate::log::LogError;
use crate::next_line::NextLineError;
use crate::one_time::OneTimeError;
use crate::otp::OtpError;
use crate::profile::ProfileError;
use crate::refused;
use crate::reply::NoReply;
use crate::send::SendError;
use crate::sequence::SequenceError;
use crate::target::ResolveError;
use std::io;

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody says what to knock on.
    #[error(
        "no knocks for '{host}': write them behind it, such as tcp/7000 udp/8000, or give --file \
         or --one-time, or make a profile [profile.{host}] in ~/.config/knock/config.toml"
    )]
    NoKnocks {
        /// Whom they would be for.
        host: String,
    },
    /// The profiles are wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The file with the knocks is wrong.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// There is no sequence that was not used.
    #[error(transparent)]
    OneTime(#[from] OneTimeError),
    /// There is no sequence of the time.
    #[error(transparent)]
    Otp(#[from] OtpError),
    /// It is not known which sequence is next.
    #[error(transparent)]
    NextLine(#[from] NextLineError),
    /// A line is asked for where there are none.
    #[error("--next-line asks which line of a file is next: give --one-time FILE, or leave it out")]
    NextLineOfNothing,
    /// There is nobody to knock on.
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
    /// The work was done or not, but could not be noted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The work was done or not, but could not be told.
    #[error("cannot write to standard output: {}; what was not written is lost", refused::plain(.0))]
    Output(io::Error),
}

impl Failure {
    /// Whether another knock might help.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_worth_a_retry(),
            Self::Reply(_) => true,
            Self::NoKnocks { .. }
            | Self::Profile(_)
            | Self::Sequence(_)
            | Self::OneTime(_)
            | Self::Otp(_)
            | Self::NextLine(_)
            | Self::NextLineOfNothing
            | Self::Resolve(_)
            | Self::Send(_)
            | Self::Broken(_)
            | Self::Log(_)
            | Self::Output(_) => false,
        }
    }

    /// Whether somebody has to write something else before it can be done.
    #[must_use]
    pub fn is_bad_usage(&self) -> bool {
        match self {
            Self::NoKnocks { .. }
            | Self::Profile(_)
            | Self::Sequence(_)
            | Self::NextLineOfNothing
            | Self::OneTime(OneTimeError::Line { .. })
            | Self::Otp(
                OtpError::Which
                | OtpError::NoVariable(_)
                | OtpError::Bad { .. }
                | OtpError::OtherFamily { .. },
            ) => true,
            Self::OneTime(
                OneTimeError::Unreadable { .. }
                | OneTimeError::Unmarkable { .. }
                | OneTimeError::NoLine { .. }
                | OneTimeError::Exhausted { .. },
            )
            | Self::Otp(
                OtpError::Unreadable { .. } | OtpError::NoSource { .. } | OtpError::Zero(_),
            )
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
