//! Judges a packet of fwknop, cheapest first: its characters, its HMAC under each key, the replay cache. Only an
//! authentic packet is decrypted and read, and then has to be allowed.
//!
//! An authentic packet is used up even if it is refused, so that its copies are cheap.

use crate::{
    Address, FrameSubprograms, Reason, Subprograms, arrival, emit,
    env::Table,
    event::EventHead,
    fwknop::{
        open::open,
        scratch::{FwknopScratch, RequestedDoor},
        text::{MessageKind, PORTS_MAX},
    },
    packet::Segment,
    packet_info::PacketInfo,
    reason::Reporting,
    spa::{
        self,
        layout::{FWKNOP_KEYS_MAX, FwknopKey, SpaMayKey, SpaTag},
        port::{Otherwise, SpaPort},
        step::SpaStep,
    },
};

/// How far the time of a packet may be from the wall clock, both ways, in milliseconds, as in fwknopd.
pub const WINDOW_MS: u64 = 120_000;

/// The result of [`find_key`] if no key fits.
pub const NO_KEY: u32 = u32::MAX;

/// Judges a packet, and reports it if it is one of fwknop, or of no format while others are dropped.
///
/// The steps are subprograms of their own, as those of [`crate::spa::judge::judge`].
#[inline(always)]
pub fn judge<B: FrameSubprograms + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    env: &E,
    port: SpaPort,
    scratch: &mut FwknopScratch,
) -> SpaStep {
    let mut step = bytes.copy_fwknop(segment, env, port, scratch);
    if step == SpaStep::Noise {
        return spa::judge::report_noise(env, &scratch.info);
    }
    if step == SpaStep::Continue {
        step = match env.find_fwknop_key(scratch) {
            NO_KEY => env.refuse_fwknop(scratch),
            key => env.decide_fwknop(scratch, key),
        };
    }
    if step == SpaStep::Continue {
        step = SpaStep::Judged(env.open_fwknop(scratch));
    }
    step
}

/// Copies a packet that may be one of fwknop to the scratch.
#[inline(always)]
pub fn copy<B: FrameSubprograms + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    env: &E,
    port: SpaPort,
    scratch: &mut FwknopScratch,
) -> SpaStep {
    let is_reported = port.otherwise == Otherwise::Drop;
    let is_copied = segment.payload(bytes).is_some_and(|(offset, length)| {
        let is_text = scratch.expect(length) && bytes.load(offset, scratch) && env.begin(scratch);
        // What passes otherwise is not taken for a packet without an HMAC.
        is_text && (is_reported || scratch.may_have_tag())
    });
    if !is_copied && (!is_reported || !emit::admits(env, Reporting::Drops, env.now())) {
        return match is_reported {
            true => SpaStep::Judged(Reason::SpaNoise),
            false => SpaStep::NotSpa,
        };
    }
    match PacketInfo::of(bytes, segment, env) {
        Ok(info) => scratch.info = info,
        Err(reason) => return SpaStep::Judged(reason),
    }
    if is_copied && !arrival::is_of_host(bytes, scratch.info.destination, env) {
        return SpaStep::NotSpa;
    }
    env.set_spa_other(Address::ANY);
    match is_copied {
        true => SpaStep::Continue,
        false => SpaStep::Noise,
    }
}

/// Returns the index of the key with which the packet is authentic, or [`NO_KEY`].
#[inline(always)]
pub fn find_key<E: Subprograms>(env: &E, scratch: &mut FwknopScratch) -> u32 {
    for index in 0..FWKNOP_KEYS_MAX {
        let Some(key) = env.fwknop_key(index).filter(|key| key.passphrase.is_set()) else {
            break;
        };
        if env.admits(key, &scratch.info.source) && env.is_authentic(scratch, &key.mac) {
            return index;
        }
    }
    NO_KEY
}

/// Refuses a packet that no key authenticates. One that a key decrypts has a reason of its own if its event limit
/// admits a report.
#[inline(always)]
pub fn refuse_unknown<E: Subprograms>(env: &E, scratch: &mut FwknopScratch) -> SpaStep {
    let mut reason = match scratch.may_have_tag() {
        true => Reason::SpaForged,
        false => Reason::SpaNoise,
    };
    if emit::admits(env, reason.reporting(), scratch.info.now()) {
        if is_unsigned(env, scratch) {
            reason = Reason::SpaUnsigned;
        }
        env.hand_over(&scratch.info, EventHead::new(reason), 0);
    }
    SpaStep::Judged(reason)
}

