//! Judges knocks, and packets that count as wrong knocks.

use crate::{
    Bytes, FrameSubprograms, Reason, Stat, Subprograms, arrival,
    automaton::{self, Progress, Step, StepOutcome},
    decision::Decision,
    emit,
    env::{Table, Word},
    event::EventHead,
    first::{self, CellAddress, FoundCell},
    grant::Completed,
    layout::{Config, EdgeKey, FLAG_CLASSES, Features, Node, PortKind, PortRule, ProgressKey},
    packet::{Protocol, Segment},
    packet_info::PacketInfo,
    presence::Presence,
    reason::Judged,
    source_knocks::{OtpPosition, SourceKnocks},
};

/// Judges a packet to a knock port or a decoy.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn knock<B: FrameSubprograms + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    rule: PortRule,
    env: &E,
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
    // As with a frame to a group: an access point may send multicast in frames to each of its clients.
    if !arrival::is_of_host(bytes, info.destination, env) {
        return Ok(Reason::Ordinary);
    }
    if segment.protocol == Protocol::Tcp
        && needs_handshake
        && let Some(reason) = bytes.classify(env).no_knock()
    {
        emit::report(env, &info, EventHead::new(reason), 0);
        return Ok(reason);
    }
    Ok(match rule.kind() {
        PortKind::Decoy => env.reset(&info, Reason::Decoy),
        PortKind::Ordinary
        | PortKind::Exempt
        | PortKind::Protected
        | PortKind::Knock
        | PortKind::Spa => {
            let mut decision = env.advance(&info, rule.first, SourceKnocks::NONE);
            if env.features().has(Features::PER_SOURCE)
                && let Some(position) = decision.asked()
            {
                decision = env.advance(&info, rule.first, env.source_knocks(&info, position));
            }
            match decision.completed() {
                Some(progress) => complete(env, &info, progress),
                None => {
                    emit::report(env, &info, decision.head(), 0);
                    decision.head().reason()
                }
            }
        }
    })
}

/// Judges a packet to an unused port: in strict mode, a new connection to it is a wrong knock.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn other_port<B: Bytes + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    env: &E,
) -> Judged<Reason> {
    if !env.features().has(Features::STRICT) || !segment.opens() || !segment.unicast {
        return Ok(Reason::Ordinary);
    }
    let source = segment.source(bytes)?;
    // The network stack refuses sources that no host can have; DHCP comes from 0.0.0.0.
    if Presence::of(env, source).is_empty() || !arrival::is_of_host(bytes, source, env) {
        return Ok(Reason::Ordinary);
    }
    let info = PacketInfo::of(bytes, segment, env)?;
    if !arrival::is_of_host(bytes, info.destination, env) {
        return Ok(Reason::Ordinary);
    }
    Ok(env.reset(&info, Reason::StrayPort))
}

/// Returns the event for a node: a door whose sequence leads through it, and how many knocks lead to it.
#[inline(always)]
const fn at(reason: Reason, node: &Node) -> EventHead {
    EventHead::at(reason, node.via_door, node.depth)
}

/// The attempt of a source, and where the tables keep it.
struct Attempt<'a, E: Subprograms> {
    env: &'a E,
    config: &'a Config,
    info: &'a PacketInfo,
    key: ProgressKey,
    cell: CellAddress,
}

/// The progress that the tables hold.
struct HeldProgress<T> {
    /// The word of the source's slot of the presence filter.
    presence: Presence,
    /// The word for progress past the first knock.
    deep: Option<T>,
    /// The value of that word; 0 if there is none.
    word: u64,
    /// The cell for a first knock, unless there is progress past it.
    cell: FoundCell<T>,
    progress: Progress,
}

impl<T: Word> HeldProgress<T> {
    /// Removes the first knock that was held, if one was.
    #[inline(always)]
    fn forget_first(&self) {
        if !self.progress.is_none() {
            self.cell.forget();
        }
    }
}

