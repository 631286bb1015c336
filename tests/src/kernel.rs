//! The program in the kernel, judging frames that never were on a wire (`BPF_PROG_TEST_RUN`).

use std::{
    fs::{self, File},
    mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::Barrier,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    maps::{Array, Map, MapData, RingBuf},
    programs::{TestRun as _, TestRunOptions},
};
use bytemuck::Pod;
use knock_common::{
    Address, Reason, Stat, Verdict,
    event::Event,
    layout::{FlowKey, GrantKey, ProgressKey, WAYS},
    presence,
    time::Moment,
};
use knock_user::{
    apply::dynamic::SequenceSources,
    compile::{self, Input, Tables, stable_ids::StableIds},
    config,
    host::{Host, clock},
    kernel::{
        maps::{self, Table},
        program::{LoadOptions, XdpProgram},
    },
};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Uid,
};

use crate::entry::Entry;

const NOT_RUNNABLE: &str = "the frame has no packet that this entry can be tested with";
/// The kernel refuses shorter frames: an Ethernet header is the least (`bpf_prog_test_run_xdp`).
pub const FRAME_LEAST: usize = 14;

/// Returns the first two numbers of this kernel's version.
///
/// # Panics
/// The kernel does not report it.
#[track_caller]
pub fn version() -> (u32, u32) {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).unwrap_or_default();
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => panic!("{path} has no version: {release}"),
    }
}

/// Compiles the text of a configuration; nothing in the tables is random.
///
/// # Errors
/// The configuration has an error; all of them are listed.
pub fn compile(text: &str) -> Result<Tables> {
    let checked = config::parse(text, "test.toml").map_err(|problems| anyhow!("{problems}"))?;
    let sequences = SequenceSources::open(
        &checked.settings,
        knock_user::sequences::replay_cache::Floor::default(),
    )
    .sequences(clock::boot_ms());
    let mut drawn = 0;
    let mut given = Input {
        host: &Host::default(),
        cell_key: std::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        known: &StableIds::default(),
        draw: &mut || {
            drawn += 1;
            drawn
        },
        sequences: &sequences,
        before: None,
    };
    compile::compile(&checked.settings, &mut given)
        .map_err(|conflicts| anyhow!("{}", checked.problems(conflicts)))
}

/// Returns the time as the kernel side counts it.
pub fn now() -> Result<Moment> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).context("reading CLOCK_BOOTTIME")?;
    let nanos = time.tv_sec() * 1_000_000_000 + time.tv_nsec();
    Ok(Moment::from_nanos(u64::try_from(nanos)?))
}

/// The result for a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judged {
    /// The reason whose counter moved.
    pub reason: Reason,
    /// The program's return value.
    pub verdict: Verdict,
    /// Other counters that moved.
    pub stats: Vec<Stat>,
    /// The events.
    pub events: Vec<Event>,
}

/// The result for a frame that was judged many times, or for many frames.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JudgedFrames {
    /// The program's last return value.
    pub verdict: Verdict,
    /// The reasons and how often each was counted.
    pub reasons: Vec<(Reason, u64)>,
    /// Other counters that moved, and by how much.
    pub stats: Vec<(Stat, u64)>,
    /// The events.
    pub events: Vec<Event>,
}

/// A program in the kernel that no packet reaches.
pub struct Kernel {
    program: XdpProgram,
    entry: Entry,
    events: RingBuf<MapData>,
    counters: Vec<u64>,
    /// Their end removes the interfaces to which the programs are attached.
    _namespaces: Vec<Option<File>>,
}

impl Kernel {
    /// Loads the program with a configuration.
    ///
    /// # Errors
    /// The configuration has an error, the kernel refuses the program, or this process lacks the right.
    pub fn load(text: &str) -> Result<Self> {
        Self::with(&compile(text)?, LoadOptions::default())
    }

    /// Loads the program with compiled tables; errors as for [`Kernel::load`].
    pub fn with(tables: &Tables, options: LoadOptions<'_>) -> Result<Self> {
        Self::with_entry(tables, options, Entry::chosen()?)
    }

    /// Loads another program of the object with compiled tables; errors as for [`Kernel::load`].
    pub fn with_entry(tables: &Tables, options: LoadOptions<'_>, entry: Entry) -> Result<Self> {
        ensure!(
            Uid::effective().is_root(),
            "these tests load programs into the kernel, which takes root: \
             `sudo --preserve-env env \"PATH=$PATH\" cargo xtask test`, or leave them out with \
             `cargo xtask test --no-root`"
        );
        let mut program = XdpProgram::load(tables, options)?;
        entry.load(program.ebpf())?;
        // Two CPUs judge at XDP, whatever the entry.
        let others = [entry].into_iter().filter(|entry| *entry != Entry::Xdp);
        let namespaces = [Entry::Xdp]
            .into_iter()
            .chain(others)
            .map(|entry| entry.attach(program.ebpf()))
            .collect::<Result<_>>()?;
        let events = program.take_events()?;
        let counters = program.counters()?;
        Ok(Self {
            program,
            entry,
            events,
            counters,
            _namespaces: namespaces,
        })
    }

