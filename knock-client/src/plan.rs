//! What is to be done: the command line with what a profile adds.

use crate::cli::{KnockArgs, Options, Proxy};
use crate::failure::Failure;
use crate::next_line::NextLineServer;
use crate::one_time::{self, Taken};
use crate::otp::{self, Otp};
use crate::profile::{self, Profile};
use crate::reply::ConnectTo;
use crate::send::SendOptions;
use crate::sequence;
use crate::target::{Families, Target};
use knock_sequence::{KnockSpec, Sequence};
use std::path::PathBuf;
use std::time::Duration;

/// Packets to different ports may take different ways, which differ by less than this wherever it
/// was measured; nobody notices a few of these.
const DELAY: Duration = Duration::from_millis(5);

/// Longer than a person waits for nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whom to knock on.
    pub host: String,
    /// Where the knocks come from.
    pub source: Source,
    /// Who says which line of a one-time file is next.
    pub next_line: Option<NextLineServer>,
    /// The pause between knocks.
    pub delay: Duration,
    /// Whether TCP knocks are whole connections.
    pub handshake: bool,
    /// The port to connect to, if to one.
    pub then_connect: Option<ConnectTo>,
    /// How long to try to connect.
    pub timeout: Duration,
    /// How often to knock again.
    pub retries: u32,
    /// Which versions of IP.
    pub families: Families,
    /// Where to write what is done.
    pub log: Option<PathBuf>,
}

/// Where the knocks come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are known.
    Sequence(Sequence),
    /// Each time the next line of this file.
    OneTime(PathBuf),
    /// Each time what the time says.
    Otp(Otp),
}

/// Asks a person for the knocks of a host; `None` if there is nobody who answers.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> Option<Sequence>;

impl Plan {
    /// What a command line asks for.
    ///
    /// # Errors
    ///
    /// There are no knocks, or a file is wrong.
    pub fn of_args(args: &KnockArgs, ask: Ask<'_>) -> Result<Self, Failure> {
        let host = args.host.as_deref().unwrap_or_default();
        let plan = Self::new(host, &args.knocks, &args.options, ask)?;
        Ok(Self {
            then_connect: args.then_connect.or(plan.then_connect),
            ..plan
        })
    }

    /// What ssh asks for. Nobody is asked: standard input belongs to what is passed on.
    ///
    /// # Errors
    ///
    /// There are no knocks, or a file is wrong.
    pub fn of_proxy(proxy: &Proxy) -> Result<Self, Failure> {
        let plan = Self::new(&proxy.host, &proxy.knocks, &proxy.options, &mut |_| None)?;
        Ok(Self {
            then_connect: Some(ConnectTo::Port(proxy.port)),
            ..plan
        })
    }

    fn new(
        host: &str,
        words: &[KnockSpec],
        options: &Options,
        ask: Ask<'_>,
    ) -> Result<Self, Failure> {
        let given = match (&options.file, &options.one_time) {
            (Some(file), _) => Some(Source::Sequence(sequence::read(file)?)),
            (None, Some(file)) => Some(Source::OneTime(file.clone())),
            (None, None) if options.otp().is_given() => Some(Source::Otp(options.otp().check()?)),
            (None, None) if words.is_empty() => None,
            (None, None) => {
                let knocks = words.iter().map(|word| word.knock(options.bare()));
                Some(Source::Sequence(knocks.collect()))
            }
        };
        // Who says what to knock on needs no profile, and none that is wrong stands in the way.
        let profile = match given {
            Some(_) => None,
            None => profile(host, options)?,
        }
        .unwrap_or_default();
        let source = match given {
            Some(source) => source,
            None => match source(&profile, options)? {
                Some(source) => source,
                None => Source::Sequence(ask(host).ok_or_else(|| Failure::NoKnocks {
                    host: host.to_owned(),
                })?),
            },
        };
        let next_line = options.next_line.clone().or(profile.next_line);
        if next_line.is_some() && !matches!(source, Source::OneTime(_)) {
            return Err(Failure::NextLineOfNothing);
        }
        Ok(Self {
            next_line,
            host: profile.host.unwrap_or_else(|| host.to_owned()),
            source,
            delay: options.delay.or(profile.delay).unwrap_or(DELAY),
            handshake: options.handshake || profile.handshake,
            then_connect: profile.then_connect,
            timeout: options.timeout.or(profile.timeout).unwrap_or(TIMEOUT),
            retries: options.retries.or(profile.retries).unwrap_or(0),
            families: options.families().or(profile.family).unwrap_or_default(),
            log: options.log.clone().or(profile.log),
        })
    }
}

impl Plan {
    /// How knocks are sent.
    #[must_use]
    pub fn send_options(&self) -> SendOptions {
        SendOptions {
            delay: self.delay,
            handshake: self.handshake.then_some(self.timeout),
            listen: self.then_connect == Some(ConnectTo::Reply),
        }
    }

    /// The line of a one-time file that a host takes next, if somebody says.
    ///
    /// # Errors
    ///
    /// Who should say does not.
    pub fn next_line(&self, target: &Target) -> Result<Option<usize>, Failure> {
        let Some(next_line) = &self.next_line else {
            return Ok(None);
        };
        // Where the name has several addresses, each may be another host.
        let here = target.to_string();
        let family = next_line.host.as_ref().and_then(|_| self.families.only());
        Ok(Some(next_line.ask(&here, family, self.timeout)?))
    }
}

impl Source {
    /// The knocks to send to a target now, and from where they were taken: from this line of a
    /// one-time file, or from the next. `round` is how many sequences there were before.
    ///
    /// # Errors
    ///
    /// There are no more.
    pub fn next(
        &self,
        line: Option<usize>,
        target: &Target,
        round: u32,
    ) -> Result<(Sequence, Option<Taken>), Failure> {
        match self {
            Self::Sequence(knocks) => Ok((knocks.clone(), None)),
            Self::Otp(otp) => Ok((otp.sequence(target, round)?, None)),
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

fn profile(host: &str, options: &Options) -> Result<Option<Profile>, Failure> {
    let path = options.config.clone().or_else(profile::default_path);
    match path {
        Some(path) => Ok(profile::find(&path, host, options.config.is_some())?),
        None => Ok(None),
    }
}

fn source(profile: &Profile, options: &Options) -> Result<Option<Source>, Failure> {
    if let Some(otp) = &profile.otp {
        // Where it runs, only the command line may know.
        let source = options.source.or(otp.source);
        let otp = otp::Settings {
            source,
            ..otp.clone()
        };
        return Ok(Some(Source::Otp(otp.check()?)));
    }
    Ok(match (&profile.knock, &profile.file, &profile.one_time) {
        (Some(knocks), _, _) => Some(Source::Sequence(knocks.clone())),
        (_, Some(file), _) => Some(Source::Sequence(sequence::read(file)?)),
        (_, _, Some(file)) => Some(Source::OneTime(file.clone())),
        (None, None, None) => None,
    })
}
