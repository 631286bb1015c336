//! `--keep`: renews the grant before it ends and when this machine's address changes, until it is interrupted or a
//! command ends.
//!
//! ```text
//! signals ─┐
//! network ─┼─▶ events ─▶ the loop ─▶ orders ─▶ round ─┐
//! command ─┘      ▲        schedule                   │
//!                 └───────────────────────────────────┘
//! ```
//!
//! Only the loop decides. What takes time runs in threads, so that Ctrl-C ends the program at once.

mod command;
pub(crate) mod error;
mod network;
mod round;
mod schedule;
mod signals;

use self::command::RunningCommand;
pub use self::error::KeepError;
use self::network::{AddressChange, OwnAddresses};
use self::round::{Renewals, Renewed, SendOrder};
use self::schedule::{Schedule, SuspendAwareMoment};
use self::signals::Interruption;
use crate::failure::Failure;
use crate::log::Log;
use crate::plan::KnockPlan;
use crate::report::Reporter;
use std::ffi::OsString;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often the loop looks at this machine's address and at the clock, which continues during a suspension.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest time between two orders because of changes of the network.
const CALM: Duration = Duration::from_secs(1);

/// The settings of `--keep` besides the plan.
#[derive(Clone, Debug, Default)]
pub struct KeepOptions {
    /// The command to run meanwhile, with its arguments; empty for none.
    pub command: Vec<OsString>,
    /// How long to continue without a success; `None` is without end.
    pub give_up_after: Option<Duration>,
}

/// An event for which the loop waits.
#[derive(Debug)]
enum KeepEvent {
    /// A renewal has ended.
    Done(Box<Result<Renewed, Failure>>),
    /// An address or a route may have changed.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(dead_code, reason = "elsewhere nothing reports it")
    )]
    Network,
    /// The program is asked to end.
    Interrupted(Interruption),
    /// The command has ended with this exit code.
    Exited(u8),
}

/// Opens the door and keeps it open. `reports` makes a reporter for each thread that reports.
///
/// Returns the exit code: that of the command, or else 0 if the last grant has not ended yet, and 1 if it has.
///
/// # Errors
///
/// The door did not open, another renewal can't succeed, or the time without success was too long.
pub fn run<W: Write + Send + 'static>(
    plan: &KnockPlan,
    options: &KeepOptions,
    mut reports: impl FnMut() -> Reporter<W>,
) -> Result<u8, Failure> {
    let mut report = reports();
    let done = open_and_keep(plan, options, &mut report, reports());
    if let Err(failure) = &done {
        report.failed(failure);
    }
    report.finish().and(done)
}

