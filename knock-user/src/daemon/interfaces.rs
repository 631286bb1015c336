//! Follows changes of interfaces, and reports how each is protected.

use std::io::Write;

use anyhow::Result;
use knock_common::layout::FlowKey;

use super::state::Daemon;
use crate::{
    console::NamedInterface,
    host::clock,
    interfaces::{admission::Refusal, attach::Attached},
};

impl<W: Write> Daemon<W> {
    /// Attaches to interfaces that have become available, and reports what changed.
    pub(super) fn follow_interfaces(&mut self) -> Result<()> {
        let followed = self.protection.follow_interfaces()?;
        self.console.set_interfaces(followed.names);
        let is_changed = !followed.attached.is_empty()
            || !followed.gone.is_empty()
            || !followed.moved.is_empty()
            || !followed.refused.is_empty();
        if is_changed {
            self.notify_state();
        }
        if let Some(because) = followed.unpinned {
            tracing::warn!(
                "nothing can be pinned, so the protection ends with this process: {because}"
            );
        }
        if followed.is_pinned_again {
            tracing::warn!("everything is pinned again: the protection outlives this process");
        }
        let at_ns = clock::boot_ns();
        for interface in followed.gone {
            self.console.gone(&interface, at_ns);
        }
        for interface in followed.moved {
            self.console.moved(&self.ports, &interface, at_ns);
        }
        for (old, now) in followed.renamed {
            let lasts = match self.protection.registry().interfaces.contains(&now) {
                true => String::new(),
                false => format!(
                    " until another interface is named {old}; to keep it protected, write {now} in \
                     `interfaces` and reload"
                ),
            };
            tracing::warn!("{old} was renamed to {now} and stays protected{lasts}");
        }
        for interface in followed.released {
            self.console.detached(&self.ports, &interface, at_ns);
        }
        for interface in followed.lost {
            self.console.lost(&interface, at_ns);
        }
        for (interface, programs) in followed.behind {
            self.console.preceded(&interface, &programs, at_ns);
        }
        for interface in followed.first_again {
            tracing::warn!("no other program runs before knock-user's on {interface} any more");
        }
        self.report_refused(followed.refused);
        self.report_protecting(followed.attached);
        if self.failures != followed.failures {
            for failure in &followed.failures {
                tracing::warn!("{failure}");
            }
            self.failures = followed.failures;
        }
        Ok(())
    }

    /// Reports interfaces that the program was attached to.
    pub(super) fn report_protecting(&mut self, attached: Vec<Attached>) {
        for Attached {
            interface,
            now,
            mode,
            because,
            ..
        } in attached
        {
            let interface = NamedInterface {
                asked_for: &interface,
                now: now.as_deref(),
            };
            if let Some(because) = because {
                self.console
                    .fallback(interface, mode, &because, clock::boot_ns());
            }
            self.console
                .protecting(&self.ports, interface, mode, clock::boot_ns());
        }
    }

    /// Reports interfaces that can't be protected, with the reason.
    pub(super) fn report_refused(&mut self, refused: Vec<(String, Refusal)>) {
        for (name, refusal) in refused {
            self.console.refused(&name, &refusal, clock::boot_ns());
        }
    }

    /// Reports connections from before the start: they continue if `keep` is set.
    pub(super) fn report_found(&mut self, found: &[FlowKey]) {
        if self.run.dry_run || self.plan.settings().established.keep {
            self.console.kept(found, clock::boot_ns());
        } else if !found.is_empty() {
            tracing::warn!(
                "{} connections to protected ports stop until their source knocks: \
                 [established] keep = false",
                found.len()
            );
        }
    }
}
