//! Measures how many packets two CPUs judge at once, compared with one.

use std::{
    hint,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow};
use aya::programs::Xdp;
use knock_tests::kernel::compile;

use super::{
    CONFIG, WARM,
    cases::{CASES, PacketCase, WITH_GRANT, WITHOUT_GRANT, Wrap, syn},
    open_door,
};
use crate::{
    baselines::Baselines,
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    subject::{PacketSeries, Subject},
    timing::{self, Samples},
};

/// The title of the section.
pub const TITLE: &str = "two CPUs at once";

/// The goal: the least share of what two CPUs do with an empty program. It would be 2 without a shared core.
const SHARE_LEAST: f64 = 0.95;

/// The last octet of the second CPU's sources without and with a grant.
const OTHER_WITHOUT_GRANT: u8 = 17;
const OTHER_WITH_GRANT: u8 = 18;

/// The least share of the longer run in which both ran; others are left out.
const OVERLAP_LEAST: f64 = 0.75;

/// Measures all cases with IPv4.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let mut all: Vec<(&PacketCase, Samples)> = CASES
        .iter()
        .map(|case| (case, Samples::default()))
        .collect();
    let mut empty = Samples::default();
    let has_two = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    let tables = compile(CONFIG)?;
    for _ in 0..scale.loads {
        let mut bench = TwoCpus {
            subject: Subject::load(&tables)?,
            sources: [Baselines::load(&["vary"])?, Baselines::load(&["vary"])?],
            group: 2,
        };
        for source in &mut bench.sources {
            let program = bench.subject.kernel().program().xdp()?.fd()?.try_clone()?;
            source.subject(&program)?;
        }
        for who in [WITH_GRANT, OTHER_WITH_GRANT] {
            open_door(&mut bench.subject, who)?;
        }
        for _ in 0..if has_two { scale.rounds } else { 0 } {
            bench
                .empty(scale.times)?
                .into_iter()
                .for_each(|times| empty.add(times));
            for (case, samples) in &mut all {
                let times = bench.case(case, scale.times)?;
                times.into_iter().for_each(|times| samples.add(times));
            }
        }
    }
    let rows = all.into_iter().map(|(case, samples)| {
        let times = samples.median();
        Row::new(case.what, times, Unit::Times)
            .goal(Goal::at_least(
                times / empty.median(),
                SHARE_LEAST,
                Unit::Times,
            ))
            .beside("empty", empty.median())
    });
    Ok(ReportSection {
        title: TITLE,
        method: format!(
            "`BPF_PROG_TEST_RUN` of one program with one set of maps, on CPU 0 and CPU 1 alone and \
             on both at once, in threads that begin together; each CPU has sources of its own. The \
             figure is how many times the packets of one CPU both judge, by CPU time: the median of \
             {} rounds, without those in which one CPU had to do something else. Virtual CPUs may \
             share a core, so the goal is {SHARE_LEAST} times the figure of an empty program. What \
             makes the packets of {WARM} sources is in the figures of knocks.",
            scale.loads * scale.rounds,
        ),
        rows: if has_two { rows.collect() } else { Vec::new() },
    })
}

struct TwoCpus {
    subject: Subject,
    /// The programs that make the packets of many sources, for each CPU.
    sources: [Baselines; 2],
    /// The next sources that no case has used.
    group: u32,
}

impl TwoCpus {
    fn empty(&self, times: u32) -> Result<Option<f64>> {
        let frame = syn(Wrap::V4.from(WITHOUT_GRANT)).bytes();
        let program = self.subject.empty()?;
        speedup(|cpus| together(cpus, |_| Ok(()), |_, ()| timed(program, &frame, times)))
    }

    fn case(&mut self, case: &PacketCase, times: u32) -> Result<Option<f64>> {
        match case.is_stateless() {
            true => self.same(case, times),
            false => self.each(case),
        }
    }

