//! The features that a configuration uses, as bits of a word.

use bytemuck::{Pod, Zeroable};

/// The features that a configuration uses.
///
/// The word is fixed when the program is loaded, so that the verifier removes the code of unused features.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Features(pub u32);

impl Features {
    /// Strict mode: a new connection to an unused port ends the source's attempt.
    pub const STRICT: Self = Self(1 << 0);
    /// Established connections continue after their grant has expired.
    pub const KEEP: Self = Self(1 << 1);
    /// There is an allow list.
    pub const TRUST: Self = Self(1 << 2);
    /// There are targets.
    pub const TARGETS: Self = Self(1 << 3);
    /// Failed attempts lock out.
    pub const LOCKOUT: Self = Self(1 << 4);
    /// Failed attempts of any source lock out all sources.
    pub const LOCKOUT_GLOBAL: Self = Self(1 << 5);
    /// Nothing is dropped.
    pub const DRY_RUN: Self = Self(1 << 6);
    /// The configuration is on trial; everything passes once the trial has expired.
    pub const CONFIRM: Self = Self(1 << 7);
    /// There are sequences whose knocks depend on the source.
    pub const PER_SOURCE: Self = Self(1 << 8);
    /// Some packets are answered: handshakes, or the last knock of a door.
    pub const ANSWERS: Self = Self(1 << 9);
    /// The program logs each decision, for `-v`.
    pub const LOG: Self = Self(1 << 10);
    /// There are doors whose knocks pass to the network stack.
    pub const KNOCK_PASS: Self = Self(1 << 11);
    /// The loopback interface is protected, so loopback addresses can be sources.
    pub const LOOPBACK: Self = Self(1 << 12);
    /// There are users: some UDP ports accept single packet authorization.
    pub const SPA: Self = Self(1 << 13);
    /// Some of these ports accept packets of fwknop; only with [`Self::SPA`].
    pub const FWKNOP: Self = Self(1 << 14);
    /// Some doors give grants to prefixes instead of single addresses.
    pub const GRANT_PREFIX: Self = Self(1 << 15);
    /// The configuration blocks sources. Those that a command blocks need no feature; see [`crate::Env::has_blocks`].
    pub const BLOCK: Self = Self(1 << 16);
    /// Some doors can be used from some prefixes only.
    pub const FROM: Self = Self(1 << 17);
    /// Some doors open only while this host follows the engine of its group.
    pub const FLEET: Self = Self(1 << 18);

    /// Returns whether all of `features` are used.
    #[inline(always)]
    pub const fn has(self, features: Self) -> bool {
        self.0 & features.0 == features.0
    }

    /// Returns these together with others.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}
