//! Clients that receive the console's lines, besides standard output.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::model::text::count;

/// The largest number of watchers at a time.
pub const WATCHERS_MAX: usize = 16;
/// The lines that wait for a watcher; further ones are left out and counted.
pub const WAITING_MAX: usize = 1_024;

/// All watchers. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<Mutex<WatcherList>>);

#[derive(Debug, Default)]
struct WatcherList {
    queues: Vec<Arc<Queue>>,
    ended: bool,
}

/// The form of a watcher's lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Text that begins with the time of day, for a terminal.
    Text,
    /// Text that begins with date and time, for files.
    Dated,
    /// JSON objects.
    Json,
}

/// The queue of a watcher.
#[derive(Debug)]
struct Queue {
    form: Form,
    waiting: Mutex<WatchQueue>,
    /// Wakes the watcher.
    changed: Notify,
}

#[derive(Debug, Default)]
struct WatchQueue {
    items: VecDeque<QueueItem>,
    ended: bool,
}

#[derive(Debug)]
enum QueueItem {
    /// With its line end.
    Line(Arc<str>),
    /// This many lines had no room.
    Missed(u64),
}

/// A watcher, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    queue: Arc<Queue>,
    watchers: Watchers,
}

impl Watchers {
    /// Adds a watcher of lines of this form; `None` if there are too many.
    pub fn watch(&self, form: Form) -> Option<Watcher> {
        let mut list = lock(&self.0);
        if list.queues.len() >= WATCHERS_MAX {
            return None;
        }
        let waiting = WatchQueue {
            ended: list.ended,
            ..WatchQueue::default()
        };
        let queue = Arc::new(Queue {
            form,
            waiting: Mutex::new(waiting),
            changed: Notify::new(),
        });
        list.queues.push(Arc::clone(&queue));
        Some(Watcher {
            queue,
            watchers: self.clone(),
        })
    }

    /// Returns the number of watchers.
    pub fn count(&self) -> usize {
        lock(&self.0).queues.len()
    }

    /// Returns whether any watcher wants lines of one of these forms.
    pub(super) fn want(&self, forms: &[Form]) -> bool {
        let list = lock(&self.0);
        let mut queues = list.queues.iter();
        queues.any(|queue| forms.contains(&queue.form))
    }

    /// Sends a line, given without its end, to the watchers of this form.
    pub(super) fn send(&self, form: Form, line: &str) {
        let list = lock(&self.0);
        let queues = list.queues.iter();
        let mut queues = queues.filter(|queue| queue.form == form).peekable();
        if queues.peek().is_none() {
            return;
        }
        let line: Arc<str> = format!("{line}\n").into();
        for queue in queues {
            lock(&queue.waiting).push(&line);
            queue.changed.notify_one();
        }
    }

    /// Ends all watchers after their waiting lines.
    pub fn end(&self) {
        let mut list = lock(&self.0);
        list.ended = true;
        for queue in &list.queues {
            lock(&queue.waiting).ended = true;
            queue.changed.notify_one();
        }
    }
}

impl WatchQueue {
    fn push(&mut self, line: &Arc<str>) {
        if self.items.len() < WAITING_MAX {
            self.items.push_back(QueueItem::Line(Arc::clone(line)));
        } else if let Some(QueueItem::Missed(count)) = self.items.back_mut() {
            *count = count.saturating_add(1);
        } else {
            self.items.push_back(QueueItem::Missed(1));
        }
    }
}

impl Watcher {
    /// Returns the next line, with its end; `None` after the last one. The future can be dropped
    /// without losing a line.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            let (item, ended) = {
                let mut waiting = lock(&self.queue.waiting);
                (waiting.items.pop_front(), waiting.ended)
            };
            match item {
                Some(QueueItem::Line(line)) => return Some(line),
                Some(QueueItem::Missed(count)) => {
                    return Some(missed(count, self.queue.form).into());
                }
                None if ended => return None,
                None => self.queue.changed.notified().await,
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut list = lock(&self.watchers.0);
        let is_other = |queue: &Arc<Queue>| !Arc::ptr_eq(queue, &self.queue);
        list.queues.retain(is_other);
    }
}

/// Returns the line that replaces lines which were not read in time.
fn missed(lines: u64, form: Form) -> String {
    if form == Form::Json {
        let time = format!("{:.3}", Timestamp::now());
        format!("{{\"time\":\"{time}\",\"event\":\"missed\",\"missed\":{lines}}}\n")
    } else {
        let were = if lines == 1 { "was" } else { "were" };
        format!(
            "missed {}, which {were} not read in time\n",
            count(lines, "line")
        )
    }
}

/// Locks a mutex; no holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
