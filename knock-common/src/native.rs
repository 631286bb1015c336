//! The subprograms as ordinary functions, for everything but the kernel side.

use crate::{
    Bytes, Env, FrameSubprograms, Reason, Subprograms, access,
    bare_packet::BarePacket,
    block, claim,
    connection::{Connection, HandshakeStep},
    cookie,
    decision::Decision,
    door, emit,
    event::EventHead,
    first, from,
    fwknop::{self, native::NativeSteps},
    grant::{Completed, Grant, GrantChange},
    grant_prefix::GrantPrefix,
    handshake,
    hmac::HmacScratch,
    knock, lockout, otp,
    packet::Segment,
    packet_info::PacketInfo,
    presence, sha1, sha256,
    source_knocks::{OtpPosition, SourceKnocks},
    spa::{self, layout::SpaScratch, port::SpaPort, step::SpaStep},
};

/// An environment whose [`Subprograms`] are ordinary functions.
pub trait NativeEnv: Env {
    /// See [`claim::take`]. A test that explores all orders of accesses tries less often.
    fn take_claim(&self, slot: u32) -> bool {
        claim::take(self, slot) != 0
    }

    /// See [`claim::give_back`].
    fn return_claim(&self, slot: u32) -> bool {
        claim::give_back(self, slot) != 0
    }
}

impl<E: NativeEnv> NativeSteps for E {}

impl<E: NativeEnv> Subprograms for E {
    fn cookie(&self, connection: &Connection, epoch: u32) -> u32 {
        cookie::in_epoch(self, connection, epoch)
    }

    fn claim(&self, slot: u32) -> bool {
        self.take_claim(slot)
    }

    fn give_back(&self, slot: u32) -> bool {
        self.return_claim(slot)
    }

    fn clear_claim(&self, slot: u32) {
        claim::clear(self, slot);
    }

    fn forget_first(&self, bucket: u32, tag: u64) {
        first::forget_cell(self, bucket, tag);
    }

    fn remember_first(&self, bucket: u32, cell: u64, attempt_max_ticks: u32) -> u64 {
        first::remember_cell(self, bucket, cell, attempt_max_ticks)
    }

    fn is_locked_out(&self, info: &PacketInfo) -> bool {
        lockout::is_locked_out(self, info)
    }

    fn place_failures(&self, info: &PacketInfo) -> u64 {
        lockout::place_word(self, info)
    }

    fn count_failure(&self, bucket: u32, tag: u32, now_ms: u64) -> bool {
        lockout::count_once(self, bucket, tag, now_ms)
    }

    fn rank_failures(&self, cell: u64, tag: u32, now_ms: u64) -> u64 {
        lockout::rank(self, cell, tag, now_ms)
    }

    fn fail(&self, info: &PacketInfo) {
        lockout::fail(self, info);
    }

    fn raise_presence(&self, slot: u32, floor: u64) {
        presence::raise_slot(self, slot, floor);
    }

    fn hand_over(&self, info: &PacketInfo, head: EventHead, until_ms: u64) {
        emit::hand_over(self, info, head, until_ms);
    }

    fn find_prefix_grant(
        &self,
        info: &PacketInfo,
        port_group: u16,
        grant_prefix: GrantPrefix,
    ) -> Option<Grant> {
        access::find_prefix_grant(self, info, port_group, grant_prefix)
    }

    fn change_grants(&self, info: &PacketInfo, entry: u16, change: GrantChange) -> Reason {
        door::change_grants(self, info, entry, change)
    }

    fn admits_source(&self, info: &PacketInfo, door: u16, is_spa: bool) -> bool {
        from::admits(self, info, door, is_spa)
    }

    fn use_door(&self, info: &PacketInfo, completed: Completed) -> Reason {
        door::use_door(self, info, completed)
    }

    fn pass(&self, scratch: &mut SpaScratch, gate: u32) -> bool {
        spa::gate::pass(self, scratch, gate)
    }

    fn open_spa(&self, scratch: &mut SpaScratch) -> SpaStep {
        spa::judge::open(self, scratch, sha256::compress)
    }

