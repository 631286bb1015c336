//! Knocks, and what counts as a wrong one.

use crate::{
    Bytes, Reason, Tally, World,
    access::{self, Used},
    automaton::{self, Outcome, Progress, Step},
    event::{Detail, Witness},
    first::{self, Place},
    hint::{self, Hint},
    layout::{Active, Config, Node, PortKind, PortRule, ProgressKey, Symbol},
    lockout,
    packet::{Protocol, Segment},
    world::{Graph, Judged, Table, Word},
};

/// CPUs that change one source's progress at the same moment are few.
const TRIES: usize = 4;

/// A source in front of the automaton.
struct Visitor<'a, W> {
    world: &'a W,
    graph: Graph<'a, W>,
    config: &'a Config,
    active: Active,
    key: ProgressKey,
    place: Place,
    /// Whether there may be progress; if not, the tables need not be asked.
    may_knock: bool,
    witness: Witness<'a>,
}

/// Judges a packet to a port that is in a sequence, or that looks like one.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn knock<B: Bytes + ?Sized, W: World>(
    bytes: &B,
    segment: &Segment,
    rule: PortRule,
    active: Active,
    world: &W,
) -> Judged<Reason> {
    let Some(config) = world.config(active.bank()) else {
        return Ok(Reason::Ordinary);
    };
    if segment.protocol == Protocol::Tcp {
        let class = config.flag_classes.get(usize::from(rule.flag_class));
        if !class.is_some_and(|class| class.admits(segment.flags)) {
            return Ok(Reason::OtherFlags);
        }
    }
    if !segment.unicast {
        return Ok(Reason::Ordinary);
    }
    let visitor = Visitor::meet(bytes, segment, active, config, world)?;
    let Witness { source, now, .. } = visitor.witness;
    if lockout::is_locked_out(world, source, active, config, now) {
        visitor.witness.tell(world, Reason::LockedOut, Detail::NONE);
        return Ok(Reason::LockedOut);
    }
    Ok(match rule.kind() {
        PortKind::Decoy => {
            let ended = visitor.reset();
            visitor
                .witness
                .tell(world, Reason::Decoy, ended.unwrap_or(Detail::NONE));
            Reason::Decoy
        }
        PortKind::Ordinary | PortKind::Exempt | PortKind::Protected | PortKind::Knock => {
            visitor.knock(rule.first)
        }
    })
}

/// Judges a packet to a port that is nothing: strictly, a new connection to it is a wrong knock.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn other_port<B: Bytes + ?Sized, W: World>(
    bytes: &B,
    segment: &Segment,
    active: Active,
    world: &W,
) -> Judged<Reason> {
    if !active.has(Active::STRICT) || !segment.opens() || !segment.unicast {
        return Ok(Reason::Ordinary);
    }
    if Hint::of(world, segment.source(bytes)?).is_empty() {
        return Ok(Reason::Ordinary);
    }
    let Some(config) = world.config(active.bank()) else {
        return Ok(Reason::Ordinary);
    };
    let visitor = Visitor::meet(bytes, segment, active, config, world)?;
    Ok(match visitor.reset() {
        Some(ended) => {
            visitor.witness.tell(world, Reason::Scanned, ended);
            Reason::Scanned
        }
        None => Reason::Ordinary,
    })
}

impl<'a, W: World> Visitor<'a, W> {
    #[inline(always)]
    fn meet<B: Bytes + ?Sized>(
        bytes: &B,
        segment: &'a Segment,
        active: Active,
        config: &'a Config,
        world: &'a W,
    ) -> Judged<Self> {
        let source = segment.source(bytes)?;
        let class = match active.has(Active::TARGETS) {
            true => world.target(active.bank(), segment.destination(bytes)?),
            false => 0,
        };
        let key = ProgressKey {
            source,
            class,
            generation: config.generation,
        };
        let now = world.now();
        Ok(Self {
            world,
            graph: Graph::new(world, active.bank(), config),
            config,
            active,
            key,
            place: Place::of(&key, config),
            may_knock: Hint::of(world, source).may_knock(now),
            witness: Witness {
                segment,
                source,
                now,
            },
        })
    }

    /// Advances the source by this packet's knock; `first` is the node it begins for any
    /// destination, or 0.
    #[inline(always)]
    fn knock(&self, first: u32) -> Reason {
        let Witness {
            segment,
            source,
            now,
        } = self.witness;
        let symbol = Symbol::new(segment.protocol, segment.destination_port);
        let first = match self.key.class {
            0 => first,
            class => self.graph.first(class, symbol).unwrap_or(0),
        };
        for _ in 0..TRIES {
            let deep = self.deep();
            let word = deep.as_ref().map_or(0, |word| word.load());
            let held = self.held(word);
            let step = automaton::step(&self.graph, held, symbol, first, now.tick());
            if step.outcome == Outcome::Duplicate {
                return Reason::Duplicate;
            }
            if self.store(deep, word, held, step, first) {
                if step.outcome == Outcome::Wrong {
                    lockout::fail(self.world, source, self.active, self.config, now);
                }
                return self.conclude(held, step);
            }
        }
        self.world.tally(Tally::ProgressRefused);
        self.witness
            .tell(self.world, Reason::Contended, Detail::NONE);
        Reason::Contended
    }

