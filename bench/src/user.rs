//! Measures the process in user space: its start and reload, its memory and CPU time, and the rate of
//! events that it handles.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use knock_common::layout::DOORS_MAX;
use knock_sequence::spa::PrivateKey;
use knock_tests::{
    binary::binaries,
    daemon::{self, config_file},
    kernel::{Kernel, compile},
    net::Net,
    process::Process,
};
use knock_user::kernel::program::{LoadOptions, object};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    doors,
    drop_cost::spoofed_syns,
    generator::Generator,
    link::{one_queue, receive_on_one_cpu},
    plan::Plan,
    receiver::{CONFIG, ON_THE_LINK, Receiver, ReceiverKind},
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    timing::Samples,
    usage,
};

/// The title of the section.
pub const TITLE: &str = "user space";

/// The goals for the start.
const START_MOST_MS: f64 = 150.0;
const RELOAD_MOST_MS: f64 = 500.0;
const USERS_START_MOST_MS: f64 = 1_000.0;
/// Users of the largest configuration that is measured.
const USERS: u32 = 10_000;
const RESIDENT_MOST_MIB: f64 = 16.0;
/// The goal when idle: less than half a tick of the clock in ten seconds.
const IDLE_MOST_PERCENT: f64 = 0.05;
/// Longer than any measured program takes to start.
const PATIENCE: Duration = Duration::from_secs(20);
const PROTECTED: u16 = 22;
/// The CPU of the sender.
const CPU: usize = 0;
const FLOOD: u32 = 1_000_000;

/// Measures knock-user and its peers.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let mut rows = starts(scale)?;
    rows.push(reload(scale)?);
    rows.extend(idle_and_flooded(scale)?);
    rows.push(events(scale)?);
    rows.extend(sizes()?);
    let method = format!(
        "Processes as their users start them. \"Protected\" is when knock-user reports it, which is \
         after it has attached; the peers' time is until they report that they listen (nft: until it \
         ends). Medians of {}. CPU is of one, over {} s. Resident memory includes the pages of the \
         program itself.",
        scale.starts,
        scale.idle.as_secs()
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows,
    })
}

/// A running knock-user with its configuration file.
struct RunningDaemon {
    process: Process,
    config: NamedTempFile,
}

/// Starts it, waits until it protects, and returns how long that took.
fn start(net: &Net, config: &str) -> Result<(RunningDaemon, Duration)> {
    let config = config_file(config.as_bytes());
    let mut command = daemon::command(&config);
    command.arg("--json").args(ON_THE_LINK);
    let began = Instant::now();
    let process = Process::start(&net.server, &mut command);
    while !process
        .stdout()
        .iter()
        .any(|line| line.contains("\"protecting\""))
    {
        ensure!(
            began.elapsed() < PATIENCE,
            "knock-user does not protect:\n{}",
            process.printed()
        );
        // Shorter than the measured times.
        thread::sleep(Duration::from_micros(200));
    }
    let took = began.elapsed();
    Ok((RunningDaemon { process, config }, took))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Measures the start, with few doors and with the most that are possible.
fn starts(scale: Scale) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let host_key = NamedTempFile::new().context("making a file")?;
    fs::write(host_key.path(), PrivateKey::generate()?.line().as_bytes())
        .context("writing the host's key")?;
    for (what, config) in [
        ("1 door", CONFIG.to_owned()),
        ("10 000 doors", doors::many(DOORS_MAX)),
        ("10 000 users", doors::with_users(USERS, host_key.path())),
    ] {
        let mut took = Samples::default();
        for _ in 0..scale.starts {
            let net = Net::new();
            took.add(millis(start(&net, &config)?.1));
        }
        let ours = took.median();
        let row = Row::new(format!("start to protected, {what}"), ours, Unit::Millis);
        rows.push(match what {
            "10 000 users" => row.goal(Goal::at_most(ours, USERS_START_MOST_MS, Unit::Millis)),
            _ => row,
        });
    }
    let mut first = rows.remove(0);
    first = first
        .clone()
        .goal(Goal::at_most(first.ours, START_MOST_MS, Unit::Millis));
    for kind in ReceiverKind::DOORS {
        let figure = match kind.missing() {
            Some(why) => Err(why),
            None => {
                let mut took = Samples::default();
                for _ in 0..scale.starts {
                    let net = Net::new();
                    let began = Instant::now();
                    let _receiver = Receiver::start(&net, kind)?;
                    took.add(millis(began.elapsed()));
                }
                Ok(took.median())
            }
        };
        first = first.beside_or(kind.name(), figure);
    }
    rows.insert(0, first);
    Ok(rows)
}

