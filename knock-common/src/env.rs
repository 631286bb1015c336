//! The environment of a judgement: maps, a clock, and an outlet for events.

use crate::{
    Address, Stat,
    answer::Answer,
    blocked::Blocked,
    event::Event,
    fwknop,
    layout::{
        Config, DoorEntry, EdgeKey, Features, FlowKey, FromKey, GrantKey, Node, OtpEntry, PortRule,
        ProgressKey, UsedKey, WAYS,
    },
    reason::Reporting,
    spa::layout::{
        FwknopKey, Gate, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey, SpaScratch, SpaTag,
    },
    time::Moment,
};

/// A 64-bit word in a map, which several CPUs may change at once.
pub trait Word {
    /// Reads the value.
    fn load(&self) -> u64;

    /// Writes the value.
    fn store(&self, value: u64);

    /// Writes `new` if the value is `old`, in one step; returns whether it did.
    fn replace(&self, old: u64, new: u64) -> bool;
}

/// A hash map whose values are words.
pub trait Table<K> {
    /// The type of values.
    type Word: Word;

    /// Returns the word under a key.
    fn find(&self, key: &K) -> Option<Self::Word>;

    /// Inserts a word under a new key; `false` if there is no room or the key exists.
    fn insert(&self, key: &K, value: u64) -> bool;
}

/// A bucket of cells: of first knocks, or of failed attempts.
pub trait Bucket {
    /// The type of cells.
    type Word: Word;

    /// Returns the cell at `way`, below [`crate::layout::WAYS`].
    fn cell(&self, way: usize) -> Option<Self::Word>;
}

/// The maps, the clock and the outlets of a judgement. The methods have no bodies here: what is decided with them
/// is in the other modules.
pub trait Env: Sized {
    /// The type of words in maps.
    type Word: Word;

    /// Returns the time, to the timer tick.
    fn now(&self) -> Moment;

    /// Returns the features that the configuration uses.
    fn features(&self) -> Features;

    /// Returns the rule at an index of the port table.
    fn port(&self, index: u32) -> PortRule;

    /// Returns the settings.
    fn config(&self) -> Option<&Config>;

    /// Returns a node of the automaton.
    fn node(&self, index: u32) -> Option<&Node>;

    /// Returns the node that an edge leads to.
    fn edge(&self, key: &EdgeKey) -> Option<u32>;

    /// Returns a door.
    fn door(&self, index: u32) -> Option<&DoorEntry>;

    /// Returns the secret and the base of a door's time-based knocks that depend on the source, by number of the door.
    fn otp(&self, door: u16) -> Option<&OtpEntry>;

    /// Returns the target of a destination address; 0 if no door is limited to it.
    fn target(&self, address: Address) -> u16;

    /// Returns whether the allow list has a source.
    fn is_trusted(&self, source: Address) -> bool;

    /// Returns whether a command may have blocked a source. The kernel side finds this in a word that it reads for each
    /// packet anyway.
    fn has_blocks(&self) -> bool;

    /// Returns the block of the longest prefix of a source that a command has blocked; it may have expired.
    fn blocked(&self, source: Address) -> Option<Blocked>;

    /// Returns whether the configuration blocks a source.
    fn is_in_block_list(&self, source: Address) -> bool;

    /// Returns whether a door that is limited to some prefixes can be used from a source.
    fn is_from(&self, key: &FromKey) -> bool;

    /// Returns the word in a slot of the presence filter.
    fn presence(&self, slot: u32) -> Option<Self::Word>;

    /// Returns a bucket of first knocks.
    fn bucket(&self, index: u32) -> Option<impl Bucket<Word = Self::Word>>;

    /// Returns the word in a slot of the claims.
    fn claim_word(&self, slot: u32) -> Option<Self::Word>;

    /// Progress past the first knock.
    fn progress(&self) -> &impl Table<ProgressKey, Word = Self::Word>;

    /// Returns grants.
    fn allow(&self) -> &impl Table<GrantKey, Word = Self::Word>;

    /// Returns established flows.
    fn flows(&self) -> &impl Table<FlowKey, Word = Self::Word>;

    /// Returns a bucket of failed attempts.
    fn lockouts(&self, bucket: u32) -> Option<impl Bucket<Word = Self::Word>>;

    /// Returns the key that chooses buckets of failed attempts.
    fn lockout_key(&self) -> Option<&[u64; WAYS]>;

    /// Returns the replay cache: the time of use of each sequence, in milliseconds since boot.
    fn used(&self) -> &impl Table<UsedKey, Word = Self::Word>;

    /// Returns what to add to the time since boot to get the time since 1970, in nanoseconds.
    fn wall_clock(&self) -> u64;

    /// Returns the keys of a gate, by index below [`crate::spa::layout::GATES`].
    fn spa_gate(&self, index: u32) -> Option<&Gate>;

    /// Returns the keys and rights of a client's key.
    fn spa_key(&self, name: &SpaKeyName) -> Option<&SpaKey>;

    /// Returns a door that a user may open.
    fn spa_may(&self, key: &SpaMayKey) -> Option<&SpaMay>;

    /// Returns the replay cache of the format `knock`: the greatest stamp that each key has used, in nanoseconds since
    /// 1970.
    fn spa_last(&self) -> &impl Table<SpaKeyId, Word = Self::Word>;

    /// Returns the replay cache of the format of fwknop: when a packet was used, in milliseconds since boot.
    fn spa_seen(&self) -> &impl Table<SpaTag, Word = Self::Word>;

    /// See [`Event::other`]: what [`Self::set_spa_other`] set last.
    fn spa_other(&self) -> Address;

    /// Sets [`Self::spa_other`] for the events of this packet.
    fn set_spa_other(&self, other: Address);

    /// Calls a function with memory for the judgement of a packet; `None` if there is none.
    fn with_spa_scratch<T>(&self, judge: impl FnOnce(&mut SpaScratch) -> T) -> Option<T>;

    /// Calls a function with memory for the judgement of a packet of fwknop; `None` if there is none.
    fn with_fwknop_scratch<T>(
        &self,
        judge: impl FnOnce(&mut fwknop::FwknopScratch) -> T,
    ) -> Option<T>;

    /// Returns the entry of a fwknop user, by index below [`crate::spa::layout::FWKNOP_KEYS_MAX`].
    fn fwknop_key(&self, index: u32) -> Option<&FwknopKey>;

    /// Returns the word of the event limit for a kind of event; all CPUs share it.
    fn event_limit(&self, reporting: Reporting) -> Option<Self::Word>;

    /// Sends an event to user space, which is made where user space will read it; `false` if there is no room.
    fn emit(&self, event: impl FnOnce() -> Event) -> bool;

    /// Increments a counter.
    fn count(&self, stat: Stat);

    /// Leaves an answer to the packet; the last one counts.
    fn answer(&self, answer: Answer);
}
