//! Programs of other owners on an interface.

use std::{path::PathBuf, process::Command};

use crate::{namespace::Namespace, process::Process, wait};

/// Attaches a program of another owner, which always returns `verdict`, to an interface until it is stopped. `place` is
/// `tcx` (before all others at the ingress), `native` or `skb`.
///
/// # Panics
/// The kernel or Python refuses.
#[track_caller]
pub fn attach(namespace: &Namespace, place: &str, interface: &str, verdict: &str) -> Process {
    let mut command = Command::new("python3");
    command
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("oracle/other_program.py"))
        .args([place, interface, verdict]);
    let other = Process::start(namespace, &mut command);
    wait::until("the program of another owner is attached", || {
        other.stdout() == ["ready"]
    });
    other
}
