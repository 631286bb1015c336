//! What the judge needs from outside: maps, a clock, and somewhere to tell what happened.

use crate::{
    Address, Reason, Stat,
    access::{self, Completed},
    answer::Answer,
    claim,
    cookie::{self, Connection},
    event::{self, Event, EventHead},
    first,
    hmac::Scratch,
    knock::{self, Decision},
    layout::{
        Config, Door, EdgeKey, Features, FlowKey, GrantKey, Node, Otp, PortRule, ProgressKey,
        UsedKey, WAYS,
    },
    lockout,
    otp::{self, Place, SourceKnocks},
    packet_info::PacketInfo,
    presence,
    reason::Reporting,
    sha1,
    time::Moment,
};

/// A 64-bit word in a map that several CPUs may change at once.
pub trait Word {
    /// The value now.
    fn load(&self) -> u64;

    /// Writes without looking.
    fn store(&self, value: u64);

    /// Writes `new` if the value is still `old`; tells whether it did.
    fn replace(&self, old: u64, new: u64) -> bool;
}

/// A hash map whose values are words.
pub trait Table<K> {
    /// The values.
    type Word: Word;

    /// The word under a key.
    fn find(&self, key: &K) -> Option<Self::Word>;

    /// Puts a word under a new key; `false` if there is no room or the key is there already.
    fn insert(&self, key: &K, value: u64) -> bool;
}

/// A bucket of cells: of first knocks, or of failed attempts.
pub trait Bucket {
    /// The cells.
    type Word: Word;

    /// The cell at `way`, below [`crate::layout::WAYS`].
    fn cell(&self, way: usize) -> Option<Self::Word>;
}

/// The maps and the clock around a judgement.
pub trait Env: Sized {
    /// The words in its maps.
    type Word: Word;

    /// The time, to the timer tick.
    fn now(&self) -> Moment;

    /// What the configuration uses.
    fn features(&self) -> Features;

    /// The rule at an index of the port table.
    fn port(&self, index: u32) -> PortRule;

    /// The settings.
    fn config(&self) -> Option<&Config>;

    /// A node of the automaton.
    fn node(&self, index: u32) -> Option<&Node>;

    /// The node that an edge leads to.
    fn edge(&self, key: &EdgeKey) -> Option<u32>;

    /// A door.
    fn door(&self, index: u32) -> Option<&Door>;

    /// What the knocks of a door are made of that depend on who knocks.
    fn otp(&self, door: u16) -> Option<&Otp>;

    /// The class of a destination address; 0 if no door is for it alone.
    fn target(&self, address: Address) -> u16;

    /// Whether a source need not knock.
    fn is_trusted(&self, source: Address) -> bool;

    /// The word of a hint slot.
    fn presence(&self, slot: u32) -> Option<Self::Word>;

    /// A bucket of the first-knock table.
    fn bucket(&self, index: u32) -> Option<impl Bucket<Word = Self::Word>>;

    /// The word in a slot of the claims.
    fn claim_word(&self, slot: u32) -> Option<Self::Word>;

    /// Progress past the first knock.
    fn progress(&self) -> &impl Table<ProgressKey, Word = Self::Word>;

    /// Grants.
    fn allow(&self) -> &impl Table<GrantKey, Word = Self::Word>;

    /// Established flows.
    fn flows(&self) -> &impl Table<FlowKey, Word = Self::Word>;

    /// A bucket of failed attempts.
    fn lockouts(&self, bucket: u32) -> Option<impl Bucket<Word = Self::Word>>;

    /// The key that chooses those buckets.
    fn lockout_key(&self) -> Option<&[u64; WAYS]>;

    /// Sequences that were used: when, in milliseconds since boot.
    fn used(&self) -> &impl Table<UsedKey, Word = Self::Word>;

    /// The word of the gate for a kind of event: one for all CPUs.
    fn event_limit(&self, reporting: Reporting) -> Option<Self::Word>;

    /// Hands an event to user space; `false` if there is no room.
    fn emit(&self, event: &Event) -> bool;

    /// Counts something that is not a reason.
    fn count(&self, stat: Stat);

    /// Has the packet answered; the last answer is the one that counts.
    fn answer(&self, _answer: Answer) {}

    // The rest is what the kernel side overrides with functions of their own, which the verifier
    // walks once and not at every call: hence numbers and plain structs as arguments.

    /// See [`cookie::in_epoch`].
    fn cookie(&self, connection: &Connection, epoch: u32) -> u32 {
        cookie::in_epoch(self, connection, epoch)
    }

    /// See [`claim::take`].
    fn claim(&self, slot: u32) -> bool {
        claim::take(self, slot) != 0
    }

    /// See [`claim::give_back`].
    fn give_back(&self, slot: u32) -> bool {
        claim::give_back(self, slot) != 0
    }

    /// See [`claim::clear`].
    fn clear_claim(&self, slot: u32) {
        claim::clear(self, slot);
    }

    /// See [`first::recall_cell`].
    fn recall_first(&self, bucket: u32, tag: u64) -> u64 {
        first::recall_cell(self, bucket, tag)
    }

    /// See [`first::forget_cell`].
    fn forget_first(&self, bucket: u32, tag: u64) {
        first::forget_cell(self, bucket, tag);
    }

    /// See [`first::remember_cell`].
    fn remember_first(&self, bucket: u32, cell: u64, attempt_max_ticks: u32) -> u64 {
        first::remember_cell(self, bucket, cell, attempt_max_ticks)
    }

    /// See [`lockout::is_locked_out`].
    fn is_locked_out(&self, info: &PacketInfo) -> bool {
        lockout::is_locked_out(self, info)
    }

    /// See [`lockout::place_word`].
    fn place_failures(&self, info: &PacketInfo) -> u64 {
        lockout::place_word(self, info)
    }

    /// See [`lockout::count_once`].
    fn count_failure(&self, bucket: u32, tag: u32, now_ms: u64) -> bool {
        lockout::count_once(self, bucket, tag, now_ms)
    }

    /// See [`lockout::rank`].
    fn rank_failures(&self, cell: u64, tag: u32, now_ms: u64) -> u64 {
        lockout::rank(self, cell, tag, now_ms)
    }

    /// See [`lockout::fail`].
    fn fail(&self, info: &PacketInfo) {
        lockout::fail(self, info);
    }

    /// See [`presence::raise_slot`].
    fn raise_presence(&self, slot: u32, floor: u64) {
        presence::raise_slot(self, slot, floor);
    }

    /// See [`event::hand_over`].
    fn hand_over(&self, info: &PacketInfo, head: EventHead, until_ms: u64) {
        event::hand_over(self, info, head, until_ms);
    }

    /// See [`access::use_door`].
    fn use_door(&self, info: &PacketInfo, completed: Completed) -> Reason {
        access::use_door(self, info, completed)
    }

    /// See [`otp::source_knocks`].
    fn source_knocks(&self, info: &PacketInfo, place: Place) -> SourceKnocks {
        otp::source_knocks(self, info, place, &mut Scratch::empty(), sha1::compress)
    }

    /// See [`knock::advance`].
    fn advance(&self, info: &PacketInfo, first: u32, source_knocks: SourceKnocks) -> Decision {
        knock::advance(self, info, first, source_knocks)
    }

    /// See [`knock::reset`].
    fn reset(&self, info: &PacketInfo, cause: Reason) -> Reason {
        knock::reset(self, info, cause)
    }
}

/// Shorthand for the result of a judgement that can end early.
pub type Judged<T> = Result<T, Reason>;
