//! Judges a packet of the format `knock`.

use crate::{
    Address, Bytes, FrameSubprograms, Reason, Subprograms, arrival, door, emit,
    env::{Table, Word},
    event::{EventHead, NO_DOOR},
    grant::GrantChange,
    layout::Features,
    packet::Segment,
    packet_info::PacketInfo,
    reason::Reporting,
    sha256::Sha256Work,
    spa::{
        gate,
        layout::{PacketWords, SpaKey, SpaMay, SpaMayKey, SpaScratch},
        open,
        port::{Otherwise, SpaFormats, SpaPort},
        request::Request,
        stamp,
        step::SpaStep,
    },
};

/// Judges a packet. Reports a packet of this format, and a packet of no format if the port drops those.
///
/// The kernel side calls each step as a subprogram after the previous one has returned, because its stack has no room
/// for two of them.
#[inline(always)]
pub fn judge<B: FrameSubprograms + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    env: &E,
    port: SpaPort,
    scratch: &mut SpaScratch,
) -> SpaStep {
    let mut step = bytes.pass_gate(segment, env, port, scratch);
    if step == SpaStep::Noise {
        return report_noise(env, &scratch.info);
    }
    if step == SpaStep::Continue {
        step = env.open_spa(scratch);
    }
    if step == SpaStep::Continue {
        step = env.allow_spa(scratch);
    }
    if let SpaStep::Authentic(reason) = step
        && env.write_spa_answer(scratch, reason)
    {
        env.seal_spa_answer(scratch);
    }
    step
}

/// Reports noise that its event limit admits.
#[inline(always)]
pub(crate) fn report_noise<E: Subprograms>(env: &E, info: &PacketInfo) -> SpaStep {
    env.hand_over(info, EventHead::new(Reason::SpaNoise), 0);
    SpaStep::Judged(Reason::SpaNoise)
}

/// Reads the header, in the clear, and the source of a packet that passes a gate.
#[inline(always)]
pub fn pass_gate<B: Bytes + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    env: &E,
    port: SpaPort,
    scratch: &mut SpaScratch,
) -> SpaStep {
    let has_passed =
        read(bytes, segment, &mut scratch.packet).is_some() && gate::pass_any(env, scratch);
    let is_reported = port.otherwise == Otherwise::Drop && is_last_format(env, port);
    if !has_passed && (!is_reported || !emit::admits(env, Reporting::Drops, env.now())) {
        return match is_reported {
            true => SpaStep::Judged(Reason::SpaNoise),
            false => SpaStep::NotSpa,
        };
    }
    match PacketInfo::of(bytes, segment, env) {
        Ok(info) => scratch.info = info,
        Err(reason) => return SpaStep::Judged(reason),
    }
    // A packet to a group of hosts opens nothing, also in a frame to this host alone.
    if has_passed && !arrival::is_of_host(bytes, scratch.info.destination, env) {
        return SpaStep::NotSpa;
    }
    env.set_spa_other(Address::ANY);
    scratch.seen = scratch.info.source;
    (scratch.port, scratch.seconds) = (0, 0);
    match has_passed {
        true => SpaStep::Continue,
        false => SpaStep::Noise,
    }
}

/// Reads the octets of a packet. Returns `None` if the datagram has fewer.
#[inline(always)]
fn read<B: Bytes + ?Sized>(bytes: &B, segment: &Segment, packet: &mut PacketWords) -> Option<()> {
    let (payload, length) = segment.payload(bytes)?;
    if length < size_of::<PacketWords>() {
        return None;
    }
    // Each word is composed in a register, because a CPU waits before it loads a word that was stored in pieces.
    for (index, word) in packet.iter_mut().enumerate() {
        let pieces: [u16; 4] = bytes.words(payload.wrapping_add(index.wrapping_mul(8)))?;
        *word = bytemuck::cast(pieces);
    }
    Some(())
}

/// Returns the time since 1970, in nanoseconds.
#[inline(always)]
pub(super) fn wall_ns<E: Subprograms>(env: &E, scratch: &SpaScratch) -> u64 {
    scratch.info.now_ns.wrapping_add(env.wall_clock())
}