    /// Returns whether a frame can be judged in a test run: not if it is shorter than [`FRAME_LEAST`], or if
    /// [`Entry::input`] has nothing for it.
    pub fn can_judge(&self, frame: &[u8]) -> bool {
        let input = self.entry.input(frame);
        input.is_some_and(|input| input.len() >= FRAME_LEAST)
    }

    /// Returns the program itself.
    pub fn program(&mut self) -> &mut XdpProgram {
        &mut self.program
    }

    /// Judges a frame of at least [`FRAME_LEAST`] octets.
    ///
    /// # Errors
    /// The kernel refuses, or by the counters the frame was not judged exactly once.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Judged> {
        let JudgedFrames {
            verdict,
            reasons,
            stats,
            events,
        } = self.repeat(frame, 1)?;
        let &[(reason, 1)] = &reasons[..] else {
            bail!("not one reason was counted once, but {reasons:?}");
        };
        Ok(Judged {
            reason,
            verdict,
            stats: stats.into_iter().map(|(stat, _)| stat).collect(),
            events,
        })
    }

    /// Judges frames, leaves the events where they are, and returns how many were lost for want of
    /// room; errors as for [`Kernel::judge`].
    pub fn judge_without_reading(
        &mut self,
        frames: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<u64> {
        for frame in frames {
            self.test_run(&frame, 1)?;
        }
        let before = self.count()?;
        let lost = |counters: &[u64]| counters.get(Stat::EventsLost as usize).copied();
        let (now, before) = (lost(&self.counters), lost(&before));
        Ok(now.unwrap_or(0) - before.unwrap_or(0))
    }

    /// Judges a frame, and returns the answer too, if there is one; errors as for
    /// [`Kernel::judge`].
    pub fn answer(&mut self, frame: &[u8]) -> Result<(Reason, Option<Vec<u8>>)> {
        let mut answer = vec![0; frame.len()];
        let ebpf = self.program.ebpf();
        let packet = self.entry.input(frame).context(NOT_RUNNABLE)?;
        let (verdict, length) = self.entry.run(ebpf, packet, Some(&mut answer), 1)?;
        let JudgedFrames { reasons, .. } = self.since_last_count(verdict)?;
        let &[(reason, 1)] = &reasons[..] else {
            bail!("not one reason was counted once, but {reasons:?}");
        };
        answer.truncate(length);
        Ok((reason, (verdict == Verdict::Answer).then_some(answer)))
    }

    /// Runs the program, and returns its return value.
    fn test_run(&mut self, frame: &[u8], times: u32) -> Result<Verdict> {
        let packet = self.entry.input(frame).context(NOT_RUNNABLE)?;
        let (verdict, _) = self.entry.run(self.program.ebpf(), packet, None, times)?;
        Ok(verdict)
    }

    /// Reads the counters, and returns their previous values.
    fn count(&mut self) -> Result<Vec<u64>> {
        Ok(mem::replace(&mut self.counters, self.program.counters()?))
    }

    /// Judges the same frame many times; errors as for [`Kernel::judge`].
    pub fn repeat(&mut self, frame: &[u8], times: u32) -> Result<JudgedFrames> {
        let verdict = self.test_run(frame, times)?;
        self.since_last_count(verdict)
    }

    /// Judges frames one after the other, and reads the counters once; errors as for
    /// [`Kernel::judge`].
    pub fn judge_all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) -> Result<JudgedFrames> {
        let mut verdict = None;
        for frame in frames {
            verdict = Some(self.test_run(&frame, 1)?);
        }
        self.since_last_count(verdict.context("there is no frame to judge")?)
    }

    /// Judges each frame at XDP on two CPUs at once, `times` times on each; errors as for
    /// [`Kernel::judge`].
    pub fn judge_on_two_cpus(&mut self, frames: &[Vec<u8>], times: u32) -> Result<JudgedFrames> {
        let program = &*self.program.xdp()?;
        let both_are_ready = Barrier::new(2);
        let runs = thread::scope(|scope| {
            let runs = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut last = Ok(None);
                    for frame in frames {
                        both_are_ready.wait();
                        let run = program.test_run(TestRunOptions {
                            data_in: Some(frame),
                            repeat: times,
                            ..TestRunOptions::new()
                        });
                        // The other one waits for this one in any case.
                        if last.is_ok() {
                            last = run.map(|run| Some(run.return_value));
                        }
                    }
                    last
                })
            });
            runs.map(|run| run.join().map_err(|_panic| anyhow!("a thread panicked")))
        });
        let [one, other] = runs;
        one??;
        let returned = other??.context("there is no frame to judge")?;
        let verdict = Entry::Xdp.verdict(returned)?;
        self.since_last_count(verdict)
    }

    fn since_last_count(&mut self, verdict: Verdict) -> Result<JudgedFrames> {
        let before = self.count()?;
        let moved = |number: u8| {
            let count = |counters: &[u64]| counters.get(usize::from(number)).copied().unwrap_or(0);
            Some(count(&self.counters) - count(&before)).filter(|by| *by > 0)
        };
        let reasons = Reason::ALL.iter();
        let stats = Stat::ALL.iter();
        Ok(JudgedFrames {
            verdict,
            reasons: reasons
                .filter_map(|&reason| Some((reason, moved(reason as u8)?)))
                .collect(),
            stats: stats
                .filter_map(|&stat| Some((stat, moved(stat as u8)?)))
                .collect(),
            events: self.events()?,
        })
    }

    /// Returns the events that were not taken yet.
    ///
    /// # Errors
    /// An event has another size than this build's.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            let event = bytemuck::try_pod_read_unaligned(&item)
                .map_err(|error| anyhow!("an event of {} octets: {error}", item.len()))?;
            events.push(event);
        }
        Ok(events)
    }

    /// Resets the event limits.
    pub fn reset_event_limits(&mut self) -> Result<()> {
        let map = maps::map_mut(self.program.ebpf(), "EVENT_LIMITS")?;
        let mut event_limits = Array::<_, u64>::try_from(map)?;
        for index in 0..event_limits.len() {
            event_limits.set(index, 0, 0)?;
        }
        Ok(())
    }

    /// Progress past the first knock, as words.
    pub fn progress(&mut self) -> Result<Vec<(ProgressKey, u64)>> {
        self.entries("PROGRESS")
    }

    /// Returns grants, as words.
    pub fn allow(&mut self) -> Result<Vec<(GrantKey, u64)>> {
        self.entries("ALLOW")
    }

    /// Returns flows, as words.
    pub fn flows(&mut self) -> Result<Vec<(FlowKey, u64)>> {
        self.entries("FLOWS")
    }

    /// Returns failed attempts by source, as words.
    pub fn lockouts(&mut self) -> Result<Vec<[u64; WAYS]>> {
        let map = maps::map(self.program.ebpf(), "LOCKOUTS")?;
        let map = Array::<_, [u64; WAYS]>::try_from(map)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    /// Writes elements of `LOCKOUTS`.
    pub fn set_lockouts(
        &mut self,
        elements: impl IntoIterator<Item = (u32, [u64; WAYS])>,
    ) -> Result<()> {
        maps::set(self.program.ebpf(), "LOCKOUTS", elements)
    }

    /// Returns the words of a table.
    pub fn entries<K: Pod>(&mut self, name: &str) -> Result<Vec<(K, u64)>> {
        let map = maps::map_mut(self.program.ebpf(), name)?;
        Ok(maps::entries(&Table::<_, K, u64>::try_from(map)?, u32::MAX))
    }

    /// Changes the words of a table, for example to those that they would be later.
    pub fn change<K: Pod>(&mut self, name: &str, change: impl Fn(&K, u64) -> u64) -> Result<()> {
        let entries = self.entries::<K>(name)?.into_iter();
        self.write(name, entries.map(|(key, word)| (key, change(&key, word))))
    }

    /// Writes words under keys.
    pub fn write<K: Pod>(
        &mut self,
        name: &str,
        entries: impl IntoIterator<Item = (K, u64)>,
    ) -> Result<()> {
        maps::insert(self.program.ebpf(), name, entries)
    }

    /// Sets the presence filter for a source, so that the program reads the tables.
    pub fn raise_presence(&mut self, source: Address) -> Result<()> {
        maps::set(
            self.program.ebpf(),
            "PRESENCE",
            [(presence::slot(source), presence::ALWAYS)],
        )
    }

    /// Returns the kernel memory of each map in bytes, without the constants of the program.
    pub fn memory(&mut self) -> Result<Vec<(String, u64)>> {
        let ebpf = self.program.ebpf();
        let mut memory = Vec::new();
        for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
            let (Map::Array(map)
            | Map::PerCpuArray(map)
            | Map::HashMap(map)
            | Map::LruHashMap(map)
            | Map::LpmTrie(map)
            | Map::RingBuf(map)) = map
            else {
                bail!("map {name} is of a kind that no map was of");
            };
            memory.push((name.to_owned(), memlock(map.fd().as_fd())?));
        }
        // The events were taken out.
        memory.push(("EVENTS".to_owned(), memlock(self.events.as_fd())?));
        memory.sort();
        Ok(memory)
    }
}

/// Returns the kernel memory of a map, in bytes.
fn memlock(map: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.with_context(|| format!("{path} has no line memlock"))?;
    Ok(bytes.trim().parse()?)
}
