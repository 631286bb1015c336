//! Attaches the program that this process has loaded.

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, links::FdLink};

use super::{Attached, Moved, attach, move_over, replace, switch, through_tc};
use crate::{
    host::interface::{FirstHeader, Interface},
    interfaces::admission::Ways,
    kernel::{
        barrier,
        instance::Instance,
        program::{INCOMPLETE, PinnedPrograms, XdpProgram},
    },
    model::attach_mode::AttachMode,
};

impl XdpProgram {
    /// Attaches the program to an interface that has none, and pins the link under the configured
    /// name. Returns the link if it can't be pinned because bpffs is gone.
    ///
    /// # Errors
    /// As for [`attach`].
    pub fn attach(
        &mut self,
        asked_for: &str,
        interface: &Interface,
        ways: &Ways,
        instance: &Instance,
    ) -> Result<(Attached, Option<FdLink>)> {
        let done = attach(self, asked_for, interface, ways, instance)?;
        self.warn_of_answers(done.0.mode, interface)?;
        Ok(done)
    }

    /// Switches the pinned link of a configured name to this program, in one step.
    ///
    /// # Errors
    /// As for [`replace`].
    pub fn replace(
        &mut self,
        asked_for: &str,
        interface: &Interface,
        mode: AttachMode,
        instance: &Instance,
    ) -> Result<Attached> {
        let attached = replace(self, asked_for, interface, mode, instance)?;
        self.warn_of_answers(attached.mode, interface)?;
        Ok(attached)
    }

    /// Changes the attach mode of an interface; none if it has the best one that works.
    ///
    /// # Errors
    /// As for [`move_over`] and [`switch`], or the barrier can't be attached.
    pub fn change_mode(
        &mut self,
        asked_for: &str,
        interface: &Interface,
        current: AttachMode,
        ways: &Ways,
        instance: &Instance,
    ) -> Result<Option<Attached>> {
        let moved = move_over(self, asked_for, interface, current, ways, instance)?;
        let attached = match moved {
            Moved::Stays => return Ok(None),
            Moved::Done(attached) => attached,
            Moved::NeedsBarrier if through_tc::is_possible(&*self, interface) => {
                through_tc::move_through_tc(self, asked_for, interface, current, ways, instance)?
            }
            Moved::NeedsBarrier => {
                self.shut_barrier(interface, instance)?;
                switch(self, asked_for, interface, current, ways, instance)?
            }
        };
        self.warn_of_answers(attached.mode, interface)?;
        Ok(Some(attached))
    }

    /// Changes the attach mode of the pinned program, which runs in place of this one.
    ///
    /// # Errors
    /// As for [`XdpProgram::change_mode`].
    pub fn change_mode_back(
        &mut self,
        asked_for: &str,
        interface: &Interface,
        current: AttachMode,
        ways: &Ways,
        instance: &Instance,
    ) -> Result<()> {
        let mut pinned = PinnedPrograms::committed(instance);
        match move_over(&mut pinned, asked_for, interface, current, ways, instance)? {
            Moved::Stays | Moved::Done(_) => {}
            Moved::NeedsBarrier if through_tc::is_possible(&pinned, interface) => {
                through_tc::move_through_tc(
                    &mut pinned,
                    asked_for,
                    interface,
                    current,
                    ways,
                    instance,
                )?;
            }
            Moved::NeedsBarrier => {
                self.shut_barrier(interface, instance)?;
                switch(&mut pinned, asked_for, interface, current, ways, instance)?;
            }
        }
        Ok(())
    }

    fn shut_barrier(&mut self, interface: &Interface, instance: &Instance) -> Result<()> {
        let name = &interface.name;
        barrier::shut(self.barrier()?, interface, instance).with_context(|| {
            format!(
                "{name} can't change its mode without a moment in which its ports are open, and the \
                 barrier for that moment can't be attached. Keep the mode, or accept that moment: \
                 `knock-user detach`, then start again"
            )
        })
    }

    /// Returns the program of the barrier.
    fn barrier(&mut self) -> Result<&mut SchedClassifier> {
        let barrier = self
            .ebpf()
            .program_mut(barrier::PROGRAM)
            .context(INCOMPLETE)?;
        Ok(barrier.try_into()?)
    }

    fn warn_of_answers(&self, mode: AttachMode, interface: &Interface) -> Result<()> {
        if !self.answers() {
            return Ok(());
        }
        let warning = match (mode, interface.first_header()) {
            (AttachMode::Native, _) => interface.keeps_answers()?,
            (AttachMode::Generic, FirstHeader::Ip) => Some(format!(
                "the program sends no answers on {} in mode {}: doors with `verify = \"handshake\"` can't be \
                 opened through it, and no client gets a reply; take `mode = \"tc\"`, which needs Linux 6.6",
                interface.name,
                mode.name()
            )),
            (AttachMode::Generic | AttachMode::Tc, _) => None,
        };
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        Ok(())
    }
}
