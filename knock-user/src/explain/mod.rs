//! Explains what would happen to a packet now: runs the kernel side's judge on the live maps
//! without changing them.
//!
//! ```text
//! Query ─▶ frame ─▶ knock_common::judge ─▶ Reason ─▶ Explanation
//!                           ▲
//!            live maps ─▶ Overlay (an Env: each entry is copied when it is first used)
//! ```
//!
//! May use `kernel` for the live maps, and `interfaces` for their coverage. Must not know the daemon.

use std::{net::IpAddr, slice};

use anyhow::{Result, bail};
use knock_common::{
    Env as _, Judgement, Verdict, decide,
    layout::{Features, port_index},
};
use serde::{Deserialize, Serialize};

use crate::interfaces::coverage::{Coverage, CoverageState};

mod copy_on_read;
mod frame;
mod live;
mod query;
mod words;

pub use live::Live;
pub use query::{Known, Query};

/// The explanation of a packet's verdict.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// Its source.
    pub source: IpAddr,
    /// Its destination port: `tcp/22`.
    pub port: String,
    /// Its destination address, if one was named.
    pub destination: Option<IpAddr>,
    /// `pass`, `drop` or `answer`.
    pub verdict: String,
    /// Name of the reason.
    pub reason: String,
    /// The reasons, a sentence each; the last one is the outcome.
    pub steps: Vec<String>,
}

/// Explains what would happen to a packet that opens a connection.
///
/// # Errors
/// Returns an error if the addresses are of two families, or if a map can't be read.
pub fn explain(query: &Query, known: &Known<'_>, live: &impl Live) -> Result<Explanation> {
    let frame = frame::opening(query);
    let Some(frame) = frame else {
        bail!("the source and --to are addresses of two families: name two of one");
    };
    let seen = copy_on_read::over(live, known);
    // Before the judge, which may count the packet as a knock.
    let mut steps = words::steps(query, known, &seen)?;
    let judgement = decide(&frame[..], &seen);
    let rule = seen.port(port_index(query.port.protocol, query.port.port));
    steps.push(words::outcome(
        query,
        known,
        rule,
        judgement,
        seen.events.borrow().last().copied(),
    ));
    seen.below.check()?;
    Ok(Explanation {
        source: query.source,
        port: query.port.to_string(),
        destination: query.destination,
        verdict: verdict(judgement, known.features).name().to_owned(),
        reason: judgement.reason.name().to_owned(),
        steps,
    })
}

/// Adds the cases without a judgement: unprotected interfaces pass every packet, and blocked ones
/// drop every packet. `arrives` is the index of the interface that has the packet's destination, if
/// one is named.
pub fn where_in_force(
    explanation: &mut Explanation,
    interfaces: &[Coverage],
    arrives: Option<u32>,
) {
    let unprotected = interfaces.iter().filter_map(|one| {
        let because = one.state.because()?;
        if one.state == CoverageState::Blocked {
            return Some(format!("{} is blocked: {because}", one.name));
        }
        Some(format!(
            "{} is not protected, and everything passes there: {because}",
            one.name
        ))
    });
    let unprotected: Vec<_> = unprotected.collect();
    let at = arrives.and_then(|index| interfaces.iter().find(|one| one.index == Some(index)));
    let decisive = at.map_or(interfaces, slice::from_ref);
    let is_in_force = decisive.iter().any(|one| one.state.is_protected());
    let outcome = explanation.steps.pop();
    explanation.steps.extend(unprotected);
    if is_in_force {
        explanation.steps.extend(outcome);
        return;
    }
    let packet = match explanation.port.starts_with("udp/") {
        true => "a datagram",
        false => "a new connection",
    };
    if !decisive.is_empty()
        && decisive
            .iter()
            .all(|one| one.state == CoverageState::Blocked)
    {
        explanation
            .steps
            .push(format!("{packet} would be dropped: nothing gets in"));
        explanation.verdict = Verdict::Drop.name().to_owned();
        explanation.reason = "blocked".to_owned();
        return;
    }
    let because = match at {
        Some(at) => format!("{} is not protected", at.name),
        None => "the program is attached to none of the interfaces".to_owned(),
    };
    explanation
        .steps
        .push(format!("{packet} would pass: {because}"));
    explanation.verdict = Verdict::Pass.name().to_owned();
    explanation.reason = "not-in-force".to_owned();
}

/// Returns the outcome.
const fn verdict(judgement: Judgement, features: Features) -> Verdict {
    if features.has(Features::DRY_RUN) {
        Verdict::Pass
    } else {
        judgement.verdict()
    }
}
