//! Makes the disk of the machine and the initramfs that mounts it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::Shell;

use crate::{
    shell,
    vm::{image::RootImage, kernel::KernelPackage},
};

/// The directories beside the pristine system.
const PARTS: [&str; 3] = ["added", "mounted", "initramfs"];

/// The modules that the initramfs needs to mount the disk.
const TO_MOUNT: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "crc32c_generic",
    "crc32c-intel",
    "ext4",
];

/// The modules that the system loads: drivers of its cards, and the lists of sockets that knock-user reads.
const TO_RUN: [&str; 9] = [
    "virtio_net",
    "e1000e",
    "vmxnet3",
    "virtio_console",
    "virtio_rng",
    "tcp_diag",
    "udp_diag",
    "veth",
    "autofs4",
];

/// Makes the disk of a pristine system, with packages in `/root`; returns its path. It is not enlarged later.
///
/// # Errors
/// A file can't be written, or a program fails.
pub(super) fn make(
    sh: &Shell,
    base: &Path,
    root: &Path,
    kernels: &[KernelPackage],
    packages: &[PathBuf],
) -> Result<PathBuf> {
    let added = base.join("added");
    let image = RootImage::new(sh, &added, &["root"])?;
    for package in packages {
        let name = package.file_name().unwrap_or_default();
        image.copy(package, &Path::new("root").join(name))?;
    }
    // Since `/lib` is a link in Debian, and a directory would hide it.
    let below_usr = RootImage::new(sh, &added.join("usr"), &[])?;
    for kernel in kernels {
        below_usr.modules(kernel, &TO_RUN)?;
    }
    let place = base.join("mounted");
    for part in ["upper", "work", "merged"] {
        let directory = place.join(part);
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("removing {}", directory.display()))?;
        }
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
    }
    let disk = base.join("disk.img");
    let script = sh
        .cmd("unshare")
        .args(["--mount", "--propagation", "private"])
        .args(["sh", "-euc", include_str!("disk.sh"), "disk"])
        .args([root, &added, &place, &disk]);
    shell::run_quietly("making the machine's disk", script)?;
    Ok(disk)
}

/// Packs the initramfs of all kernels; returns its path.
///
/// # Errors
/// A file can't be written, or a program fails.
pub(super) fn initramfs(sh: &Shell, base: &Path, kernels: &[KernelPackage]) -> Result<PathBuf> {
    let directories = ["proc", "sys", "dev", "root", "sbin"];
    let image = RootImage::new(sh, &base.join("initramfs"), &directories)?;
    let busybox = shell::find_program("busybox").context("no busybox")?;
    image.program(&busybox, "bin/busybox")?;
    for kernel in kernels {
        image.modules(kernel, &TO_MOUNT)?;
    }
    image.file("init", include_str!("init.sh"))?;
    image.pack()
}

/// Removes disks, with the states of machines that tests stored in them, and what they were made of. The pristine
/// system stays, and what machines printed.
///
/// # Errors
/// A file can't be removed.
pub(super) fn remove(base: &Path) -> Result<()> {
    let reading = || format!("reading {}", base.display());
    for entry in fs::read_dir(base).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let is_disk = path
            .extension()
            .is_some_and(|is| is == "img" || is == "qcow2" || is == "cpio");
        let removed = if is_disk {
            fs::remove_file(&path)
        } else if PARTS.iter().any(|part| path.ends_with(part)) {
            fs::remove_dir_all(&path)
        } else {
            Ok(())
        };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
