//! knockd, with the door of the README and a set of nftables for it to open.

use std::process::Command;

use anyhow::{Context as _, Result};
use knock_tests::{
    net::{Net, SERVER_LINK},
    process::Process,
    wait,
};
use tempfile::TempDir;

/// A running knockd.
#[derive(Debug)]
pub struct Knockd {
    /// The process.
    pub process: Process,
    _directory: TempDir,
}

/// Starts it in the server's namespace.
///
/// # Errors
/// Its files can't be written.
///
/// # Panics
/// It does not listen.
pub fn start(net: &Net) -> Result<Knockd> {
    let directory = tempfile::tempdir().context("making a directory for knockd")?;
    let config = directory.path().join("knockd.conf");
    let log = directory.path().join("log");
    let text = format!(
        "[options]\n\
         LogFile = {}\n\
         [ssh]\n\
         sequence = 7000:tcp,8000:udp,9000:tcp\n\
         seq_timeout = 25\n\
         tcpflags = syn\n\
         start_command = nft add element inet knock clients {{ %IP% timeout 30s }}\n",
        log.display()
    );
    std::fs::write(&config, text).context("writing knockd.conf")?;
    let mut command = Command::new("knockd");
    command.args(["-i", SERVER_LINK, "-c"]).arg(&config);
    command.arg("-p").arg(directory.path().join("pid"));
    let process = Process::start(&net.server, &mut command);
    wait::until("knockd listens", || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("listening"))
    });
    Ok(Knockd {
        process,
        _directory: directory,
    })
}