/// Measures `knock-user reload` with the most doors that are possible.
fn reload(scale: Scale) -> Result<Row> {
    let net = Net::new();
    let all = doors::many(DOORS_MAX);
    let (running, _) = start(&net, &all)?;
    let mut took = Samples::default();
    for number in 0..scale.starts {
        // One door changes, and then changes back.
        let changed = match number % 2 {
            0 => all.replacen("open_for = \"1h\"", "open_for = \"2h\"", 1),
            _ => all.clone(),
        };
        fs::write(running.config.path(), changed).context("changing a configuration")?;
        let began = Instant::now();
        ask(&net, &["reload"])?;
        took.add(millis(began.elapsed()));
    }
    let ours = took.median();
    let row = Row::new("reload of 10 000 doors", ours, Unit::Millis);
    Ok(row.goal(Goal::at_most(ours, RELOAD_MOST_MS, Unit::Millis)))
}

/// Runs a command of a running knock-user, and returns its answer.
fn ask(net: &Net, words: &[&str]) -> Result<Value> {
    let user = binaries().user.to_string_lossy().into_owned();
    let answer = net.server.run(&user, &[words, &["--json"]].concat());
    serde_json::from_str(&answer).with_context(|| format!("knock-user answered {answer}"))
}

/// Measures memory and CPU time, idle and during a flood.
fn idle_and_flooded(scale: Scale) -> Result<Vec<Row>> {
    let ours = ProcessCosts::of(ReceiverKind::KnockUser, scale)?;
    let most = |value: f64, most: f64, unit| Goal::at_most(value, most, unit);
    let mut rows = [
        Row::new("resident memory, idle", ours.memory, Unit::MiB).goal(most(
            ours.memory,
            RESIDENT_MOST_MIB,
            Unit::MiB,
        )),
        Row::new(
            "resident memory, 1 M packets a second dropped",
            ours.flooded_memory,
            Unit::MiB,
        )
        .goal(most(ours.flooded_memory, RESIDENT_MOST_MIB, Unit::MiB)),
        Row::new("CPU, idle", ours.cpu, Unit::Percent).goal(most(
            ours.cpu,
            IDLE_MOST_PERCENT,
            Unit::Percent,
        )),
        Row::new(
            "CPU, 1 M packets a second dropped",
            ours.flooded_cpu,
            Unit::Percent,
        ),
    ];
    for kind in ReceiverKind::DOORS {
        if kind == ReceiverKind::NftRecipe {
            continue;
        }
        let theirs = match kind.missing() {
            Some(why) => Err(why),
            None => Ok(ProcessCosts::of(kind, scale)?),
        };
        let figures: [fn(&ProcessCosts) -> f64; 4] = [
            |taken| taken.memory,
            |taken| taken.flooded_memory,
            |taken| taken.cpu,
            |taken| taken.flooded_cpu,
        ];
        for (row, figure) in rows.iter_mut().zip(figures) {
            let theirs = theirs.as_ref().map(figure).map_err(Clone::clone);
            *row = row.clone().beside_or(kind.name(), theirs);
        }
    }
    let net = Net::new();
    let (running, _) = start(&net, &doors::many(DOORS_MAX))?;
    let memory = usage::resident(running.process.id())?;
    let largest = Row::new("resident memory, 10 000 doors", memory, Unit::MiB);
    Ok(rows.into_iter().chain([largest]).collect())
}

/// The memory and CPU time of a process.
#[derive(Clone, Debug)]
struct ProcessCosts {
    memory: f64,
    cpu: f64,
    flooded_memory: f64,
    flooded_cpu: f64,
}

impl ProcessCosts {
    fn of(kind: ReceiverKind, scale: Scale) -> Result<Self> {
        let net = one_queue();
        let receiver = Receiver::start(&net, kind)?;
        receive_on_one_cpu(&net)?;
        let process = receiver.process().context("there is no process")?;
        let id = process.id();
        // The work of the start must not count as idle.
        usage::cpu_share(id, Duration::from_millis(500))?;
        let cpu = usage::cpu_share(id, scale.idle)?;
        let memory = usage::resident(id)?;
        let (frame, plan) = spoofed_syns(PROTECTED);
        let flow = Generator::load()?.flow(&net, CPU, frame, plan, FLOOD)?;
        let flooded_cpu = usage::cpu_share(id, scale.idle)?;
        let flooded_memory = usage::resident(id)?;
        let sent = flow.stop()?;
        ensure!(
            sent.rate() > f64::from(FLOOD) * 0.8,
            "only {:.0} packets a second were sent: measure when the machine is idle",
            sent.rate()
        );
        Ok(Self {
            memory,
            cpu,
            flooded_memory,
            flooded_cpu,
        })
    }
}

