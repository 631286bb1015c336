//! Runs a kernel and an initramfs in QEMU, and reads its serial line.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell};

use super::{
    kernel::KernelPackage,
    outcome::ConsoleLog,
    qemu::{Processor, Qemu},
};
use crate::shell;

/// After this time a machine hangs. On two cores without KVM, all suites take some minutes, and a quarter of an hour
/// beside many builds.
const LIMIT: Duration = Duration::from_secs(1_800);
/// With KVM, a machine is up in a second.
const PROBE_LIMIT: Duration = Duration::from_secs(8);
/// The output of `vm/init.sh` when it only has to print a line.
const ALIVE: &str = "machine: alive";

/// Two cards of each driver whose behaviour is tested, which a cable connects. No card has a way out of the
/// machine.
#[rustfmt::skip]
const CARDS: [&str; 16] = [
    "-netdev", "hubport,id=v0,hubid=0", "-device", "virtio-net-pci,netdev=v0",
    "-netdev", "hubport,id=v1,hubid=0", "-device", "virtio-net-pci,netdev=v1",
    "-netdev", "hubport,id=w0,hubid=1", "-device", "vmxnet3,netdev=w0",
    "-netdev", "hubport,id=w1,hubid=1", "-device", "vmxnet3,netdev=w1",
];

/// The execution of the machine's instructions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By QEMU.
    Emulation,
}

impl Accelerator {
    const fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            // All processors in one thread. With a thread each, QEMU 7.2 continues with code that
            // another processor has changed: an interface gets another program while packets come,
            // and the kernel meets a breakpoint that is no longer there (`bpf_dispatcher_xdp_func`).
            Self::Emulation => "tcg,thread=single",
        }
    }
}

/// Chooses KVM where a machine comes up with it. A device `/dev/kvm` proves nothing: inside some
/// virtual machines it is there, and what runs with it hangs.
pub(super) fn accelerator(
    sh: &Shell,
    qemu: &Qemu,
    kernels: &[KernelPackage],
    image: &Path,
) -> Result<Accelerator> {
    let may = File::options().write(true).open("/dev/kvm").is_ok();
    let (true, Some(kernel)) = (may, kernels.first()) else {
        println!("kernels: no KVM here, QEMU emulates");
        return Ok(Accelerator::Emulation);
    };
    let machine = Machine {
        processor: Processor::Amd64,
        qemu,
        kernel,
        image,
        accelerator: Accelerator::Kvm,
    };
    let probe = machine.command(sh, PROBE_LIMIT, "knock.probe").quiet();
    let banner = probe.ignore_status().ignore_stderr().output();
    let banner = banner.context("running QEMU")?.stdout;
    if String::from_utf8_lossy(&banner).contains(ALIVE) {
        println!("kernels: with KVM");
        return Ok(Accelerator::Kvm);
    }
    println!("kernels: nothing comes up with KVM here, QEMU emulates");
    Ok(Accelerator::Emulation)
}

/// The machine to boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'a> {
    pub(super) processor: Processor,
    pub(super) qemu: &'a Qemu,
    pub(super) kernel: &'a KernelPackage,
    pub(super) image: &'a Path,
    pub(super) accelerator: Accelerator,
}

impl Machine<'_> {
    /// Boots it, shows its output, and waits for its end.
    pub(super) fn run(&self, sh: &Shell) -> Result<ConsoleLog> {
        let start = Instant::now();
        let mut log = ConsoleLog::default();
        let cmd = self.command(sh, LIMIT, "");
        let what = format!("kernel {}", self.kernel.release());
        log.exited_well = shell::watch(&what, cmd, |line| log.line(line))?.passed;
        log.took = start.elapsed();
        log.timed_out = log.took >= LIMIT;
        Ok(log)
    }

    /// Returns the command. A panic ends the machine (`panic=-1`, `-no-reboot`), and so does an oops. Lesser messages
    /// of the kernel are not printed, so that they don't mix with the output of the suites. On a busy host the kernel's
    /// check of its timer would fail and be a panic, so there is none.
    fn command<'a>(&self, sh: &'a Shell, limit: Duration, append: &str) -> Cmd<'a> {
        let limit = limit.as_secs().to_string();
        let timeout = sh
            .cmd("timeout")
            // In this process group, so that Ctrl-C ends it too.
            .args(["--foreground", "--kill-after=5", &limit]);
        let (processor, cards, console) = match self.processor {
            Processor::Amd64 => (&["-cpu", "max"][..], &CARDS[..], "ttyS0"),
            // A simple one: the newest has pointer authentication, which takes most of the time to emulate.
            Processor::Arm64 => (
                &["-machine", "virt", "-cpu", "cortex-a57"][..],
                &[][..],
                "ttyAMA0",
            ),
        };
        self.qemu
            .add_to(timeout)
            .args(["-accel", self.accelerator.option()])
            .args(processor)
            .args(["-smp", "2", "-m", "1024"])
            .args(["-nodefaults", "-no-reboot", "-display", "none"])
            // Not `stdio`, which would take the terminal's input and change its modes.
            .args(["-serial", "file:/dev/stdout"])
            .args(cards)
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(self.image)
            .arg("-append")
            .arg(format!(
                "console={console} loglevel=2 oops=panic panic=-1 no_timer_check {append}"
            ))
    }
}
