//! `--print`: what a run would send, without secrets. Nothing is sent.

use crate::failure::Failure;
use crate::one_time;
use crate::plan::{KnockPlan, KnockSource, Method};
use crate::reply::ConnectTo;
use crate::{destination, find_destinations};
use knock_sequence::duration::spell;
use knock_sequence::terminal::harmless;
use knock_sequence::{Knock, Sequence};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// Prints what a run would send. Knocks are shown only if they are on the command line, where they are not secret.
///
/// The only thing that may leave this machine is a query for the address of the host.
///
/// # Errors
///
/// The host has no address, no sequence is left, or `out` can't be written.
pub fn run(plan: &KnockPlan, shows_knocks: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut text = String::new();
    for warning in &plan.warnings {
        text += &format!("warning: {}\n", harmless(warning));
    }
    let (destinations, _) = find_destinations(plan)?;
    let names = destination::list(&destinations);
    let host = match names == plan.host {
        true => names,
        false => format!("{names} ({})", plan.host),
    };
    let host = harmless(&host);
    match &plan.method {
        Method::Packet(spa) => {
            for destination in &destinations {
                let own = destination.own_address().ok();
                let source =
                    own.and_then(|own| spa.source(own, destination, destinations.len() > 1));
                let packet = spa.text_for(destination, source);
                text += &format!("would send a {}\n", harmless(&packet));
            }
            let place = spa.key_file().display().to_string();
            text += &format!("with the private key in {}\n", harmless(&place));
        }
        Method::Knocks(source) => text += &of_knocks(source, plan, &host, shows_knocks)?,
    }
    if let Some(goal) = plan.then_connect {
        let limit = spell(plan.timeout);
        let port = match goal {
            ConnectTo::Port(port) => format!("tcp/{port}"),
            ConnectTo::Reply => "the port that the host names".to_owned(),
        };
        text += &format!("would then connect to {port}, for up to {limit}\n");
    }
    text += "nothing was sent\n";
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Failure::Output)
}

fn of_knocks(
    source: &KnockSource,
    plan: &KnockPlan,
    host: &str,
    shows_knocks: bool,
) -> Result<String, Failure> {
    let kind = match plan.handshake {
        true => " with handshakes",
        false => "",
    };
    let apart = spell(plan.delay);
    Ok(match source {
        KnockSource::Sequence(knocks) => {
            let shown = match shows_knocks {
                true => format!(": {}", words(knocks)),
                false => String::new(),
            };
            format!(
                "would send {}{kind} to {host}, {apart} apart{shown}\n",
                count(knocks)
            )
        }
        KnockSource::Otp(otp) => format!(
            "would send the time-based knocks of the current period of {}{kind} to {host}, {apart} apart\n",
            spell(otp.period())
        ),
        KnockSource::OneTime(file) => {
            let mut text = of_line(plan, file)?;
            let _infallible =
                writeln!(text, "would send its knocks{kind} to {host}, {apart} apart");
            text
        }
    })
}

fn of_line(plan: &KnockPlan, file: &Path) -> Result<String, Failure> {
    let place = file.display().to_string();
    let place = harmless(&place);
    Ok(match &plan.next_line {
        Some(next_line) => {
            format!("would ask {next_line} which line of {place} is next, and mark it as used\n")
        }
        None => {
            let next = one_time::peek(file)?;
            format!(
                "would mark line {} of {place} as used, {} left\n",
                next.line, next.left
            )
        }
    })
}

fn count(knocks: &Sequence) -> String {
    match knocks.len() {
        1 => "1 knock".to_owned(),
        more => format!("{more} knocks"),
    }
}

fn words(knocks: &[Knock]) -> String {
    let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
    words.join(" ")
}
