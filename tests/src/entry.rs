//! The entries of the kernel object, and how each judges a frame in a test run.

use std::{env, fs::File, thread};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    programs::{
        ProgramError, ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult,
        Xdp, XdpMode,
    },
};
use knock_common::{
    Verdict,
    bare::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    packet,
};
use nix::sched::{CloneFlags, unshare};

/// The variable that chooses the entry of tests which do not.
pub const ENTRY: &str = "KNOCK_ENTRY";
/// The loopback interface of a new network namespace.
const LOOPBACK: u32 = 1;
/// What XDP programs return (`linux/bpf.h`).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// What classifiers return (`linux/pkt_cls.h`); the first is -1.
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
/// The size of `struct __sk_buff` in bytes. An empty one makes the kernel set lengths as for a received packet.
const CONTEXT: usize = 192;

/// A program of the kernel object that judges packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// Frames with an Ethernet header at XDP.
    Xdp,
    /// Packets that begin with the IP header at XDP.
    Bare,
    /// Frames with an Ethernet header at TC ingress.
    Tc,
    /// Packets that begin with the IP header at TC ingress.
    Ip,
}

impl Entry {
    /// All entries.
    pub const ALL: [Self; 4] = [Self::Xdp, Self::Bare, Self::Tc, Self::Ip];

    /// Returns the entry whose name is in `KNOCK_ENTRY`, by default that at XDP.
    ///
    /// # Errors
    /// No entry has this name.
    pub fn chosen() -> Result<Self> {
        let Some(name) = env::var_os(ENTRY) else {
            return Ok(Self::Xdp);
        };
        let entry = Self::ALL.into_iter().find(|entry| name == entry.name());
        entry.with_context(|| format!("{ENTRY}: no entry has the name {}", name.display()))
    }

    /// Returns the name of the program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "knock",
            Self::Bare => "knock_bare",
            Self::Tc => "knock_tc",
            Self::Ip => "knock_ip",
        }
    }

    /// Returns whether the program reads packets without an Ethernet header.
    pub const fn is_bare(self) -> bool {
        match self {
            Self::Bare | Self::Ip => true,
            Self::Xdp | Self::Tc => false,
        }
    }

    /// Returns whether the program sends answers.
    pub const fn answers(self) -> bool {
        match self {
            Self::Xdp | Self::Tc | Self::Ip => true,
            Self::Bare => false,
        }
    }

    /// Returns what the entry judges of a frame: all of it, or the packet in it; `None` if there is no IP packet, or if
    /// a test run can't have it.
    pub fn input(self, frame: &[u8]) -> Option<&[u8]> {
        let input = match self.is_bare() {
            true => frame.get(packet::network(frame)?.0..)?,
            false => frame,
        };
        let is_runnable = match self {
            Self::Xdp | Self::Bare => true,
            Self::Tc => is_accepted_at_tc(input),
            Self::Ip => is_accepted_at_tc(input) && is_itself_at_tc(input),
        };
        is_runnable.then_some(input)
    }

    /// Loads the program, unless it is loaded.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(self, ebpf: &mut Ebpf) -> Result<()> {
        let name = self.name();
        let loaded = match self {
            Self::Xdp | Self::Bare => xdp(ebpf, name)?.load(),
            Self::Tc | Self::Ip => classifier(ebpf, name)?.load(),
        };
        match loaded {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("loading {name}")),
        }
    }

    /// Attaches the program where a test run of it would take long otherwise: see [`attach_nowhere`].
    ///
    /// # Errors
    /// See [`attach_nowhere`].
    pub fn attach(self, ebpf: &mut Ebpf) -> Result<Option<File>> {
        match self {
            Self::Xdp | Self::Bare => attach_nowhere(xdp(ebpf, self.name())?).map(Some),
            Self::Tc | Self::Ip => Ok(None),
        }
    }

    /// Returns what the kernel reports about the loaded program.
    ///
    /// # Errors
    /// It is not loaded.
    pub fn info(self, ebpf: &mut Ebpf) -> Result<ProgramInfo> {
        Ok(match self {
            Self::Xdp | Self::Bare => xdp(ebpf, self.name())?.info()?,
            Self::Tc | Self::Ip => classifier(ebpf, self.name())?.info()?,
        })
    }

    /// Judges what [`Entry::input`] returned `times` times; returns the last verdict and the length of `out`.
    ///
    /// # Errors
    /// The kernel refuses the packet.
    pub fn run(
        self,
        ebpf: &mut Ebpf,
        packet: &[u8],
        out: Option<&mut [u8]>,
        times: u32,
    ) -> Result<(Verdict, usize)> {
        let context = [0; CONTEXT];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: out,
            repeat: times,
            ..TestRunOptions::new()
        };
        let name = self.name();
        let run: TestRunResult = match self {
            Self::Xdp | Self::Bare => xdp(ebpf, name)?.test_run(options)?,
            Self::Tc | Self::Ip => classifier(ebpf, name)?.test_run(TestRunOptions {
                ctx_in: Some(&context),
                ..options
            })?,
        };
        let verdict = self.verdict(run.return_value)?;
        Ok((verdict, usize::try_from(run.data_size_out)?))
    }

    /// Returns the meaning of a return value.
    ///
    /// # Errors
    /// The program returns no such value.
    pub fn verdict(self, returned: u32) -> Result<Verdict> {
        match (self, returned) {
            (Self::Xdp | Self::Bare, XDP_DROP) | (Self::Tc | Self::Ip, TC_ACT_SHOT) => {
                Ok(Verdict::Drop)
            }
            (Self::Xdp | Self::Bare, XDP_PASS) | (Self::Tc | Self::Ip, TC_ACT_UNSPEC) => {
                Ok(Verdict::Pass)
            }
            (Self::Xdp | Self::Bare, XDP_TX) | (Self::Tc | Self::Ip, TC_ACT_REDIRECT) => {
                Ok(Verdict::Answer)
            }
            (entry, other) => bail!("the program {} returned {other}", entry.name()),
        }
    }
}

