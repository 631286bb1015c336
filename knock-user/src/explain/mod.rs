//! What would happen to a packet now, and why: the judge of the kernel side runs here on what the
//! live maps hold, and changes nothing in them.
//!
//! ```text
//! Question ─▶ frame ─▶ knock_common::judge ─▶ Reason ─▶ Explanation
//!                           ▲
//!            live maps ─▶ Seen (a World: each entry is copied when it is asked for)
//! ```

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Result, bail};
use knock_common::{Judgement, decide, layout::Features, time::Moment};

use crate::{
    config::checked::{Knock, Settings},
    control::{answers::Explanation, facts},
};

mod frame;
mod live;
mod words;
mod world;

pub use live::Live;
use world::Seen;

/// What somebody wants to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// Where the packet comes from.
    pub source: IpAddr,
    /// Where it goes to.
    pub port: Knock,
    /// The address that it goes to; any that no door is for alone if none is named.
    pub to: Option<IpAddr>,
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
    /// When it begins to let everything pass, if [`Features::CONFIRM`] is among them.
    pub confirm_by_ms: u64,
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
pub fn explain(question: &Question, known: &Known<'_>, live: &impl Live) -> Result<Explanation> {
    let frame = frame::opening(question);
    let Some(frame) = frame else {
        bail!("the source and --to are addresses of two families: name two of one");
    };
    let seen = Seen::new(live, known);
    // Before the judgement, which takes the packet for a knock if it is one.
    let mut chain = words::chain(question, known, &seen)?;
    let judgement = decide(&frame[..], &seen);
    chain.push(words::outcome(question, known, judgement, seen.told()));
    seen.check()?;
    Ok(Explanation {
        source: question.source,
        port: question.port.to_string(),
        to: question.to,
        verdict: facts::verdict(verdict(judgement, known.features)).to_owned(),
        reason: judgement.reason.name().to_owned(),
        chain,
    })
}

/// What happens in the end.
const fn verdict(judgement: Judgement, features: Features) -> knock_common::Verdict {
    if features.has(Features::DRY_RUN) {
        knock_common::Verdict::Pass
    } else {
        judgement.verdict()
    }
}
