//! Sends frames with the kernel (`BPF_F_TEST_XDP_LIVE_FRAMES`), as fast as possible or at a rate.
//!
//! They leave only through the client's link of a [`Net`], inside its network namespaces.

use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use knock_tests::{
    namespace::Namespace,
    net::{CLIENT_LINK, Net},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
    unistd::gettid,
};

use crate::{baselines::Baselines, plan::Plan, timing};

/// Frames that the kernel makes at a time, and takes through the link at a time.
const BATCH: u32 = 64;
/// Bursts a second, at most: interfaces interrupt each some 30 µs for everything that came since.
const BURSTS: u32 = 31_250;
/// A generator checks after this many frames, sent or not, whether it is to stop: some hundredths of a second.
const BETWEEN_LOOKS: u32 = 200_000;

/// A program that generates frames.
pub struct Generator {
    baselines: Baselines,
}

/// The result of sending.
#[derive(Clone, Copy, Debug)]
pub struct SendResult {
    /// How many frames left.
    pub frames: u64,
    /// How long it took.
    pub wall: Duration,
    /// The CPU time, with that of the receiver if it runs on the same CPU.
    pub cpu: Duration,
}

impl SendResult {
    /// Frames a second.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.wall.as_secs_f64()
    }

    /// Returns the CPU time for each of this many frames, in nanoseconds.
    pub fn nanos_for(&self, frames: u64) -> f64 {
        timing::nanos(self.cpu) / frames as f64
    }
}

impl Generator {
    /// Loads the program that generates the frames.
    pub fn load() -> Result<Self> {
        let baselines = Baselines::load(&["flood"])?;
        Ok(Self { baselines })
    }

    /// Sets the ports that the next frames go to, in turn.
    pub fn choices(&mut self, ports: &[u16]) -> Result<()> {
        self.baselines.choices(ports)
    }

    /// Sends this many frames from a CPU, as fast as possible.
    pub fn blast(
        &mut self,
        net: &Net,
        cpu: usize,
        frame: &[u8],
        plan: Plan,
        count: u32,
    ) -> Result<SendResult> {
        self.aim(net, plan)?;
        let before = self.baselines.sent()?;
        let program = self.baselines.program("flood")?;
        let (wall, cpu) = net.client.enter(|| -> Result<_> {
            timing::pin(cpu)?;
            let softirqs = Softirqs::of(cpu)?;
            let began = (Instant::now(), timing::thread_time()?, softirqs.time()?);
            send(program, frame, count)?;
            let own = timing::thread_time()? - began.1;
            Ok((began.0.elapsed(), own + (softirqs.time()? - began.2)))
        })?;
        let frames = self.baselines.sent()? - before;
        Ok(SendResult { frames, wall, cpu })
    }

    /// Sends this many frames a second from a CPU until it is stopped; 0 sends as fast as possible.
    pub fn flow(
        mut self,
        net: &Net,
        cpu: usize,
        frame: Vec<u8>,
        plan: Plan,
        rate: u32,
    ) -> Result<FrameStream> {
        let burst = (rate / BURSTS).max(1);
        let gap_ns = 1_000_000_000 * u64::from(burst);
        let gap_ns = gap_ns.checked_div(rate.into()).unwrap_or(0);
        let plan = Plan {
            gap_ns,
            burst,
            ..plan
        };
        self.aim(net, plan)?;
        let before = self.baselines.sent()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let began = Instant::now();
        let namespace = Path::new("/run/netns").join(net.client.name());
        let namespace =
            File::open(&namespace).with_context(|| format!("opening {}", namespace.display()))?;
        let thread = thread::spawn(move || -> Result<SendResult> {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .context("entering the client's namespace")?;
            timing::pin(cpu)?;
            // A real flood comes from another machine, which this one does not slow down.
            timing::go_first(gettid().as_raw())?;
            let cpu_before = timing::thread_time()?;
            while !stopped.load(Ordering::Relaxed) {
                send(self.baselines.program("flood")?, &frame, BETWEEN_LOOKS)?;
            }
            Ok(SendResult {
                frames: self.baselines.sent()? - before,
                wall: began.elapsed(),
                cpu: timing::thread_time()? - cpu_before,
            })
        });
        Ok(FrameStream {
            stop,
            thread: Some(thread),
        })
    }

    fn aim(&mut self, net: &Net, plan: Plan) -> Result<()> {
        let link = net
            .client
            .enter(|| if_nametoindex(CLIENT_LINK))
            .with_context(|| format!("looking up {CLIENT_LINK}"))?;
        self.baselines.plan(Plan { link, ..plan })
    }
}

/// Frames that are being sent.
#[derive(Debug)]
pub struct FrameStream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<SendResult>>>,
}

impl FrameStream {
    /// Stops it, and returns what was sent.
    pub fn stop(mut self) -> Result<SendResult> {
        self.end()
            .unwrap_or_else(|| Err(anyhow!("the flood was stopped before")))
    }

    fn end(&mut self) -> Option<Result<SendResult>> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.thread.take()?.join();
        Some(sent.unwrap_or_else(|_| Err(anyhow!("the thread that sends panicked"))))
    }
}

impl Drop for FrameStream {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            eprintln!("the flood had ended: {error:#}");
        }
    }
}

fn send(program: &Xdp, frame: &[u8], count: u32) -> Result<()> {
    let sent = program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat: count,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    });
    sent.context("sending frames (BPF_F_TEST_XDP_LIVE_FRAMES needs Linux 5.18)")?;
    Ok(())
}

/// The kernel thread that takes over a CPU's packets under load.
struct Softirqs {
    path: String,
}

impl Softirqs {
    fn of(cpu: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{cpu}");
        let process = process_named(&name).with_context(|| format!("there is no {name}"))?;
        let path = format!("/proc/{process}/schedstat");
        Ok(Self { path })
    }

    fn time(&self) -> Result<Duration> {
        let output = fs::read_to_string(&self.path).with_context(|| self.path.clone())?;
        let nanos = output.split_whitespace().next().unwrap_or_default();
        let nanos = nanos
            .parse()
            .with_context(|| format!("{}: {output}", self.path))?;
        Ok(Duration::from_nanos(nanos))
    }
}

/// Returns the id of the process whose name begins with a text.
pub fn process_named(name: &str) -> Option<i32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id| {
        fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.starts_with(name))
    })
}

/// The frames that the server's end of the link took from its ring since it was created, and those
/// of them that its XDP program dropped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReceivedFrames {
    /// Frames that came out of the ring.
    pub frames: u64,
    /// Frames that an XDP program dropped.
    pub dropped: u64,
}

impl ReceivedFrames {
    /// Reads the current counts of the server's link.
    pub fn by(server: &Namespace, link: &str) -> Self {
        let output = server.run("ethtool", &["-S", link]);
        let sum = |of: &str| {
            let lines = output
                .lines()
                .filter_map(|line| line.trim().split_once(": "));
            let ours =
                lines.filter(|(name, _)| name.starts_with("rx_queue_") && name.ends_with(of));
            ours.filter_map(|(_, count)| count.parse::<u64>().ok())
                .sum()
        };
        Self {
            frames: sum("_xdp_packets"),
            dropped: sum("_xdp_drops"),
        }
    }

    /// Returns the counts since then.
    pub fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames - before.frames,
            dropped: self.dropped - before.dropped,
        }
    }
}
