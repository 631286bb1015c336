//! The steps of `knock-common`, as calls of subprograms.

use knock_common::{
    Address, Env as _, GrantPrefix, Reason, Subprograms, claim,
    connection::Connection,
    decision::Decision,
    event::EventHead,
    fwknop::{FwknopScratch, Passphrase, Steps, aes, md5, text::Request},
    grant::{Completed, Grant, GrantChange},
    hmac_sha256::HmacKey,
    layout::Features,
    lockout,
    packet_info::PacketInfo,
    sha256,
    source_knocks::{OtpPosition, SourceKnocks},
    spa::{
        layout::{FwknopKey, SpaScratch},
        step::SpaStep,
    },
};

use crate::{
    fwknop,
    maps::Maps,
    subprograms::{self, reason, refused},
};

/// Each step of a judgement calls its subprogram below, in which [`knock_common`] does it.
impl Subprograms for Maps {
    #[inline(always)]
    fn cookie(&self, connection: &Connection, epoch: u32) -> u32 {
        subprograms::cookie(connection, epoch) as u32
    }

    #[inline(always)]
    fn claim(&self, slot: u32) -> bool {
        claim::take_free(self, slot) || subprograms::claim(slot) != 0
    }

    #[inline(always)]
    fn give_back(&self, slot: u32) -> bool {
        claim::give_back(self, slot) != 0
    }

    #[inline(always)]
    fn clear_claim(&self, slot: u32) {
        claim::clear(self, slot);
    }

    #[inline(always)]
    fn forget_first(&self, bucket: u32, tag: u64) {
        subprograms::forget_first(bucket, tag);
    }

    #[inline(always)]
    fn remember_first(&self, bucket: u32, cell: u64, attempt_max_ticks: u32) -> u64 {
        subprograms::remember_first(bucket, cell, attempt_max_ticks)
    }

    #[inline(always)]
    fn is_locked_out(&self, info: &PacketInfo) -> bool {
        self.features().has(Features::LOCKOUT) && subprograms::is_locked_out(info) != 0
    }

    #[inline(always)]
    fn place_failures(&self, info: &PacketInfo) -> u64 {
        subprograms::place_failures(info)
    }

    #[inline(always)]
    fn count_failure(&self, bucket: u32, tag: u32, now_ms: u64) -> bool {
        subprograms::count_failure(bucket, tag, now_ms) != 0
    }

    #[inline(always)]
    fn rank_failures(&self, cell: u64, tag: u32, now_ms: u64) -> u64 {
        subprograms::rank_failures(cell, tag, now_ms)
    }

    #[inline(always)]
    fn fail(&self, info: &PacketInfo) {
        if self.features().has(Features::LOCKOUT) {
            lockout::fail(self, info);
        }
    }

    #[inline(always)]
    fn raise_presence(&self, slot: u32, floor: u64) {
        subprograms::raise_presence(slot, floor);
    }

    #[inline(always)]
    fn hand_over(&self, info: &PacketInfo, head: EventHead, until_ms: u64) {
        subprograms::hand_over(info, head.to_word(), until_ms);
    }

    #[inline(always)]
    fn find_prefix_grant(
        &self,
        info: &PacketInfo,
        port_group: u16,
        grant_prefix: GrantPrefix,
    ) -> Option<Grant> {
        match subprograms::find_prefix_grant(info, port_group, grant_prefix.to_word()) {
            0 => None,
            word => Some(Grant::from_word(word)),
        }
    }

    #[inline(always)]
    fn change_grants(&self, info: &PacketInfo, entry: u16, change: GrantChange) -> Reason {
        reason(subprograms::change_grants(info, entry, change.to_word()))
    }

    #[inline(always)]
    fn admits_source(&self, info: &PacketInfo, door: u16, is_spa: bool) -> bool {
        subprograms::admits_source(info, door, is_spa.into()) != 0
    }

    #[inline(always)]
    fn use_door(&self, info: &PacketInfo, completed: Completed) -> Reason {
        let Completed {
            entry,
            stage,
            elapsed,
        } = completed;
        reason(subprograms::use_door(info, entry, stage, elapsed))
    }

    #[inline(always)]
    fn pass(&self, scratch: &mut SpaScratch, gate: u32) -> bool {
        subprograms::pass(scratch, gate) != 0
    }

    #[inline(always)]
    fn open_spa(&self, scratch: &mut SpaScratch) -> SpaStep {
        SpaStep::from_word(subprograms::open_spa(scratch))
    }

    #[inline(always)]
    fn record_stamp(&self, scratch: &mut SpaScratch) -> Option<Reason> {
        refused(subprograms::record_stamp(scratch))
    }