/// Authenticates a packet, records its stamp and reveals what it asks for.
///
/// `compress` is [`crate::sha256::compress`], which the kernel side calls as a subprogram.
#[inline(always)]
pub fn open<E: Subprograms>(
    env: &E,
    scratch: &mut SpaScratch,
    compress: impl Fn(&mut Sha256Work) + Copy,
) -> SpaStep {
    let mut refused = env.refuse_early(scratch);
    // Anybody who knows the host's public key can cause these reasons, so their packets have to cost little. The HMAC
    // is computed only for a packet that is reported, so that the report names a user only for the user's own packet.
    if let Some(reason) = refused
        && !emit::admits(env, reason.reporting(), scratch.info.now())
    {
        return SpaStep::Judged(reason);
    }
    // Linux 6.1 accepts keys of maps on the stack, but not in memory that is passed to a subprogram.
    let name = scratch.header.key;
    let authentic = env.spa_key(&name).filter(|key| {
        open::is_authentic(
            &mut scratch.open,
            &scratch.packet,
            &scratch.header,
            key,
            compress,
        )
    });
    let is_early = refused.is_some();
    if !is_early {
        refused = match authentic {
            Some(_) => env.record_stamp(scratch),
            None => Some(Reason::SpaForged),
        };
    }
    let Some(reason) = refused else {
        if let Some(key) = authentic {
            open::reveal(&mut scratch.open, key, compress);
        }
        return SpaStep::Continue;
    };
    let until_ms = if reason == Reason::SpaStale {
        stamp::offset_ms(scratch.header.stamp, wall_ns(env, scratch))
    } else {
        0
    };
    if is_early || emit::admits(env, reason.reporting(), scratch.info.now()) {
        let user = authentic.map_or(0, |key| key.user);
        let head = EventHead::new(reason).of_user(user);
        env.hand_over(&scratch.info, head, until_ms);
    }
    match reason == Reason::SpaStale && authentic.is_some() {
        true => SpaStep::Authentic(reason),
        false => SpaStep::Judged(reason),
    }
}

/// Records the stamp of an authentic packet. Returns the reason if that is not possible.
#[inline(always)]
pub fn record_stamp<E: Subprograms>(env: &E, scratch: &mut SpaScratch) -> Option<Reason> {
    let id = scratch.header.key.id;
    match env.spa_last().find(&id) {
        Some(last) => stamp::record(&last, scratch.header.stamp),
        None => Some(Reason::SpaFull),
    }
}

/// Returns a reason to refuse a packet that can be found without an HMAC.
#[inline(always)]
pub fn refuse_early<E: Subprograms>(env: &E, scratch: &mut SpaScratch) -> Option<Reason> {
    let stamp = scratch.header.stamp;
    let window_ns = env.config().map_or(0, |config| config.spa_window_ns);
    if !stamp::is_fresh(stamp, wall_ns(env, scratch), window_ns) {
        return Some(Reason::SpaStale);
    }
    let name = scratch.header.key;
    if env.spa_key(&name).is_none() {
        return Some(Reason::SpaUnknown);
    }
    match env.spa_last().find(&name.id) {
        None => Some(Reason::SpaFull),
        Some(last) if stamp <= last.load() => Some(Reason::SpaReplayed),
        Some(_) => None,
    }
}

