//! Reads the memory and CPU time of processes, and the size of files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

const MIB: f64 = (1 << 20) as f64;

/// Returns the resident memory of a process, in MiB.
pub fn resident(id: u32) -> Result<f64> {
    let path = format!("/proc/{id}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    Ok(kilobytes.with_context(|| format!("{path} has no VmRSS"))? / 1024.0)
}

/// Returns the CPU time that a process has used.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(id: u32) -> Result<Duration> {
    let tasks = format!("/proc/{id}/task");
    let mut nanos = 0;
    for task in fs::read_dir(&tasks)
        .with_context(|| tasks.clone())?
        .flatten()
    {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += text
            .split(' ')
            .next()
            .and_then(|nanos| nanos.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Returns the share of a CPU that a process takes during a while, in percent.
pub fn cpu_share(id: u32, during: Duration) -> Result<f64> {
    let (began, before) = (Instant::now(), cpu_time(id)?);
    // The sleep is the interval of the measurement.
    std::thread::sleep(during);
    // A thread that has ended meanwhile is no longer in the sum.
    let spent = cpu_time(id)?.saturating_sub(before);
    Ok(spent.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
}

/// Returns the size of a file, in MiB.
pub fn size(path: &Path) -> Result<f64> {
    let file = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(file.len() as f64 / MIB)
}

/// Returns the path of a program, searched on `PATH` and in the directories for root.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
