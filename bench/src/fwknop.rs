//! fwknopd, with a set of nftables for it to open: one packet instead of a sequence.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use knock_tests::{
    namespace::Namespace,
    net::{Net, SERVER_LINK},
    process::Process,
    wait,
};
use tempfile::TempDir;

/// The port that its packets go to.
pub const PORT: u16 = 62_201;

/// Where it gets its packets from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FwknopdMode {
    /// It sniffs, its default.
    Pcap,
    /// A UDP socket (`-U`).
    Udp,
}

/// Whether it remembers used packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DigestCache {
    /// In a file, its default.
    File,
    /// Not at all, where no packet is sent twice: the file takes time.
    Off,
}

/// Keys of a client, in the files of client and server.
#[derive(Debug)]
pub struct FwknopKeys {
    directory: TempDir,
    lines: String,
}

/// A running fwknopd.
#[derive(Debug)]
pub struct Fwknopd {
    /// The process.
    pub process: Process,
    /// The keys of its client.
    pub keys: FwknopKeys,
}

/// Starts it in the server's namespace.
///
/// # Errors
/// Its files can't be written.
///
/// # Panics
/// It does not listen.
pub fn start(net: &Net, mode: FwknopdMode, cache: DigestCache) -> Result<Fwknopd> {
    let keys = FwknopKeys::new()?;
    let at = |name: &str| keys.directory.path().join(name);
    let here = keys.directory.path().display();
    let digests = match cache {
        DigestCache::File => 'Y',
        DigestCache::Off => 'N',
    };
    write_private(
        &at("fwknopd.conf"),
        &format!(
            "PCAP_INTF {SERVER_LINK};\nENABLE_PCAP_PROMISC N;\nENABLE_DIGEST_PERSISTENCE {digests};\n\
             FWKNOP_RUN_DIR {here};\nFWKNOP_CONF_DIR {here};\n"
        ),
    )?;
    write_private(
        &at("access.conf"),
        &format!(
            "SOURCE ANY\n{}FW_ACCESS_TIMEOUT 30\n\
             CMD_CYCLE_OPEN nft add element inet knock clients {{ $IP timeout 30s }}\n\
             CMD_CYCLE_CLOSE NONE\n",
            keys.lines
        ),
    )?;
    let mut command = Command::new("fwknopd");
    command.args(["-f", "-i", SERVER_LINK, "-c"]);
    command
        .arg(at("fwknopd.conf"))
        .arg("-a")
        .arg(at("access.conf"));
    if mode == FwknopdMode::Udp {
        command.arg("-U");
    }
    let process = Process::start(&net.server, &mut command);
    wait::until("fwknopd listens", || {
        let output = process.stderr() + &process.stdout().join("\n");
        output.contains("main event loop") || output.contains("Kicking off UDP server")
    });
    Ok(Fwknopd { process, keys })
}

impl FwknopKeys {
    /// Draws keys.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for keys of fwknop")?;
        let lines = format!("KEY_BASE64 {}\nHMAC_KEY_BASE64 {}\n", key(), key());
        let keys = Self { directory, lines };
        write_private(
            &keys.directory.path().join("rc"),
            &format!("[default]\n{}USE_HMAC Y\n", keys.lines),
        )?;
        write_private(&keys.file(), &keys.lines)?;
        Ok(keys)
    }

    /// Returns the key file of a user of `knock-user`.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("client.fwknop")
    }

    /// Returns a packet of the stock client, which asks to let a source in.
    ///
    /// # Errors
    /// The packet was not written.
    pub fn packet(&self, client: &Namespace, source: &str) -> Result<Vec<u8>> {
        let file = self.directory.path().join(format!("packet-{source}"));
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let rc = self.directory.path().join("rc");
        let arguments = [
            "-A",
            "tcp/22",
            "-a",
            source,
            "-D",
            "192.0.2.2",
            "-n",
            "default",
        ];
        let files = [
            "--test",
            "--save-packet",
            &path(&file),
            "--rc-file",
            &path(&rc),
        ];
        client.run("fwknop", &[&arguments[..], &files].concat());
        let packet = fs::read_to_string(&file).context("reading the packet of fwknop")?;
        Ok(packet.trim_end().as_bytes().to_vec())
    }
}

fn write_private(path: &PathBuf, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn key() -> String {
    let random: [u8; 20] = rand::random();
    let digits: Vec<_> = random.iter().map(|octet| format!("{octet:02x}")).collect();
    // Hexadecimal digits are base64 too: of a key of 30 octets, and 32 are the most.
    digits.concat()
}
