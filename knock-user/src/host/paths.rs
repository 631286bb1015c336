//! Where this program keeps things on a host.

/// Where systemd mounts it, and everybody looks for it.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";
/// Where the files of all instances are.
pub const RUN: &str = "/run/knock";
