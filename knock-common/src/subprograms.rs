//! Steps of a judgement that the kernel side makes BPF subprograms.
//!
//! The verifier walks a subprogram once and on its own, not at each call. Its arguments and results fit into
//! registers: numbers, and pointers to plain structs. Natively the steps are ordinary functions: see
//! [`crate::native`].

use crate::{
    Bytes, Env, Reason,
    connection::{Connection, HandshakeStep},
    decision::Decision,
    event::EventHead,
    fwknop::{self, Steps},
    grant::{Completed, Grant, GrantChange},
    grant_prefix::GrantPrefix,
    packet::Segment,
    packet_info::PacketInfo,
    source_knocks::{OtpPosition, SourceKnocks},
    spa::{layout::SpaScratch, port::SpaPort, step::SpaStep},
};

/// The steps of an environment. `knock-ebpf` implements each by a BPF global function, and [`crate::native`] by a call,
/// of the function that is named here. What is a few instructions most of the time needs no call in `knock-ebpf`
/// either: on CPUs whose returns the kernel protects, a call costs as much as a knock's own work.
pub trait Subprograms: Env + Steps {
    /// See [`crate::cookie::in_epoch`].
    fn cookie(&self, connection: &Connection, epoch: u32) -> u32;

    /// See [`crate::claim::take`].
    fn claim(&self, slot: u32) -> bool;

    /// See [`crate::claim::give_back`].
    fn give_back(&self, slot: u32) -> bool;

    /// See [`crate::claim::clear`].
    fn clear_claim(&self, slot: u32);

    /// See [`crate::first::forget_cell`].
    fn forget_first(&self, bucket: u32, tag: u64);

    /// See [`crate::first::remember_cell`].
    fn remember_first(&self, bucket: u32, cell: u64, attempt_max_ticks: u32) -> u64;

    /// See [`crate::lockout::is_locked_out`].
    fn is_locked_out(&self, info: &PacketInfo) -> bool;

    /// See [`crate::lockout::place_word`].
    fn place_failures(&self, info: &PacketInfo) -> u64;

    /// See [`crate::lockout::count_once`].
    fn count_failure(&self, bucket: u32, tag: u32, now_ms: u64) -> bool;

    /// See [`crate::lockout::rank`].
    fn rank_failures(&self, cell: u64, tag: u32, now_ms: u64) -> u64;

    /// See [`crate::lockout::fail`].
    fn fail(&self, info: &PacketInfo);

    /// See [`crate::presence::raise_slot`].
    fn raise_presence(&self, slot: u32, floor: u64);

    /// See [`crate::emit::hand_over`].
    fn hand_over(&self, info: &PacketInfo, head: EventHead, until_ms: u64);

    /// See [`crate::access::find_prefix_grant`].
    fn find_prefix_grant(
        &self,
        info: &PacketInfo,
        port_group: u16,
        grant_prefix: GrantPrefix,
    ) -> Option<Grant>;

    /// See [`crate::door::change_grants`].
    fn change_grants(&self, info: &PacketInfo, entry: u16, change: GrantChange) -> Reason;

    /// See [`crate::from::admits`].
    fn admits_source(&self, info: &PacketInfo, door: u16, is_spa: bool) -> bool;

    /// See [`crate::door::use_door`].
    fn use_door(&self, info: &PacketInfo, completed: Completed) -> Reason;

    /// See [`crate::spa::gate::pass`].
    fn pass(&self, scratch: &mut SpaScratch, gate: u32) -> bool;

    /// See [`crate::spa::judge::open`].
    fn open_spa(&self, scratch: &mut SpaScratch) -> SpaStep;

    /// See [`crate::spa::judge::refuse_early`].
    fn refuse_early(&self, scratch: &mut SpaScratch) -> Option<Reason>;

    /// See [`crate::spa::judge::record_stamp`].
    fn record_stamp(&self, scratch: &mut SpaScratch) -> Option<Reason>;

    /// See [`crate::spa::answer::write`].
    fn write_spa_answer(&self, scratch: &mut SpaScratch, reason: Reason) -> bool;

    /// See [`crate::spa::answer::seal`].
    fn seal_spa_answer(&self, scratch: &mut SpaScratch);

    /// See [`crate::spa::judge::allow`].
    fn allow_spa(&self, scratch: &mut SpaScratch) -> SpaStep;

    /// See [`crate::fwknop::judge::find_key`].
    fn find_fwknop_key(&self, scratch: &mut fwknop::FwknopScratch) -> u32;

    /// See [`crate::fwknop::judge::refuse_unknown`].
    fn refuse_fwknop(&self, scratch: &mut fwknop::FwknopScratch) -> SpaStep;

    /// See [`crate::fwknop::judge::decide`].
    fn decide_fwknop(&self, scratch: &mut fwknop::FwknopScratch, key: u32) -> SpaStep;

    /// See [`crate::fwknop::judge::find_door`].
    fn find_fwknop_door(
        &self,
        scratch: &mut fwknop::FwknopScratch,
        index: u32,
        user: u16,
        left_ms: u64,
    ) -> bool;

    /// See [`crate::fwknop::judge::open_door`].
    fn open_fwknop_door(&self, scratch: &fwknop::FwknopScratch, index: u32) -> Reason;

    /// See [`crate::fwknop::judge::open_doors`].
    fn open_fwknop(&self, scratch: &mut fwknop::FwknopScratch) -> Reason;

    /// See [`crate::otp::source_knocks`].
    fn source_knocks(&self, info: &PacketInfo, position: OtpPosition) -> SourceKnocks;

    /// See [`crate::knock::advance`].
    fn advance(&self, info: &PacketInfo, first: u32, source_knocks: SourceKnocks) -> Decision;

    /// See [`crate::knock::reset`].
    fn reset(&self, info: &PacketInfo, cause: Reason) -> Reason;
}

/// The steps that read the packet.
pub trait FrameSubprograms: Bytes {
    /// Records for user space that the packet is neither IPv4 nor IPv6; see [`crate::seen`]. Only the kernel side
    /// does.
    fn note_other(&self);

    /// See [`crate::block::is_blocked`].
    fn is_blocked<E: Subprograms>(&self, env: &E) -> bool;

    /// See [`crate::block::report`].
    fn report_blocked<E: Subprograms>(&self, env: &E);

    /// See [`crate::handshake::classify`].
    fn classify<E: Subprograms>(&self, env: &E) -> HandshakeStep;

    /// See [`crate::spa::judge::pass_gate`].
    fn pass_gate<E: Subprograms>(
        &self,
        segment: &Segment,
        env: &E,
        port: SpaPort,
        scratch: &mut SpaScratch,
    ) -> SpaStep;

    /// See [`crate::fwknop::judge::copy`].
    fn copy_fwknop<E: Subprograms>(
        &self,
        segment: &Segment,
        env: &E,
        port: SpaPort,
        scratch: &mut fwknop::FwknopScratch,
    ) -> SpaStep;

    /// Copies the bytes at `offset` to [`crate::fwknop::FwknopScratch::room`]. Returns whether the packet has as many.
    fn load(&self, offset: usize, scratch: &mut fwknop::FwknopScratch) -> bool;
}
