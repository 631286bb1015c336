//! Follows a prefix: a list where one is needed, then changes, from several members at a time.

mod list;
mod watch;

use std::{cell::Cell, rc::Rc};

use knock_wire::{Cause, Point, Report};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    engine::{Engine, Trouble},
    feed::{Begin, Feed, NeedsList},
    link::Link,
    members::{Members, Turn},
    output::Output,
    pauses::Pauses,
};

/// A prefix that is followed.
pub(crate) struct Followed<E: Engine> {
    pub(crate) members: Rc<Members<E>>,
    pub(crate) link: Rc<Link>,
    pub(crate) output: Rc<Output>,
    pub(crate) pauses: Pauses,
    prefix: String,
    /// Held during a list, so that no change is reported in its middle.
    feed: Mutex<Feed>,
    /// How many watches have begun and not ended.
    begun: Count,
    /// How many of them deliver.
    live: Count,
}

/// The end of an attempt to watch.
#[derive(Debug)]
enum End {
    /// Another one can begin at once.
    Again,
    /// The next one has to be at another member, after a pause.
    Trouble(Trouble),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// How many [`Counted`] there are.
#[derive(Debug, Default)]
struct Count(Rc<Cell<usize>>);

/// One of them.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Count {
    fn get(&self) -> usize {
        self.0.get()
    }

    fn enter(&self) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted(Rc::clone(&self.0))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl<E: Engine> Followed<E> {
    /// Follows nothing yet.
    pub(crate) fn new(
        members: Rc<Members<E>>,
        link: Rc<Link>,
        output: Rc<Output>,
        pauses: Pauses,
        prefix: String,
        after: Option<Point>,
    ) -> Self {
        Self {
            members,
            link,
            output,
            pauses,
            prefix,
            feed: Mutex::new(Feed::new(after)),
            begun: Count::default(),
            live: Count::default(),
        }
    }

    /// Watches one member at a time, without end; run it as often as members shall be watched at a time.
    pub(crate) async fn follow(self: Rc<Self>) {
        sleep(self.pauses.before_first()).await;
        let mut failures = 0;
        loop {
            let mut turn = self.members.turn();
            let number = turn.number;
            let ended = self.attempt(&mut turn, &mut failures).await;
            drop(turn);
            match ended {
                End::Again => continue,
                End::Trouble(trouble) => {
                    match &trouble {
                        // The connection works.
                        Trouble::Refused(_) | Trouble::Compacted | Trouble::Future => {}
                        Trouble::Unreached(_) | Trouble::Lost(_) | Trouble::NoLease => {
                            self.members.forget(number);
                        }
                    }
                    self.link
                        .failed(self.members.url(number), trouble.to_string())
                        .await;
                }
            }
            let is_another_there = self.live.get() > 0;
            sleep(self.pauses.after(failures, is_another_there)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Watches a member until that ends.
    async fn attempt(&self, turn: &mut Turn<E::Member>, failures: &mut u32) -> End {
        let (member, begin, begun) = match self.begin(turn.number).await {
            Ok(begun) => begun,
            Err(end) => return end,
        };
        let result = self.watch(&member, &begin, turn, failures).await;
        drop(begun);
        let Err(end) = result;
        end
    }

    /// Connects to a member and lists if that is needed.
    async fn begin(&self, number: usize) -> Result<(E::Member, Begin, Counted), End> {
        let member = self.members.get(number).await?;
        let mut feed = self.feed.lock().await;
        let begin = match feed.begin() {
            // The record can be compared, or another watch has seen all changes since the list.
            Ok(begin) if begin.at.has_record() || self.begun.get() > 0 => begin,
            Ok(_) => self.list(&mut feed, &member, Cause::Asked).await?,
            Err(NeedsList(cause)) => self.list(&mut feed, &member, cause).await?,
        };
        Ok((member, begin, self.begun.enter()))
    }

    /// Reports that everything up to now was reported, as confirmed by a member at `at_ms`.
    async fn report_current(&self, begin: &Begin, at_ms: u64) {
        let feed = self.feed.lock().await;
        if let Some(revision) = feed.reported().filter(|_| feed.fits(begin)) {
            // Without room, the next one comes within a second.
            let _full = self.output.offer(Report::Current {
                prefix: self.prefix.clone(),
                revision,
                at_ms,
            });
        }
    }

    /// Makes a list necessary, and ends an attempt.
    async fn list_again(&self, begin: &Begin, cause: Cause) -> End {
        self.feed.lock().await.list_again(begin, cause);
        match cause {
            Cause::Asked | Cause::Compacted | Cause::Overflow => End::Again,
            // Members that differ must not make hosts list without a pause.
            Cause::History => End::Trouble(Trouble::Refused(
                "the engine has another history: it was restored from a backup, or `servers` names members of \
                 several clusters"
                    .to_owned(),
            )),
        }
    }
}