impl<'a, E: Subprograms> Attempt<'a, E> {
    #[inline(always)]
    fn of(env: &'a E, config: &'a Config, info: &'a PacketInfo) -> Self {
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
            cell: CellAddress::of(&key, config),
        }
    }

    /// Returns whether there may be an attempt. If not, no claim is needed.
    #[inline(always)]
    fn may_be_there(&self) -> bool {
        Presence::of(self.env, self.info.source).may_knock(self.info.now())
    }

    /// Claims the attempt, so that no other CPU changes it until the claim is given back. If another CPU holds
    /// the claim for too long, removes the attempt and returns `false`.
    #[inline(always)]
    fn claim(&self) -> bool {
        let claimed = self.env.claim(self.cell.claim());
        if !claimed {
            self.env.count(Stat::ProgressRefused);
            self.wipe();
        }
        claimed
    }

    /// Gives the claim back; `false` if another CPU spoiled it, which removes the attempt.
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

    /// Removes the attempt from all tables.
    #[inline(always)]
    fn wipe(&self) {
        if let Some(deep) = self.env.progress().find(&self.key) {
            deep.store(0);
        }
        first::forget(self.env, self.cell);
    }

    #[inline(always)]
    fn load(&self) -> HeldProgress<E::Word> {
        let now = self.info.now();
        let presence = Presence::of(self.env, self.info.source);
        let may_be_there = presence.may_knock(now);
        let deep = match may_be_there {
            true => self.env.progress().find(&self.key),
            false => None,
        };
        let word = deep.as_ref().map_or(0, |word| word.load());
        let progress = Progress::from_word(word);
        // A first knock is stored without a look at this word if the presence filter shows no attempt. The
        // word then belongs to an earlier attempt, which had expired.
        let has_expired = now.tick().since(progress.last) > self.config.attempt_max_ticks;
        if !progress.is_none() && !has_expired {
            return HeldProgress {
                presence,
                deep,
                word,
                cell: FoundCell::NONE,
                progress,
            };
        }
        let cell = FoundCell::of(self.env, self.cell, now.tick(), self.config);
        let progress = match may_be_there {
            true => cell.progress(self.cell),
            false => Progress::NONE,
        };
        HeldProgress {
            presence,
            deep,
            word,
            cell,
            progress,
        }
    }

    /// Stores the new progress; `false` if there is no room, or if another CPU removed the attempt
    /// meanwhile.
    #[inline(always)]
    fn store(&self, held: &HeldProgress<E::Word>, progress: Progress, first: u32) -> bool {
        if progress.is_none() {
            return self.forget(held);
        }
        let until = self.info.now().after_ticks(self.config.attempt_max_ticks);
        (held.presence).expect_knock(self.env, self.key.source, until);
        if progress.node == first {
            return (held.word == 0 || self.replace(held, 0))
                && (held.cell).remember(self.env, self.cell, progress, self.config);
        }
        let stored = self.replace(held, progress.to_word());
        if stored {
            held.forget_first();
        }
        stored
    }

    #[inline(always)]
    fn forget(&self, held: &HeldProgress<E::Word>) -> bool {
        if held.word != 0 && !self.replace(held, 0) {
            return false;
        }
        held.forget_first();
        true
    }

    #[inline(always)]
    fn replace(&self, held: &HeldProgress<E::Word>, word: u64) -> bool {
        match &held.deep {
            Some(deep) => deep.replace(held.word, word),
            None => self.env.progress().insert(&self.key, word),
        }
    }

    /// Advances the claimed attempt by the knock.
    #[inline(always)]
    fn take_step(&self, first: u32, source_knocks: SourceKnocks) -> Decision {
        let Self { env, info, .. } = *self;
        // Checked again: another CPU may have counted a failed attempt while this one waited for the claim.
        if self.env.is_locked_out(self.info) {
            return Decision::report(EventHead::new(Reason::LockedOut));
        }
        let held = self.load();
        let step = automaton::step(env, held.progress, info, first, source_knocks);
        if step.outcome == StepOutcome::Unknown {
            let node = env.node(held.progress.node);
            return node.map_or(
                Decision::report(EventHead::new(Reason::OutOfSequence)),
                |node| Decision::ask(OtpPosition::of(node)),
            );
        }
        if step.outcome == StepOutcome::Duplicate {
            return Decision::report(EventHead::new(Reason::Duplicate));
        }
        if !self.store(&held, step.progress, first) {
            env.count(Stat::ProgressRefused);
            return Decision::report(EventHead::new(Reason::Contended));
        }
        if step.outcome == StepOutcome::Wrong {
            env.fail(info);
        }
        conclude(env, held.progress, step)
    }

    /// Ends the claimed attempt; returns its event if one was in progress.
    #[inline(always)]
    fn end(&self) -> Option<EventHead> {
        let held = self.load();
        let is_absent = held.progress.is_none() || !self.forget(&held);
        let node = self.env.node(held.progress.node)?;
        let now = self.info.now();
        if is_absent || node.ends_sequence() || !held.progress.is_alive(node, now.tick()) {
            return None;
        }
        self.env.fail(self.info);
        Some(at(Reason::StrayPort, node))
    }
}

