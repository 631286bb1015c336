//! Advice for errors of the network.

use std::io::{self, ErrorKind};

/// Returns the advice for an error of the network.
pub(crate) fn remedy(cause: &io::Error) -> &'static str {
    let kind = cause.kind();
    if matches!(
        kind,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
    ) {
        "check the address and this machine's routes, or choose the other family with -4 or -6"
    } else if matches!(kind, ErrorKind::TimedOut | ErrorKind::ConnectionRefused) {
        "the knock port completes no handshake: drop --handshake unless the door has verify = \"handshake\""
    } else if kind == ErrorKind::PermissionDenied {
        "check this machine's own firewall and routes"
    } else {
        "check this machine's network, or choose the other family with -4 or -6"
    }
}
