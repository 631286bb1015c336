//! The plan of a run: the command line, completed by a profile.

use crate::cli::{KnockArgs, KnockOptions, Proxy};
use crate::connect::Attempted;
use crate::destination::{Destination, Families};
use crate::exposure;
use crate::failure::Failure;
use crate::next_line::NextLineAddress;
use crate::one_time::{self, TakenLine};
use crate::otp::{self, CheckedOtp, OtpError};
use crate::profile::{self, Profile};
use crate::reply::ConnectTo;
use crate::report::Sends;
use crate::send::SendOptions;
use crate::sequence;
use crate::spa::{CheckedSpa, SpaError};
use knock_sequence::{KnockSpec, Sequence};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Packets to different ports can take different paths, whose delays differed by less than this
/// wherever they were measured. A few of these pauses are not noticeable.
const DELAY: Duration = Duration::from_millis(5);

/// Longer than a person waits without an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The purpose of a run.
#[derive(Clone, Debug)]
pub struct KnockPlan {
    /// The host to knock on.
    pub host: String,
    /// The packets for it.
    pub method: Method,
    /// The server that names the next line of the one-time file.
    pub next_line: Option<NextLineAddress>,
    /// The pause between knocks.
    pub delay: Duration,
    /// Whether each TCP knock completes a connection.
    pub handshake: bool,
    /// The port to connect to after the last knock.
    pub then_connect: Option<ConnectTo>,
    /// How long to try to connect.
    pub timeout: Duration,
    /// How many times to knock again.
    pub retries: u32,
    /// How long the door stays open after a knock, if that is known.
    pub open_for: Option<Duration>,
    /// Which versions of IP.
    pub families: Families,
    /// The log file.
    pub log: Option<PathBuf>,
    /// Warnings about files with secrets.
    pub warnings: Vec<String>,
}

/// The packets for the host.
#[derive(Clone, Debug)]
pub enum Method {
    /// A sequence of knocks.
    Knocks(KnockSource),
    /// A packet of single packet authorization.
    Packet(Box<CheckedSpa>),
}

impl Method {
    /// Returns what is sent before a connection.
    #[must_use]
    pub const fn sent(&self) -> Attempted {
        match self {
            Self::Knocks(KnockSource::Sequence(_)) => Attempted::Knocks,
            Self::Knocks(KnockSource::OneTime(_)) => Attempted::OneTime,
            Self::Knocks(KnockSource::Otp(_)) => Attempted::TimeBased,
            Self::Packet(_) => Attempted::Packet,
        }
    }

    /// Returns what is sent, in short.
    #[must_use]
    pub const fn sends(&self) -> Sends {
        match self {
            Self::Knocks(_) => Sends::Knocks,
            Self::Packet(_) => Sends::Packets,
        }
    }
}

/// Where the knocks come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnockSource {
    /// The same knocks each time.
    Sequence(Sequence),
    /// The next line of this file each time.
    OneTime(PathBuf),
    /// The time-based sequence of the current period.
    Otp(CheckedOtp),
}

/// The sequences that a run has sent, which decides about the next time-based one.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    count: u32,
    /// The periods whose sequences were sent, if none may be sent twice.
    used: Option<BTreeSet<u64>>,
}

impl Rounds {
    /// Starts without a round; a time-based sequence is never sent twice.
    #[must_use]
    pub fn unused() -> Self {
        Self {
            count: 0,
            used: Some(BTreeSet::new()),
        }
    }

    fn of_otp(
        &mut self,
        otp: &CheckedOtp,
        destination: &Destination,
    ) -> Result<Sequence, OtpError> {
        let round = self.count;
        self.count = self.count.wrapping_add(1);
        match &mut self.used {
            None => otp.sequence(destination, round),
            Some(used) => otp.unused_sequence(destination, used),
        }
    }
}

/// Asks a person for the knocks of a host; `None` without an answer.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> Option<Sequence>;

