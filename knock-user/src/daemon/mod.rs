//! The loop of the daemon: it turns events of the kernel side into lines on the console, entries in
//! the ledger, and commands. Packets do not wait for it: the program judges them even if the loop
//! stops reading.
//!
//! May use every room but `tools`. Nothing but `main.rs` uses it.

use std::{collections::BTreeSet, io::Write, time::Duration};

use anyhow::{Result, anyhow};
use aya::maps::{MapData, RingBuf};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until},
};

use crate::{
    apply::{Deployed, Protection, options::Run, plan::Plan},
    commands::{CommandReport, Runner},
    console::{self, Console, DoorText, Named, log_files::LogFiles},
    control::{Call, Server},
    host::{clock, os_error, service_manager},
    interfaces::attach::Attached,
    kernel::{persistence::Persistence, program::LoadedCopy},
    ledger::Ledger,
    model::settings::{Door, Settings},
    sequences::{clock_skew::SkewDetector, next_line_server::NextLineServer},
};

mod change;
mod doors;
mod ending;
mod events;
mod files;
mod frames;
mod making;
mod packets;
mod ring;
mod room;
mod signals;

mod standing;
mod stats;
mod surroundings;
mod throttle;
mod trial;
mod upkeep;
mod waiting;

pub use frames::Watches;
pub use signals::Signals;

use doors::Doors;
use files::Files;
use frames::loaded_copy;
use making::{Making, Then, made};
use packets::Packets;
use ring::{ProgramLog, program_log, readable, something_logged};
use signals::Asked;
use stats::Stats;
use surroundings::Surroundings;
use throttle::Throttle;
use trial::{LastTrial, Trial};
use waiting::PendingInterfaces;

/// Answers a request, now or later. The loop does not know which requests there are.
pub type Handle<W> = fn(&mut Daemon<W>, Call);

/// How often the ledger is compared with the maps, so that lost events don't matter for long.
const SWEEP: Duration = Duration::from_secs(30);
/// How often counters are read.
const TALLY: Duration = Duration::from_secs(1);
/// How long commands may take to end when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Failed commands of a door that are logged in a second, each in its own line.
const FAILED_LOGGED: u32 = 16;

/// The protection of an instance, and everything that follows its events.
pub struct Daemon<W> {
    pub(crate) run: Run,
    pub(crate) protection: Protection,
    /// The configuration in force, to which a failed reload returns.
    pub(crate) plan: Plan,
    doors: Doors,
    /// The protected ports, as text.
    pub(crate) ports: Vec<String>,
    /// Answers requests.
    handle: Handle<W>,
    /// Called when the program is detached, once that is requested.
    detaching: Option<Then<()>>,
    /// The trial of the configuration in force, if it is on trial.
    trial: Option<Trial>,
    /// How the last trial ended.
    last_trial: Option<LastTrial>,
    /// A configuration that another thread prepares.
    making: Option<Making>,
    /// The second copy of the program, while it is being loaded.
    copy: Option<oneshot::Receiver<LoadedCopy>>,
    /// Why the last reload failed, if it did.
    pub(crate) reload_failed: Option<String>,
    /// Interfaces that are not protected.
    waiting: PendingInterfaces,
    /// The state that was last sent to the service manager.
    reported_state: String,
    /// Whether a reload was requested again while one was being prepared.
    reloads_again: bool,
    pub(crate) ledger: Ledger,
    pub(crate) console: Console<W>,
    log: Option<ProgramLog>,
    pub(crate) commands: Runner,
    reports: mpsc::Receiver<CommandReport>,
    /// The longest that any attempt lives.
    attempt_max_ticks: u32,
    stats: Stats,
    untracked: u64,
    /// The last reported state of the files of one-time sequences.
    pub(crate) files: Files,
    next_line: NextLineServer,
    /// Recognizes time-based knocks of clients whose clock is wrong.
    skew_detector: SkewDetector,
    /// The last SPA packets of sources.
    packets: Packets,
    /// Warnings of commands that were left out.
    left_outs: Throttle,
    /// Warnings of commands that failed.
    failed_commands: Throttle,
    /// Warnings of gateways that got a grant.
    gateways: Throttle,
    /// Whether the kernel side had no room for a grant.
    is_full: bool,
    /// Whether the last batch of events used up one-time or time-based sequences.
    some_are_spent: bool,
    pub(crate) since_ns: u64,
    /// Whether the failure of standard output was reported.
    pub(crate) is_mute: bool,
    /// Whether pins outlive this process, as seen at the start.
    persistence: Option<Persistence>,
    /// Files that each reload opens again.
    log_files: LogFiles,
    /// When the host's open ports were last read, in milliseconds since boot.
    host_at_ms: u64,
    /// The last reported failures of interfaces.
    failures: Vec<String>,
    /// What the configuration does not cover on this host.
    surroundings: Surroundings,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum StopCause {
    /// A signal; `on_exit` says what happens to the protection.
    Signal,
    /// `knock-user detach`.
    Detach,
    /// No confirmation arrived in time.
    TrialExpired,
}

impl<W: Write> Daemon<W> {
    /// Takes over the protection that was put in place, and reports it.
    pub fn new(
        run: Run,
        plan: Plan,
        protection: Protection,
        deployed: Deployed,
        next_line: NextLineServer,
        handle: Handle<W>,
        console: impl FnOnce(Vec<DoorText>) -> Console<W>,
    ) -> Self {
        let settings = plan.settings();
        let trial = protection.registry().confirm_by_ms;
        let doors = Doors::new(settings, &deployed.names);
        let (commands, reports) = Runner::new();
        let skew_detector = SkewDetector::new(settings);
        let mut daemon = Self {
            console: console(doors.texts(settings)),
            doors,
            ports: ports(settings),
            ledger: Ledger::new(deployed.doors),
            log: None,
            trial: trial.map(|until_ms| Trial::new(until_ms, None)),
            last_trial: None,
            handle,
            detaching: None,
            making: None,
            copy: None,
            reload_failed: None,
            waiting: PendingInterfaces::default(),
            reported_state: String::new(),
            reloads_again: false,
            run,
            plan,
            protection,
            commands,
            reports,
            attempt_max_ticks: deployed.attempt_max_ticks,
            stats: Stats::new(&[]),
            untracked: 0,
            files: Files::new(),
            next_line,
            skew_detector,
            packets: Packets::default(),
            left_outs: Throttle::new(1, "more commands"),
            failed_commands: Throttle::new(FAILED_LOGGED, "more commands of this door that failed"),
            gateways: Throttle::new(1, "more openings"),
            is_full: false,
            some_are_spent: false,
            since_ns: clock::boot_ns(),
            is_mute: false,
            persistence: None,
            log_files: LogFiles::default(),
            host_at_ms: clock::boot_ms(),
            failures: Vec::new(),
            surroundings: Surroundings::default(),
        };
        if !deployed.opened.is_empty() {
            tracing::warn!(
                "no longer protected: {}, which the previous configuration protected",
                deployed.opened.join(", ")
            );
        }
        daemon.name_users();
        daemon.report_found(&deployed.found);
        daemon.report_protecting(deployed.attached);
        for interface in deployed.absent {
            daemon.console.awaited(&interface, clock::boot_ns());
        }
        daemon.report_refused(deployed.refused);
        daemon.report_trial();
        daemon
    }

