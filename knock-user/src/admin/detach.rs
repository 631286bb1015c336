//! `knock-user detach`.

use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command, NoFields, Outcome},
    instances::{self, At, Layouts},
    pinned::UsedMaps,
    text::LocalTime,
};
use crate::{
    daemon::Daemon,
    host::os_error,
    kernel::{instance::Instance, leftovers, registry::Registry},
    model::text::{list, verb},
};

/// End the protection: open the ports to everybody
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// Interfaces that are no longer protected; none if none was.
    pub interfaces: Vec<String>,
    /// What is no longer protected there: `tcp/22`.
    pub ports: Vec<String>,
}

impl Command for Args {
    const NAME: &'static str = "detach";
    const ANSWER: &'static str = "detached";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        if answer.interfaces.is_empty() {
            return vec!["nothing is attached".to_owned()];
        }
        let verb = verb(&answer.ports, "is", "are");
        let ports = match answer.ports.as_slice() {
            [] => "what was protected".to_owned(),
            ports => list(ports),
        };
        let line = |interface| format!("{ports} {verb} no longer protected on {interface}");
        answer.interfaces.iter().map(line).collect()
    }

    /// Answers the caller when the program is detached, or can't be.
    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        tracing::warn!("asked to detach by uid {}", caller.peer().uid);
        let answer = Answer {
            interfaces: daemon.protection.instance().linked(),
            ports: daemon.ports.clone(),
        };
        daemon.detach(Box::new(|ended| {
            caller.answer(ended.map(|()| answer));
        }));
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        let ports = Registry::read(&instance.registry());
        let ports = ports.ok().flatten().map(|registry| registry.protected);
        let interfaces = instance.linked();
        let locked = instance.clone().lock()?;
        let used = UsedMaps::open(&locked);
        locked.remove()?;
        // What was used is complete now that nothing can open a door.
        if let Err(error) = used.and_then(|used| used.record(&locked)) {
            tracing::warn!(
                "what opened doors is not recorded for the time after a reboot, so users may have \
                 to wait then: {}",
                os_error::describe(&error)
            );
        }
        Ok(Answer {
            interfaces,
            ports: ports.unwrap_or_default(),
        })
    }

    fn run(&self, out: &mut impl Write) -> Result<Outcome> {
        leftovers::sweep();
        let answer = match instances::find(&self.at, Layouts::All)? {
            Some(instance) => command::ask(self, &instance)?,
            None => Answer::default(),
        };
        command::write::<Self>(&answer, &self.at, out)
    }
}
