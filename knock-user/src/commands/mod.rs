//! The administrator's commands: `on_open` and `on_close`.
//!
//! A command is a program and its arguments, run without a shell, with nothing on its standard
//! input, `PATH` and `KNOCK_*` as its environment, in a process group of its own. At its time limit
//! the whole group is ended. A command that exits in time may leave processes in the background.
//!
//! For one source and door, commands run one after the other, in order: `on_close` never overtakes
//! its `on_open`.
//!
//! May use `model` and `host`. Must not know events or grants.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

mod job;
mod process;
mod report;
mod tail;

use job::TurnKey;
pub use job::{Job, Occasion};
pub use report::{CommandReport, CommandResult};

/// Commands that run at the same time.
pub const RUNNING_MAX: usize = 16;
/// Commands that wait to run. The limit of `on_close` is twice as high, since it reverts the effect
/// of an `on_open`.
pub const WAITING_MAX: usize = 1_024;
/// Reports that wait to be read; further commands wait for that.
const REPORTS_MAX: usize = 64;

/// Runs commands.
///
/// When it is dropped, what runs is killed.
#[derive(Debug)]
pub struct Runner {
    shared: Arc<SharedQueue>,
}

#[derive(Debug)]
struct SharedQueue {
    state: Mutex<QueueState>,
    reports: mpsc::Sender<CommandReport>,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Job>,
    busy: HashSet<TurnKey>,
    tasks: JoinSet<()>,
    is_stopped: bool,
}

impl Runner {
    /// Returns a runner, and the receiver of its reports.
    pub fn new() -> (Self, mpsc::Receiver<CommandReport>) {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let state = Mutex::new(QueueState::default());
        let shared = Arc::new(SharedQueue { state, reports });
        (Self { shared }, receiver)
    }

    /// Queues a command. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Returns the command that was left out because too many wait: this one, or the last one of a
    /// door or network with a larger share.
    pub fn run(&self, job: Job) -> Result<(), CommandRefused> {
        let mut state = self.shared.lock();
        let room = match job.occasion {
            Occasion::Open => WAITING_MAX,
            Occasion::Close => 2 * WAITING_MAX,
        };
        if state.is_stopped {
            return Err(CommandRefused(Box::new(job)));
        }
        let left_out = if state.waiting.len() < room {
            None
        } else if let Some(other) = state.make_room(&job) {
            Some(other)
        } else {
            return Err(CommandRefused(Box::new(job)));
        };
        state.waiting.push_back(job);
        self.shared.start(&mut state);
        left_out.map_or(Ok(()), |other| Err(CommandRefused(Box::new(other))))
    }

    /// Returns how many commands run or wait.
    pub fn pending(&self) -> usize {
        let state = self.shared.lock();
        state.busy.len().saturating_add(state.waiting.len())
    }

    /// Accepts no more commands, waits this long for those that run or wait, and kills the rest.
    ///
    /// Returns how many did not finish. The reports must still be read meanwhile.
    pub async fn finish(self, limit: Duration) -> usize {
        self.shared.lock().is_stopped = true;
        let _at_the_limit = timeout(limit, self.idle()).await;
        self.pending()
    }

    async fn idle(&self) {
        loop {
            let mut tasks = std::mem::take(&mut self.shared.lock().tasks);
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_stopped = true;
        state.waiting.clear();
        state.tasks.abort_all();
    }
}

impl QueueState {
    /// Removes a waiting job of the same occasion from the door or network with the largest share,
    /// if that is larger than the new job's: the last of the largest.
    fn make_room(&mut self, new: &Job) -> Option<Job> {
        let mut doors: HashMap<&str, usize> = HashMap::new();
        let mut networks: HashMap<(&str, IpAddr), usize> = HashMap::new();
        let alike = |job: &&Job| job.occasion == new.occasion;
        for job in self.waiting.iter().filter(alike) {
            *doors.entry(&job.door).or_default() += 1;
            *networks.entry(job.share()).or_default() += 1;
        }
        let shares = |job: &Job| {
            let door = doors.get(job.door.as_str()).copied().unwrap_or(0);
            let network = networks.get(&job.share()).copied().unwrap_or(0);
            (door, network)
        };
        let waiting = self.waiting.iter().enumerate();
        let (index, last) = waiting
            .filter(|(_, job)| alike(job))
            .max_by_key(|(_, job)| shares(job))?;
        let (theirs, ours) = (shares(last), shares(new));
        // Two more: with one more, the two would only change places.
        let is_larger = if last.door == new.door {
            theirs.1 >= ours.1 + 2
        } else {
            theirs.0 >= ours.0 + 2
        };
        if !is_larger {
            return None;
        }
        self.waiting.remove(index)
    }
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No holder of the lock leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the commands that can run now.
    fn start(self: &Arc<Self>, state: &mut QueueState) {
        while state.busy.len() < RUNNING_MAX {
            let is_free = |job: &Job| !state.busy.contains(&job.turn());
            let Some(index) = state.waiting.iter().position(is_free) else {
                return;
            };
            let Some(job) = state.waiting.remove(index) else {
                return;
            };
            state.busy.insert(job.turn());
            // Ended tasks are dropped.
            while state.tasks.try_join_next().is_some() {}
            state.tasks.spawn(Arc::clone(self).work(job));
        }
    }

    async fn work(self: Arc<Self>, job: Job) {
        let turn = job.turn();
        let report = process::run(job).await;
        let _nobody_reads = self.reports.send(report).await;
        let mut state = self.lock();
        state.busy.remove(&turn);
        self.start(&mut state);
    }
}

/// A command that was left out because too many wait.
#[derive(Debug, thiserror::Error)]
#[error("door \"{}\": {} for {} was left out: too many commands wait", .0.door, .0.occasion.key(), .0.source)]
pub struct CommandRefused(pub Box<Job>);
