//! The loop: what the kernel side says becomes lines on the console, entries in the ledger, and
//! commands. It stands in no packet's way: if it stops reading, packets are judged all the same.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapError, RingBuf};
use aya_log::EbpfLogger;
use knock_common::{
    Address, Reason, Tally,
    access::{Flow, Grant},
    automaton::Progress,
    event::Event,
    layout::{ALLOW_MAX, FLOWS_MAX, GrantKey, PROGRESS_MAX},
    time::Moment,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until},
};

use crate::{
    clock,
    commands::{Job, Occasion, Report, Runner},
    compile,
    config::checked::Settings,
    console::{self, Console, DoorText, Style},
    firewall::{Attached, Firewall},
    ledger::{Action, Ledger, Look},
    maps::{self, Plain},
    start::{Plan, Started},
};

/// How often the ledger is held against the maps, so that lost events don't matter for long.
const SWEEP: Duration = Duration::from_secs(30);
/// How often counters are looked at.
const TALLY: Duration = Duration::from_secs(1);
/// Events that are heard before anything else gets its turn.
const BATCH: usize = 1_024;
/// How long commands may take to come to their end when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// A flow that ended this long ago is removed, in milliseconds: the kernel side has long judged the
/// packet that could have raced with the removal.
const FLOW_GRACE_MS: u64 = 5_000;

/// A firewall that is attached, and everybody who is told of it.
pub struct Daemon<W> {
    firewall: Firewall,
    settings: Settings,
    /// What is protected, for people.
    ports: Vec<String>,
    ledger: Ledger,
    console: Console<W>,
    commands: Runner,
    reports: mpsc::Receiver<Report>,
    /// The longest that any attempt lives.
    horizon_ticks: u32,
    left_out: u64,
    lost: u64,
    untracked: u64,
    is_dry: bool,
    /// Whether it was said that standard output is closed.
    is_mute: bool,
}

impl<W: Write> Daemon<W> {
    /// Takes over what was started and says so.
    pub fn new(plan: Plan, started: Started, style: Style, out: W) -> Self {
        let Plan { checked, tables } = plan;
        let Started {
            firewall,
            attached,
            kept,
        } = started;
        let settings = checked.settings;
        let doors = settings.doors.iter().map(DoorText::from).collect();
        let ports = compile::protected(&settings).ranges();
        let (commands, reports) = Runner::new();
        let mut daemon = Self {
            firewall,
            ports: ports.iter().map(ToString::to_string).collect(),
            ledger: Ledger::new(tables.doors),
            is_dry: style.dry_run,
            console: Console::new(out, style, doors, clock::booted_at()),
            commands,
            reports,
            settings,
            horizon_ticks: tables.config.horizon_ticks,
            left_out: 0,
            lost: 0,
            untracked: 0,
            is_mute: false,
        };
        daemon.console.kept(&kept, clock::boot_ns());
        daemon.say_protecting(attached);
        daemon
    }

