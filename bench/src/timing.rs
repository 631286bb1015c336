//! Measures the time that a program takes per packet.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{
    ProgramError, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// With at least this many packets the system call costs less than 0.1 ns per packet, and the clock of this thread
/// is more precise than the kernel's figure, which is rounded down to nanoseconds.
const MANY: u32 = 50_000;

/// One run of a program.
#[derive(Clone, Copy, Debug)]
pub struct TimedRun {
    /// The return value.
    pub verdict: u32,
    /// Nanoseconds per packet.
    pub nanos: f64,
}

/// Runs a program on a frame this many times.
///
/// # Errors
/// The kernel refuses the run.
pub fn run(program: &Xdp, frame: &[u8], times: u32) -> Result<TimedRun> {
    timed(times, || {
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: times,
            ..TestRunOptions::new()
        })
    })
}

/// Runs a program of traffic control on a packet this many times.
///
/// # Errors
/// The kernel refuses the run.
pub fn run_classifier(program: &SchedClassifier, packet: &[u8], times: u32) -> Result<TimedRun> {
    timed(times, || {
        program.test_run(TestRunOptions {
            data_in: Some(packet),
            repeat: times,
            ..TestRunOptions::new()
        })
    })
}

fn timed(
    times: u32,
    run: impl FnOnce() -> Result<TestRunResult, ProgramError>,
) -> Result<TimedRun> {
    let before = thread_time()?;
    let run = run().context("running a program (BPF_PROG_TEST_RUN)")?;
    let spent = thread_time()? - before;
    let nanos = if times >= MANY {
        nanos(spent) / f64::from(times)
    } else {
        // It is rounded down, so half a nanosecond is missing on average.
        nanos(run.duration) + 0.5
    };
    Ok(TimedRun {
        verdict: run.return_value,
        nanos,
    })
}

/// Runs a program on a frame this many times, and returns the nanoseconds of this thread's CPU time per packet.
///
/// # Errors
/// The kernel refuses the run.
pub fn run_by_thread_time(program: &Xdp, frame: &[u8], times: u32) -> Result<f64> {
    let before = thread_time()?;
    run(program, frame, times)?;
    Ok(nanos(thread_time()? - before) / f64::from(times))
}

/// Returns a duration in nanoseconds.
pub fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Returns the CPU time of this thread.
///
/// # Errors
/// The kernel has no such clock.
pub fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Restricts this thread to one CPU.
///
/// # Errors
/// There is no such CPU.
pub fn pin(cpu: usize) -> Result<()> {
    pin_thread(0, cpu)
}

/// Restricts a thread, by its id, and threads that it starts to one CPU.
///
/// # Errors
/// There is no such CPU or thread.
pub fn pin_thread(id: i32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(id), &cpus)
        .with_context(|| format!("keeping thread {id} on CPU {cpu}"))
}

/// Gives a thread, by its id, priority over all others on its CPU.
///
/// # Errors
/// `chrt` (util-linux) is missing, or lacks permission.
pub fn go_first(id: i32) -> Result<()> {
    let done = Command::new("chrt")
        .args(["--fifo", "--pid", "10", &id.to_string()])
        .status()
        .context("running chrt, of util-linux")?;
    ensure!(done.success(), "chrt ended with {done}");
    Ok(())
}

/// Repeated measurements of one time.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a sample.
    pub fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Returns the number of samples.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the least: slower samples were disturbed, or placed badly by the JIT.
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Returns the sample than which a `share` of the samples is no greater.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// Returns the median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples = |values: &[f64]| Samples(values.to_vec());
        for (name, values, least, median, most) in [
            ("one", &[3.0][..], 3.0, 3.0, 3.0),
            ("odd", &[9.0, 1.0, 5.0], 1.0, 5.0, 9.0),
            ("many", &[4.0, 3.0, 2.0, 1.0, 0.0], 0.0, 2.0, 4.0),
        ] {
            let samples = samples(values);
            let found = (samples.least(), samples.median(), samples.quantile(1.0));
            assert_eq!(found, (least, median, most), "{name}");
        }
        assert!(samples(&[]).median().is_nan());
    }
}