/// Returns whether the key of a user decrypts a packet that none authenticates.
#[inline(always)]
fn is_unsigned<E: Subprograms>(env: &E, scratch: &mut FwknopScratch) -> bool {
    // How long the encrypted text is depends on the HMAC behind it; its first blocks do not.
    env.decode(scratch);
    for index in 0..FWKNOP_KEYS_MAX {
        let Some(key) = env.fwknop_key(index).filter(|key| key.passphrase.is_set()) else {
            break;
        };
        if !env.admits(key, &scratch.info.source) {
            continue;
        }
        env.derive_key(scratch, &key.passphrase);
        if env.begins_with_digits(scratch) {
            return true;
        }
    }
    false
}

/// Judges a packet that is authentic with the key at an index.
#[inline(always)]
pub fn decide<E: Subprograms>(env: &E, scratch: &mut FwknopScratch, key: u32) -> SpaStep {
    let Some(key) = env.fwknop_key(key) else {
        return refuse(env, scratch, 0, Reason::SpaForged, 0);
    };
    let tag = SpaTag(scratch.tag());
    if env.spa_seen().find(&tag).is_some() {
        return refuse(env, scratch, key.user, Reason::SpaReplayed, 0);
    }
    let kind = open(env, scratch, &key.passphrase);
    let wall_ns = scratch.info.now_ns.wrapping_add(env.wall_clock());
    let ahead_ms = match kind {
        MessageKind::Access => ahead_ms(scratch.request.timestamp, wall_ns),
        MessageKind::Command | MessageKind::Nat | MessageKind::Unreadable => 0,
    };
    // A packet from the future stays in the replay cache until its time has passed.
    let used_ms = scratch
        .info
        .now()
        .millis()
        .saturating_add_signed(ahead_ms.max(0));
    let (reason, until_ms) = if !env.spa_seen().insert(&tag, used_ms) {
        match env.spa_seen().find(&tag) {
            Some(_) => (Reason::SpaReplayed, 0),
            None => (Reason::SpaFull, 0),
        }
    } else {
        match kind {
            MessageKind::Access if ahead_ms.unsigned_abs() > WINDOW_MS => {
                (Reason::SpaStale, ahead_ms as u64)
            }
            MessageKind::Access => match find_refusal(env, key, scratch, wall_ns) {
                Some(Reason::SpaNotAllowed) => (Reason::SpaNotAllowed, scratch.refused_port.into()),
                Some(reason) => (reason, 0),
                None => return SpaStep::Continue,
            },
            MessageKind::Command => (Reason::SpaCommand, 0),
            MessageKind::Nat => (Reason::SpaNat, 0),
            MessageKind::Unreadable => (Reason::SpaUnreadable, 0),
        }
    };
    refuse(env, scratch, key.user, reason, until_ms)
}

/// Returns the reason why a user may not have what a packet asks for; `None` if all of it is allowed.
#[inline(always)]
fn find_refusal<E: Subprograms>(
    env: &E,
    key: &FwknopKey,
    scratch: &mut FwknopScratch,
    wall_ns: u64,
) -> Option<Reason> {
    scratch.refused_port = 0;
    if wall_ns >= key.not_after_ns {
        return Some(Reason::SpaExpired);
    }
    if key.username != 0 && key.username != scratch.request.username {
        return Some(Reason::SpaNotAllowed);
    }
    if !is_for_source(env, key, scratch) {
        return Some(Reason::SpaElsewhere);
    }
    let left_ms = key.not_after_ns.wrapping_sub(wall_ns) / 1_000_000;
    match find_doors(env, key.user, left_ms, scratch) {
        true => None,
        false => Some(Reason::SpaNotAllowed),
    }
}

/// Gives the grants of the doors that [`decide`] has found. Returns the reason that matters most: no room, then a new
/// grant.
#[inline(always)]
pub fn open_doors<E: Subprograms>(env: &E, scratch: &FwknopScratch) -> Reason {
    let mut outcome = Reason::SpaNotAllowed;
    for index in 0..PORTS_MAX as u32 {
        if index >= scratch.door_count {
            break;
        }
        let reason = env.open_fwknop_door(scratch, index);
        let matters = reason == Reason::GrantsFull || reason == Reason::Opened;
        if index == 0 || matters && outcome != Reason::GrantsFull {
            outcome = reason;
        }
    }
    outcome
}