/// The offset of the EtherType in an Ethernet header, and the length of that.
const ETHERTYPE: usize = 12;
const ETHERNET_HEADER: usize = 14;

/// Returns whether the kernel accepts a packet for a test run at TC: whatever is behind the first 14 octets has to have
/// room for the IP header whose type they state (`bpf_prog_test_run_skb`).
fn is_accepted_at_tc(input: &[u8]) -> bool {
    let least = match input.get(ETHERTYPE..ETHERNET_HEADER) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        Some(_) | None => 1,
    };
    input.len() >= ETHERNET_HEADER + least
}

/// Returns whether a test run at TC takes a packet without an Ethernet header for what it is. It reads the type where a
/// frame has it, which is in the source address here, and whether the packet is for a group from the first octet.
fn is_itself_at_tc(packet: &[u8]) -> bool {
    let (Some(&first), Some(stated)) = (packet.first(), packet.get(ETHERTYPE..ETHERNET_HEADER))
    else {
        return false;
    };
    let ethertype = match first >> 4 {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => return false,
    };
    first & 1 == 0 && stated == ethertype.to_be_bytes()
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| missing(name))?;
    Ok(program.try_into()?)
}

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| missing(name))?;
    Ok(program.try_into()?)
}

fn missing(name: &str) -> String {
    format!("the kernel object has no program {name}")
}

/// Attaches a program to an interface that receives no packets, until the file is closed.
///
/// A program that is attached nowhere has to be made callable for each test run, and taken back
/// afterwards, which waits for all CPUs twice: 10 ms instead of microseconds
/// (`bpf_dispatcher_change_prog`).
///
/// # Errors
/// This process lacks the right, or the kernel refuses.
pub fn attach_nowhere(program: &mut Xdp) -> Result<File> {
    let attach = || {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        let namespace = File::open("/proc/thread-self/ns/net")?;
        program
            .attach_to_if_index(LOOPBACK, XdpMode::Skb)
            .context("attaching to its loopback interface")?;
        Ok(namespace)
    };
    // The thread takes the namespace with it, so the test stays in its own.
    thread::scope(|scope| scope.spawn(attach).join())
        .map_err(|_| anyhow!("the thread that attaches panicked"))?
}
