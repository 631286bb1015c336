//! The state of the daemon, from its start on.

use std::{collections::BTreeMap, io::Write};

use tokio::sync::{mpsc, oneshot};

use super::{
    doors::DoorsByNumber,
    fleet::FleetLink,
    packets::RecentPackets,
    pending::{PendingConfiguration, Then},
    ring::ProgramLog,
    stats::Stats,
    surroundings::Surroundings,
    throttle::Throttle,
    trial::{LastTrial, Trial},
    waiting::PendingInterfaces,
};
use crate::{
    apply::{Protection, options::Run, plan::Plan},
    commands::{CommandReport, Runner},
    console::{Console, log_files::LogFiles},
    control::Call,
    kernel::{persistence::Persistence, program::LoadedCopy},
    ledger::{Blocks, Ledger},
    metrics::{MetricsServer, Tally},
    model::settings::{Door, Settings},
    sequences::{clock_skew::SkewDetector, next_line_server::NextLineServer, one_time::FileState},
};

/// Answers a request, now or later. The loop does not know which requests there are.
pub type Handle<W> = fn(&mut Daemon<W>, Call);

/// The state of each file, by the name of its door.
pub(crate) type Files = BTreeMap<String, FileState>;

/// The protection of an instance, and everything that follows its events.
pub struct Daemon<W> {
    pub(crate) run: Run,
    pub(crate) protection: Protection,
    /// The configuration in force, to which a failed reload returns.
    pub(crate) plan: Plan,
    pub(super) doors: DoorsByNumber,
    /// The protected ports, as text.
    pub(crate) ports: Vec<String>,
    /// Answers requests.
    pub(super) handle: Handle<W>,
    /// Called when the program is detached, once that is requested.
    pub(super) detaching: Option<Then<()>>,
    /// The trial of the configuration in force, if it is on trial.
    pub(super) trial: Option<Trial>,
    /// How the last trial ended.
    pub(super) last_trial: Option<LastTrial>,
    /// A configuration that another thread prepares.
    pub(super) pending: Option<PendingConfiguration>,
    /// The second copy of the program, while it is being loaded.
    pub(super) copy: Option<oneshot::Receiver<LoadedCopy>>,
    /// Why the last reload failed, if it did.
    pub(crate) reload_failed: Option<String>,
    /// Interfaces that are not protected.
    pub(super) waiting: PendingInterfaces,
    /// The state that was last sent to the service manager.
    pub(super) reported_state: String,
    /// Whether a reload was requested again while one was being prepared.
    pub(super) reloads_again: bool,
    pub(crate) ledger: Ledger,
    /// The prefixes that commands have blocked.
    pub(crate) blocks: Blocks,
    pub(crate) console: Console<W>,
    pub(super) log: Option<ProgramLog>,
    pub(crate) commands: Runner,
    pub(super) reports: mpsc::Receiver<CommandReport>,
    /// The longest that any attempt lives.
    pub(crate) attempt_max_ticks: u32,
    pub(super) stats: Stats,
    /// The counts of metrics beside the counters of the kernel side.
    pub(crate) tally: Tally,
    pub(super) metrics: MetricsServer,
    /// When a start or reload put the configuration in force, in milliseconds since boot.
    pub(crate) configured_ms: u64,
    pub(super) untracked: u64,
    /// The last reported state of the files of one-time sequences.
    pub(crate) files: Files,
    pub(super) next_line: NextLineServer,
    /// Recognizes time-based knocks of clients whose clock is wrong.
    pub(super) skew_detector: SkewDetector,
    /// This host in its group, if it has one.
    pub(crate) fleet: Option<FleetLink>,
    /// The last SPA packets of sources.
    pub(super) packets: RecentPackets,
    /// Warnings of commands that were left out.
    pub(super) left_outs: Throttle,
    /// Warnings of commands that failed.
    pub(super) failed_commands: Throttle,
    /// Warnings of gateways that got a grant.
    pub(super) gateways: Throttle,
    /// Whether the kernel side had no room for a grant.
    pub(super) is_full: bool,
    /// How many grants by hand leave no room that could be made, as seen last; 0 if there is room.
    pub(crate) held_by_hand: usize,
    /// Whether the last batch of events used up one-time or time-based sequences.
    pub(super) some_are_spent: bool,
    pub(crate) since_ns: u64,
    /// Whether the failure of standard output was reported.
    pub(crate) is_mute: bool,
    /// Whether pins outlive this process, as seen at the start.
    pub(super) persistence: Option<Persistence>,
    /// Files that each reload opens again.
    pub(super) log_files: LogFiles,
    /// When the host's open ports were last read, in milliseconds since boot.
    pub(super) host_at_ms: u64,
    /// The last reported failures of interfaces.
    pub(super) failures: Vec<String>,
    /// The parts of this host that the configuration does not cover.
    pub(super) surroundings: Surroundings,
}

/// The servers for clients besides the control socket.
#[derive(Debug)]
pub struct Servers {
    /// The server of numbers of next lines.
    pub next_line: NextLineServer,
    /// The server of metrics.
    pub metrics: MetricsServer,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StopCause {
    /// A signal; `on_exit` decides what happens to the protection.
    Signal,
    /// `knock-user detach`.
    Detach,
    /// No confirmation arrived in time.
    TrialExpired,
}

impl<W: Write> Daemon<W> {
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

    /// Returns the door with a number.
    pub(super) fn door(&self, number: u16) -> Option<&Door> {
        self.doors.get(self.settings(), number)
    }
}

/// Returns the protected ports, as text.
pub(super) fn ports(settings: &Settings) -> Vec<String> {
    let ranges = settings.protected().ranges();
    ranges.iter().map(ToString::to_string).collect()
}