    /// Sets what is known of the file system that holds the pinned links.
    #[must_use]
    pub fn with_persistence(self, persistence: Persistence) -> Self {
        Self {
            persistence: Some(persistence),
            ..self
        }
    }

    /// Sets the configuration to restore when a trial that an earlier process began ends; without it
    /// the process ends with the trial.
    #[must_use]
    pub fn with_fallback(mut self, back: Option<Plan>) -> Self {
        if let Some(trial) = &mut self.trial {
            trial.back = back;
        }
        self
    }

    /// Opens these files again with each reload, so that they can be rotated.
    #[must_use]
    pub fn with_log_files(self, log_files: LogFiles) -> Self {
        Self { log_files, ..self }
    }

    /// Handles events, requests and deadlines until a signal, `detach` or the end of a trial.
    ///
    /// # Errors
    /// The events or the maps can't be read, an interface can't be detached, or the configuration
    /// was not confirmed.
    pub async fn run(
        mut self,
        mut signals: Signals,
        mut control: Server,
        watches: Watches,
    ) -> Result<()> {
        let mut events = readable(self.protection.firewall().take_events()?)?;
        self.log = program_log(&mut self.protection)?;
        let Watches {
            mut links,
            mut resume,
        } = watches;
        // Interfaces may have changed before the watch began.
        self.follow_interfaces()?;
        self.begin_copy()?;
        self.adopt(events.get_mut())?;
        // Not at once: a grant found by a sweep lacks what its event reports.
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        let mut stat = interval(TALLY);
        let mut watchdog = service_manager::ping_interval().map(interval);
        self.notify_ready();
        for ticks in [&mut sweep, &mut stat] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let outcome = loop {
            let deadline = self.deadline();
            let done = tokio::select! {
                signal = signals.next() => match signal {
                    Asked::ToEnd => break StopCause::Signal,
                    Asked::ToReload => {
                        self.begin_to_reload(None, None);
                        Ok(())
                    }
                },
                loaded = loaded_copy(&mut self.copy) => self.take_copy(loaded),
                ready = made(&mut self.making) => self.end_making(ready, &mut control),
                ready = events.readable_mut() => {
                    let mut ready = ready?;
                    if self.receive_all(ready.get_inner_mut()) {
                        ready.clear_ready();
                    }
                    Ok(())
                }
                ready = something_logged(&mut self.log) => {
                    let mut ready = ready?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                    Ok(())
                }
                changed = links.changed() => changed.and_then(|changes| self.links_changed(&changes)),
                // This also happens when the clock is set.
                () = resume.may_have_slept() => self
                    .protection
                    .follow_wall_clock()
                    .and_then(|()| self.resumed(resume.was_asleep())),
                call = control.call() => {
                    (self.handle)(&mut self, call);
                    if self.detaching.is_some() {
                        break StopCause::Detach;
                    }
                    Ok(())
                },
                () = sleep_until(deadline) => match self.follow_trial() {
                    Some(outcome) => break outcome,
                    None => self.do_what_is_due(),
                },
                Some(report) = self.reports.recv() => {
                    log_result(&mut self.failed_commands, &report);
                    Ok(())
                }
                _ = sweep.tick() => self.sweep(),
                _ = stat.tick() => self
                    .follow_spa()
                    .and_then(|()| self.resumed(resume.was_asleep()))
                    .and_then(|()| self.report_counters())
                    .and_then(|()| self.look_at_interfaces())
                    .and_then(|()| self.watch_frames()),
                () = ticked(&mut watchdog) => {
                    service_manager::ping();
                    Ok(())
                }
            };
            // The program judges packets despite any failure here, and stopping would end that.
            if let Err(error) = done {
                tracing::warn!("{}", os_error::describe(&error));
            }
        };
        service_manager::stopping("ending");
        self.receive_last(events.get_mut());
        if let Some(making) = self.making.take() {
            self.trial = making.give_up().or(self.trial);
        }
        let then = self.detaching.take();
        let ended = self.end(outcome).await;
        // Only when it has happened.
        if let Some(then) = then {
            then(match &ended {
                Ok(()) => Ok(()),
                Err(error) => Err(anyhow!(os_error::describe(error))),
            });
        }
        control.finish().await;
        ended
    }