    #[inline(always)]
    fn deep(&self) -> Option<W::Word> {
        if self.may_knock {
            self.world.progress().find(&self.key)
        } else {
            None
        }
    }

    /// The progress that a word of the progress table means, or else the first knock.
    #[inline(always)]
    fn held(&self, word: u64) -> Progress {
        match Progress::from_word(word) {
            progress if !progress.is_none() => progress,
            _ if self.may_knock => first::find(self.world, self.place),
            none => none,
        }
    }

    /// Replaces `held` by the progress of `step`; `false` if another CPU was faster.
    #[inline(always)]
    fn store(
        &self,
        deep: Option<W::Word>,
        word: u64,
        held: Progress,
        step: Step,
        first: u32,
    ) -> bool {
        let progress = step.progress;
        if progress.is_none() {
            return self.forget(deep, word);
        }
        let until = self.witness.now.after_ticks(self.config.horizon_ticks);
        hint::expect_knock(self.world, self.key.source, until);
        if progress.node == first {
            return (word == 0 || deep.is_some_and(|deep| deep.replace(word, 0)))
                && first::remember(self.world, self.place, progress, self.config);
        }
        let stored = match deep {
            Some(deep) => deep.replace(word, progress.to_word()),
            None => self.world.progress().insert(&self.key, progress.to_word()),
        };
        if stored && word == 0 && !held.is_none() {
            first::forget(self.world, self.place);
        }
        stored
    }

    #[inline(always)]
    fn forget(&self, deep: Option<W::Word>, word: u64) -> bool {
        if word != 0 {
            return deep.is_some_and(|deep| deep.replace(word, 0));
        }
        if self.may_knock {
            first::forget(self.world, self.place);
        }
        true
    }

    /// Ends the source's progress; tells what attempt that was, if one was going on.
    #[inline(always)]
    fn reset(&self) -> Option<Detail> {
        let Witness { source, now, .. } = self.witness;
        for _ in 0..TRIES {
            let deep = self.deep();
            let word = deep.as_ref().map_or(0, |word| word.load());
            let held = self.held(word);
            if held.is_none() {
                return None;
            }
            if !self.forget(deep, word) {
                continue;
            }
            let node = self.graph.node(held.node)?;
            if node.ends_sequence() || !held.is_alive(node, now.tick()) {
                return None;
            }
            lockout::fail(self.world, source, self.active, self.config, now);
            return Some(at(node));
        }
        self.world.tally(Tally::ProgressRefused);
        None
    }

    /// Uses the doors that the step completed and tells what happened.
    #[inline(always)]
    fn conclude(&self, held: Progress, step: Step) -> Reason {
        let reason = match step.outcome {
            Outcome::First => Reason::FirstKnock,
            Outcome::Next => Reason::NextKnock,
            Outcome::Duplicate => Reason::Duplicate,
            Outcome::Restarted => Reason::Restarted,
            Outcome::Wrong => Reason::WrongKnock,
            Outcome::Late => Reason::TooLate,
            Outcome::NotBegun => Reason::NotBegun,
        };
        let reached = if step.progress.is_none() {
            held
        } else {
            step.progress
        };
        let Some(node) = self.graph.node(reached.node) else {
            return reason;
        };
        if !step.progress.is_none() && node.ends_sequence() {
            return self.use_doors(node, step.progress);
        }
        let detail = if reached.is_none() {
            Detail::NONE
        } else {
            at(node)
        };
        self.witness.tell(self.world, reason, detail);
        reason
    }

    #[inline(always)]
    fn use_doors(&self, node: &Node, progress: Progress) -> Reason {
        let Witness { source, now, .. } = self.witness;
        let mut reason = Reason::TooLate;
        for one_based in node.completes {
            if one_based == 0 {
                break;
            }
            let index = one_based.wrapping_sub(1);
            let number = self.config.door_base.wrapping_add(u32::from(index));
            let Some(door) = self.world.door(number) else {
                break;
            };
            let used = match progress.elapsed <= door.within {
                true => access::use_door(self.world, door, index, source, now),
                false => Used {
                    reason: Reason::TooLate,
                    until_ms: 0,
                },
            };
            let detail = Detail {
                door: index,
                stage: node.depth,
                until_ms: used.until_ms,
            };
            self.witness.tell(self.world, used.reason, detail);
            if used.reason != Reason::TooLate {
                reason = used.reason;
            }
        }
        reason
    }
}

#[inline(always)]
const fn at(node: &Node) -> Detail {
    Detail {
        door: node.through,
        stage: node.depth,
        until_ms: 0,
    }
}