    /// Measures a packet that changes nothing.
    fn same(&mut self, case: &PacketCase, times: u32) -> Result<Option<f64>> {
        let other = match case.who {
            WITH_GRANT => OTHER_WITH_GRANT,
            _ => OTHER_WITHOUT_GRANT,
        };
        let frames = [case.who, other].map(|who| (case.packet)(Wrap::V4.from(who)).bytes());
        self.subject.judged(case.what, case.reasons, |subject| {
            let program = subject.kernel().program().xdp()?;
            speedup(|cpus| {
                together(
                    cpus,
                    |_| Ok(()),
                    |cpu, ()| timed(program, &frames[cpu], times),
                )
            })
        })
    }

    /// Measures a packet from each of some sources, which the CPU itself has prepared.
    fn each(&mut self, case: &PacketCase) -> Result<Option<f64>> {
        let Self {
            subject,
            sources,
            group,
        } = self;
        let sources = sources.each_mut().map(Mutex::new);
        speedup(|cpus| {
            let packets = [0, 1].map(|cpu| {
                *group += 1;
                case.packets(
                    Wrap::V4,
                    match case.needs_new_sources() {
                        true => *group,
                        false => cpu,
                    },
                )
            });
            let run = |cpu: usize, packet: &PacketSeries| {
                let mut source = sources[cpu].lock().unwrap_or_else(PoisonError::into_inner);
                source.plan(packet.plan)?;
                timed(source.program("vary")?, &packet.frame, WARM)
            };
            let prepare = |cpu: usize| {
                let (before, packet) = &packets[cpu];
                // In the second run everything is in the cache of the CPU.
                let warm = [packet].into_iter().chain(before);
                for packet in before
                    .iter()
                    .chain(warm.filter(|_| !case.needs_new_sources()))
                {
                    run(cpu, packet)?;
                }
                Ok(())
            };
            let runs = together(cpus, prepare, |cpu, ()| run(cpu, &packets[cpu].1))?;
            subject.kernel().events()?;
            Ok(runs)
        })
    }
}

/// One run: when it began, when it ended, and its CPU time per packet in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct CpuRun {
    began: Instant,
    ended: Instant,
    nanos: f64,
}

fn timed(program: &Xdp, frame: &[u8], times: u32) -> Result<CpuRun> {
    let began = Instant::now();
    let nanos = timing::run_by_thread_time(program, frame, times)?;
    Ok(CpuRun {
        began,
        ended: Instant::now(),
        nanos,
    })
}

/// Returns how many times the packets of one CPU both judge; `None` if something else delayed one of them.
fn speedup(mut run: impl FnMut(&[usize]) -> Result<Vec<CpuRun>>) -> Result<Option<f64>> {
    let alone = [run(&[0])?, run(&[1])?].concat();
    let both = run(&[0, 1])?;
    let (&[a, b], &[c, d]) = (&alone[..], &both[..]) else {
        return Err(anyhow!("a thread did not end"));
    };
    let whole = c.ended.max(d.ended) - c.began.min(d.began);
    let shared = c
        .ended
        .min(d.ended)
        .saturating_duration_since(c.began.max(d.began));
    let rate = |runs: [CpuRun; 2]| runs.map(|run| 1.0 / run.nanos).iter().sum::<f64>();
    let has_overlapped = shared.as_secs_f64() >= OVERLAP_LEAST * whole.as_secs_f64();
    Ok(has_overlapped.then(|| 2.0 * rate([c, d]) / rate([a, b])))
}

/// Has each CPU prepare, and then measure, all at once.
fn together<P: Send>(
    cpus: &[usize],
    prepare: impl Fn(usize) -> Result<P> + Sync,
    measure: impl Fn(usize, P) -> Result<CpuRun> + Sync,
) -> Result<Vec<CpuRun>> {
    let ready = AtomicUsize::new(0);
    let run = |cpu| {
        let prepared = timing::pin(cpu).and_then(|()| prepare(cpu));
        // Also after an error: the other thread waits.
        ready.fetch_add(1, Ordering::SeqCst);
        // A thread that slept would begin later than the other one.
        while ready.load(Ordering::SeqCst) < cpus.len() {
            hint::spin_loop();
        }
        measure(cpu, prepared?)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .map(|&cpu| {
                let run = &run;
                scope.spawn(move || run(cpu))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| {
            let ended = thread.join();
            ended.map_err(|_| anyhow!("a thread panicked"))?
        });
        ended.collect()
    })
}
