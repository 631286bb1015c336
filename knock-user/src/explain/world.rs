//! The world that the judge sees: the live maps, of which each entry is copied when it is asked for.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{HashMap, HashSet},
    hash::Hash,
    rc::Rc,
};

use anyhow::Result;
use bytemuck::Pod;
use knock_common::{
    Address, Tally, World,
    event::Event,
    layout::{
        Config, Door, EdgeKey, Features, FlowKey, GrantKey, LOCKOUT_BUCKETS, Node, Otp, PortRule,
        ProgressKey, SpentKey, WAYS,
    },
    reason::Telling,
    sim::{Cells, Words},
    time::Moment,
    world::{Bucket, Table},
};

use super::{Known, Live};

/// A world in which the judge may write as it likes: only copies change.
pub(super) struct Seen<'a, L> {
    from: From<'a, L>,
    features: Features,
    now: Moment,
    config: OnceCell<Option<Config>>,
    nodes: Chain<Node>,
    doors: Chain<Door>,
    otp: Chain<Otp>,
    hints: RefCell<HashMap<u32, Rc<Cell<u64>>>>,
    buckets: RefCell<HashMap<u32, Cells>>,
    progress: Copies<'a, L, ProgressKey>,
    allow: Copies<'a, L, GrantKey>,
    flows: Copies<'a, L, FlowKey>,
    lockouts: RefCell<HashMap<u32, Cells>>,
    lockout_key: OnceCell<Option<[u64; WAYS]>>,
    spent: Copies<'a, L, SpentKey>,
    events: RefCell<Vec<Event>>,
}

impl<'a, L: Live> Seen<'a, L> {
    pub(super) fn new(live: &'a L, known: &Known<'_>) -> Self {
        let from = From {
            live,
            failure: Rc::default(),
        };
        Self {
            features: known.features,
            now: known.now,
            config: OnceCell::new(),
            nodes: Chain::new(),
            doors: Chain::new(),
            otp: Chain::new(),
            hints: RefCell::default(),
            buckets: RefCell::default(),
            progress: Copies::new("PROGRESS", &from),
            allow: Copies::new("ALLOW", &from),
            flows: Copies::new("FLOWS", &from),
            lockouts: RefCell::default(),
            lockout_key: OnceCell::new(),
            spent: Copies::new("SPENT", &from),
            events: RefCell::default(),
            from,
        }
    }

    /// The live maps.
    pub(super) fn live(&self) -> &'a L {
        self.from.live
    }

    /// The last event of the judgement.
    pub(super) fn told(&self) -> Option<Event> {
        self.events.borrow().last().copied()
    }

    /// A copy of a bucket, made when it is asked for first.
    fn cells(&self, map: &'static str, copies: &RefCell<HashMap<u32, Cells>>, index: u32) -> Cells {
        let mut copies = copies.borrow_mut();
        let cells = copies.entry(index).or_insert_with(|| {
            let cells: [u64; WAYS] = self.from.element(map, index).unwrap_or_default();
            Rc::new(cells.map(|cell| Rc::new(Cell::new(cell))))
        });
        cells.clone()
    }

    /// What went wrong with reading, if anything did.
    pub(super) fn check(&self) -> Result<()> {
        match self.from.failure.borrow_mut().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl<L: Live> World for Seen<'_, L> {
    type Word = Rc<Cell<u64>>;

    fn now(&self) -> Moment {
        self.now
    }

    fn features(&self) -> Features {
        self.features
    }

    fn port(&self, index: u32) -> PortRule {
        self.from.element("PORTS", index).unwrap_or_default()
    }

    fn config(&self) -> Option<&Config> {
        let config = self.config.get_or_init(|| self.from.element("CONFIG", 0));
        config.as_ref()
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index, || self.from.element("NODES", index))
    }

    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        self.from.entry("EDGES", *key)
    }

    fn door(&self, index: u32) -> Option<&Door> {
        self.doors.get(index, || self.from.element("DOORS", index))
    }

    fn otp(&self, door: u16) -> Option<&Otp> {
        let door = u32::from(door);
        self.otp.get(door, || self.from.entry("OTP", door))
    }

    fn target(&self, address: Address) -> u16 {
        let class: Option<u32> = self.from.entry("TARGETS", address);
        class
            .and_then(|class| u16::try_from(class).ok())
            .unwrap_or(0)
    }

    fn is_trusted(&self, source: Address) -> bool {
        let has = self.from.live.has_prefix_of("TRUST", source);
        self.from.good(has).unwrap_or(false)
    }

    fn hint(&self, slot: u32) -> Option<Self::Word> {
        let mut hints = self.hints.borrow_mut();
        let word = hints
            .entry(slot)
            .or_insert_with(|| Rc::new(Cell::new(self.from.element("HINTS", slot).unwrap_or(0))));
        Some(word.clone())
    }

    fn bucket(&self, index: u32) -> Option<impl Bucket<Word = Self::Word>> {
        Some(self.cells("FIRST", &self.buckets, index))
    }

    fn claim_word(&self, _slot: u32) -> Option<Self::Word> {
        None
    }

    /// The copies are this judgement's alone.
    fn claim(&self, _slot: u32) -> bool {
        true
    }

    fn give_back(&self, _slot: u32) -> bool {
        true
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
        Some(self.cells("LOCKOUTS", &self.lockouts, bucket))
    }

    fn lockout_key(&self) -> Option<&[u64; WAYS]> {
        let read = || self.from.element("LOCKOUTS", LOCKOUT_BUCKETS);
        self.lockout_key.get_or_init(read).as_ref()
    }

    fn spent(&self) -> &impl Table<SpentKey, Word = Self::Word> {
        &self.spent
    }

    /// One that is always open.
    fn gate(&self, _telling: Telling) -> Option<Self::Word> {
        Some(Rc::default())
    }

    fn emit(&self, event: &Event) -> bool {
        self.events.borrow_mut().push(*event);
        true
    }

    fn tally(&self, _tally: Tally) {}
}

