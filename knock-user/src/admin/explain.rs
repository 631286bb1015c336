//! `knock-user explain`.

use std::{io::Write, net::IpAddr};

use anyhow::Result;
use knock_common::{layout::Features, time::Moment};
use knock_sequence::{Knock, Ports};
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command},
    instances::At,
    text::LocalTime,
};
use crate::{
    compile,
    daemon::{Daemon, fleet::FleetLink},
    explain::{self, Explanation, Known, Query},
    host::{self, clock},
    model::{problem::Misuse, value},
};

/// Explain what would happen to a new connection, and why
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Judge a connection from this source address
    #[arg(value_name = "SOURCE", value_parser = value::address)]
    source: IpAddr,
    /// Judge a connection to this port, such as tcp/22
    #[arg(value_name = "PORT")]
    port: Knock,
    /// Judge a connection to this address of the host; needed where doors have a target
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    to: Option<IpAddr>,
    #[command(flatten)]
    at: At,
}

/// The fields of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    source: IpAddr,
    /// Such as `tcp/22`.
    port: String,
    /// The address of the host, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destination: Option<IpAddr>,
}

impl Command for Args {
    const NAME: &'static str = "explain";
    const ANSWER: &'static str = "explained";
    type Request = Request;
    type Answer = Explanation;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            source: self.source,
            port: self.port.to_string(),
            destination: self.to,
        }
    }

    fn render(answer: &Explanation, _: &LocalTime) -> Vec<String> {
        answer.steps.clone()
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Explanation>) {
        caller.answer(explain(&request, daemon));
    }
}

fn explain<W: Write>(request: &Request, daemon: &mut Daemon<W>) -> Result<Explanation> {
    let (source, to) = (request.source, request.destination);
    let port: Knock = request
        .port
        .parse()
        .map_err(|error| Misuse(format!("{error}")))?;
    let query = Query {
        source,
        port,
        destination: to,
    };
    let now_ms = clock::boot_ms();
    let registry = daemon.protection.registry();
    let numbers = registry.numbers.doors.clone();
    let mut features = compile::features(daemon.plan.settings());
    if registry.dry_run {
        features = features.with(Features::DRY_RUN);
    }
    if daemon.protection.lets_pass_unconfirmed() {
        features = features.with(Features::CONFIRM);
    }
    let settings = daemon.plan.settings();
    let opens = |ports: &&Ports| ports.overlaps(port.into());
    let doors = settings.doors.iter();
    let doors = doors.filter(|door| door.opened().iter().any(|ports| opens(&ports)));
    let ended = doors.filter_map(|door| {
        let number = *numbers.get(&door.name)?;
        daemon.ledger.ended_ms(source.into(), number, now_ms)
    });
    let cut_off = daemon.fleet.as_ref().and_then(FleetLink::cut_off);
    let known = Known {
        settings,
        numbers: &numbers,
        features,
        now: Moment::from_nanos(clock::boot_ns()),
        ended_ms: ended.max(),
        cut_off: cut_off.as_deref(),
    };
    let mut explanation = explain::explain(&query, &known, daemon.protection.program().ebpf())?;
    // What can't be listed leaves the answer that is right for most addresses.
    let links = to.map_or_else(Vec::new, |_| host::links().unwrap_or_default());
    let has_it = |link: &&host::Link| to.is_some_and(|to| link.addresses.contains(&to));
    let arrives = links.iter().find(has_it).map(|link| link.index);
    explain::where_in_force(&mut explanation, &daemon.protection.coverage()?, arrives);
    explanation
        .steps
        .extend(daemon.explain_packet(source.into()));
    Ok(explanation)
}
