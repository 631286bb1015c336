//! An engine: members that keep records, and the verbs that this program needs of them.

pub(crate) mod etcd;
#[cfg(test)]
pub(crate) mod memory;
mod record;
mod trouble;

pub(crate) use self::{
    record::{Change, Record},
    trouble::Trouble,
};
use knock_wire::Put;

/// A store that several members keep together, in an order that all of them agree on.
pub(crate) trait Engine: 'static {
    /// A connection to one of them.
    type Member: Member;

    /// Returns the URLs of the members.
    fn urls(&self) -> &[String];

    /// Connects to the member with this number, and asks it for its version.
    ///
    /// # Errors
    /// It can't be reached, or its answer is not understood.
    async fn connect(&self, number: usize) -> Result<Self::Member, Trouble>;
}

/// A connection to a member. Clones share it.
///
/// No call waits longer than a few seconds.
pub(crate) trait Member: Clone + 'static {
    /// The changes of a prefix.
    type Changes: Changes;

    /// Returns the version of the engine.
    fn version(&self) -> &str;

    /// Reads records below a prefix in the order of their keys: those after a key, at a revision or now.
    ///
    /// # Errors
    /// [`Trouble::Compacted`]: the engine no longer has that revision. Others: there is no answer.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&[u8]>,
        revision: Option<u64>,
    ) -> Result<Page, Trouble>;

    /// Reads a record as of a revision or now, which a majority of the members confirms.
    ///
    /// # Errors
    /// As of [`Member::page`]; [`Trouble::Future`]: there has been no such revision yet.
    async fn read(&self, key: &str, revision: Option<u64>) -> Result<Read, Trouble>;

    /// Reads which record below a prefix was put last; its value is left out.
    ///
    /// # Errors
    /// There is no answer.
    async fn newest(&self, prefix: &str) -> Result<Read, Trouble>;

    /// Begins to receive the changes below a prefix, from a revision.
    ///
    /// # Errors
    /// There is no answer.
    async fn watch(&self, prefix: &str, from: u64) -> Result<Self::Changes, Trouble>;

    /// Writes all keys or, if the condition does not hold, none; `leases` has that of each key.
    ///
    /// # Errors
    /// [`Trouble::Lost`]: the keys may have been written. Others: they were not.
    async fn write(&self, put: &Put, leases: &[Option<i64>]) -> Result<Outcome, Trouble>;

    /// Makes a lease: its keys are deleted after this many seconds, unless it is kept alive.
    ///
    /// # Errors
    /// There is no answer.
    async fn lease(&self, seconds: u64) -> Result<i64, Trouble>;

    /// Keeps a lease alive for its full time.
    ///
    /// # Errors
    /// [`Trouble::NoLease`]: it does not exist. Others: there is no answer.
    async fn keep_alive(&self, lease: i64) -> Result<(), Trouble>;
}

/// The changes of a prefix, in the order of their revisions.
pub(crate) trait Changes {
    /// Returns the next message. Another future may be awaited instead, and no message is lost.
    ///
    /// # Errors
    /// [`Trouble::Compacted`]: the engine no longer has the changes that were asked for. Others: the
    /// connection was lost.
    async fn next(&mut self) -> Result<Message, Trouble>;

    /// Asks for [`Message::Progress`].
    ///
    /// # Errors
    /// The connection was lost.
    async fn ask(&mut self) -> Result<(), Trouble>;
}

/// A message of a member about changes.
#[derive(Debug)]
pub(crate) enum Message {
    /// Changes; all of a revision are in one message.
    Changes(Vec<Change>),
    /// The answer to [`Changes::ask`].
    Progress,
}

/// Records below a prefix.
#[derive(Debug)]
pub(crate) struct Page {
    /// The id of the cluster.
    pub(crate) cluster: String,
    /// The revision of the engine.
    pub(crate) revision: u64,
    pub(crate) records: Vec<Record>,
    /// The key of the last record, if there are more.
    pub(crate) rest: Option<Vec<u8>>,
}

/// A record or its absence.
#[derive(Debug)]
pub(crate) struct Read {
    /// The id of the cluster.
    pub(crate) cluster: String,
    /// The revision of the engine.
    pub(crate) revision: u64,
    pub(crate) record: Option<Record>,
}

/// What happened to a write.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The keys were written, at this revision.
    Written(u64),
    /// The condition did not hold.
    Refused(Read),
}