/// The live maps, and the first thing that went wrong with reading them.
struct From<'a, L> {
    live: &'a L,
    failure: Rc<RefCell<Option<anyhow::Error>>>,
}

impl<L: Live> From<'_, L> {
    fn element<V: Pod>(&self, map: &'static str, index: u32) -> Option<V> {
        self.good(self.live.element(map, index)).flatten()
    }

    fn entry<K: Pod, V: Pod>(&self, map: &'static str, key: K) -> Option<V> {
        self.good(self.live.entry(map, key)).flatten()
    }

    fn good<T>(&self, read: Result<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                None
            }
        }
    }
}

/// Copies of a hash map's words.
struct Copies<'a, L, K> {
    map: &'static str,
    from: From<'a, L>,
    asked: RefCell<HashSet<K>>,
    words: Words<K>,
}

impl<'a, L, K> Copies<'a, L, K> {
    fn new(map: &'static str, from: &From<'a, L>) -> Self {
        Self {
            map,
            from: From {
                live: from.live,
                failure: Rc::clone(&from.failure),
            },
            asked: RefCell::default(),
            words: Words::default(),
        }
    }
}

impl<L: Live, K: Copy + Eq + Hash + Pod> Table<K> for Copies<'_, L, K> {
    type Word = Rc<Cell<u64>>;

    fn find(&self, key: &K) -> Option<Self::Word> {
        let is_new = self.asked.borrow_mut().insert(*key);
        if is_new && let Some(word) = self.from.entry(self.map, *key) {
            self.words.insert(key, word);
        }
        self.words.find(key)
    }

    fn insert(&self, key: &K, value: u64) -> bool {
        self.find(key).is_none() && self.words.insert(key, value)
    }
}

/// Elements of an array that were asked for: few, and each stays where it is.
struct Chain<T>(OnceCell<Box<Element<T>>>);

struct Element<T> {
    index: u32,
    value: Option<T>,
    next: Chain<T>,
}

impl<T> Chain<T> {
    const fn new() -> Self {
        Self(OnceCell::new())
    }

    fn get(&self, index: u32, read: impl Fn() -> Option<T>) -> Option<&T> {
        let mut chain = self;
        loop {
            let element = chain.0.get_or_init(|| {
                Box::new(Element {
                    index,
                    value: read(),
                    next: Self::new(),
                })
            });
            if element.index == index {
                return element.value.as_ref();
            }
            chain = &element.next;
        }
    }
}
