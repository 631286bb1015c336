//! What would happen to a packet now, and why: the judge of the kernel side runs here on what the
//! live maps hold, and changes nothing in them.
//!
//! ```text
//! Question ─▶ frame ─▶ knock_common::judge ─▶ Reason ─▶ Explanation
//!                           ▲
//!            live maps ─▶ Overlay (a World: each entry is copied when it is first used)
//! ```
//!
//! May use `kernel` for the live maps. Must not know the daemon.

use std::{collections::BTreeMap, net::IpAddr, slice};

use anyhow::{Result, bail};
use knock_common::{Judgement, Verdict, decide, layout::Features, time::Moment};
use knock_sequence::Knock;
use serde::{Deserialize, Serialize};

use crate::{
    interfaces::coverage::{Coverage, State},
    model::settings::Settings,
};

mod copy_on_read;
mod frame;
mod live;
mod words;

pub use live::Live;

/// What would happen to a packet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// Where it comes from.
    pub source: IpAddr,
    /// The port that it goes to: `tcp/22`.
    pub port: String,
    /// The address that it goes to, if one was named.
    pub destination: Option<IpAddr>,
    /// `pass`, `drop` or `answer`.
    pub verdict: String,
    /// Name of the reason.
    pub reason: String,
    /// Why, in words, a sentence each; the last one is the outcome.
    pub steps: Vec<String>,
}

/// What somebody wants to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Query {
    /// Where the packet comes from.
    pub source: IpAddr,
    /// Where it goes to.
    pub port: Knock,
    /// The address that it goes to; any that no door is for alone if none is named.
    pub destination: Option<IpAddr>,
}

/// What is known besides the maps.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The configuration that the maps hold.
    pub settings: &'a Settings,
    /// The numbers of its doors, by name.
    pub numbers: &'a BTreeMap<String, u16>,
    /// What the program was loaded with.
    pub features: Features,
    /// Now.
    pub now: Moment,
    /// When the source's last grant for the port ended, if it is remembered, in milliseconds since
    /// boot.
    pub ended_ms: Option<u64>,
}

/// Explains what would happen to a packet that opens a connection.
///
/// # Errors
/// The addresses are of two families, or a map can't be read.
pub fn explain(query: &Query, known: &Known<'_>, live: &impl Live) -> Result<Explanation> {
    let frame = frame::opening(query);
    let Some(frame) = frame else {
        bail!("the source and --to are addresses of two families: name two of one");
    };
    let seen = copy_on_read::over(live, known);
    // Before the judgement, which takes the packet for a knock if it is one.
    let mut steps = words::steps(query, known, &seen)?;
    let judgement = decide(&frame[..], &seen);
    steps.push(words::outcome(
        query,
        known,
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

/// Says where the judgement is not asked: on interfaces that are not protected, everything passes,
/// and through those that are blocked nothing gets in. `arrives` is the number of the interface that
/// has the packet's destination, if one is named.
pub fn where_in_force(
    explanation: &mut Explanation,
    interfaces: &[Coverage],
    arrives: Option<u32>,
) {
    let unprotected = interfaces.iter().filter_map(|one| {
        let because = one.state.because()?;
        if one.state == State::Blocked {
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
    if !decisive.is_empty() && decisive.iter().all(|one| one.state == State::Blocked) {
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

/// What happens in the end.
const fn verdict(judgement: Judgement, features: Features) -> Verdict {
    if features.has(Features::DRY_RUN) {
        Verdict::Pass
    } else {
        judgement.verdict()
    }
}