/// A door that sources open again and again after their grants have expired.
const EVENTS: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "tcp/8000", "tcp/9000"]
    open = ["tcp/22"]
    open_for = "1s"
"#;
/// The number of packets per source, as a power of two.
const TURN: u32 = 2;
const SEQUENCE: [u16; 1 << TURN] = [7000, 8000, 9000, 9000];
/// The offset of the destination port.
const PORT_AT: u32 = 14 + 20 + 2;
/// The rates of openings that are tried, per second.
const OPENINGS: [u32; 6] = [2_000, 5_000, 10_000, 20_000, 40_000, 60_000];

/// Measures how many openings per second are reported, each with its end, without a lost event.
fn events(scale: Scale) -> Result<Row> {
    let mut kept_up = 0.0;
    let steps = if scale.quick { 2 } else { 1 };
    for openings in OPENINGS.into_iter().skip(steps - 1).step_by(steps) {
        let net = one_queue();
        let (_running, _) = start(&net, EVENTS)?;
        let (frame, plan) = spoofed_syns(SEQUENCE[0]);
        let plan = Plan {
            turn: TURN,
            port_at: PORT_AT,
            ports: (1 << TURN) - 1,
            ..plan
        };
        let mut generator = Generator::load()?;
        generator.choices(&SEQUENCE)?;
        let flow = generator.flow(&net, CPU, frame, plan, openings << TURN)?;
        // Twice as long as a grant.
        thread::sleep(scale.idle.min(Duration::from_secs(3)));
        let sent = flow.stop()?;
        let opened = count(&net, "opened")?;
        let rate = opened / sent.wall.as_secs_f64();
        if count(&net, "events-lost")? > 0.0 || rate < f64::from(openings) * 0.9 {
            break;
        }
        kept_up = rate;
    }
    Ok(Row::new(
        "openings reported per second, with their ends, none lost",
        kept_up / 1e3,
        Unit::Thousands,
    ))
}

/// Returns a counter of a running knock-user.
fn count(net: &Net, name: &str) -> Result<f64> {
    let status = ask(net, &["status"])?;
    let counters = status["counters"].as_array().into_iter().flatten();
    let mut named = counters.filter(|counter| counter["name"] == name);
    Ok(named
        .next()
        .and_then(|counter| counter["count"].as_f64())
        .unwrap_or(0.0))
}

/// Measures the size of files, and the kernel's memory.
fn sizes() -> Result<Vec<Row>> {
    let programs = binaries();
    let mut files = [
        Row::new(
            "size of knock-user",
            usage::size(&programs.user)?,
            Unit::MiB,
        ),
        Row::new(
            "size of knock-client",
            usage::size(&programs.client)?,
            Unit::MiB,
        ),
    ];
    for (row, peers) in files
        .iter_mut()
        .zip([["knockd", "fwknopd"], ["knock", "fwknop"]])
    {
        for peer in peers {
            let size = usage::program(peer).map(|path| usage::size(&path));
            let size = size.transpose()?.ok_or_else(|| "not installed".to_owned());
            *row = row.clone().beside_or(peer, size);
        }
    }
    let object = size_of_val(object()?.as_slice()) as f64 / 1024.0;
    let (one, all) = (memory(CONFIG)?, memory(&doors::many(DOORS_MAX))?);
    let maps = Row::new("memory of all maps, 10 000 doors", all, Unit::MiB).beside("1 door", one);
    let object = Row::new("size of the kernel object", object, Unit::KiB);
    Ok(files.into_iter().chain([object, maps]).collect())
}

fn memory(config: &str) -> Result<f64> {
    let mut kernel = Kernel::with(&compile(config)?, LoadOptions::default())?;
    let bytes: u64 = kernel.memory()?.iter().map(|(_, bytes)| bytes).sum();
    Ok(bytes as f64 / f64::from(1 << 20))
}
