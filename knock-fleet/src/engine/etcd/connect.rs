//! Connections to members, with TLS on both sides.

use std::{fs, path::Path, time::Duration};

use etcd_client::{Channel, Client, ConnectOptions};
use knock_wire::Open;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::explain;
use crate::engine::Trouble;

/// How long connecting may take, TLS included.
const CONNECTING: Duration = Duration::from_secs(2);

/// An idle connection is probed after this time: more often, and etcd would end it (`--grpc-keepalive-min-time`).
const PROBE: Duration = Duration::from_secs(5);

/// Without an answer to a probe in this time, the connection is lost.
const PROBE_ANSWER: Duration = Duration::from_secs(2);

/// Connects to the member at `url`. Its certificates are read each time, so that renewed ones are used.
///
/// # Errors
/// A file can't be read, or the member can't be reached.
pub(super) async fn to(open: &Open, url: &str) -> Result<Client, Trouble> {
    let unreached = |reason: String| Trouble::Unreached(format!("{url}: {reason}"));
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| {
            unreached(format!(
                "this is no URL of a member: {error}; see `servers`"
            ))
        })?
        .connect_timeout(CONNECTING)
        .http2_keep_alive_interval(PROBE)
        .keep_alive_timeout(PROBE_ANSWER)
        .keep_alive_while_idle(true);
    if url.starts_with("https://") {
        let tls = tls(open).map_err(unreached)?;
        endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| unreached(explain::tls(&error)))?;
    }
    // The endpoint's limit does not cover the handshake of TLS.
    let channel = match tokio::time::timeout(CONNECTING, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| unreached(explain::connecting(&error)))?,
        Err(_) => {
            return Err(unreached(format!(
                "the member does not answer within {} s; check `servers`, and that etcd runs there",
                CONNECTING.as_secs()
            )));
        }
    };
    let options = ConnectOptions::new().with_require_leader(true);
    Client::from_channel(Channel::Tonic(channel), Some(options))
        .await
        .map_err(|error| explain::before_sending(url, &error))
}

fn tls(open: &Open) -> Result<ClientTlsConfig, String> {
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &open.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca, "ca")?));
    }
    if let (Some(cert), Some(key)) = (&open.cert, &open.key) {
        tls = tls.identity(Identity::from_pem(read(cert, "cert")?, read(key, "key")?));
    }
    Ok(tls)
}

fn read(path: &Path, option: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| {
        format!(
            "reading {}: {error}; check `{option}` and the rights of the file",
            path.display()
        )
    })
}
