//! Steps of a judgement that the kernel side makes BPF subprograms.
//!
//! The verifier walks a subprogram once and on its own, not at each call. Its arguments and results fit into
//! registers: numbers, and pointers to plain structs. Natively the steps are ordinary functions.

use crate::{
    Env, Reason,
    access::{self, Completed, GrantChange},
    claim,
    cookie::{self, Connection},
    event::{self, EventHead},
    first,
    fwknop::{self, Steps},
    hmac::Scratch,
    knock::{self, Decision},
    lockout,
    otp::{self, OtpPosition, SourceKnocks},
    packet_info::PacketInfo,
    presence, sha1, sha256,
    spa::{self, SpaStep, layout::SpaScratch},
};

/// The steps, each with the body that native environments use. `knock-ebpf` implements each by a BPF global function
/// around the same body.
pub trait Subprograms: Env + Steps {
    /// See [`cookie::in_epoch`].
    fn cookie(&self, connection: &Connection, epoch: u32) -> u32 {
        cookie::in_epoch(self, connection, epoch)
    }

    /// See [`claim::take`].
    fn claim(&self, slot: u32) -> bool {
        claim::take(self, slot) != 0
    }

    /// See [`claim::give_back`].
    fn give_back(&self, slot: u32) -> bool {
        claim::give_back(self, slot) != 0
    }

    /// See [`claim::clear`].
    fn clear_claim(&self, slot: u32) {
        claim::clear(self, slot);
    }

    /// See [`first::recall_cell`].
    fn recall_first(&self, bucket: u32, tag: u64) -> u64 {
        first::recall_cell(self, bucket, tag)
    }

    /// See [`first::forget_cell`].
    fn forget_first(&self, bucket: u32, tag: u64) {
        first::forget_cell(self, bucket, tag);
    }

    /// See [`first::remember_cell`].
    fn remember_first(&self, bucket: u32, cell: u64, attempt_max_ticks: u32) -> u64 {
        first::remember_cell(self, bucket, cell, attempt_max_ticks)
    }

    /// See [`lockout::is_locked_out`].
    fn is_locked_out(&self, info: &PacketInfo) -> bool {
        lockout::is_locked_out(self, info)
    }

    /// See [`lockout::place_word`].
    fn place_failures(&self, info: &PacketInfo) -> u64 {
        lockout::place_word(self, info)
    }

    /// See [`lockout::count_once`].
    fn count_failure(&self, bucket: u32, tag: u32, now_ms: u64) -> bool {
        lockout::count_once(self, bucket, tag, now_ms)
    }

    /// See [`lockout::rank`].
    fn rank_failures(&self, cell: u64, tag: u32, now_ms: u64) -> u64 {
        lockout::rank(self, cell, tag, now_ms)
    }

    /// See [`lockout::fail`].
    fn fail(&self, info: &PacketInfo) {
        lockout::fail(self, info);
    }

    /// See [`presence::raise_slot`].
    fn raise_presence(&self, slot: u32, floor: u64) {
        presence::raise_slot(self, slot, floor);
    }

    /// See [`event::hand_over`].
    fn hand_over(&self, info: &PacketInfo, head: EventHead, until_ms: u64) {
        event::hand_over(self, info, head, until_ms);
    }

    /// See [`access::change_grants`].
    fn change_grants(&self, info: &PacketInfo, entry: u16, change: GrantChange) -> Reason {
        access::change_grants(self, info, entry, change)
    }

    /// See [`access::use_door`].
    fn use_door(&self, info: &PacketInfo, completed: Completed) -> Reason {
        access::use_door(self, info, completed)
    }

    /// See [`spa::gate::pass`].
    fn pass(&self, scratch: &mut SpaScratch, gate: u32) -> bool {
        spa::gate::pass(self, scratch, gate)
    }

    /// See [`spa::judge::open`].
    fn open_spa(&self, scratch: &mut SpaScratch) -> SpaStep {
        spa::judge::open(self, scratch, sha256::compress)
    }

    /// See [`spa::judge::refuse_early`].
    fn refuse_early(&self, scratch: &mut SpaScratch) -> Option<Reason> {
        spa::judge::refuse_early(self, scratch)
    }

    /// See [`spa::judge::record_stamp`].
    fn record_stamp(&self, scratch: &mut SpaScratch) -> Option<Reason> {
        spa::judge::record_stamp(self, scratch)
    }

    /// See [`spa::answer::write`].
    fn write_spa_answer(&self, scratch: &mut SpaScratch, reason: Reason) -> bool {
        spa::answer::write(self, scratch, reason, sha256::compress)
    }

    /// See [`spa::answer::seal`].
    fn seal_spa_answer(&self, scratch: &mut SpaScratch) {
        spa::answer::seal(self, scratch, sha256::compress);
    }

    /// See [`spa::judge::allow`].
    fn allow_spa(&self, scratch: &mut SpaScratch) -> SpaStep {
        spa::judge::allow(self, scratch)
    }

    /// See [`fwknop::judge::find_key`].
    fn find_fwknop_key(&self, scratch: &mut fwknop::Scratch) -> u32 {
        fwknop::judge::find_key(self, scratch)
    }

    /// See [`fwknop::judge::decide`].
    fn decide_fwknop(&self, scratch: &mut fwknop::Scratch, key: u32) -> SpaStep {
        fwknop::judge::decide(self, scratch, key)
    }

    /// See [`fwknop::judge::open_doors`].
    fn open_fwknop(&self, scratch: &mut fwknop::Scratch) -> Reason {
        fwknop::judge::open_doors(self, scratch)
    }

    /// See [`otp::source_knocks`].
    fn source_knocks(&self, info: &PacketInfo, position: OtpPosition) -> SourceKnocks {
        otp::source_knocks(self, info, position, &mut Scratch::empty(), sha1::compress)
    }

    /// See [`knock::advance`].
    fn advance(&self, info: &PacketInfo, first: u32, source_knocks: SourceKnocks) -> Decision {
        knock::advance(self, info, first, source_knocks)
    }

    /// See [`knock::reset`].
    fn reset(&self, info: &PacketInfo, cause: Reason) -> Reason {
        knock::reset(self, info, cause)
    }
}