/// Gives or ends the grants that an authenticated packet asks for, if its user may do that.
#[inline(always)]
pub fn allow<E: Subprograms>(env: &E, scratch: &mut SpaScratch) -> SpaStep {
    let name = scratch.header.key;
    let Some(key) = env.spa_key(&name) else {
        return SpaStep::Judged(Reason::SpaUnknown);
    };
    let wall_ns = wall_ns(env, scratch);
    let request = Request::read(&scratch.open);
    let may = env.spa_may(&SpaMayKey::door(key.user, request.door));
    let refused = if wall_ns >= key.not_after_ns {
        Some(Reason::SpaExpired)
    } else if !request.is_readable() {
        Some(Reason::SpaUnreadable)
    } else if may.is_none() {
        Some(Reason::SpaNotAllowed)
    } else if !is_for_source(env, &mut scratch.info, key, request.source) {
        Some(Reason::SpaElsewhere)
    } else {
        None
    };
    let Some(may) = may.filter(|_| refused.is_none()) else {
        let reason = refused.unwrap_or(Reason::SpaNotAllowed);
        let head = EventHead::at(reason, door_number(env, request), 0).of_user(key.user);
        emit::report(env, &scratch.info, head, 0);
        return SpaStep::Authentic(reason);
    };
    let left_ms = key.not_after_ns.wrapping_sub(wall_ns) / 1_000_000;
    let open_for_ms = open_for_ms(may, request.seconds).min(left_ms);
    let open_for_ms = (!request.closes()).then_some(open_for_ms);
    let reason = use_door(env, &scratch.info, may.entry, key.user, open_for_ms);
    scratch.port = may.port.into();
    if matches!(reason, Reason::Opened | Reason::Refreshed) {
        scratch.seconds = (open_for_ms.unwrap_or(0) / 1_000) as u32;
    }
    SpaStep::Authentic(reason)
}

/// Gives the grants of a door to the source of a user's packet for this long, in milliseconds, and reports that. `None`
/// ends them.
#[inline(always)]
pub(crate) fn use_door<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    entry: u16,
    user: u16,
    open_for_ms: Option<u64>,
) -> Reason {
    let Some(door) = env.door(entry.into()) else {
        return Reason::SpaNotAllowed;
    };
    let change = match open_for_ms {
        Some(open_for_ms) => GrantChange::of(door, open_for_ms),
        None => GrantChange::CLOSE,
    };
    let (until_ms, reason) = if door::is_elsewhere(env, info, door, true) {
        (0, Reason::SourceNotAllowed)
    } else if open_for_ms.is_some() && door::is_cut_off(env, door, info.now()) {
        (0, Reason::CutOff)
    } else {
        (
            change.until_ms(info.now()),
            env.change_grants(info, entry, change),
        )
    };
    // Without an event limit, unlike after knocks: only the owner of a key can cause it, and each packet once.
    let head = EventHead::at(reason, door.number, 0).of_user(user);
    env.hand_over(info, head, until_ms);
    reason
}

/// Returns whether a packet may ask for an address.
///
/// If that address is not the packet's source, the grant is for the address, and events name both.
#[inline(always)]
fn is_for_source<E: Subprograms>(
    env: &E,
    info: &mut PacketInfo,
    key: &SpaKey,
    wanted: Address,
) -> bool {
    if wanted == Address::ANY {
        return key.flags & SpaKey::BIND == 0;
    }
    if wanted == info.source {
        return true;
    }
    let is_allowed = key.flags & SpaKey::FOR_OTHERS != 0 && wanted.is_host();
    if is_allowed {
        env.set_spa_other(info.source);
        info.source = wanted;
    } else {
        env.set_spa_other(wanted);
    }
    is_allowed
}

/// Returns how long the grant lasts if a packet asks for this many seconds, in milliseconds.
#[inline(always)]
fn open_for_ms(may: &SpaMay, seconds: u32) -> u64 {
    match seconds {
        0 => may.open_for_ms,
        seconds => u64::from(seconds)
            .wrapping_mul(1_000)
            .min(may.open_for_max_ms),
    }
}

/// Returns the number of the door that a packet asks for, even if its user may not open it.
#[inline(always)]
fn door_number<E: Subprograms>(env: &E, request: Request) -> u16 {
    let key = SpaMayKey::door(SpaMayKey::ANYBODY, request.door);
    let entry = env.spa_may(&key).map(|may| u32::from(may.entry));
    let door = entry.and_then(|entry| env.door(entry));
    door.map_or(NO_DOOR, |door| door.number)
}

/// Returns whether `knock` is the last format of a port, so that a packet that does not have it has none.
#[inline(always)]
pub(crate) fn is_last_format<E: Subprograms>(env: &E, port: SpaPort) -> bool {
    !env.features().has(Features::FWKNOP) || !port.formats.has(SpaFormats::FWKNOP)
}
