//! The connections to members: one each, which watches and writes share.

use std::{cell::RefCell, rc::Rc};

use crate::engine::{Engine, Trouble};

/// The members of an engine.
pub(crate) struct Members<E: Engine> {
    engine: E,
    slots: Rc<RefCell<Vec<Slot<E::Member>>>>,
    /// The member at which the next search begins: each host begins at another one.
    next: RefCell<usize>,
}

#[derive(Debug)]
struct Slot<M> {
    connection: Option<M>,
    /// How many watches use it or try to.
    watches: usize,
    /// How many of them deliver.
    live: usize,
}

/// The use of a member by a watch; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<M> {
    slots: Rc<RefCell<Vec<Slot<M>>>>,
    /// The number of the member.
    pub(crate) number: usize,
    is_live: bool,
}

impl<M> Turn<M> {
    /// Notes that the watch delivers.
    pub(crate) fn set_live(&mut self) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(self.number)
            && !self.is_live
        {
            self.is_live = true;
            slot.live += 1;
        }
    }
}

impl<M> Drop for Turn<M> {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(self.number) {
            slot.watches -= 1;
            slot.live -= usize::from(self.is_live);
        }
    }
}

impl<E: Engine> Members<E> {
    /// Connects to none yet.
    pub(crate) fn new(engine: E) -> Self {
        let slots = engine.urls().iter().map(|_| Slot {
            connection: None,
            watches: 0,
            live: 0,
        });
        let slots: Vec<_> = slots.collect();
        let begin = rand::random_range(0..slots.len().max(1));
        Self {
            engine,
            slots: Rc::new(RefCell::new(slots)),
            next: RefCell::new(begin),
        }
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Returns the URL of a member.
    pub(crate) fn url(&self, number: usize) -> &str {
        self.engine.urls().get(number).map_or("", String::as_str)
    }

    /// Selects a member to watch: the next one of those with the fewest watches.
    pub(crate) fn turn(&self) -> Turn<E::Member> {
        let mut slots = self.slots.borrow_mut();
        let count = slots.len();
        let begin = *self.next.borrow();
        let order = (0..count).map(|step| (begin + step) % count);
        let number = order
            .min_by_key(|number| slots.get(*number).map_or(0, |slot| slot.watches))
            .unwrap_or(0);
        *self.next.borrow_mut() = number + 1;
        if let Some(slot) = slots.get_mut(number) {
            slot.watches += 1;
        }
        Turn {
            slots: Rc::clone(&self.slots),
            number,
            is_live: false,
        }
    }

    /// Selects a member to write to that is none of those already tried: one of a watch that delivers, if possible.
    pub(crate) fn for_write(&self, tried: &[usize]) -> usize {
        let slots = self.slots.borrow();
        let times = |number: &usize| tried.iter().filter(|other| *other == number).count();
        let order = 0..slots.len();
        order
            .min_by_key(|number| {
                let slot = slots.get(*number);
                let is_live = slot.is_some_and(|slot| slot.live > 0);
                let is_connected = slot.is_some_and(|slot| slot.connection.is_some());
                (times(number), !is_live, !is_connected)
            })
            .unwrap_or(0)
    }

    /// Returns the connection to a member; connects if there is none.
    ///
    /// # Errors
    /// It can't be reached.
    pub(crate) async fn get(&self, number: usize) -> Result<E::Member, Trouble> {
        let known = |slots: &Vec<Slot<E::Member>>| slots.get(number)?.connection.clone();
        if let Some(member) = known(&self.slots.borrow()) {
            return Ok(member);
        }
        let member = self.engine.connect(number).await?;
        if let Some(slot) = self.slots.borrow_mut().get_mut(number) {
            slot.connection = Some(member.clone());
        }
        Ok(member)
    }

    /// Drops the connection to a member, so that the next use connects again.
    pub(crate) fn forget(&self, number: usize) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(number) {
            slot.connection = None;
        }
    }
}
