//! The lines on the socket: a request is a line of JSON, and so is its reply.
//!
//! ```text
//! ─▶ {"protocol":1,"command":"grant","source":"203.0.113.9","door":"ssh","for_ms":600000}
//! ◀─ {"protocol":1,"done":{"granted":{"door":"ssh","ports":["tcp/22"],…}}}
//! ◀─ {"protocol":1,"failed":{"message":"no door is named web","bad_configuration":false}}
//! ```
//!
//! One request a connection. Lines may follow the reply, until either side ends.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    host::os_error,
    model::problem::{Misuse, Problems},
};

/// The version of the protocol.
pub const VERSION: u64 = 1;

/// A line with the version of the protocol.
#[derive(Serialize)]
struct Versioned<T> {
    protocol: u64,
    #[serde(flatten)]
    content: T,
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// The name of a command; empty if the line has none.
    pub command: String,
    /// The fields of the command.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// The reply to a request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The command succeeded: an object with the name of the answer and the answer.
    Done(Value),
    /// The command failed.
    Failed(CommandFailure),
}

/// Why a command failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CommandFailure {
    /// For the terminal of the client; problems of a configuration have a line each.
    pub message: String,
    /// Whether the configuration or the request is at fault, and not the circumstances.
    pub bad_configuration: bool,
    /// Whether each line of the message begins with the file that it is about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_file: bool,
}

/// Problems in the configuration of another process: lines that begin with its file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BadFile(pub String);

impl Request {
    /// Returns the line that is sent.
    pub fn to_line(&self) -> String {
        to_line(self)
    }

    /// Parses a line. Whether there is such a command with such fields is not checked.
    ///
    /// # Errors
    /// The line is not an object of this protocol.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let mut fields = object(line)?;
        let command = fields.remove("command");
        Ok(Self {
            command: command
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            fields,
        })
    }
}

impl Reply {
    /// Returns the reply to a command that the circumstances prevent.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(CommandFailure {
            message: message.into(),
            bad_configuration: false,
            names_file: false,
        })
    }

    /// Returns the reply to a command whose request or configuration is at fault.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::Failed(CommandFailure {
            message: message.into(),
            bad_configuration: true,
            names_file: false,
        })
    }

    /// Returns the reply with an outcome.
    pub fn of(done: anyhow::Result<Value>) -> Self {
        match done {
            Ok(answer) => Self::Done(answer),
            Err(error) if error.is::<Problems>() => Self::Failed(CommandFailure {
                message: error.to_string(),
                bad_configuration: true,
                names_file: true,
            }),
            Err(error) if error.is::<Misuse>() => Self::bad(error.to_string()),
            Err(error) => Self::failed(os_error::describe(&error)),
        }
    }

    /// Returns the line that is sent.
    pub fn to_line(&self) -> String {
        to_line(self)
    }

    /// Parses a line.
    ///
    /// # Errors
    /// The line is not a reply of this protocol.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        serde_json::from_value(Value::Object(object(line)?))
            .map_err(|error| format!("can't understand a reply: {error}"))
    }
}

fn to_line(content: impl Serialize) -> String {
    let versioned = Versioned {
        protocol: VERSION,
        content,
    };
    // No key is anything but a text, the only case that JSON can't represent.
    serde_json::to_string(&versioned).unwrap_or_default() + "\n"
}

/// Returns the object in a line of this version of the protocol, without the version.
fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
    let Value::Object(mut object) = value else {
        return Err("not a JSON object".to_owned());
    };
    let version = object.remove("protocol");
    match version.as_ref().and_then(Value::as_u64) {
        Some(VERSION) => Ok(object),
        Some(other) => Err(format!(
            "the other side speaks protocol {other}, and this one {VERSION}: use the same \
             knock-user for both, and restart the daemon after an upgrade"
        )),
        None => Err("no \"protocol\" in it".to_owned()),
    }
}
