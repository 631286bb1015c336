//! Knocks, and what counts as a wrong one.

use crate::{
    Bytes, Env, Reason, Stat,
    access::Completed,
    automaton::{self, Outcome, Progress, Step},
    env::{Judged, Table, Word},
    event::{self, EventHead},
    first::{self, Place},
    layout::{Config, EdgeKey, FLAG_CLASSES, Features, Node, PortKind, PortRule, ProgressKey},
    otp::{self, SourceKnocks},
    packet::{Protocol, Segment},
    packet_info::{self, PacketInfo},
    presence::{self, Presence},
    time::TICK_BITS,
};

/// Judges a packet to a port that is in a sequence, or that looks like one.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn knock<B: Bytes + ?Sized, W: Env>(
    bytes: &B,
    segment: &Segment,
    rule: PortRule,
    env: &W,
) -> Judged<Reason> {
    let needs_handshake = env.features().has(Features::ANSWERS) && rule.needs_handshake();
    if segment.protocol == Protocol::Tcp && !needs_handshake {
        let config = env.config();
        // A mask, not a comparison: Linux 6.1 forgets the bound of a number that was on the stack.
        let index = usize::from(rule.flag_class) & (FLAG_CLASSES - 1);
        let class = config.and_then(|c| c.flag_classes.get(index));
        if !class.is_some_and(|class| class.admits(segment.flags)) {
            return Ok(Reason::OtherFlags);
        }
    }
    if !segment.unicast {
        return Ok(Reason::Ordinary);
    }
    let info = PacketInfo::of(bytes, segment, env)?;
    if segment.protocol == Protocol::Tcp
        && needs_handshake
        && let Some(reason) = bytes.classify(env).no_knock()
    {
        event::tell(env, &info, EventHead::new(reason), 0);
        return Ok(reason);
    }
    Ok(match rule.kind() {
        PortKind::Decoy => env.reset(&info, Reason::Decoy),
        PortKind::Ordinary | PortKind::Exempt | PortKind::Protected | PortKind::Knock => {
            let mut decision = env.advance(&info, rule.first, SourceKnocks::NONE);
            if env.features().has(Features::PER_SOURCE)
                && let Some(place) = decision.asked()
            {
                decision = env.advance(&info, rule.first, env.source_knocks(&info, place));
            }
            match decision.completed() {
                Some(progress) => complete(env, &info, progress),
                None => {
                    event::tell(env, &info, decision.head(), 0);
                    decision.head().reason()
                }
            }
        }
    })
}

/// Judges a packet to a port that is nothing: strictly, a new connection to it is a wrong knock.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn other_port<B: Bytes + ?Sized, W: Env>(
    bytes: &B,
    segment: &Segment,
    env: &W,
) -> Judged<Reason> {
    if !env.features().has(Features::STRICT) || !segment.opens() || !segment.unicast {
        return Ok(Reason::Ordinary);
    }
    let source = segment.source(bytes)?;
    // A source that no host can have is the stack's to refuse here: DHCP comes from 0.0.0.0.
    if Presence::of(env, source).is_empty() || !packet_info::can_come(bytes, source, env) {
        return Ok(Reason::Ordinary);
    }
    let info = PacketInfo::of(bytes, segment, env)?;
    Ok(env.reset(&info, Reason::StrayPort))
}

/// A node as an event shows it: a door that goes through it, and how many knocks lead to it.
#[inline(always)]
const fn at(reason: Reason, node: &Node) -> EventHead {
    EventHead::at(reason, node.via_door, node.depth)
}

/// The progress of a source, and where it is kept.
struct Attempt<'a, W: Env> {
    env: &'a W,
    config: &'a Config,
    info: &'a PacketInfo,
    key: ProgressKey,
    cell: Place,
}

/// What the tables hold of an attempt.
struct Held<T> {
    /// Where progress past the first knock is.
    deep: Option<T>,
    /// What that place holds; 0 if there is none.
    word: u64,
    /// Whether the progress is a first knock.
    is_first: bool,
    progress: Progress,
}

impl<'a, W: Env> Attempt<'a, W> {
    #[inline(always)]
    fn of(env: &'a W, config: &'a Config, info: &'a PacketInfo) -> Self {
        let PacketInfo {
            source, target_id, ..
        } = *info;
        let key = ProgressKey {
            source,
            target_id,
            padding: 0,
        };
        Self {
            env,
            config,
            info,
            key,
            cell: Place::of(&key, config),
        }
    }

    /// Whether there may be an attempt: if not, nothing has to be claimed to know it.
    #[inline(always)]
    fn may_be_there(&self) -> bool {
        Presence::of(self.env, self.info.source).may_knock(self.info.now())
    }

    /// Claims the attempt: until it is given back, no other CPU changes it. If that takes too long,
    /// the attempt is removed.
    #[inline(always)]
    fn claim(&self) -> bool {
        let claimed = self.env.claim(self.cell.claim());
        if !claimed {
            self.env.count(Stat::ProgressRefused);
            self.wipe();
        }
        claimed
    }