impl KnockPlan {
    /// Makes the plan of a command line.
    ///
    /// # Errors
    ///
    /// There are no knocks, or a file is wrong.
    pub fn of_args(args: &KnockArgs, ask: Ask<'_>) -> Result<Self, Failure> {
        let host = args.host.as_deref().unwrap_or_default();
        let plan = Self::new(host, &args.knocks, &args.options, ask)?;
        let closes = args.options.spa.close;
        let then_connect = match args.then_connect {
            Some(_) if closes => return Err(SpaError::CloseAndConnect.into()),
            Some(goal) => Some(goal),
            None => plan.then_connect.filter(|_| !closes),
        };
        if then_connect == Some(ConnectTo::Reply) && args.options.spa.no_answer {
            return Err(SpaError::ReplyWithoutAnswer.into());
        }
        Ok(Self {
            then_connect,
            open_for: args.open_for.or(plan.open_for),
            ..plan
        })
    }

    /// Makes the plan of `proxy`. It prompts for nothing, because standard input carries data.
    ///
    /// # Errors
    ///
    /// There are no knocks, or a file is wrong.
    pub fn of_proxy(proxy: &Proxy) -> Result<Self, Failure> {
        if proxy.options.spa.close {
            return Err(SpaError::CloseAndConnect.into());
        }
        let plan = Self::new(&proxy.host, &proxy.knocks, &proxy.options, &mut |_| None)?;
        Ok(Self {
            then_connect: Some(ConnectTo::Port(proxy.port)),
            ..plan
        })
    }

    fn new(
        host: &str,
        words: &[KnockSpec],
        options: &KnockOptions,
        ask: Ask<'_>,
    ) -> Result<Self, Failure> {
        let given = given(words, options)?;
        let settings = options.spa.settings(options.source, options.timeout);
        // With knocks or a key on the command line no profile is read, so a wrong one does no harm.
        let (profile, profiles) = match (&given, &settings.host) {
            (None, None) => profile(host, options)?,
            (Some(_), _) | (None, Some(_)) => (None, None),
        };
        let profile = profile.unwrap_or_default();
        let has_host = settings.host.is_some() || profile.spa.is_some();
        if let (false, Some(option)) = (has_host, settings.lone_option()) {
            return Err(SpaError::NoHost(option).into());
        }
        let method = match given {
            Some(source) => Method::Knocks(source),
            None if has_host => {
                Method::Packet(Box::new(settings.or(profile.spa_settings()).check()?))
            }
            None => Method::Knocks(match source(&profile, options)? {
                Some(source) => source,
                None => KnockSource::Sequence(ask(host).ok_or_else(|| Failure::NoKnocks {
                    host: host.to_owned(),
                })?),
            }),
        };
        let warnings = warnings(options, &profile, profiles.as_deref(), &method);
        let next_line = options.next_line.clone().or(profile.next_line);
        if next_line.is_some() && !matches!(method, Method::Knocks(KnockSource::OneTime(_))) {
            return Err(Failure::NextLineOfNothing);
        }
        Ok(Self {
            next_line,
            host: profile.host.unwrap_or_else(|| host.to_owned()),
            method,
            delay: options.delay.or(profile.delay).unwrap_or(DELAY),
            handshake: options.handshake || profile.handshake,
            then_connect: profile.then_connect,
            timeout: options.timeout.or(profile.timeout).unwrap_or(TIMEOUT),
            retries: options.retries.or(profile.retries).unwrap_or(0),
            open_for: profile.open_for,
            families: options.families().or(profile.family).unwrap_or_default(),
            log: options.log.clone().or(profile.log),
            warnings,
        })
    }
}

impl KnockPlan {
    /// Returns how knocks are sent.
    #[must_use]
    pub fn send_options(&self) -> SendOptions {
        SendOptions {
            delay: self.delay,
            handshake: self.handshake.then_some(self.timeout),
            listen: self.then_connect == Some(ConnectTo::Reply),
        }
    }

    /// Returns the line of the one-time file that the host accepts next, if a server is named for it.
    ///
    /// # Errors
    ///
    /// The server does not name one.
    pub fn next_line(&self, destination: &Destination) -> Result<Option<usize>, Failure> {
        let Some(next_line) = &self.next_line else {
            return Ok(None);
        };
        // Each address of a name can be another host.
        let here = destination.to_string();
        let family = next_line.host.as_ref().and_then(|_| self.families.only());
        Ok(Some(next_line.ask(&here, family, self.timeout)?))
    }
}