    fn refuse_early(&self, scratch: &mut SpaScratch) -> Option<Reason> {
        spa::judge::refuse_early(self, scratch)
    }

    fn record_stamp(&self, scratch: &mut SpaScratch) -> Option<Reason> {
        spa::judge::record_stamp(self, scratch)
    }

    fn write_spa_answer(&self, scratch: &mut SpaScratch, reason: Reason) -> bool {
        spa::answer::write(self, scratch, reason, sha256::compress)
    }

    fn seal_spa_answer(&self, scratch: &mut SpaScratch) {
        spa::answer::seal(self, scratch, sha256::compress);
    }

    fn allow_spa(&self, scratch: &mut SpaScratch) -> SpaStep {
        spa::judge::allow(self, scratch)
    }

    fn find_fwknop_key(&self, scratch: &mut fwknop::FwknopScratch) -> u32 {
        fwknop::judge::find_key(self, scratch)
    }

    fn refuse_fwknop(&self, scratch: &mut fwknop::FwknopScratch) -> SpaStep {
        fwknop::judge::refuse_unknown(self, scratch)
    }

    fn decide_fwknop(&self, scratch: &mut fwknop::FwknopScratch, key: u32) -> SpaStep {
        fwknop::judge::decide(self, scratch, key)
    }

    fn find_fwknop_door(
        &self,
        scratch: &mut fwknop::FwknopScratch,
        index: u32,
        user: u16,
        left_ms: u64,
    ) -> bool {
        fwknop::judge::find_door(self, scratch, index, user, left_ms)
    }

    fn open_fwknop_door(&self, scratch: &fwknop::FwknopScratch, index: u32) -> Reason {
        fwknop::judge::open_door(self, scratch, index)
    }

    fn open_fwknop(&self, scratch: &mut fwknop::FwknopScratch) -> Reason {
        fwknop::judge::open_doors(self, scratch)
    }

    fn source_knocks(&self, info: &PacketInfo, position: OtpPosition) -> SourceKnocks {
        otp::source_knocks(
            self,
            info,
            position,
            &mut HmacScratch::empty(),
            sha1::compress,
        )
    }

    fn advance(&self, info: &PacketInfo, first: u32, source_knocks: SourceKnocks) -> Decision {
        knock::advance(self, info, first, source_knocks)
    }

    fn reset(&self, info: &PacketInfo, cause: Reason) -> Reason {
        knock::reset(self, info, cause)
    }
}

/// A packet in memory, whose [`FrameSubprograms`] are ordinary functions.
pub trait NativeBytes: Bytes {}

impl NativeBytes for [u8] {}

impl NativeBytes for BarePacket<'_> {}

impl<B: NativeBytes + ?Sized> FrameSubprograms for B {
    fn note_other(&self) {}

    fn is_blocked<E: Subprograms>(&self, env: &E) -> bool {
        block::is_blocked(self, env)
    }

    fn report_blocked<E: Subprograms>(&self, env: &E) {
        block::report(self, env);
    }

    fn classify<E: Subprograms>(&self, env: &E) -> HandshakeStep {
        handshake::classify(self, env)
    }

    fn pass_gate<E: Subprograms>(
        &self,
        segment: &Segment,
        env: &E,
        port: SpaPort,
        scratch: &mut SpaScratch,
    ) -> SpaStep {
        spa::judge::pass_gate(self, segment, env, port, scratch)
    }

    fn copy_fwknop<E: Subprograms>(
        &self,
        segment: &Segment,
        env: &E,
        port: SpaPort,
        scratch: &mut fwknop::FwknopScratch,
    ) -> SpaStep {
        fwknop::judge::copy(self, segment, env, port, scratch)
    }

    fn load(&self, offset: usize, scratch: &mut fwknop::FwknopScratch) -> bool {
        let mut places = scratch.room().iter_mut().zip(offset..);
        places.all(|(place, at)| self.u8(at).map(|byte| *place = byte).is_some())
    }
}
