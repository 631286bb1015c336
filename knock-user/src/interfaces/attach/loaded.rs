//! Attaches the program that this process has loaded.

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, links::FdLink};

use super::{Attached, attach, replace, switch};
use crate::{
    host::interface::Interface,
    kernel::{
        PROGRAM, barrier,
        instance::Instance,
        program::{INCOMPLETE, XdpProgram, pinned},
    },
    model::settings::Mode,
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
        mode: Mode,
        instance: &Instance,
    ) -> Result<(Attached, Option<FdLink>)> {
        let done = attach(self.xdp()?, asked_for, interface, mode, instance)?;
        self.warn_of_answers(done.0.native, interface)?;
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
        instance: &Instance,
    ) -> Result<Attached> {
        let attached = replace(self.xdp()?, asked_for, interface, instance)?;
        self.warn_of_answers(attached.native, interface)?;
        Ok(attached)
    }

    /// Switches the attach mode of an interface.
    ///
    /// # Errors
    /// As for [`switch`].
    pub fn switch(
        &mut self,
        asked_for: &str,
        interface: &Interface,
        mode: Mode,
        instance: &Instance,
    ) -> Result<Attached> {
        let [mut program, mut barrier] = [None, None];
        for (name, one) in self.ebpf().programs_mut() {
            match name {
                PROGRAM => program = Some(one),
                barrier::PROGRAM => barrier = Some(one),
                _ => {}
            }
        }
        let both = program.zip(barrier).context(INCOMPLETE)?;
        let both = (both.0.try_into()?, both.1.try_into()?);
        let attached = switch(both, asked_for, interface, mode, instance)?;
        self.warn_of_answers(attached.native, interface)?;
        Ok(attached)
    }

    /// Returns the program of the barrier.
    fn barrier(&mut self) -> Result<&mut SchedClassifier> {
        let barrier = self
            .ebpf()
            .program_mut(barrier::PROGRAM)
            .context(INCOMPLETE)?;
        Ok(barrier.try_into()?)
    }

    /// Switches the attach mode of the pinned program, which runs in place of this one.
    ///
    /// # Errors
    /// As for [`switch`].
    pub fn switch_back(
        &mut self,
        asked_for: &str,
        interface: &Interface,
        mode: Mode,
        instance: &Instance,
    ) -> Result<Attached> {
        let mut pinned = pinned(&instance.program())?;
        let both = (&mut pinned, self.barrier()?);
        switch(both, asked_for, interface, mode, instance)
    }

    fn warn_of_answers(&self, native: bool, interface: &Interface) -> Result<()> {
        if self.answers()
            && native
            && let Some(warning) = interface.keeps_answers()?
        {
            tracing::warn!("{warning}");
        }
        Ok(())
    }
}