    /// Catches up with what happened while no daemon ran: first the queued events, whose commands
    /// have not run yet, then grants in the map without an event.
    fn adopt(&mut self, events: &mut RingBuf<MapData>) -> Result<()> {
        self.stats = Stats::new(&self.protection.firewall().counters()?);
        let grants = self.protection.firewall().grants()?;
        let before: BTreeSet<_> = grants.into_iter().map(|(key, _)| key).collect();
        while !self.receive_all(events) {}
        let now_ms = clock::boot_ms();
        for (key, grant) in self.protection.firewall().grants()? {
            // The event of a grant that was given since then may still arrive.
            if !before.contains(&key) {
                continue;
            }
            if let Some(adopted) = self.ledger.adopt(key, grant, now_ms) {
                self.console.adopted(&adopted, clock::boot_ns());
            }
        }
        if self.trial.is_none() {
            self.commit()?;
        }
        // Sequences may have been used without an event.
        self.follow_sequences();
        self.end_what_is_due()
    }

    /// Ends the protection and the loop, and calls `then` with the result.
    pub(crate) fn detach(&mut self, then: Then<()>) {
        self.detaching = Some(then);
    }

    /// Describes the last SPA packet of a source.
    pub(crate) fn explain_packet(&self, source: knock_common::Address) -> Option<String> {
        let users = self.protection.registry().numbers.user_names();
        self.packets.explain(
            source,
            |number| users.get(&number).map(|name| (*name).to_owned()),
            |number| self.door(number).map(|door| door.name.clone()),
        )
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.plan.settings()
    }

    /// The door with a number.
    fn door(&self, number: u16) -> Option<&Door> {
        self.doors.get(self.settings(), number)
    }

    fn report_protecting(&mut self, attached: Vec<Attached>) {
        for Attached {
            interface,
            now,
            native,
            refused,
            ..
        } in attached
        {
            let interface = Named {
                asked_for: &interface,
                now: now.as_deref(),
            };
            if let Some(because) = refused {
                self.console.fallback(interface, &because, clock::boot_ns());
            }
            let mode = if native {
                console::AttachMode::Native
            } else {
                console::AttachMode::Generic
            };
            self.console
                .protecting(&self.ports, interface, mode, clock::boot_ns());
        }
    }
}

fn ports(settings: &Settings) -> Vec<String> {
    let ranges = settings.protected().ranges();
    ranges.iter().map(ToString::to_string).collect()
}

fn log_result(failed: &mut Throttle, report: &CommandReport) {
    if report.is_success() {
        tracing::debug!("{report}");
    } else if let Some(line) = failed.note(
        &report.job.door,
        report.to_string(),
        std::time::Instant::now(),
    ) {
        tracing::warn!("{line}");
    }
}

/// Waits for the next tick; never returns without a clock.
async fn ticked(clock: &mut Option<Interval>) {
    match clock {
        Some(clock) => {
            clock.tick().await;
        }
        None => std::future::pending().await,
    }
}
