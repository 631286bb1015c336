//! What goes through the socket: a request is a line, and so is its reply.
//!
//! ```text
//! ─▶ {"protocol":1,"command":"grant","source":"203.0.113.9","door":"ssh","for_ms":600000}
//! ◀─ {"protocol":1,"done":{"granted":{"source":"203.0.113.9","door":"ssh",…}}}
//! ◀─ {"protocol":1,"failed":{"message":"there is no door web","bad_configuration":false}}
//! ```
//!
//! One request a connection. After `watch` the lines of the console follow the reply until either
//! side ends.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::answers::{Confirmed, Detached, Granted, Grants, Reloaded, Revoked, Status};
use crate::{
    explain::Explanation,
    host::os_error,
    model::problem::{Misuse, Problems},
};

/// The version of the protocol.
pub const VERSION: u64 = 1;

/// What the daemon is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Status {},
    /// Who has grants.
    List {},
    /// Let a source in without knocks.
    Grant {
        /// Who.
        source: IpAddr,
        /// Name of the door.
        door: String,
        /// For how long, in milliseconds, if not for as long as the door's `open_for`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u64>,
    },
    /// End a source's grants.
    Revoke {
        /// Whose.
        source: IpAddr,
        /// Name of the door, if not all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        door: Option<String>,
    },
    /// What would happen to a packet, and why.
    Explain {
        /// Where it comes from.
        source: IpAddr,
        /// The port that it goes to: `tcp/22`.
        port: String,
        /// The address that it goes to, if that matters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination: Option<IpAddr>,
    },
    /// Read the configuration again.
    Reload {
        /// Go back unless it is confirmed in so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_ms: Option<u64>,
    },
    /// Keep what was started or reloaded on trial.
    Confirm {},
    /// End the protection.
    Detach {},
}

/// The names of the commands, for who asks for another.
const COMMANDS: [&str; 9] = [
    "status", "list", "watch", "grant", "revoke", "explain", "reload", "confirm", "detach",
];

/// What a client sends: `watch` is answered by the server, everything else by the daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Incoming {
    /// The lines of the console, from now on.
    Watch {
        /// As JSON objects.
        json: bool,
        /// Text with dates, not only with the time of day.
        dated: bool,
    },
    /// Everything else.
    Request(Request),
}

/// What comes back.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is soon written out"
)]
pub enum Reply {
    /// It is done.
    Done(Answer),
    /// It could not be done.
    Failed(Failure),
}

/// Why something could not be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// For the terminal of who asked; problems of a configuration are a line each.
    pub message: String,
    /// Whether the configuration or the request is at fault, and not the circumstances.
    pub bad_configuration: bool,
    /// Whether each line of the message begins with the file that it is about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_file: bool,
}

/// What is wrong with the configuration of another process: lines that begin with its file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BadFile(pub String);

/// The outcome of each command.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Of `status`.
    Status(Status),
    /// Of `list`.
    List(Grants),
    /// Of `watch`: lines follow.
    Watching {},
    /// Of `grant`.
    Granted(Granted),
    /// Of `revoke`.
    Revoked(Revoked),
    /// Of `explain`.
    Explained(Explanation),
    /// Of `reload`.
    Reloaded(Reloaded),
    /// Of `confirm`.
    Confirmed(Confirmed),
    /// Of `detach`.
    Detached(Detached),
}

impl Reply {
    /// It could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Failure {
            message: message.into(),
            bad_configuration: false,
            names_file: false,
        })
    }

    /// The request or the configuration is at fault.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::Failed(Failure {
            message: message.into(),
            bad_configuration: true,
            names_file: false,
        })
    }

    /// Something done, or why it was not.
    pub fn of(done: anyhow::Result<Answer>) -> Self {
        match done {
            Ok(answer) => Self::Done(answer),
            Err(error) if error.is::<Problems>() => Self::Failed(Failure {
                message: error.to_string(),
                bad_configuration: true,
                names_file: true,
            }),
            Err(error) if error.is::<Misuse>() => Self::bad(error.to_string()),
            Err(error) => Self::failed(os_error::told(&error)),
        }
    }

    /// The line that is sent.
    pub fn to_line(&self) -> String {
        #[derive(Serialize)]
        struct Versioned<'a> {
            protocol: u64,
            #[serde(flatten)]
            reply: &'a Reply,
        }
        line(&Versioned {
            protocol: VERSION,
            reply: self,
        })
    }

    /// Understands a line.
    ///
    /// # Errors
    /// It is not a reply of this protocol.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let reply = versioned(line)?;
        serde_json::from_value(reply).map_err(|error| format!("can't understand a reply: {error}"))
    }
}

impl Incoming {
    /// The line that is sent.
    pub fn to_line(&self) -> String {
        #[derive(Serialize)]
        struct Versioned<T> {
            protocol: u64,
            #[serde(flatten)]
            request: T,
        }
        #[derive(Serialize)]
        struct Watch {
            command: &'static str,
            json: bool,
            dated: bool,
        }
        let protocol = VERSION;
        match self {
            &Self::Watch { json, dated } => line(&Versioned {
                protocol,
                request: Watch {
                    command: "watch",
                    json,
                    dated,
                },
            }),
            Self::Request(request) => line(&Versioned { protocol, request }),
        }
    }

    /// Understands a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Watch {
            #[serde(rename = "command")]
            _command: String,
            #[serde(default)]
            json: bool,
            #[serde(default)]
            dated: bool,
        }
        let request = versioned(line)?;
        let command = request.get("command").and_then(|command| command.as_str());
        let command = command.unwrap_or_default().to_owned();
        if !COMMANDS.contains(&command.as_str()) {
            return Err(format!(
                "unknown command {command:?}: it is one of {}",
                COMMANDS.join(", ")
            ));
        }
        let understood = if command == "watch" {
            serde_json::from_value(request)
                .map(|Watch { json, dated, .. }| Self::Watch { json, dated })
        } else {
            serde_json::from_value(request).map(Self::Request)
        };
        understood.map_err(|error| format!("can't understand {command}: {error}"))
    }
}

/// The object that a line is, if it is of this protocol; without the version.
fn versioned(line: &[u8]) -> Result<serde_json::Value, String> {
    let mut value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
    let Some(object) = value.as_object_mut() else {
        return Err("not a JSON object".to_owned());
    };
    let version = object.remove("protocol");
    match version.as_ref().and_then(serde_json::Value::as_u64) {
        Some(VERSION) => Ok(value),
        Some(other) => Err(format!(
            "the other side speaks protocol {other}, and this one {VERSION}: use the same \
             knock-user for both, and restart the daemon after an upgrade"
        )),
        None => Err("no \"protocol\" in it".to_owned()),
    }
}

fn line(value: &impl Serialize) -> String {
    // Nothing here has keys that are not texts, the one thing that JSON can't say.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}
