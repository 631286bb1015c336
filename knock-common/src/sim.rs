//! A world in memory, for native tests and for judging without a kernel.

use std::{
    borrow::ToOwned,
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::Hash,
    rc::Rc,
    vec::Vec,
};

use crate::{
    Address, Tally, World,
    answer::Answer,
    event::Event,
    layout::{
        Config, Door, EdgeKey, Features, FlowKey, GrantKey, Node, Otp, PortRule, ProgressKey,
        SpentKey, WAYS,
    },
    reason::Telling,
    time::Moment,
    world::{Bucket, Table, Word},
};

impl Word for Rc<Cell<u64>> {
    fn load(&self) -> u64 {
        self.get()
    }

    fn store(&self, value: u64) {
        self.set(value);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        let same = self.get() == old;
        if same {
            self.set(new);
        }
        same
    }
}

/// A hash map of words.
#[derive(Clone, Debug)]
pub struct Words<K> {
    /// The entries.
    pub entries: RefCell<HashMap<K, Rc<Cell<u64>>>>,
    /// How many there may be.
    pub capacity: usize,
}

impl<K> Default for Words<K> {
    fn default() -> Self {
        Self {
            entries: RefCell::default(),
            capacity: usize::MAX,
        }
    }
}

impl<K: Copy + Eq + Hash> Words<K> {
    /// The value under a key.
    pub fn value(&self, key: &K) -> Option<u64> {
        self.entries.borrow().get(key).map(|word| word.get())
    }
}

impl<K: Copy + Eq + Hash> Table<K> for Words<K> {
    type Word = Rc<Cell<u64>>;

    fn find(&self, key: &K) -> Option<Self::Word> {
        self.entries.borrow().get(key).cloned()
    }

    fn insert(&self, key: &K, value: u64) -> bool {
        let mut entries = self.entries.borrow_mut();
        let room = !entries.contains_key(key) && entries.len() < self.capacity;
        if room {
            entries.insert(*key, Rc::new(Cell::new(value)));
        }
        room
    }
}

/// A bucket of cells.
pub type Cells = Rc<[Rc<Cell<u64>>; WAYS]>;

impl Bucket for Cells {
    type Word = Rc<Cell<u64>>;

    fn cell(&self, way: usize) -> Option<Self::Word> {
        self.as_slice().get(way).cloned()
    }
}

/// The key that chooses buckets of failed attempts: as good as drawn, unless another one is set.
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

/// The maps in memory, and a clock that stands where it is put.
#[derive(Debug, Default)]
pub struct Sim {
    /// The time.
    pub now: Cell<u64>,
    /// See [`World::features`].
    pub features: Features,
    /// The settings.
    pub config: Config,
    /// Rules that were set; the others are ordinary.
    pub ports: HashMap<u32, PortRule>,
    /// Nodes by index.
    pub nodes: Vec<Node>,
    /// Edges.
    pub edges: HashMap<EdgeKey, u32>,
    /// Doors by index.
    pub doors: Vec<Door>,
    /// What the knocks of doors are made of that depend on who knocks, by number of the door.
    pub otp: HashMap<u16, Otp>,
    /// Destination addresses with a class.
    pub targets: HashMap<Address, u16>,
    /// Trusted prefixes: address and length in bits.
    pub trust: Vec<(Address, u32)>,
    /// Hints by slot.
    pub hints: RefCell<HashMap<u32, Rc<Cell<u64>>>>,
    /// First knocks by bucket.
    pub buckets: RefCell<HashMap<u32, Cells>>,
    /// Claims by slot.
    pub claims: RefCell<HashMap<u32, Rc<Cell<u64>>>>,
    /// See [`World::progress`].
    pub progress: Words<ProgressKey>,
    /// See [`World::allow`].
    pub allow: Words<GrantKey>,
    /// See [`World::flows`].
    pub flows: Words<FlowKey>,
    /// See [`World::lockouts`].
    pub lockouts: RefCell<HashMap<u32, Cells>>,
    /// See [`World::lockout_key`].
    pub lockout_key: LockoutKey,
    /// See [`World::spent`].
    pub spent: Words<SpentKey>,
    /// The gates for drops and for knocks.
    pub gates: [Rc<Cell<u64>>; 2],
    /// The events that were emitted.
    pub events: RefCell<Vec<Event>>,
    /// The last answer.
    pub answer: Cell<Option<Answer>>,
    /// The tallies that were counted.
    pub tallies: RefCell<HashMap<Tally, u64>>,
}

impl Sim {
    /// Puts the clock at a moment.
    pub fn set_now(&self, now: Moment) {
        self.now.set(now.nanos());
    }
}

impl World for Sim {
    type Word = Rc<Cell<u64>>;

    fn now(&self) -> Moment {
        Moment::from_nanos(self.now.get())
    }

    fn features(&self) -> Features {
        self.features
    }

    fn port(&self, index: u32) -> PortRule {
        self.ports.get(&index).copied().unwrap_or_default()
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        self.edges.get(key).copied()
    }

    fn door(&self, index: u32) -> Option<&Door> {
        self.doors.get(index as usize)
    }

    fn otp(&self, door: u16) -> Option<&Otp> {
        self.otp.get(&door)
    }

    fn target(&self, address: Address) -> u16 {
        self.targets.get(&address).copied().unwrap_or(0)
    }

    fn is_trusted(&self, source: Address) -> bool {
        let source = u128::from_be_bytes(source.octets());
        self.trust.iter().any(|&(prefix, bits)| {
            let different = source ^ u128::from_be_bytes(prefix.octets());
            different.leading_zeros() >= bits
        })
    }

    fn hint(&self, slot: u32) -> Option<Self::Word> {
        Some(self.hints.borrow_mut().entry(slot).or_default().clone())
    }

    fn bucket(&self, index: u32) -> Option<impl Bucket<Word = Self::Word>> {
        Some(self.buckets.borrow_mut().entry(index).or_default().clone())
    }

    fn claim_word(&self, slot: u32) -> Option<Self::Word> {
        Some(self.claims.borrow_mut().entry(slot).or_default().clone())
    }

    fn progress(&self) -> &impl Table<ProgressKey, Word = Self::Word> {
        &self.progress
    }

    fn allow(&self) -> &impl Table<GrantKey, Word = Self::Word> {
        &self.allow
    }

    fn flows(&self) -> &impl Table<FlowKey, Word = Self::Word> {
        &self.flows
    }

    fn lockouts(&self, bucket: u32) -> Option<impl Bucket<Word = Self::Word>> {
        Some(
            self.lockouts
                .borrow_mut()
                .entry(bucket)
                .or_default()
                .clone(),
        )
    }

    fn lockout_key(&self) -> Option<&[u64; WAYS]> {
        let LockoutKey(key) = &self.lockout_key;
        Some(key)
    }

    fn spent(&self) -> &impl Table<SpentKey, Word = Self::Word> {
        &self.spent
    }

    fn gate(&self, telling: Telling) -> Option<Self::Word> {
        let [drops, knocks] = &self.gates;
        match telling {
            Telling::Drops => Some(drops.to_owned()),
            Telling::Knocks => Some(knocks.to_owned()),
            Telling::Never | Telling::Always => None,
        }
    }

    fn emit(&self, event: &Event) -> bool {
        self.events.borrow_mut().push(*event);
        true
    }

    fn answer(&self, answer: Answer) {
        self.answer.set(Some(answer));
    }

    fn tally(&self, tally: Tally) {
        let mut tallies = self.tallies.borrow_mut();
        let count = tallies.entry(tally).or_default();
        *count = count.saturating_add(1);
    }
}
