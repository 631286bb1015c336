//! FloorPrograms: programs that do only what no design can avoid for a decision. See `bench/ebpf/src/floor.rs`.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, PerCpuArray, RingBuf};
use knock_common::{Reason, layout::PortRule};
use knock_user::kernel::maps;

use crate::{
    baselines::Baselines,
    report::{Goal, Unit},
    subject::{AT_ONCE, PacketSeries},
    timing::{self, TimedRun},
};

/// The goal: at most this many times the time of the floor program, with the loop that is around both.
pub const OVER_FLOOR_MOST: f64 = 1.25;

/// A floor program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FloorProgram {
    /// The port's rule alone.
    Port,
    /// One lookup that shows that nothing is known about the source.
    Filter,
    /// A grant.
    Grant,
    /// A flow, and the time of its packet.
    Flow,
    /// A cell for a first knock.
    First,
    /// The word of an attempt, which is advanced.
    Step,
    /// The same, a new grant, and an event.
    Open,
    /// The same with a grant that is prolonged.
    Again,
    /// The word of an attempt, which ends.
    End,
    /// The word of an attempt, which is unchanged.
    Duplicate,
}

/// Makes the knocks in front of the packet's; not measured.
const PLACE: &str = "floor_place";
/// Gives a grant and a flow; not measured.
const GIVE: &str = "floor_give";

impl FloorProgram {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Port,
        Self::Filter,
        Self::Grant,
        Self::Flow,
        Self::First,
        Self::Step,
        Self::Open,
        Self::Again,
        Self::End,
        Self::Duplicate,
    ];

    const fn program(self) -> &'static str {
        match self {
            Self::Port => "floor_port",
            Self::Filter => "floor_filter",
            Self::Grant => "floor_grant",
            Self::Flow => "floor_flow",
            Self::First => "floor_first",
            Self::Step => "floor_step",
            Self::Open => "floor_open",
            Self::Again => "floor_again",
            Self::End => "floor_end",
            Self::Duplicate => "floor_duplicate",
        }
    }

    /// Returns the programs that judge the packet before this one does.
    const fn before(self) -> &'static [&'static str] {
        match self {
            Self::Port | Self::Filter | Self::First => &[],
            Self::Grant | Self::Flow => &[GIVE],
            Self::Step | Self::Open | Self::End => &[PLACE],
            Self::Again => &[PLACE, GIVE],
            Self::Duplicate => &[PLACE, "floor_step"],
        }
    }
}

/// Returns the goal for a figure. Both include the loop around an empty program: without it, the figures of the
/// cheapest packets are as small as what the placement of a program changes.
pub const fn goal(ours: f64, floor: f64) -> Goal {
    Goal::at_most(ours / floor, OVER_FLOOR_MOST, Unit::Times)
}

/// Loaded floor programs.
pub struct FloorPrograms {
    baselines: Baselines,
    events: RingBuf<MapData>,
}

impl FloorPrograms {
    /// Loads floor programs, with the rules of these ports. `first` of a knock port's rule is the number of the knock.
    pub fn load(floors: &[FloorProgram], rules: &[(u32, PortRule)]) -> Result<Self> {
        let mut programs = vec!["vary"];
        for floor in floors {
            programs.push(floor.program());
            programs.extend(floor.before());
        }
        programs.sort_unstable();
        programs.dedup();
        let mut baselines = Baselines::load_floors(&programs)?;
        maps::set(baselines.ebpf(), "FLOOR_PORTS", rules.iter().copied())?;
        let events = baselines.ebpf().take_map("FLOOR_EVENTS");
        let events =
            RingBuf::try_from(events.context("the floor programs have no map of events")?)?;
        Ok(Self { baselines, events })
    }

    /// Has a floor program judge a frame this many times.
    pub fn same(
        &mut self,
        floor: FloorProgram,
        reasons: &[Reason],
        frame: &[u8],
        times: u32,
    ) -> Result<TimedRun> {
        for program in floor.before() {
            timing::run(self.baselines.program(program)?, frame, 1)?;
        }
        let before = self.counted(reasons)?;
        let run = timing::run(self.baselines.program(floor.program())?, frame, times)?;
        self.check(floor, reasons, before, times)?;
        Ok(run)
    }

    /// Has a floor program judge a packet from each source, after the programs that prepare them, which get the sources
    /// in ascending order. Returns nanoseconds per packet, with those for making packets.
    pub fn each(
        &mut self,
        floor: FloorProgram,
        reasons: &[Reason],
        packet: &PacketSeries,
    ) -> Result<f64> {
        let mut before = packet.clone();
        before.plan.shuffled = 0;
        for program in floor.before() {
            self.run(program, &before)?;
        }
        let before = self.counted(reasons)?;
        let nanos = self.run(floor.program(), packet)?;
        self.check(floor, reasons, before, packet.plan.sources + 1)?;
        Ok(nanos)
    }

    fn run(&mut self, program: &str, packet: &PacketSeries) -> Result<f64> {
        let program = self.baselines.program(program)?.fd()?.try_clone()?;
        self.baselines.subject(&program)?;
        self.baselines.plan(packet.plan)?;
        let sources = packet.plan.sources + 1;
        let at_once = sources.min(AT_ONCE);
        let mut nanos = 0.0;
        for _ in 0..sources / at_once {
            let vary = self.baselines.program("vary")?;
            nanos += timing::run(vary, &packet.frame, at_once)?.nanos;
            while self.events.next().is_some() {}
        }
        Ok(nanos / f64::from(sources / at_once))
    }

    fn counted(&mut self, reasons: &[Reason]) -> Result<u64> {
        let map = maps::map(self.baselines.ebpf(), "FLOOR_COUNTERS")?;
        let counters = PerCpuArray::<_, u64>::try_from(map)?;
        let mut sum = 0;
        for reason in reasons {
            sum += counters.get(&(*reason as u32), 0)?.iter().sum::<u64>();
        }
        Ok(sum)
    }

    fn check(
        &mut self,
        floor: FloorProgram,
        reasons: &[Reason],
        before: u64,
        times: u32,
    ) -> Result<()> {
        let decided = self.counted(reasons)? - before;
        ensure!(
            decided >= u64::from(times - times / 100),
            "of {times} packets, the floor program {floor:?} decided {decided} by {reasons:?}"
        );
        Ok(())
    }
}
