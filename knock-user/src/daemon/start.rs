//! Starts the daemon: it takes over the protection that was put in place, and reports it.

use std::io::Write;

use super::{
    doors::DoorsByNumber,
    failed_commands::FAILED_LOGGED,
    packets::RecentPackets,
    state::{Daemon, Files, Handle, Servers, ports},
    stats::Stats,
    surroundings::Surroundings,
    throttle::Throttle,
    trial::Trial,
    waiting::PendingInterfaces,
};
use crate::{
    apply::{Deployed, Protection, options::Run, plan::Plan},
    commands::Runner,
    console::{Console, DoorText, log_files::LogFiles},
    host::clock,
    kernel::persistence::Persistence,
    ledger::{Blocks, Ledger},
    metrics::Tally,
    sequences::clock_skew::SkewDetector,
};

impl<W: Write> Daemon<W> {
    /// Takes over the protection that was put in place, and reports it.
    pub fn new(
        run: Run,
        plan: Plan,
        protection: Protection,
        deployed: Deployed,
        servers: Servers,
        handle: Handle<W>,
        console: impl FnOnce(Vec<DoorText>) -> Console<W>,
    ) -> Self {
        let settings = plan.settings();
        let trial = protection.registry().confirm_by_ms;
        let doors = DoorsByNumber::new(settings, &deployed.names);
        let (commands, reports) = Runner::new();
        let skew_detector = SkewDetector::new(settings);
        let mut daemon = Self {
            console: console(doors.texts(settings)),
            doors,
            ports: ports(settings),
            ledger: Ledger::new(deployed.doors),
            blocks: Blocks::default(),
            log: None,
            trial: trial.map(|until_ms| Trial::new(until_ms, None)),
            last_trial: None,
            handle,
            detaching: None,
            pending: None,
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
            tally: Tally::default(),
            metrics: servers.metrics,
            configured_ms: clock::boot_ms(),
            untracked: 0,
            files: Files::new(),
            next_line: servers.next_line,
            skew_detector,
            fleet: None,
            packets: RecentPackets::default(),
            left_outs: Throttle::new(1, "more commands"),
            failed_commands: Throttle::new(FAILED_LOGGED, "more commands of this door that failed"),
            gateways: Throttle::new(1, "more openings"),
            is_full: false,
            held_by_hand: 0,
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
        if let Some(kept) = &deployed.kept_sizes {
            tracing::warn!("{kept}");
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
}
