//! Requests that a person types as a line.

use std::net::IpAddr;

use knock_sequence::{
    Knock,
    duration::{self, millis},
};

use super::feed::request;
use crate::{
    control::Request,
    model::{prefix::Prefix, problem::Misuse, value},
};

/// Reads `SOURCE DOOR [TIME]`.
pub(super) fn grant(line: &str) -> Result<Request, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (source, door, lasts) = match words.as_slice() {
        [source, door] => (source, door, None),
        [source, door, lasts] => (source, door, Some(lasts)),
        _ => return Err("write SOURCE DOOR, and TIME if it should not be the door's".to_owned()),
    };
    let source = address(source)?;
    let mut asked = request(
        "grant",
        [
            ("source", source.to_string().into()),
            ("door", (*door).into()),
        ],
    );
    if let Some(lasts) = lasts {
        let lasts = duration::parse(lasts).map_err(|error| error.to_string())?;
        asked
            .fields
            .insert("for_ms".to_owned(), millis(lasts).into());
    }
    Ok(asked)
}

/// Reads `SOURCE [TIME]`; `spare` refuses prefixes.
pub(super) fn block(
    line: &str,
    spare: fn(Prefix) -> Result<(), Misuse>,
) -> Result<Request, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (source, lasts) = match words.as_slice() {
        [source] => (source, None),
        [source, lasts] => (source, Some(lasts)),
        _ => return Err("write SOURCE, and TIME if the block should end".to_owned()),
    };
    let source: Prefix = source.parse().map_err(|error| format!("{error}"))?;
    spare(source).map_err(|error| error.to_string())?;
    let mut asked = request("block", [("source", source.to_string().into())]);
    if let Some(lasts) = lasts {
        let lasts = duration::parse(lasts).map_err(|error| error.to_string())?;
        asked
            .fields
            .insert("for_ms".to_owned(), millis(lasts).into());
    }
    Ok(asked)
}

fn address(text: &str) -> Result<IpAddr, String> {
    value::address(text).map_err(|error| error.to_string())
}

/// Reads `SOURCE PORT [ADDRESS]`.
pub(super) fn explain(line: &str) -> Result<Request, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (source, port, to) = match words.as_slice() {
        [source, port] => (source, port, None),
        [source, port, to] => (source, port, Some(to)),
        _ => return Err("write SOURCE PORT, such as 203.0.113.7 tcp/22".to_owned()),
    };
    let source = address(source)?;
    let port: Knock = port.parse().map_err(|error| format!("{port}: {error}"))?;
    let mut asked = request(
        "explain",
        [
            ("source", source.to_string().into()),
            ("port", port.to_string().into()),
        ],
    );
    if let Some(to) = to {
        let to = address(to)?;
        asked
            .fields
            .insert("destination".to_owned(), to.to_string().into());
    }
    Ok(asked)
}
