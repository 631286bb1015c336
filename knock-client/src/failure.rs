//! What could not be done.

use crate::connect::ConnectError;
use crate::send::SendError;
use crate::target::ResolveError;
use std::io::{self, ErrorKind};

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is nobody to knock on.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A knock could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The port did not open.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The work was done or not, but could not be told.
    #[error("cannot write to standard output: {0}; what was not written is lost")]
    Output(io::Error),
}

/// What a person can do about an error of the network.
pub(crate) fn remedy(cause: &io::Error) -> &'static str {
    let kind = cause.kind();
    if matches!(
        kind,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
    ) {
        "check the address and this machine's routes, or choose the other family with -4 or -6"
    } else if kind == ErrorKind::PermissionDenied {
        "check this machine's own firewall and routes"
    } else {
        "check this machine's network, or choose the other family with -4 or -6"
    }
}
