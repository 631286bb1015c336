//! The file system for pins: mounted where it is not, and given to an ordinary user.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper of a test fails with the test"
)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, thread};

use caps::CapSet;
use knock_tests::namespace::run;
use knock_user::{
    host::paths::MOUNT_POINT,
    kernel::bpffs::{self, DIRECTORY},
};
use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::{Gid, Uid, chown, setfsuid},
};

const NOBODY: Uid = Uid::from_raw(65_534);

const OTHERS: Gid = Gid::from_raw(65_534);

#[test]
fn a_missing_bpffs_is_mounted() {
    without_bpffs(|| {
        let directory = Path::new(DIRECTORY).join("v1/eth0");
        assert!(bpffs::ensure(&directory).unwrap(), "mounts it");
        assert!(is_mounted());
        assert_eq!(mode(MOUNT_POINT), 0o700);
        assert_eq!(mode(DIRECTORY), 0o700);
        assert!(directory.is_dir());
        assert!(!bpffs::ensure(&directory).unwrap(), "it is there");
        umount(MOUNT_POINT).unwrap();
        assert!(!is_mounted(), "it was mounted once");
    });
}

#[test]
fn concurrent_starts_mount_it_once() {
    without_bpffs(|| {
        let count = thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| bpffs::ensure(Path::new(DIRECTORY)).unwrap()))
                .collect();
            let mounted = starts.into_iter().map(|start| start.join().unwrap());
            mounted.filter(|&mounted| mounted).count()
        });
        assert_eq!(count, 1, "how many report that they mounted it");
        umount(MOUNT_POINT).unwrap();
        assert!(!is_mounted(), "it was mounted once");
    });
}

#[test]
fn the_cure_for_an_ordinary_user_works() {
    without_bpffs(|| {
        let directory = Path::new(DIRECTORY);
        let refused = || as_nobody(|| format!("{:#}", bpffs::ensure(directory).unwrap_err()));
        // Root without the right to mount, and an ordinary user.
        let output = refused();
        for word in ["CAP_SYS_ADMIN", "sudo mount -t bpf bpf /sys/fs/bpf"] {
            assert!(output.contains(word), "no {word:?} in: {output}");
        }
        run_suggested_commands(&output);
        assert!(is_mounted(), "{output}");
        // The user nobody is not in root's group, but this thread is.
        chown(MOUNT_POINT, None, Some(OTHERS)).unwrap();

        let output = refused();
        assert!(output.contains("sudo install -d"), "{output}");
        run_suggested_commands(&output);
        assert!(!as_nobody(|| bpffs::ensure(directory)).unwrap());
        assert!(!as_nobody(|| bpffs::ensure(&directory.join("v1"))).unwrap());

        fs::set_permissions(DIRECTORY, fs::Permissions::from_mode(0o500)).unwrap();
        assert!(refused().contains("sudo install -d"), "not writable");
    });
}

/// Runs a test in a thread with mounts of its own, without any bpffs.
fn without_bpffs(test: impl FnOnce() + Send) {
    let apart = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        while is_mounted() {
            umount(MOUNT_POINT).unwrap();
        }
        test();
    };
    in_a_thread(apart);
}

/// Runs `work` in a thread of its own, whose changes of its rights end with it.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    in_a_thread(|| {
        // Only of this thread, unlike the other identities.
        setfsuid(NOBODY);
        caps::clear(None, CapSet::Effective).unwrap();
        work()
    })
}

fn is_mounted() -> bool {
    statfs(MOUNT_POINT).unwrap().filesystem_type() == BPF_FS_MAGIC
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Runs the commands at the end of an error.
fn run_suggested_commands(output: &str) {
    let (_why, commands) = output.split_once("): ").unwrap();
    // Its owner is root here, since only this thread's rights to files are those of nobody.
    let commands = commands
        .split(", and then")
        .next()
        .unwrap()
        .replace("sudo ", "")
        .replace("-o root", &format!("-o {NOBODY}"));
    run(Command::new("sh").args(["-ec", &commands]));
}
