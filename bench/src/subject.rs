//! The program in the kernel, which judges one packet many times, or a packet from each of many sources.

use anyhow::{Error, Result, ensure};
use aya::programs::Xdp;
use knock_common::Reason;
use knock_tests::kernel::Kernel;
use knock_user::{compile::Tables, kernel::program::LoadOptions};

use crate::{
    baselines::Baselines,
    plan::Plan,
    timing::{self, TimedRun},
};

/// The ring buffer, which is not read meanwhile, has room for the events of this many packets.
pub const AT_ONCE: u32 = 4096;

/// A packet from each of many sources.
#[derive(Clone, Debug)]
pub struct PacketSeries {
    /// The frame, parts of which the plan changes.
    pub frame: Vec<u8>,
    /// The plan; its `next` is the first number.
    pub plan: Plan,
}

impl PacketSeries {
    /// Returns a packet from each of `sources` sources, a power of two. The source address ends at offset `ends_at`.
    pub fn each(frame: Vec<u8>, ends_at: u32, sources: u32) -> Self {
        let plan = Plan {
            source_at: ends_at - 4,
            sources: sources - 1,
            // 10.0.0.0, or an IPv6 network's addresses with such an end.
            first: 10 << 24,
            ..Plan::default()
        };
        Self { frame, plan }
    }
}

/// The program and those that generate its packets.
pub struct Subject {
    kernel: Kernel,
    source: Baselines,
    /// The same for the empty program, whose time is subtracted.
    empty: Baselines,
}

impl Subject {
    /// Loads the program with this configuration.
    pub fn load(tables: &Tables) -> Result<Self> {
        let mut kernel = Kernel::with(tables, LoadOptions::default())?;
        let mut source = Baselines::load(&["vary", "deal"])?;
        source.subject(kernel.program().xdp()?.fd()?)?;
        let mut empty = Baselines::load(&["pass", "vary", "deal"])?;
        let pass = empty.program("pass")?.fd()?.try_clone()?;
        empty.subject(&pass)?;
        Ok(Self {
            kernel,
            source,
            empty,
        })
    }

    /// Returns the program, for steps that are not measured.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Returns the empty program.
    pub fn empty(&self) -> Result<&Xdp> {
        self.empty.program("pass")
    }

    /// Lets the program judge a frame this many times.
    pub fn same(&mut self, frame: &[u8], times: u32) -> Result<TimedRun> {
        timing::run(self.kernel.program().xdp()?, frame, times)
    }

    /// Has the program judge a packet from each source, and returns nanoseconds per packet. They include the
    /// generation of packets; see [`Self::each_empty`].
    pub fn each(&mut self, packet: &PacketSeries) -> Result<f64> {
        self.run(packet, TestedProgram::Program)
    }

    /// Returns the time of the empty program for the same packets.
    pub fn each_empty(&mut self, packet: &PacketSeries) -> Result<f64> {
        self.run(packet, TestedProgram::Empty)
    }

    fn run(&mut self, packet: &PacketSeries, behind: TestedProgram) -> Result<f64> {
        let programs = match behind {
            TestedProgram::Program => &mut self.source,
            TestedProgram::Empty => &mut self.empty,
        };
        programs.plan(packet.plan)?;
        let sources = packet.plan.sources + 1;
        let at_once = sources.min(AT_ONCE);
        let mut nanos = 0.0;
        for _ in 0..sources / at_once {
            nanos += timing::run(programs.program("vary")?, &packet.frame, at_once)?.nanos;
            self.kernel.events()?;
        }
        Ok(nanos / f64::from(sources / at_once))
    }

    /// Has the program judge a frame with each of these payloads, all of one length, at this offset of the frame.
    /// Returns nanoseconds per packet, without those of the exchange of payloads.
    pub fn dealt(&mut self, frame: &[u8], at: u32, payloads: &[Vec<u8>]) -> Result<f64> {
        let times = u32::try_from(payloads.len())?;
        let plan = Plan {
            payload_at: at,
            payload_length: u32::try_from(payloads.first().map_or(0, Vec::len))?,
            ..Plan::default()
        };
        let run = |programs: &mut Baselines| {
            programs.payloads(payloads)?;
            programs.plan(plan)?;
            Ok::<_, Error>(timing::run(programs.program("deal")?, frame, times)?.nanos)
        };
        let exchange = run(&mut self.empty)?;
        let all = run(&mut self.source)?;
        let empty = timing::run(self.empty()?, frame, times)?.nanos;
        self.kernel.events()?;
        Ok(all - exchange + empty)
    }

    /// Runs `packets` and checks that at least 99 % of the packets meanwhile had one of the reasons.
    pub fn judged<T>(
        &mut self,
        what: &str,
        reasons: &[Reason],
        packets: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = self.kernel.program().counters()?;
        let done = packets(self)?;
        let after = self.kernel.program().counters()?;
        let moved = |reason: &Reason| after[*reason as usize] - before[*reason as usize];
        let right: u64 = reasons.iter().map(moved).sum();
        let all: u64 = Reason::ALL.iter().map(moved).sum();
        let seen: Vec<_> = Reason::ALL
            .iter()
            .filter(|reason| moved(reason) > 0)
            .collect();
        ensure!(
            right > 0 && right >= all - all / 100,
            "{what}: of {all} packets {right} were judged {reasons:?}, others {seen:?}"
        );
        Ok(done)
    }
}

#[derive(Clone, Copy)]
enum TestedProgram {
    Program,
    Empty,
}
