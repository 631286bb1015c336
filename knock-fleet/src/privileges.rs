//! Drops all privileges that the daemon may have: this process talks to the network.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use nix::sys::prctl;

/// Drops all capabilities, for good: not even a set-user-id program regains them.
///
/// Capabilities belong to threads, and a new thread inherits them: call this before a second thread.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn drop_all() -> Result<()> {
    prctl::set_no_new_privs().context("the kernel refuses to set no_new_privs")?;
    let effective = caps::read(None, CapSet::Effective).context("reading the capabilities")?;
    if effective.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding).context("clearing the bounding set")?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).with_context(|| format!("clearing the {set:?} capabilities"))?;
    }
    Ok(())
}