/// Gives the grants of one of the doors that [`decide`] has found.
#[inline(always)]
pub fn open_door<E: Subprograms>(env: &E, scratch: &FwknopScratch, index: u32) -> Reason {
    let Some(door) = scratch.doors.get(index as usize & (PORTS_MAX - 1)) else {
        return Reason::SpaNotAllowed;
    };
    let (entry, user) = (door.entry as u16, door.user as u16);
    let open_for_ms = Some(door.open_for_ms);
    spa::judge::use_door(env, &scratch.info, entry, user, open_for_ms)
}

/// Finds the doors of the ports that a packet asks for, each once. Returns whether the user may open all of them.
#[inline(always)]
fn find_doors<E: Subprograms>(
    env: &E,
    user: u16,
    left_ms: u64,
    scratch: &mut FwknopScratch,
) -> bool {
    scratch.door_count = 0;
    for index in 0..PORTS_MAX as u32 {
        if index >= scratch.request.port_count {
            break;
        }
        if !env.find_fwknop_door(scratch, index, user, left_ms) {
            return false;
        }
    }
    true
}

/// Adds the door of one of the ports that a packet asks for, unless another port had it added. Returns whether the user
/// may open the port.
#[inline(always)]
pub fn find_door<E: Subprograms>(
    env: &E,
    scratch: &mut FwknopScratch,
    index: u32,
    user: u16,
    left_ms: u64,
) -> bool {
    let FwknopScratch {
        request,
        doors,
        door_count,
        refused_port,
        ..
    } = scratch;
    let Some(&port) = request.ports.get(index as usize & (PORTS_MAX - 1)) else {
        return false;
    };
    let Some(may) = env.spa_may(&SpaMayKey::port(user, port)) else {
        *refused_port = port;
        return false;
    };
    let entry = may.entry.into();
    let count = *door_count as usize;
    // All places are looked at: Linux 6.1 finds no bound of a loop that ends at `count`.
    let mut is_known = false;
    for (place, door) in doors.iter().enumerate() {
        is_known |= place < count && door.entry == entry;
    }
    if is_known {
        return true;
    }
    let Some(place) = doors.get_mut(count & (PORTS_MAX - 1)) else {
        return false;
    };
    let wanted_ms = match request.timeout {
        0 => may.open_for_ms,
        seconds => seconds.wrapping_mul(1_000).min(may.open_for_max_ms),
    };
    *place = RequestedDoor {
        open_for_ms: wanted_ms.min(left_ms),
        entry,
        user: user.into(),
    };
    *door_count = door_count.wrapping_add(1);
    true
}

/// Returns whether a packet may ask for an address; 0 is its source. If it is another one, the grant is for it, and
/// events have both.
#[inline(always)]
fn is_for_source<E: Subprograms>(env: &E, key: &FwknopKey, scratch: &mut FwknopScratch) -> bool {
    let FwknopScratch { info, request, .. } = scratch;
    if request.address == 0 {
        return key.flags & FwknopKey::REQUIRE_SOURCE == 0;
    }
    let wanted = Address::from_v4(request.address.to_be_bytes());
    if wanted == info.source {
        return true;
    }
    if wanted.is_host() {
        env.set_spa_other(info.source);
        info.source = wanted;
        return true;
    }
    env.set_spa_other(wanted);
    false
}

/// Returns how far a time in seconds is ahead of the wall clock, in milliseconds, to the second.
#[inline(always)]
const fn ahead_ms(timestamp: u64, wall_ns: u64) -> i64 {
    // The text has at most twelve digits, so this does not overflow.
    let seconds = (timestamp as i64).wrapping_sub((wall_ns / 1_000_000_000) as i64);
    seconds.wrapping_mul(1_000)
}

#[inline(always)]
fn refuse<E: Subprograms>(
    env: &E,
    scratch: &FwknopScratch,
    user: u16,
    reason: Reason,
    until_ms: u64,
) -> SpaStep {
    let head = EventHead::new(reason).of_user(user);
    emit::report(env, &scratch.info, head, until_ms);
    SpaStep::Judged(reason)
}
