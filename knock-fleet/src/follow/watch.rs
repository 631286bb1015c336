//! Watches a member, and asks it again and again whether it still belongs to a majority.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use knock_wire::{Cause, Report};
use tokio::time::{Instant, sleep_until};

use super::{Count, End, Followed, list::report};
use crate::{
    clock,
    engine::{Change, Changes as _, Engine, Member as _, Message, Read, Trouble},
    feed::Begin,
    link::Link,
    members::Turn,
};

/// A member is asked this often, divided by the number of watches that deliver.
const ASKED_EACH: Duration = Duration::from_secs(1);

/// Without any message for this time after a question, the watch is lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// A question to the member that awaits its answer, with the time at which it was asked.
type Question = Pin<Box<dyn Future<Output = (u64, Result<Read, Trouble>)>>>;

/// Waits for the answer to a question, if there is one.
async fn answered(question: &mut Option<Question>) -> (u64, Result<Read, Trouble>) {
    match question {
        Some(question) => question.await,
        None => pending().await,
    }
}

/// What is known about the member's answers.
struct Asked {
    /// The newest record when the watch began: until it was reported, the watch is behind.
    newest: u64,
    /// When the member was asked last such that it answered, in milliseconds of `CLOCK_BOOTTIME`.
    confirmed: Option<u64>,
    /// When the question was asked after whose answer the watch has not answered yet.
    open: Option<u64>,
    /// When the last message came.
    last_message: Instant,
}

/// The watch delivers, until this is dropped.
struct Live<'a> {
    link: &'a Link,
    _counted: super::Counted,
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.link.down();
    }
}

impl<'a> Live<'a> {
    fn new(link: &'a Link, count: &Count) -> Self {
        Self {
            link,
            _counted: count.enter(),
        }
    }
}

impl<E: Engine> Followed<E> {
    /// Watches a member from where the feed is; returns only when that ends.
    pub(super) async fn watch(
        &self,
        member: &E::Member,
        begin: &Begin,
        turn: &mut Turn<E::Member>,
        failures: &mut u32,
    ) -> Result<Infallible, End> {
        // The watch first: what is read afterwards over the same connection is of the same history.
        let mut changes = member.watch(&self.prefix, begin.at.from()).await?;
        let asked_at = clock::now_ms();
        let newest = self.check_history(member, begin).await?;
        let mut asked = Asked {
            newest,
            confirmed: None,
            open: Some(asked_at),
            last_message: Instant::now(),
        };
        self.link
            .up(self.members.url(turn.number), member.version())
            .await;
        let live = Live::new(&self.link, &self.live);
        turn.set_live();
        *failures = 0;
        self.confirm(begin, &mut asked).await;
        let mut question: Option<Question> = None;
        let mut next_question = Instant::now();
        let end = loop {
            let ended = tokio::select! {
                message = changes.next() => match message {
                    Ok(message) => self.message(begin, message, &mut asked).await.err(),
                    Err(Trouble::Compacted) => Some(self.list_again(begin, Cause::Compacted).await),
                    Err(other) => Some(End::Trouble(other)),
                },
                (asked_at, answer) = answered(&mut question) => {
                    question = None;
                    match answer {
                        Ok(read) if begin.at.may_be_in_history_of(&read.cluster, read.revision) => {
                            asked.open.get_or_insert(asked_at);
                            changes.ask().await.err().map(End::from)
                        }
                        Ok(_) => Some(self.list_again(begin, Cause::History).await),
                        Err(trouble) => Some(End::Trouble(trouble)),
                    }
                }
                () = sleep_until(next_question) => {
                    let shares = u32::try_from(self.live.get()).unwrap_or(1).max(1);
                    let pause = ASKED_EACH * shares;
                    next_question = Instant::now() + pause;
                    if question.is_none() {
                        let (member, key) = (member.clone(), self.prefix.clone());
                        let asked_at = clock::now_ms();
                        question = Some(Box::pin(async move {
                            (asked_at, member.read(&key, None).await)
                        }));
                    }
                    if !self.feed.lock().await.fits(begin) {
                        Some(End::Again)
                    } else if asked.last_message.elapsed() > PATIENCE + pause {
                        Some(End::Trouble(Trouble::Unreached(format!(
                            "{}: the watch does not answer; check the load of the member",
                            self.members.url(turn.number)
                        ))))
                    } else {
                        None
                    }
                }
            };
            if let Some(end) = ended {
                break end;
            }
        };
        drop(live);
        Err(end)
    }

    /// Checks that the member has the history of the feed; returns the revision of its newest record.
    async fn check_history(&self, member: &E::Member, begin: &Begin) -> Result<u64, End> {
        let at = &begin.at;
        if at.has_record() {
            match member.read(&at.last.key, Some(at.last.revision)).await {
                Ok(read) if at.is_in_history_of(&read) => {}
                Ok(_) | Err(Trouble::Future) => {
                    return Err(self.list_again(begin, Cause::History).await);
                }
                Err(Trouble::Compacted) => {
                    return Err(self.list_again(begin, Cause::Compacted).await);
                }
                Err(other) => return Err(other.into()),
            }
        }
        let newest = member.newest(&self.prefix).await?;
        if !at.may_be_in_history_of(&newest.cluster, newest.revision) {
            return Err(self.list_again(begin, Cause::History).await);
        }
        Ok(newest.record.map_or(0, |record| record.revision))
    }

    /// Handles a message of the watch.
    async fn message(&self, begin: &Begin, message: Message, asked: &mut Asked) -> Result<(), End> {
        asked.last_message = Instant::now();
        match message {
            Message::Changes(changes) => {
                self.report(begin, changes).await?;
                self.confirm(begin, asked).await;
            }
            Message::Progress => {
                if asked.newest == 0 {
                    asked.confirmed = asked.open.take().or(asked.confirmed);
                    if let Some(at_ms) = asked.confirmed {
                        self.report_current(begin, at_ms).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reports the changes of a message that are new.
    async fn report(&self, begin: &Begin, changes: Vec<Change>) -> Result<(), End> {
        let mut feed = self.feed.lock().await;
        if !feed.fits(begin) {
            return Err(End::Again);
        }
        let Ok(new) = feed.new_of(begin, changes) else {
            drop(feed);
            return Err(self.list_again(begin, Cause::History).await);
        };
        for change in new {
            let line = match change {
                Change::Put(record) => report(record),
                Change::Deleted { key, revision } => Report::Deleted { key, revision },
            };
            if self.output.offer(line).is_err() {
                feed.list_again(begin, Cause::Overflow);
                return Err(End::Again);
            }
        }
        Ok(())
    }

    /// Reports how far the feed is, once it has what was there when the watch began.
    async fn confirm(&self, begin: &Begin, asked: &mut Asked) {
        let reported = self.feed.lock().await.reported();
        if asked.newest > 0 && reported.is_some_and(|reported| reported >= asked.newest) {
            asked.newest = 0;
            asked.confirmed = asked.open.take();
        }
        if let Some(at_ms) = asked.confirmed.filter(|_| asked.newest == 0) {
            self.report_current(begin, at_ms).await;
        }
    }
}
