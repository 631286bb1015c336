//! Tables in memory.

use std::{
    boxed::Box,
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    hash::Hash,
    rc::Rc,
};

use crate::{
    env::{Bucket, Table, Word},
    layout::WAYS,
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
pub struct WordMap<K> {
    /// The entries.
    pub entries: RefCell<HashMap<K, Rc<Cell<u64>>>>,
    /// The most entries.
    pub capacity: usize,
}

impl<K> Default for WordMap<K> {
    fn default() -> Self {
        Self {
            entries: RefCell::default(),
            capacity: usize::MAX,
        }
    }
}

impl<K: Copy + Eq + Hash> WordMap<K> {
    /// Returns the value under a key.
    pub fn value(&self, key: &K) -> Option<u64> {
        self.entries.borrow().get(key).map(|word| word.get())
    }
}

impl<K: Copy + Eq + Hash> Table<K> for WordMap<K> {
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

/// Returns a bucket, read when it is first used.
pub(super) fn cells(
    buckets: &RefCell<HashMap<u32, Cells>>,
    index: u32,
    read: impl FnOnce() -> Option<[u64; WAYS]>,
) -> Cells {
    let mut buckets = buckets.borrow_mut();
    let cells = buckets.entry(index).or_insert_with(|| {
        let cells = read().unwrap_or_default();
        Rc::new(cells.map(|cell| Rc::new(Cell::new(cell))))
    });
    cells.clone()
}

/// Entries of a map that were read: a list, so that each stays at its address.
#[derive(Debug)]
pub struct Chain<K, T>(OnceCell<Box<Element<K, T>>>);

#[derive(Debug)]
struct Element<K, T> {
    key: K,
    value: Option<T>,
    next: Chain<K, T>,
}

impl<K, T> Default for Chain<K, T> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}

impl<K: Copy + Eq, T> Chain<K, T> {
    /// Returns the value under a key, which `read` reads if it is not there yet.
    pub(super) fn get(&self, key: K, read: impl Fn() -> Option<T>) -> Option<&T> {
        let mut chain = self;
        loop {
            let element = chain.0.get_or_init(|| {
                Box::new(Element {
                    key,
                    value: read(),
                    next: Self::default(),
                })
            });
            if element.key == key {
                return element.value.as_ref();
            }
            chain = &element.next;
        }
    }
}