impl KnockSource {
    /// Returns the knocks to send to a destination now, and the line of the one-time file they were taken
    /// from: `line`, or the next unused one. `rounds` has the sequences before this one.
    ///
    /// # Errors
    ///
    /// No sequence is left, or it can't be read.
    pub fn next(
        &self,
        line: Option<usize>,
        destination: &Destination,
        rounds: &mut Rounds,
    ) -> Result<(Sequence, Option<TakenLine>), Failure> {
        match self {
            Self::Sequence(knocks) => Ok((knocks.clone(), None)),
            Self::Otp(otp) => Ok((rounds.of_otp(otp, destination)?, None)),
            Self::OneTime(file) => {
                let taken = match line {
                    Some(line) => one_time::take_line(file, line)?,
                    None => one_time::take(file)?,
                };
                Ok((taken.knocks.clone(), Some(taken)))
            }
        }
    }
}

/// Returns the source of knocks on the command line.
fn given(words: &[KnockSpec], options: &KnockOptions) -> Result<Option<KnockSource>, Failure> {
    Ok(match (&options.file, &options.one_time) {
        (Some(file), _) => Some(KnockSource::Sequence(sequence::read(file)?)),
        (None, Some(file)) => Some(KnockSource::OneTime(file.clone())),
        (None, None) if options.otp().is_given() => Some(KnockSource::Otp(options.otp().check()?)),
        (None, None) if words.is_empty() => None,
        (None, None) => {
            let knocks = words.iter().map(|word| word.knock(options.bare()));
            Some(KnockSource::Sequence(knocks.collect()))
        }
    })
}

/// Returns the profile of a host, and the file that was read for it.
fn profile(
    host: &str,
    options: &KnockOptions,
) -> Result<(Option<Profile>, Option<PathBuf>), Failure> {
    Ok(match profile::path(options.config.as_deref()) {
        Some(path) => (
            profile::find(&path, host, options.config.is_some())?,
            Some(path),
        ),
        None => (None, None),
    })
}

/// Returns a warning for each file with a secret of this run that other users can use.
fn warnings(
    options: &KnockOptions,
    profile: &Profile,
    profiles: Option<&Path>,
    method: &Method,
) -> Vec<String> {
    let of_otp = |otp: &otp::OtpSettings| otp.secret_file.clone();
    let named = match method {
        Method::Packet(spa) => (
            Some(spa.key_file().to_owned()),
            "this machine's private key",
        ),
        Method::Knocks(KnockSource::Otp(_)) => (
            of_otp(&options.otp()).or_else(|| profile.otp.as_ref().and_then(of_otp)),
            "the secret of a door",
        ),
        Method::Knocks(KnockSource::OneTime(file)) => {
            (Some(file.clone()), "the sequences of a door")
        }
        Method::Knocks(KnockSource::Sequence(_)) => (
            options.file.clone().or_else(|| profile.file.clone()),
            "the sequence of a door",
        ),
    };
    let profiles = profiles.filter(|_| profile.has_secret());
    let all = [
        (named.0.as_deref(), named.1),
        (profiles, "what opens a door"),
    ];
    all.into_iter()
        .filter_map(|(path, what)| exposure::warning(path?, what))
        .collect()
}

fn source(profile: &Profile, options: &KnockOptions) -> Result<Option<KnockSource>, Failure> {
    if let Some(otp) = &profile.otp {
        // The client's public address can depend on where it runs, so the command line overrides.
        let source = options.source.or(otp.source);
        let otp = otp::OtpSettings {
            source,
            ..otp.clone()
        };
        return Ok(Some(KnockSource::Otp(otp.check()?)));
    }
    Ok(match (&profile.knock, &profile.file, &profile.one_time) {
        (Some(knocks), _, _) => Some(KnockSource::Sequence(knocks.clone())),
        (_, Some(file), _) => Some(KnockSource::Sequence(sequence::read(file)?)),
        (_, _, Some(file)) => Some(KnockSource::OneTime(file.clone())),
        (None, None, None) => None,
    })
}
