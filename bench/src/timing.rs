//! How long a program takes for a packet.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// From this many packets on, the call around them costs less than a tenth of a nanosecond each, and
/// this thread's own clock is more exact than the kernel, which rounds down to a nanosecond.
const MANY: u32 = 50_000;

/// One run of a program.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// What it returned.
    pub verdict: u32,
    /// Nanoseconds for each packet.
    pub nanos: f64,
}

/// Lets a program judge a frame this many times.
///
/// # Errors
/// The kernel refuses.
pub fn run(program: &Xdp, frame: &[u8], times: u32) -> Result<Timed> {
    let before = thread_time()?;
    let run = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: times,
            ..TestRunOptions::new()
        })
        .context("running a program (BPF_PROG_TEST_RUN)")?;
    let spent = thread_time()? - before;
    let nanos = if times >= MANY {
        nanos(spent) / f64::from(times)
    } else {
        // Rounded down: on average, half a nanosecond is missing.
        nanos(run.duration) + 0.5
    };
    Ok(Timed {
        verdict: run.return_value,
        nanos,
    })
}

/// A duration in nanoseconds.
pub fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// What this thread has had of its CPU until now.
///
/// # Errors
/// The kernel has no such clock.
pub fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Lets this thread run on one CPU only.
///
/// # Errors
/// There is no such CPU.
pub fn pin(cpu: usize) -> Result<()> {
    pin_thread(0, cpu)
}

/// Lets a thread, by its id, run on one CPU only: what it starts stays there, too.
///
/// # Errors
/// There is no such CPU or thread.
pub fn pin_thread(id: i32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(id), &cpus)
        .with_context(|| format!("keeping thread {id} on CPU {cpu}"))
}

/// Puts a thread, by its id, before all others on its CPU.
///
/// # Errors
/// `chrt` (util-linux) is not there, or may not.
pub fn go_first(id: i32) -> Result<()> {
    let done = Command::new("chrt")
        .args(["--fifo", "--pid", "10", &id.to_string()])
        .status()
        .context("running chrt, of util-linux")?;
    ensure!(done.success(), "chrt ended with {done}");
    Ok(())
}

/// Times of the same thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The least: what is slower was disturbed, or placed badly by the JIT.
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The one of which `share` are no greater.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
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
