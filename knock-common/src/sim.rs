//! An environment in memory, for native tests and for judging without a kernel.

mod tables;

use std::{
    borrow::ToOwned,
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    vec::Vec,
};

use bytemuck::{Pod, Zeroable as _};

use self::tables::cells;
pub use self::tables::{Cells, Chain, WordMap};

use crate::{
    Address, Env, Stat,
    answer::Answer,
    blocked::Blocked,
    env::{Bucket, Table},
    event::Event,
    fwknop,
    layout::{
        Config, DoorEntry, EdgeKey, Features, FlowKey, FromKey, GrantKey, Node, OtpEntry, PortRule,
        ProgressKey, UsedKey, WAYS,
    },
    native::NativeEnv,
    reason::Reporting,
    spa::layout::{
        AnswerWords, FwknopKey, Gate, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey, SpaScratch,
        SpaTag,
    },
    time::Moment,
};

/// The key that chooses buckets of failed attempts: fixed numbers with mixed bits by default.
#[derive(Debug)]
pub struct LockoutKey(pub [u64; WAYS]);

impl Default for LockoutKey {
    fn default() -> Self {
        Self(std::array::from_fn(|word| {
            let number = (word as u64).wrapping_add(1);
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ mixed >> 29
        }))
    }
}

/// Maps below an environment in memory, by their names in [`crate::layout::MAPS`]. The environment reads each entry
/// once, when it is first used.
pub trait BackingMaps {
    /// Returns an element of an array; `None` if there is none.
    fn element<V: Pod>(&self, map: &'static str, index: u32) -> Option<V>;

    /// Returns an entry of a hash map; `None` if there is none.
    fn entry<K: Pod, V: Pod>(&self, map: &'static str, key: &K) -> Option<V>;

    /// Returns whether a prefix of a trie has an address.
    fn has_prefix_of(&self, map: &'static str, address: Address) -> bool;

    /// Returns the value of the longest prefix of a trie that a key has; `None` if there is none.
    fn longest_prefix<K: Pod, V: Pod>(&self, map: &'static str, key: &K) -> Option<V>;
}

/// No maps: the environment has only the entries that were added to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMaps;

impl BackingMaps for NoMaps {
    fn element<V: Pod>(&self, _map: &'static str, _index: u32) -> Option<V> {
        None
    }

    fn entry<K: Pod, V: Pod>(&self, _map: &'static str, _key: &K) -> Option<V> {
        None
    }

    fn has_prefix_of(&self, _map: &'static str, _address: Address) -> bool {
        false
    }

    fn longest_prefix<K: Pod, V: Pod>(&self, _map: &'static str, _key: &K) -> Option<V> {
        None
    }
}

/// Maps in memory, and a clock that is set by hand.
pub type Sim = Overlay<NoMaps>;

/// An environment in memory over other maps, which it never changes.
#[derive(Debug, Default)]
pub struct Overlay<B> {
    /// The maps below.
    pub below: B,
    /// Nodes that were read from below.
    pub nodes_below: Chain<u32, Node>,
    /// Doors that were read from below.
    pub doors_below: Chain<u32, DoorEntry>,
    /// Secrets that were read from below.
    pub otp_below: Chain<u32, OtpEntry>,
    /// The time.
    pub now: Cell<u64>,
    /// See [`Env::features`].
    pub features: Features,
    /// The settings.
    pub config: Config,
    /// Rules; other ports are unused.
    pub ports: HashMap<u32, PortRule>,
    /// Nodes by index.
    pub nodes: Vec<Node>,
    /// Edges.
    pub edges: HashMap<EdgeKey, u32>,
    /// Doors by index.
    pub doors: Vec<DoorEntry>,
    /// See [`Env::otp`].
    pub otp: HashMap<u16, OtpEntry>,
    /// Targets by address.
    pub targets: HashMap<Address, u16>,
    /// Trusted prefixes: address and length in bits.
    pub trust: Vec<(Address, u32)>,
    /// Prefixes that the configuration blocks, likewise.
    pub block_list: Vec<(Address, u32)>,
    /// Prefixes that commands block, likewise.
    pub blocked: Vec<((Address, u32), Blocked)>,
    /// Prefixes from which doors can be used: number of the door, address and length in bits.
    pub from: Vec<(u16, Address, u32)>,
    /// Words of the presence filter by slot.
    pub presence: RefCell<HashMap<u32, Rc<Cell<u64>>>>,
    /// First knocks by bucket.
    pub buckets: RefCell<HashMap<u32, Cells>>,
    /// Claims by slot.
    pub claims: RefCell<HashMap<u32, Rc<Cell<u64>>>>,
    /// See [`Env::progress`].
    pub progress: WordMap<ProgressKey>,
    /// See [`Env::allow`].
    pub allow: WordMap<GrantKey>,
    /// See [`Env::flows`].
    pub flows: WordMap<FlowKey>,
    /// See [`Env::lockouts`].
    pub lockouts: RefCell<HashMap<u32, Cells>>,
    /// See [`Env::lockout_key`].
    pub lockout_key: LockoutKey,
    /// See [`Env::used`].
    pub used: WordMap<UsedKey>,
    /// See [`Env::wall_clock`].
    pub wall_clock: Cell<u64>,
    /// Gates by index.
    pub spa_gates: Vec<Gate>,
    /// See [`Env::spa_key`].
    pub spa_keys: HashMap<SpaKeyName, SpaKey>,
    /// See [`Env::spa_may`].
    pub spa_may: HashMap<SpaMayKey, SpaMay>,
    /// See [`Env::spa_last`].
    pub spa_last: WordMap<SpaKeyId>,
    /// See [`Env::spa_seen`].
    pub spa_seen: WordMap<SpaTag>,
    /// See [`Env::spa_other`].
    pub spa_other: Cell<Address>,
    /// Keys of fwknop users by index.
    pub fwknop_keys: Vec<FwknopKey>,
    /// Entries of single packet authorization that were read from below.
    pub spa_below: SpaBelow,
    /// The event limits for drops and for knocks.
    pub event_limits: [Rc<Cell<u64>>; 2],
    /// The events that were emitted.
    pub events: RefCell<Vec<Event>>,
    /// The last answer.
    pub answer: Cell<Option<Answer>>,
    /// The words of the last answer to a SPA packet.
    pub spa_answer: Cell<AnswerWords>,
    /// Counters besides the reasons.
    pub stats: RefCell<HashMap<Stat, u64>>,
}

/// Entries of single packet authorization that an environment read from the maps below it.
#[derive(Debug, Default)]
pub struct SpaBelow {
    wall_clock: OnceCell<u64>,
    gates: Chain<u32, Gate>,
    keys: Chain<SpaKeyName, SpaKey>,
    may: Chain<SpaMayKey, SpaMay>,
    fwknop_keys: Chain<u32, FwknopKey>,
}

impl<B> Overlay<B> {
    /// Sets the clock.
    pub fn set_now(&self, now: Moment) {
        self.now.set(now.nanos());
    }
}

impl<B: BackingMaps> Env for Overlay<B> {
    type Word = Rc<Cell<u64>>;

    fn now(&self) -> Moment {
        Moment::from_nanos(self.now.get())
    }

    fn features(&self) -> Features {
        self.features
    }

    fn port(&self, index: u32) -> PortRule {
        let rule = self.ports.get(&index).copied();
        rule.or_else(|| self.below.element("PORTS", index))
            .unwrap_or_default()
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn node(&self, index: u32) -> Option<&Node> {
        let node = self.nodes.get(index as usize);
        node.or_else(|| {
            self.nodes_below
                .get(index, || self.below.element("NODES", index))
        })
    }

    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        let node = self.edges.get(key).copied();
        node.or_else(|| self.below.entry("EDGES", key))
    }

    fn door(&self, index: u32) -> Option<&DoorEntry> {
        let door = self.doors.get(index as usize);
        door.or_else(|| {
            self.doors_below
                .get(index, || self.below.element("DOORS", index))
        })
    }

    fn otp(&self, door: u16) -> Option<&OtpEntry> {
        let index = u32::from(door);
        let read = || self.below.entry("OTP", &index);
        let otp = self.otp.get(&door);
        otp.or_else(|| self.otp_below.get(index, read))
    }

    fn target(&self, address: Address) -> u16 {
        let target_id = self.targets.get(&address).copied();
        let read = || u16::try_from(self.below.entry::<_, u32>("TARGETS", &address)?).ok();
        target_id.or_else(read).unwrap_or(0)
    }

    fn is_trusted(&self, source: Address) -> bool {
        let mut prefixes = self.trust.iter();
        prefixes.any(|&prefix| has_prefix(source, prefix))
            || self.below.has_prefix_of("TRUST", source)
    }

    fn has_blocks(&self) -> bool {
        true
    }

    fn blocked(&self, source: Address) -> Option<Blocked> {
        let prefixes = self.blocked.iter();
        prefixes
            .filter(|&&(prefix, _)| has_prefix(source, prefix))
            .max_by_key(|&&((_, bits), _)| bits)
            .map(|&(_, block)| block)
            .or_else(|| self.below.longest_prefix("BLOCKED", &source))
    }

    fn is_in_block_list(&self, source: Address) -> bool {
        let mut prefixes = self.block_list.iter();
        prefixes.any(|&prefix| has_prefix(source, prefix))
            || self.below.has_prefix_of("BLOCK", source)
    }

    fn is_from(&self, key: &FromKey) -> bool {
        let mut prefixes = self.from.iter();
        prefixes.any(|&(door, address, bits)| {
            u32::from(door) == key.door && has_prefix(key.source, (address, bits))
        }) || self.below.longest_prefix::<_, u32>("FROM", key).is_some()
    }

    fn presence(&self, slot: u32) -> Option<Self::Word> {
        let mut presence = self.presence.borrow_mut();
        let word = presence.entry(slot).or_insert_with(|| {
            Rc::new(Cell::new(self.below.element("PRESENCE", slot).unwrap_or(0)))
        });
        Some(word.clone())
    }

    fn bucket(&self, index: u32) -> Option<impl Bucket<Word = Self::Word>> {
        Some(cells(&self.buckets, index, || {
            self.below.element("FIRST_KNOCKS", index)
        }))
    }

    fn claim_word(&self, slot: u32) -> Option<Self::Word> {
        Some(self.claims.borrow_mut().entry(slot).or_default().clone())
    }

    fn progress(&self) -> &impl Table<ProgressKey, Word = Self::Word> {
        self
    }

    fn allow(&self) -> &impl Table<GrantKey, Word = Self::Word> {
        self
    }

    fn flows(&self) -> &impl Table<FlowKey, Word = Self::Word> {
        self
    }

    fn lockouts(&self, bucket: u32) -> Option<impl Bucket<Word = Self::Word>> {
        Some(cells(&self.lockouts, bucket, || {
            self.below.element("LOCKOUTS", bucket)
        }))
    }

    fn lockout_key(&self) -> Option<&[u64; WAYS]> {
        let LockoutKey(key) = &self.lockout_key;
        Some(key)
    }

    fn used(&self) -> &impl Table<UsedKey, Word = Self::Word> {
        self
    }

    fn wall_clock(&self) -> u64 {
        let read = || self.below.element("WALL_CLOCK", 0).unwrap_or(0);
        match self.wall_clock.get() {
            0 => *self.spa_below.wall_clock.get_or_init(read),
            set => set,
        }
    }

    fn spa_gate(&self, index: u32) -> Option<&Gate> {
        let read = || self.below.element("SPA_GATES", index);
        let gate = self.spa_gates.get(index as usize);
        gate.or_else(|| self.spa_below.gates.get(index, read))
    }

    fn spa_key(&self, name: &SpaKeyName) -> Option<&SpaKey> {
        let read = || self.below.entry("SPA_KEYS", name);
        let key = self.spa_keys.get(name);
        key.or_else(|| self.spa_below.keys.get(*name, read))
    }

    fn spa_may(&self, key: &SpaMayKey) -> Option<&SpaMay> {
        let read = || self.below.entry("SPA_MAY", key);
        let may = self.spa_may.get(key);
        may.or_else(|| self.spa_below.may.get(*key, read))
    }

    fn spa_last(&self) -> &impl Table<SpaKeyId, Word = Self::Word> {
        self
    }

    fn spa_seen(&self) -> &impl Table<SpaTag, Word = Self::Word> {
        self
    }

    fn spa_other(&self) -> Address {
        self.spa_other.get()
    }

    fn set_spa_other(&self, other: Address) {
        self.spa_other.set(other);
    }

    fn with_spa_scratch<T>(&self, judge: impl FnOnce(&mut SpaScratch) -> T) -> Option<T> {
        let mut scratch = SpaScratch::zeroed();
        let result = judge(&mut scratch);
        self.spa_answer.set(scratch.answer);
        Some(result)
    }

    fn with_fwknop_scratch<T>(
        &self,
        judge: impl FnOnce(&mut fwknop::FwknopScratch) -> T,
    ) -> Option<T> {
        Some(judge(&mut fwknop::FwknopScratch::zeroed()))
    }

    fn fwknop_key(&self, index: u32) -> Option<&FwknopKey> {
        let read = || self.below.element("FWKNOP_KEYS", index);
        let key = self.fwknop_keys.get(index as usize);
        key.or_else(|| self.spa_below.fwknop_keys.get(index, read))
    }

    fn event_limit(&self, reporting: Reporting) -> Option<Self::Word> {
        let [drops, knocks] = &self.event_limits;
        match reporting {
            Reporting::Drops => Some(drops.to_owned()),
            Reporting::Knocks => Some(knocks.to_owned()),
            Reporting::Never | Reporting::Always => None,
        }
    }

    fn emit(&self, event: impl FnOnce() -> Event) -> bool {
        self.events.borrow_mut().push(event());
        true
    }

    fn answer(&self, answer: Answer) {
        self.answer.set(Some(answer));
    }

    fn count(&self, stat: Stat) {
        let mut stats = self.stats.borrow_mut();
        let count = stats.entry(stat).or_default();
        *count = count.saturating_add(1);
    }
}

impl<B: BackingMaps> NativeEnv for Overlay<B> {}

/// Returns whether an address has a prefix: an address and a length in bits.
fn has_prefix(address: Address, (prefix, bits): (Address, u32)) -> bool {
    let [address, prefix] = [address, prefix].map(|it| u128::from_be_bytes(it.octets()));
    (address ^ prefix).leading_zeros() >= bits
}

/// The tables of an overlay, each by the type of its keys.
macro_rules! tables {
    ($($key:ty: $words:ident, $map:literal;)+) => {
        $(impl<B: BackingMaps> Table<$key> for Overlay<B> {
            type Word = Rc<Cell<u64>>;

            fn find(&self, key: &$key) -> Option<Self::Word> {
                self.$words.find(key).or_else(|| {
                    let value = self.below.entry($map, key)?;
                    self.$words.insert(key, value);
                    self.$words.find(key)
                })
            }

            fn insert(&self, key: &$key, value: u64) -> bool {
                Table::<$key>::find(self, key).is_none() && self.$words.insert(key, value)
            }
        })+
    };
}

tables! {
    ProgressKey: progress, "PROGRESS";
    GrantKey: allow, "ALLOW";
    FlowKey: flows, "FLOWS";
    UsedKey: used, "USED";
    SpaKeyId: spa_last, "SPA_LAST";
    SpaTag: spa_seen, "SPA_SEEN";
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;
    use crate::env::Word as _;

    /// Maps of zeros that count how often they are read.
    #[derive(Debug, Default)]
    struct Zeros(Cell<u32>);

    impl Zeros {
        fn read<V: Pod>(&self) -> Option<V> {
            self.0.set(self.0.get() + 1);
            Some(V::zeroed())
        }
    }

    impl BackingMaps for Zeros {
        fn element<V: Pod>(&self, _map: &'static str, _index: u32) -> Option<V> {
            self.read()
        }

        fn entry<K: Pod, V: Pod>(&self, map: &'static str, _key: &K) -> Option<V> {
            if map == "USED" { None } else { self.read() }
        }

        fn has_prefix_of(&self, _map: &'static str, _address: Address) -> bool {
            true
        }

        fn longest_prefix<K: Pod, V: Pod>(&self, _map: &'static str, _key: &K) -> Option<V> {
            self.read()
        }
    }

    #[test]
    fn an_overlay_reads_each_entry_once_and_changes_its_copy() {
        let env = Overlay::<Zeros>::default();
        let key = GrantKey::zeroed();
        for expected in [0, 10] {
            let presence = env.presence(3).unwrap();
            let cell = Env::bucket(&env, 4).unwrap().cell(2).unwrap();
            let grant = env.allow().find(&key).unwrap();
            for word in [presence, cell, grant] {
                assert_eq!(word.load(), expected);
                word.store(10);
            }
            assert!(!env.allow().insert(&key, 1), "it exists below");
            for index in [8, 9] {
                assert_eq!(env.node(index), Some(&Node::default()));
            }
        }
        assert_eq!(env.below.0.get(), 5);
    }

    #[test]
    fn memory_hides_the_maps_below() {
        let node = Node {
            sequence_timeout_ticks: 7,
            ..Node::default()
        };
        let env = Overlay::<Zeros> {
            nodes: [node].into(),
            ..Overlay::default()
        };
        let (grant, used) = (GrantKey::zeroed(), UsedKey::zeroed());
        assert!(env.allow.insert(&grant, 1));
        let held = env.allow().find(&grant);
        assert_eq!(held.map(|word| word.load()), Some(1));
        assert_eq!(env.node(0), Some(&node));
        assert!(env.used().insert(&used, 2));
        let used = env.used().find(&used);
        assert_eq!(used.map(|word| word.load()), Some(2));
        assert_eq!(env.below.0.get(), 0);
    }
}
