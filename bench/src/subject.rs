//! The firewall in the kernel, given one packet many times, or a packet from each of many sources.

use anyhow::{Result, ensure};
use aya::programs::Xdp;
use knock_common::Reason;
use knock_tests::kernel::Kernel;
use knock_user::{compile::Tables, kernel::program::Options};

use crate::{
    baselines::Baselines,
    plan::Plan,
    timing::{self, Timed},
};

/// The events of this many packets fit into the ring buffer, which nobody reads meanwhile.
const AT_ONCE: u32 = 4096;

/// A packet from each of many sources.
#[derive(Clone, Debug)]
pub struct Packet {
    /// What is sent, but for what the plan changes.
    pub frame: Vec<u8>,
    /// The plan; its number is where it begins.
    pub plan: Plan,
}

impl Packet {
    /// The packet from each of a power of two of sources, if its source address ends at `ends_at`.
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

/// The firewall with what makes its packets.
pub struct Subject {
    kernel: Kernel,
    source: Baselines,
    /// The same for the empty program: what is to be subtracted.
    empty: Baselines,
}

impl Subject {
    /// Loads the firewall with this configuration.
    pub fn load(tables: &Tables) -> Result<Self> {
        let mut kernel = Kernel::with(tables, Options::default())?;
        let mut source = Baselines::load(&["vary"])?;
        source.subject(kernel.firewall().program()?.fd()?)?;
        let mut empty = Baselines::load(&["pass", "vary"])?;
        let pass = empty.program("pass")?.fd()?.try_clone()?;
        empty.subject(&pass)?;
        Ok(Self {
            kernel,
            source,
            empty,
        })
    }

    /// The firewall, for what is not measured.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// The empty program.
    pub fn empty(&self) -> Result<&Xdp> {
        self.empty.program("pass")
    }

    /// Lets the firewall judge a frame this many times.
    pub fn same(&mut self, frame: &[u8], times: u32) -> Result<Timed> {
        timing::run(self.kernel.firewall().program()?, frame, times)
    }

    /// Has the firewall judge a packet from each source; the time is without what it takes to make
    /// the packets, which is what the empty program takes, behind the same and alone.
    pub fn each(&mut self, packet: &Packet) -> Result<f64> {
        self.run(packet, Behind::Firewall)
    }

    /// The time that the empty program takes for the same.
    pub fn each_empty(&mut self, packet: &Packet) -> Result<f64> {
        self.run(packet, Behind::Empty)
    }

    fn run(&mut self, packet: &Packet, behind: Behind) -> Result<f64> {
        let programs = match behind {
            Behind::Firewall => &mut self.source,
            Behind::Empty => &mut self.empty,
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

    /// Does something and checks that all packets meanwhile, or all but a few, were judged so.
    pub fn judged<T>(
        &mut self,
        what: &str,
        reasons: &[Reason],
        packets: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = self.kernel.firewall().counters()?;
        let done = packets(self)?;
        let after = self.kernel.firewall().counters()?;
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
enum Behind {
    Firewall,
    Empty,
}