fn open_and_keep<W: Write + Send + 'static>(
    plan: &KnockPlan,
    options: &KeepOptions,
    report: &mut Reporter<W>,
    mut report_of_renewals: Reporter<W>,
) -> Result<u8, Failure> {
    let schedule = Schedule::of_plan(plan)?;
    if let Some(path) = &plan.log {
        report.log_to(Log::open(path, &plan.host)?);
        report_of_renewals.log_to(Log::open(path, &plan.host)?);
    }
    for warning in &plan.warnings {
        report.warning(warning);
    }
    report.flush();
    let mut renewals = Renewals::new(plan.clone(), report_of_renewals);
    // Until then, Ctrl-C ends the program as it ends others.
    let renewed = renewals.open()?;

    let (events, received) = mpsc::channel();
    signals::watch(events.clone()).map_err(KeepError::Signals)?;
    network::watch(events.clone());
    let running = RunningCommand::start(&options.command, events.clone())?;
    let orders = renewals.start(events);
    let mut kept = Kept::new(schedule, options.give_up_after, renewed);
    kept.is_confirmed |= plan.then_connect.is_some();
    report.keeping(plan.method.sends(), kept.next, running.is_some());
    report.kept(kept.grant, kept.next);
    report.flush();

    let mut failure = None;
    loop {
        let wait = match failure {
            None => kept.wait(),
            Some(_) => LOOK,
        };
        match received.recv_timeout(wait) {
            Ok(KeepEvent::Done(done)) => {
                if let Err(error) = kept.done(*done, report) {
                    failure = Some(error);
                }
            }
            Ok(KeepEvent::Network) | Err(RecvTimeoutError::Timeout) => {}
            Ok(KeepEvent::Interrupted(interruption)) => match (&running, interruption) {
                (None, _) => return Ok(kept.end(report)),
                // The command decides what Ctrl-C means; it has received it, too.
                (Some(_), Interruption::Terminal) => {}
                (Some(running), Interruption::Terminate) => running.terminate(),
            },
            Ok(KeepEvent::Exited(code)) => {
                kept.end(report);
                return Ok(code);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(1),
        }
        if failure.is_none() {
            failure = kept.look(&plan.host, report).err();
        }
        match (failure.take(), &running) {
            (Some(error), None) => return Err(error),
            // The command may still have its connections.
            (Some(error), Some(_)) => {
                if !kept.has_failed {
                    kept.has_failed = true;
                    report.warning(&format!("{error}; nothing is renewed any longer"));
                }
                failure = Some(error);
            }
            (None, _) => {
                if let Some(order) = kept.order() {
                    // The thread ends only with this function.
                    let _sent = orders.send(order);
                }
            }
        }
        report.flush();
    }
}

/// The known state of the grant.
#[derive(Debug)]
struct Kept {
    schedule: Schedule,
    give_up_after: Option<Duration>,
    own: OwnAddresses,
    /// When the grant was obtained, or a moment before.
    since: SuspendAwareMoment,
    /// How long it lasts since then.
    grant: Duration,
    /// Whether an answer or a connection has confirmed it; a sequence alone has neither.
    is_confirmed: bool,
    /// The time between a success and the next renewal.
    next: Duration,
    /// When the last order ended in a failure, and the pause since then.
    paused: Option<(SuspendAwareMoment, Duration)>,
    /// The failures in a row, and the text of the last one.
    failures: u32,
    last_failure: String,
    /// When the first failure in a row, or the loss of the network, was noticed.
    troubled_since: Option<SuspendAwareMoment>,
    /// Whether an order is being carried out.
    is_busy: bool,
    /// When the last order was given.
    ordered: SuspendAwareMoment,
    /// Whether the address has changed since.
    has_moved: bool,
    /// Whether nothing is renewed any longer.
    has_failed: bool,
}

impl Kept {
    fn new(schedule: Schedule, give_up_after: Option<Duration>, renewed: Renewed) -> Self {
        let Renewed {
            since,
            answered,
            own,
        } = renewed;
        Self {
            schedule,
            give_up_after,
            own,
            since,
            grant: schedule.grant(answered),
            is_confirmed: answered.is_some(),
            next: schedule.next(answered),
            paused: None,
            failures: 0,
            last_failure: String::new(),
            troubled_since: None,
            is_busy: false,
            ordered: since,
            has_moved: false,
            has_failed: false,
        }
    }

    /// Returns the time until something is due, or until the next look.
    fn wait(&self) -> Duration {
        if self.is_busy || self.own.is_lost() {
            return LOOK;
        }
        self.due().min(LOOK)
    }

    /// Returns the time until the next order.
    fn due(&self) -> Duration {
        if self.has_moved {
            return CALM.saturating_sub(self.ordered.age());
        }
        match self.paused {
            Some((since, pause)) => pause.saturating_sub(since.age()),
            None => self.next.saturating_sub(self.since.age()),
        }
    }

    /// Returns what is to be sent now.
    fn order(&mut self) -> Option<SendOrder> {
        if self.is_busy || self.own.is_lost() || !self.due().is_zero() {
            return None;
        }
        let is_closed = self.has_moved || self.troubled_since.is_some();
        self.is_busy = true;
        self.has_moved = false;
        self.ordered = SuspendAwareMoment::now();
        Some(SendOrder { is_closed })
    }

    /// Takes note of the result of an order. Returns a failure that another order would have, too.
    fn done(
        &mut self,
        done: Result<Renewed, Failure>,
        report: &mut Reporter<impl Write>,
    ) -> Result<(), Failure> {
        self.is_busy = false;
        match done {
            Ok(Renewed {
                since,
                answered,
                own,
            }) => {
                self.since = since;
                self.own = own;
                self.grant = self.schedule.grant(answered);
                self.next = self.schedule.next(answered);
                self.paused = None;
                self.failures = 0;
                self.last_failure.clear();
                self.troubled_since = None;
                report.kept(self.grant, self.next);
                Ok(())
            }
            Err(error) if error.can_pass() => {
                self.troubled_since
                    .get_or_insert_with(SuspendAwareMoment::now);
                self.failures = self.failures.saturating_add(1);
                let pause = schedule::pause(self.failures);
                self.paused = Some((SuspendAwareMoment::now(), pause));
                let text = error.to_string();
                report.not_renewed(&text, pause, text != self.last_failure);
                self.last_failure = text;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at this machine's addresses. Fails if the time without success is too long.
    fn look(&mut self, host: &str, report: &mut Reporter<impl Write>) -> Result<(), Failure> {
        match self.own.look() {
            AddressChange::None => {}
            AddressChange::Lost => {
                self.troubled_since
                    .get_or_insert_with(SuspendAwareMoment::now);
                self.last_failure = format!("this machine has no route to {host}");
                report.lost(host);
            }
            AddressChange::Moved { from, to } => {
                self.has_moved = true;
                self.failures = 0;
                report.moved(to, Some(from));
            }
            AddressChange::Back(to) => {
                self.has_moved = true;
                self.failures = 0;
                report.moved(to, None);
            }
        }
        match (self.give_up_after, self.troubled_since) {
            (Some(limit), Some(since)) if since.age() >= limit => Err(KeepError::GaveUp {
                after: limit,
                last: self.last_failure.clone(),
            }
            .into()),
            (_, _) => Ok(()),
        }
    }

    /// Reports the end, and returns the exit code.
    fn end(&self, report: &mut Reporter<impl Write>) -> u8 {
        let left = self.grant.saturating_sub(self.since.age());
        report.ended(left, self.since.age(), self.is_confirmed);
        u8::from(left.is_zero())
    }
}
