//! What went wrong with a member, with what to do about it.

use etcd_client::Error;
use tonic::{Code, Status};

use crate::engine::Trouble;

/// The end of a message about TLS.
const CHECK_TLS: &str = "check `ca`, `cert` and `key`, and that they are valid now";

/// Returns the texts of an error and its causes, each once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// Returns whether a reason is about a certificate or the protocol around it.
fn is_about_tls(causes: &str) -> bool {
    [
        "ertificate",
        "alert",
        "UnknownIssuer",
        "handshake",
        "TLS",
        "tls",
    ]
    .iter()
    .any(|part| causes.contains(part))
}

/// Describes an error in certificates or keys of this host.
pub(super) fn tls(error: &tonic::transport::Error) -> String {
    format!("TLS can't be set up: {}; {CHECK_TLS}", causes(error))
}

/// Describes why a member can't be connected to.
pub(super) fn connecting(error: &tonic::transport::Error) -> String {
    let causes = causes(error);
    if is_about_tls(&causes) {
        format!("no connection with TLS: {causes}; {CHECK_TLS}")
    } else {
        format!("the member can't be reached: {causes}; check `servers`, and that etcd runs there")
    }
}

/// Sorts an error of a request that changes nothing, or of a connection.
pub(super) fn before_sending(url: &str, error: &Error) -> Trouble {
    of(url, error).of_question()
}

/// Sorts an error of the first request over a connection. With TLS 1.3 a member reads the certificate of this host
/// after this side has connected, and the reason why it then closes the connection may be lost.
pub(super) fn first_answer(url: &str, error: &Error) -> Trouble {
    match before_sending(url, error) {
        Trouble::Unreached(reason) if url.starts_with("https://") && !is_about_tls(&reason) => {
            Trouble::Unreached(format!(
                "{reason}; if the member does not accept the certificate of this host: {CHECK_TLS}"
            ))
        }
        other @ (Trouble::Unreached(_)
        | Trouble::Lost(_)
        | Trouble::Refused(_)
        | Trouble::Compacted
        | Trouble::Future
        | Trouble::NoLease) => other,
    }
}

/// Sorts an error of a request that may have been executed.
pub(super) fn of(url: &str, error: &Error) -> Trouble {
    match error {
        Error::GRpcStatus(status) => status_of(url, status),
        Error::InvalidArgs(_)
        | Error::InvalidUri(_)
        | Error::IoError(_)
        | Error::TransportError(_)
        | Error::WatchError(_)
        | Error::Utf8Error(_)
        | Error::LeaseKeepAliveError(_)
        | Error::ElectError(_)
        | Error::InvalidMetadataValue(_)
        | Error::EndpointError(_)
        | Error::EndpointsNotManaged
        | Error::Internal(_) => Trouble::Lost(format!("{url}: {}", causes(error))),
    }
}

/// Returns what a member's reason to end a watch means.
pub(super) fn cancelled(url: &str, reason: &str) -> Trouble {
    if reason.contains("permission denied") {
        return Trouble::Refused(denied(url));
    }
    Trouble::Unreached(format!("{url}: the member ended the watch: {reason}"))
}

fn denied(url: &str) -> String {
    format!(
        "{url}: etcd denies this to the user in `cert`: grant its role read and write on the group's prefix \
         (etcdctl role grant-permission)"
    )
}

fn status_of(url: &str, status: &Status) -> Trouble {
    let text = status.message();
    // The texts of etcd (api/v3rpc/rpctypes/error.go) are part of its API; they are the same in all versions.
    for (part, trouble) in [
        ("required revision has been compacted", Trouble::Compacted),
        ("required revision is a future revision", Trouble::Future),
        ("requested lease not found", Trouble::NoLease),
        (
            "etcdserver: no leader",
            Trouble::Unreached(format!(
                "{url}: the member knows no leader: a majority of the members has to run and reach each other"
            )),
        ),
        (
            "database space exceeded",
            Trouble::Refused(format!(
                "{url}: etcd's database is full: compact and defragment it, then disarm its alarm (etcdctl alarm)"
            )),
        ),
    ] {
        if text.contains(part) {
            return trouble;
        }
    }
    let all = causes(status);
    match status.code() {
        Code::PermissionDenied => Trouble::Refused(denied(url)),
        Code::Unauthenticated => Trouble::Refused(format!(
            "{url}: etcd does not accept this host: {text}; check `cert`"
        )),
        Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted => {
            Trouble::Refused(format!("{url}: etcd refuses the request: {text}"))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Trouble::Lost(match is_about_tls(&all) {
            true => format!("{url}: the member ended the connection: {all}; {CHECK_TLS}"),
            false => format!("{url}: the connection was lost: {all}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_etcd_are_sorted_by_whether_the_request_was_executed() {
        for (name, code, text, expected) in [
            (
                "compaction",
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                "compacted",
            ),
            (
                "a revision to come",
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                "future",
            ),
            (
                "an ended lease",
                Code::NotFound,
                "etcdserver: requested lease not found",
                "no lease",
            ),
            (
                "no leader",
                Code::Unavailable,
                "etcdserver: no leader",
                "unreached",
            ),
            (
                "a change of leader",
                Code::Unavailable,
                "etcdserver: leader changed",
                "lost",
            ),
            (
                "no answer in time",
                Code::Unavailable,
                "etcdserver: request timed out",
                "lost",
            ),
            (
                "a closed connection",
                Code::Unknown,
                "transport error",
                "lost",
            ),
            (
                "a role",
                Code::PermissionDenied,
                "etcdserver: permission denied",
                "refused",
            ),
            (
                "a full disk",
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                "refused",
            ),
            (
                "too large",
                Code::InvalidArgument,
                "etcdserver: request is too large",
                "refused",
            ),
        ] {
            let error = Error::GRpcStatus(Status::new(code, text));
            let found = match of("https://a:2379", &error) {
                Trouble::Unreached(_) => "unreached",
                Trouble::Lost(_) => "lost",
                Trouble::Refused(_) => "refused",
                Trouble::Compacted => "compacted",
                Trouble::Future => "future",
                Trouble::NoLease => "no lease",
            };
            assert_eq!(found, expected, "{name}");
            let before = before_sending("https://a:2379", &error);
            assert!(!matches!(before, Trouble::Lost(_)), "{name}: {before:?}");
        }
    }
}