    /// Gives the claim back; `false` if another CPU could not wait for it, which has removed the
    /// attempt.
    #[inline(always)]
    fn give_back(&self) -> bool {
        let slot = self.cell.claim();
        let is_unspoiled = self.env.give_back(slot);
        if !is_unspoiled {
            self.env.count(Stat::ProgressRefused);
            self.wipe();
            self.env.clear_claim(slot);
        }
        is_unspoiled
    }

    /// Removes whatever there is of the attempt.
    #[inline(always)]
    fn wipe(&self) {
        if let Some(deep) = self.env.progress().find(&self.key) {
            deep.store(0);
        }
        first::forget(self.env, self.cell);
    }

    #[inline(always)]
    fn load(&self) -> Held<W::Word> {
        let now = self.info.now();
        if !self.may_be_there() {
            return Held {
                deep: None,
                word: 0,
                is_first: false,
                progress: Progress::NONE,
            };
        }
        let deep = self.env.progress().find(&self.key);
        let word = deep.as_ref().map_or(0, |word| word.load());
        let progress = Progress::from_word(word);
        // A first knock that came when the hint said that there was nothing to find has left the
        // word of an older attempt behind, which was over by then.
        let is_over = now.tick().since(progress.last) > self.config.attempt_max_ticks;
        if !progress.is_none() && !is_over {
            return Held {
                deep,
                word,
                is_first: false,
                progress,
            };
        }
        let progress = first::find(self.env, self.cell);
        Held {
            deep,
            word,
            is_first: !progress.is_none(),
            progress,
        }
    }

    /// Replaces what is held by another progress; `false` if there is no room, or if the attempt was
    /// removed meanwhile.
    #[inline(always)]
    fn store(&self, held: &Held<W::Word>, progress: Progress, first: u32) -> bool {
        if progress.is_none() {
            return self.forget(held);
        }
        let until = self.info.now().after_ticks(self.config.attempt_max_ticks);
        presence::expect_knock(self.env, self.key.source, until);
        if progress.node == first {
            return (held.word == 0 || self.replace(held, 0))
                && first::remember(self.env, self.cell, progress, self.config);
        }
        let stored = self.replace(held, progress.to_word());
        if stored && held.is_first {
            first::forget(self.env, self.cell);
        }
        stored
    }

    #[inline(always)]
    fn forget(&self, held: &Held<W::Word>) -> bool {
        if held.word != 0 && !self.replace(held, 0) {
            return false;
        }
        if held.is_first {
            first::forget(self.env, self.cell);
        }
        true
    }

    #[inline(always)]
    fn replace(&self, held: &Held<W::Word>, word: u64) -> bool {
        match &held.deep {
            Some(deep) => deep.replace(held.word, word),
            None => self.env.progress().insert(&self.key, word),
        }
    }

    /// Advances the attempt, which is claimed, by the knock.
    #[inline(always)]
    fn take_step(&self, first: u32, source_knocks: SourceKnocks) -> Decision {
        let Self { env, info, .. } = *self;
        // Asked once more: the claim was perhaps waited for until a failed attempt was counted.
        if self.env.is_locked_out(self.info) {
            return Decision::tell(EventHead::new(Reason::LockedOut));
        }
        let held = self.load();
        let step = automaton::step(env, held.progress, info, first, source_knocks);
        if step.outcome == Outcome::Unknown {
            let node = env.node(held.progress.node);
            return node.map_or(
                Decision::tell(EventHead::new(Reason::OutOfSequence)),
                |node| Decision::ask(otp::Place::of(node)),
            );
        }
        if step.outcome == Outcome::Duplicate {
            return Decision::tell(EventHead::new(Reason::Duplicate));
        }
        if !self.store(&held, step.progress, first) {
            env.count(Stat::ProgressRefused);
            return Decision::tell(EventHead::new(Reason::Contended));
        }
        if step.outcome == Outcome::Wrong {
            env.fail(info);
        }
        conclude(env, held.progress, step)
    }

    /// Ends the attempt, which is claimed; tells which one that was, if one was going on.
    #[inline(always)]
    fn end(&self) -> Option<EventHead> {
        let held = self.load();
        let is_gone = held.progress.is_none() || !self.forget(&held);
        let node = self.env.node(held.progress.node)?;
        let now = self.info.now();
        if is_gone || node.ends_sequence() || !held.progress.is_alive(node, now.tick()) {
            return None;
        }
        self.env.fail(self.info);
        Some(at(Reason::StrayPort, node))
    }
}

/// What a knock came to: an event to tell, the end of a sequence, or the question what the source has
/// to knock; one word, so that it can be handed back by a function as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision(u64);

impl Decision {
    const COMPLETED: u64 = 1 << 63;
    const ASKS: u64 = 1 << 62;
    /// The event to tell, if the answer comes when the question is another one, lies below.
    const PLACE_SHIFT: u32 = 32;

    #[inline(always)]
    const fn tell(head: EventHead) -> Self {
        Self(head.to_word())
    }

    /// Only the node and the time that it took are kept.
    #[inline(always)]
    const fn complete(progress: Progress) -> Self {
        Self(Self::COMPLETED | progress.to_word() >> TICK_BITS)
    }