    #[inline(always)]
    fn refuse_early(&self, scratch: &mut SpaScratch) -> Option<Reason> {
        refused(subprograms::refuse_early(scratch))
    }

    #[inline(always)]
    fn write_spa_answer(&self, scratch: &mut SpaScratch, reason: Reason) -> bool {
        subprograms::write_spa_answer(scratch, reason as u32) != 0
    }

    #[inline(always)]
    fn seal_spa_answer(&self, scratch: &mut SpaScratch) {
        subprograms::seal_spa_answer(scratch);
    }

    #[inline(always)]
    fn allow_spa(&self, scratch: &mut SpaScratch) -> SpaStep {
        SpaStep::from_word(subprograms::allow_spa(scratch))
    }

    #[inline(always)]
    fn find_fwknop_key(&self, scratch: &mut FwknopScratch) -> u32 {
        fwknop::find_fwknop_key(scratch) as u32
    }

    #[inline(always)]
    fn refuse_fwknop(&self, scratch: &mut FwknopScratch) -> SpaStep {
        SpaStep::from_word(fwknop::refuse_fwknop(scratch))
    }

    #[inline(always)]
    fn decide_fwknop(&self, scratch: &mut FwknopScratch, key: u32) -> SpaStep {
        SpaStep::from_word(fwknop::decide_fwknop(scratch, key))
    }

    #[inline(always)]
    fn find_fwknop_door(
        &self,
        scratch: &mut FwknopScratch,
        index: u32,
        user: u16,
        left_ms: u64,
    ) -> bool {
        fwknop::find_fwknop_door(scratch, index, user.into(), left_ms) != 0
    }

    #[inline(always)]
    fn open_fwknop_door(&self, scratch: &FwknopScratch, index: u32) -> Reason {
        reason(fwknop::open_fwknop_door(scratch, index))
    }

    #[inline(always)]
    fn open_fwknop(&self, scratch: &mut FwknopScratch) -> Reason {
        reason(fwknop::open_fwknop(scratch))
    }

    #[inline(always)]
    fn source_knocks(&self, info: &PacketInfo, position: OtpPosition) -> SourceKnocks {
        SourceKnocks::from_word(subprograms::source_knocks(info, position.to_word()))
    }

    #[inline(always)]
    fn advance(&self, info: &PacketInfo, first: u32, source_knocks: SourceKnocks) -> Decision {
        Decision::from_word(subprograms::advance(info, first, source_knocks.to_word()))
    }

    #[inline(always)]
    fn reset(&self, info: &PacketInfo, cause: Reason) -> Reason {
        reason(subprograms::reset(info, cause as u64))
    }
}

impl Steps for Maps {
    #[inline(always)]
    fn compress_sha256(&self, work: &mut sha256::Sha256Work) {
        subprograms::compress_sha256(work);
    }

    #[inline(always)]
    fn compress_md5(&self, work: &mut md5::Md5Work) {
        fwknop::compress_md5(work);
    }

    #[inline(always)]
    fn expand_key(&self, work: &mut aes::AesWork) {
        fwknop::expand_key(work);
    }

    #[inline(always)]
    fn decrypt_block(&self, work: &mut aes::AesWork) {
        fwknop::decrypt_block(work);
    }

    #[inline(always)]
    fn read_character(&self, request: &mut Request, character: u8) {
        fwknop::read_character(request, character.into());
    }

    #[inline(always)]
    fn admits(&self, key: &FwknopKey, source: &Address) -> bool {
        fwknop::admits(key, source) != 0
    }

    #[inline(always)]
    fn begin(&self, scratch: &mut FwknopScratch) -> bool {
        fwknop::begin_fwknop(scratch) != 0
    }

    #[inline(always)]
    fn is_authentic(&self, scratch: &mut FwknopScratch, key: &HmacKey) -> bool {
        fwknop::is_authentic(scratch, key) != 0
    }

    #[inline(always)]
    fn decode(&self, scratch: &mut FwknopScratch) -> bool {
        fwknop::decode(scratch) != 0
    }

    #[inline(always)]
    fn derive_key(&self, scratch: &mut FwknopScratch, passphrase: &Passphrase) {
        fwknop::derive_key(scratch, passphrase);
    }

    #[inline(always)]
    fn begins_with_digits(&self, scratch: &mut FwknopScratch) -> bool {
        fwknop::begins_with_digits(scratch) != 0
    }

    #[inline(always)]
    fn decrypt(&self, scratch: &mut FwknopScratch) {
        fwknop::decrypt(scratch);
    }

    #[inline(always)]
    fn unpad(&self, scratch: &mut FwknopScratch) -> bool {
        fwknop::unpad(scratch) != 0
    }

    #[inline(always)]
    fn read(&self, scratch: &mut FwknopScratch) {
        fwknop::read_text(scratch);
    }
}
