//! The ways in which a request to a member fails.

/// The reason why there is no result. A text names the member, the reason and what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The request was not executed; another member may do so.
    #[error("{0}")]
    Unreached(String),
    /// The request may have been executed.
    #[error("{0}")]
    Lost(String),
    /// The request was not executed, and no other member would do so.
    #[error("{0}")]
    Refused(String),
    /// The engine no longer has the revision.
    #[error("the engine no longer has that revision")]
    Compacted,
    /// The engine has not reached the revision.
    #[error("the engine has not reached that revision")]
    Future,
    /// There is no such lease; nothing was executed.
    #[error("the lease has ended")]
    NoLease,
}

impl Trouble {
    /// Returns the trouble of a request that changes nothing, so that losing its answer does not matter.
    pub(crate) fn of_question(self) -> Self {
        match self {
            Self::Lost(reason) => Self::Unreached(reason),
            Self::Unreached(_)
            | Self::Refused(_)
            | Self::Compacted
            | Self::Future
            | Self::NoLease => self,
        }
    }
}
