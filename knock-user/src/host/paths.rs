//! Paths of this program on a host.

/// The mount point of bpffs that systemd and all BPF tools use.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";
/// The directory of the files of all instances.
pub const RUN: &str = "/run/knock";