/// Advances a source by its knock. `first` is the node to which the knock leads as a first knock for any
/// destination, or 0.
#[inline(always)]
pub fn advance<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    first: u32,
    source_knocks: SourceKnocks,
) -> Decision {
    let Some(config) = env.config() else {
        return Decision::report(EventHead::new(Reason::OutOfSequence));
    };
    if env.is_locked_out(info) {
        return Decision::report(EventHead::new(Reason::LockedOut));
    }
    let first = match info.target_id {
        0 => first,
        target_id => env
            .edge(&EdgeKey::from_root(target_id, info.symbol()))
            .unwrap_or(0),
    };
    let attempt = Attempt::of(env, config, info);
    if first == 0 && !attempt.may_be_there() {
        return Decision::report(EventHead::new(Reason::OutOfSequence));
    }
    if !attempt.claim() {
        return Decision::report(EventHead::new(Reason::Contended));
    }
    let decision = attempt.take_step(first, source_knocks);
    if !attempt.give_back() {
        return Decision::report(EventHead::new(Reason::Contended));
    }
    decision
}

#[inline(always)]
fn conclude<E: Subprograms>(env: &E, held: Progress, step: Step) -> Decision {
    let reason = match step.outcome {
        StepOutcome::First => Reason::FirstKnock,
        StepOutcome::Next => Reason::NextKnock,
        StepOutcome::Duplicate => Reason::Duplicate,
        StepOutcome::Restarted => Reason::Restarted,
        StepOutcome::Wrong => Reason::WrongKnock,
        StepOutcome::Late => Reason::TooLate,
        StepOutcome::OutOfSequence | StepOutcome::Unknown => {
            return Decision::report(EventHead::new(Reason::OutOfSequence));
        }
    };
    let is_started = !step.progress.is_none();
    let reached = if is_started { step.progress } else { held };
    match env.node(reached.node) {
        Some(node) if is_started && node.ends_sequence() => Decision::complete(step.progress),
        Some(node) => Decision::report(at(reason, node)),
        None => Decision::report(EventHead::new(reason)),
    }
}

/// Returns the progress of a source; it may have expired.
pub fn progress<E: Subprograms>(env: &E, info: &PacketInfo) -> Progress {
    let attempt = env.config().map(|config| Attempt::of(env, config, info));
    attempt.map_or(Progress::NONE, |attempt| attempt.load().progress)
}

/// Uses the doors whose sequences end at the node that a source has reached.
#[inline(always)]
fn complete<E: Subprograms>(env: &E, info: &PacketInfo, progress: Progress) -> Reason {
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

/// Ends a source's attempt because it sent a packet to a decoy or, in strict mode, to an unused port.
///
/// Returns `cause`, or [`Reason::Ordinary`] if a packet to an unused port ended no attempt.
#[inline(always)]
pub fn reset<E: Subprograms>(env: &E, info: &PacketInfo, cause: Reason) -> Reason {
    let head = match ended(env, info) {
        Some(head) => head.because(cause),
        None if cause == Reason::StrayPort => return Reason::Ordinary,
        None => EventHead::new(cause),
    };
    emit::report(env, info, head, 0);
    cause
}

/// Ends a source's attempt; returns its event if one was in progress.
#[inline(always)]
fn ended<E: Subprograms>(env: &E, info: &PacketInfo) -> Option<EventHead> {
    let config = env.config()?;
    let attempt = Attempt::of(env, config, info);
    if !attempt.may_be_there() || !attempt.claim() {
        return None;
    }
    let head = attempt.end();
    attempt.give_back();
    head
}