    /// Tells what happens and does what is to be done, until a signal ends it; then detaches.
    ///
    /// # Errors
    /// The events or the maps can't be read, or an interface can't be detached.
    pub async fn run(mut self, mut stop: Stop) -> Result<()> {
        let mut events = readable(self.firewall.take_events()?)?;
        let mut log = match tracing::enabled!(tracing::Level::DEBUG) {
            true => Some(readable(
                EbpfLogger::init(self.firewall.ebpf()).context("reading the program's log")?,
            )?),
            false => None,
        };
        // Not at once: events that come first would lack what only they tell.
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        let mut tally = interval(TALLY);
        for ticks in [&mut sweep, &mut tally] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let deadline = self.deadline();
            let done = tokio::select! {
                () = stop.asked() => break,
                ready = events.readable_mut() => {
                    let mut ready = ready?;
                    if self.hear_all(ready.get_inner_mut()) {
                        ready.clear_ready();
                    }
                    Ok(())
                }
                ready = program_log(&mut log) => {
                    let mut ready = ready?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                    Ok(())
                }
                () = sleep_until(deadline) => self.end_what_is_due(),
                Some(report) = self.reports.recv() => {
                    tell_report(&report);
                    Ok(())
                }
                _ = sweep.tick() => self.sweep(),
                _ = tally.tick() => self.tell_left_out(),
            };
            // Whatever the kernel refuses here, packets are judged all the same, and stopping would
            // end that.
            if let Err(error) = done {
                tracing::warn!("{error:#}");
            }
        }
        self.stop().await
    }

    /// Detaches and lets the commands come to an end; what `on_open` has done is undone.
    async fn stop(mut self) -> Result<()> {
        let openings: Vec<_> = self.ledger.openings().collect();
        for (source, door, _) in openings {
            self.command(Occasion::Close, source, door);
        }
        let detached = self.detach();
        let mut reports = self.reports;
        let finish = self.commands.finish(STOP_LIMIT);
        tokio::pin!(finish);
        let unfinished = loop {
            tokio::select! {
                Some(report) = reports.recv() => tell_report(&report),
                unfinished = &mut finish => break unfinished,
            }
        };
        while let Ok(report) = reports.try_recv() {
            tell_report(&report);
        }
        if unfinished > 0 {
            tracing::warn!("{unfinished} commands did not come to their end and were ended");
        }
        detached
    }

    /// Hears events, a batch at most, so that signals and deadlines get their turn; tells whether
    /// there were no more.
    fn hear_all(&mut self, events: &mut RingBuf<MapData>) -> bool {
        for _ in 0..BATCH {
            let Some(item) = events.next() else {
                return true;
            };
            match bytemuck::try_pod_read_unaligned::<Event>(&item) {
                Ok(event) => self.hear(&event),
                Err(error) => {
                    tracing::warn!("an event of {} bytes can't be read: {error}", item.len());
                }
            }
        }
        false
    }

    fn hear(&mut self, event: &Event) {
        let told_by_ledger = matches!(
            event.reason(),
            Some(Reason::Opened | Reason::Refreshed | Reason::Closed)
        );
        if !told_by_ledger {
            self.console.event(event);
        }
        let actions = self.ledger.hear(event, clock::boot_ms());
        self.act(&actions, event.at_ns);
    }

    /// Does what the ledger asks for: all of it, also after something that failed.
    fn act(&mut self, actions: &[Action], at_ns: u64) {
        for action in actions {
            let done = match *action {
                Action::Remove { key } => self.remove(key),
                Action::Restore { key, grant } => self.restore(key, grant),
                Action::Opened { source, door, .. } => {
                    self.console.action(action, at_ns);
                    self.command(Occasion::Open, source, door);
                    Ok(())
                }
                Action::Closed { source, door, .. } => {
                    self.console.action(action, at_ns);
                    self.command(Occasion::Close, source, door);
                    Ok(())
                }
                Action::Refreshed { .. } => {
                    self.console.action(action, at_ns);
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::warn!("{error:#}");
            }
        }
    }

    fn remove(&mut self, key: GrantKey) -> Result<()> {
        maps::delete(&mut self.firewall.allow()?, key).context("removing an ended grant")
    }

    /// Runs the command that a door has for an occasion, if it has one; a dry run only tells.
    fn command(&self, occasion: Occasion, source: Address, door: u16) {
        if self.is_dry {
            return;
        }
        let Some(door) = self.settings.doors.get(usize::from(door)) else {
            return;
        };
        let command = match occasion {
            Occasion::Open => &door.on_open,
            Occasion::Close => &door.on_close,
        };
        let Some(command) = command.clone() else {
            return;
        };
        let job = Job {
            occasion,
            source: source.into(),
            door: door.name.clone(),
            port: door.opened().first().map(|ports| ports.first),
            command,
        };
        if let Err(left_out) = self.commands.run(job) {
            tracing::warn!("{left_out}");
        }
    }

    fn restore(&mut self, key: GrantKey, grant: Grant) -> Result<()> {
        // An entry that is there is newer.
        maps::insert_new(&mut self.firewall.allow()?, key, grant.to_word())
            .map(|_| ())
            .context("writing a grant again")
    }

    /// When the ledger has something to do; far away if never.
    fn deadline(&self) -> Instant {
        let now_ms = clock::boot_ms();
        let wait_ms = self
            .ledger
            .next_deadline()
            .map_or(u64::from(u32::MAX), |at| at.saturating_sub(now_ms));
        // CLOCK_BOOTTIME counts suspend and tokio's clock does not: look at least once a minute.
        Instant::now() + Duration::from_millis(wait_ms.min(60_000))
    }

    fn end_what_is_due(&mut self) -> Result<()> {
        let allow = self.firewall.allow()?;
        let actions = self
            .ledger
            .due(clock::boot_ms(), |&key| match allow.get(&Plain(key), 0) {
                Ok(Plain(word)) => Look::Found(Grant::from_word(word)),
                Err(MapError::KeyNotFound) => Look::Absent,
                Err(_) => Look::Failed,
            });
        self.act(&actions, clock::boot_ns());
        Ok(())
    }

    fn sweep(&mut self) -> Result<()> {
        for (key, word) in maps::entries(&self.firewall.allow()?, ALLOW_MAX) {
            let actions = self
                .ledger
                .observe(key, Grant::from_word(word), clock::boot_ms());
            self.act(&actions, clock::boot_ns());
        }
        self.console.set_boot(clock::booted_at());
        self.remove_ended_progress()?;
        self.remove_ended_flows()
    }

    /// The kernel side counts ticks modulo 9.8 hours: what is long over must not look fresh again.
    fn remove_ended_progress(&mut self) -> Result<()> {
        let now = Moment::from_nanos(clock::boot_ns()).tick();
        let mut progress = self.firewall.progress()?;
        for (key, word) in maps::entries(&progress, PROGRESS_MAX) {
            let age = now.since(Progress::from_word(word).last);
            if age > 2 * self.horizon_ticks {
                maps::delete(&mut progress, key).context("removing an ended attempt")?;
            }
        }
        Ok(())
    }

    fn remove_ended_flows(&mut self) -> Result<()> {
        let idle_ms = u64::try_from(self.settings.established.idle.as_millis()).unwrap_or(u64::MAX);
        let mut flows = self.firewall.flows()?;
        let now_ms = clock::boot_ms();
        let ended: BTreeMap<_, _> = maps::entries(&flows, FLOWS_MAX)
            .into_iter()
            .map(|(key, word)| (key, Flow::from_word(word)))
            .filter(|(_, flow)| flow.until_ms(idle_ms).saturating_add(FLOW_GRACE_MS) < now_ms)
            .collect();
        for &key in ended.keys() {
            maps::delete(&mut flows, key).context("removing an ended flow")?;
        }
        for (key, flow) in ended {
            let idle = Duration::from_millis(now_ms.saturating_sub(flow.seen_ms));
            self.console.flow_closed(&key, idle, clock::boot_ns());
        }
        Ok(())
    }

    fn tell_left_out(&mut self) -> Result<()> {
        let [left_out, lost] = self
            .firewall
            .tallies([Tally::EventsLeftOut, Tally::EventsLost])?;
        let more = |now: u64, before: &mut u64| now.saturating_sub(std::mem::replace(before, now));
        let left_out = more(left_out, &mut self.left_out);
        let lost = more(lost, &mut self.lost);
        self.console.left_out(left_out, lost, clock::boot_ns());
        let untracked = more(self.ledger.untracked(), &mut self.untracked);
        if untracked > 0 {
            tracing::warn!(
                "{untracked} grants beyond {ALLOW_MAX} are not told, and their commands not run"
            );
        }
        if let Some(error) = self.console.failure().filter(|_| !self.is_mute) {
            tracing::warn!("nothing more is told on standard output: {error}");
            self.is_mute = true;
        }
        if lost > 0 {
            self.sweep()?
        }
        Ok(())
    }

    fn say_protecting(&mut self, attached: Vec<Attached>) {
        for Attached {
            interface,
            native,
            refused,
        } in attached
        {
            if let Some(because) = refused {
                self.console
                    .attached_generic(&interface, &because, clock::boot_ns());
            }
            let mode = if native {
                console::Attached::Native
            } else {
                console::Attached::Generic
            };
            self.console
                .protecting(&self.ports, &interface, mode, clock::boot_ns());
        }
    }

    fn detach(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for (interface, detached) in self.firewall.detach() {
            if detached.is_err() {
                outcome = detached;
                continue;
            }
            self.console
                .stopped(&self.ports, &interface, clock::boot_ns());
        }
        outcome
    }
}

fn tell_report(report: &Report) {
    if report.is_success() {
        tracing::debug!("{report}");
    } else {
        tracing::warn!("{report}");
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because a descriptor could be closed; aya's live in what they belong to"
)]
fn readable<T: AsRawFd>(source: T) -> Result<AsyncFd<T>> {
    AsyncFd::with_interest(source, Interest::READABLE).context("watching a ring buffer")
}

/// The program's log, when it has something to say; never if it is off.
async fn program_log<T: AsRawFd>(
    log: &mut Option<AsyncFd<T>>,
) -> io::Result<tokio::io::unix::AsyncFdReadyMutGuard<'_, T>> {
    match log {
        Some(log) => log.readable_mut().await,
        None => std::future::pending().await,
    }
}

/// The signals that end the daemon, caught from before it protects anything: what it has done is
/// always undone in order.
pub struct Stop([Signal; 3]);

impl Stop {
    /// Catches the signals; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// They can't be caught.
    pub fn catch() -> Result<Self> {
        let on = |kind| signal(kind).context("catching signals");
        // A terminal that goes away is no reason to leave the ports open without a word.
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