    #[inline(always)]
    const fn ask(place: otp::Place) -> Self {
        let otherwise = EventHead::new(Reason::Contended).to_word();
        Self(Self::ASKS | place.to_word() << Self::PLACE_SHIFT | otherwise)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// What has to be worked out before the knock can be judged.
    #[inline(always)]
    const fn asked(self) -> Option<otp::Place> {
        if self.0 & (Self::COMPLETED | Self::ASKS) != Self::ASKS {
            return None;
        }
        Some(otp::Place::from_word(self.0 >> Self::PLACE_SHIFT))
    }

    #[inline(always)]
    const fn completed(self) -> Option<Progress> {
        if self.0 & Self::COMPLETED == 0 {
            return None;
        }
        Some(Progress::from_word(self.0 << TICK_BITS))
    }

    #[inline(always)]
    const fn head(self) -> EventHead {
        EventHead::from_word(self.0)
    }
}

/// Advances a source by its knock; `first` is the node that the knock leads to as a first one for
/// any destination, or 0, and `source_knocks` what was worked out about the source.
#[inline(always)]
pub fn advance<W: Env>(
    env: &W,
    info: &PacketInfo,
    first: u32,
    source_knocks: SourceKnocks,
) -> Decision {
    let Some(config) = env.config() else {
        return Decision::tell(EventHead::new(Reason::OutOfSequence));
    };
    if env.is_locked_out(info) {
        return Decision::tell(EventHead::new(Reason::LockedOut));
    }
    let first = match info.target_id {
        0 => first,
        target_id => env
            .edge(&EdgeKey::from_root(target_id, info.symbol()))
            .unwrap_or(0),
    };
    let attempt = Attempt::of(env, config, info);
    if first == 0 && !attempt.may_be_there() {
        return Decision::tell(EventHead::new(Reason::OutOfSequence));
    }
    if !attempt.claim() {
        return Decision::tell(EventHead::new(Reason::Contended));
    }
    let decision = attempt.take_step(first, source_knocks);
    if !attempt.give_back() {
        return Decision::tell(EventHead::new(Reason::Contended));
    }
    decision
}

#[inline(always)]
fn conclude<W: Env>(env: &W, held: Progress, step: Step) -> Decision {
    let reason = match step.outcome {
        Outcome::First => Reason::FirstKnock,
        Outcome::Next => Reason::NextKnock,
        Outcome::Duplicate => Reason::Duplicate,
        Outcome::Restarted => Reason::Restarted,
        Outcome::Wrong => Reason::WrongKnock,
        Outcome::Late => Reason::TooLate,
        Outcome::OutOfSequence | Outcome::Unknown => {
            return Decision::tell(EventHead::new(Reason::OutOfSequence));
        }
    };
    let goes_on = !step.progress.is_none();
    let reached = if goes_on { step.progress } else { held };
    match env.node(reached.node) {
        Some(node) if goes_on && node.ends_sequence() => Decision::complete(step.progress),
        Some(node) => Decision::tell(at(reason, node)),
        None => Decision::tell(EventHead::new(reason)),
    }
}

/// How far a source has come with its attempt, which may be over.
pub fn progress<W: Env>(env: &W, info: &PacketInfo) -> Progress {
    let attempt = env.config().map(|config| Attempt::of(env, config, info));
    attempt.map_or(Progress::NONE, |attempt| attempt.load().progress)
}

/// Uses the doors whose sequences end where a source has come to.
#[inline(always)]
fn complete<W: Env>(env: &W, info: &PacketInfo, progress: Progress) -> Reason {
    let Some(node) = env.node(progress.node) else {
        return Reason::OutOfSequence;
    };
    let mut reason = Reason::TooLate;
    for one_based in node.completes {
        if one_based == 0 {
            break;
        }
        let completed = Completed {
            entry: one_based.wrapping_sub(1),
            stage: node.depth,
            elapsed: progress.elapsed,
        };
        let used = env.use_door(info, completed);
        if used != Reason::TooLate {
            reason = used;
        }
    }
    reason
}

/// Ends a source's progress because it touched a decoy or, strictly, a port that is nothing.
///
/// Returns `cause`, or [`Reason::Ordinary`] for a port that is nothing and ended no attempt.
#[inline(always)]
pub fn reset<W: Env>(env: &W, info: &PacketInfo, cause: Reason) -> Reason {
    let head = match ended(env, info) {
        Some(head) => head.because(cause),
        None if cause == Reason::StrayPort => return Reason::Ordinary,
        None => EventHead::new(cause),
    };
    event::tell(env, info, head, 0);
    cause
}

/// Ends a source's progress; tells which attempt that was, if one was going on.
#[inline(always)]
fn ended<W: Env>(env: &W, info: &PacketInfo) -> Option<EventHead> {
    let config = env.config()?;
    let attempt = Attempt::of(env, config, info);
    if !attempt.may_be_there() || !attempt.claim() {
        return None;
    }
    let head = attempt.end();
    attempt.give_back();
    head
}
