//! `knock-user detach`.

use std::io::Write;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command, NoFields, SubcommandOutcome},
    instances::{self, At, Layouts},
    pinned::UsedMaps,
    text::LocalTime,
};
use crate::{
    control::connection::Ended,
    daemon::Daemon,
    host::os_error,
    kernel::{
        barrier,
        instance::Instance,
        leftovers,
        lock::{self, LockTaken},
        pins,
        registry::Registry,
    },
    model::text::{list, verb},
};

/// End the protection: open the ports to everybody
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// End all protection on this host, also in other network namespaces
    #[arg(long, conflicts_with_all = ["interface", "pid"])]
    all: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// Interfaces that are no longer protected; none if none was.
    pub interfaces: Vec<String>,
    /// The ports that are no longer protected there: `tcp/22`.
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
        let locked = instance.clone().lock()?;
        // Read behind the lock, since a start may just have changed them.
        let ports = Registry::read(&locked.registry());
        let ports = ports.ok().flatten().map(|registry| registry.protected);
        let interfaces = locked.linked();
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

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        leftovers::sweep();
        if self.all {
            return self.end_all(out);
        }
        let answer = match instances::find(&self.at, Layouts::All)? {
            Some(instance) => self.end(&instance)?,
            None => Answer::default(),
        };
        command::write::<Self>(&answer, &self.at, out)
    }
}

/// How often an instance is asked whose process is starting or ending.
const TRIES: u32 = 4;

impl Args {
    /// Ends the protection of an instance, with its process or without one. A process that has only
    /// started to serve it is asked as soon as it listens; what one leaves that ends is removed.
    fn end(&self, instance: &Instance) -> Result<Answer> {
        for _ in 1..TRIES {
            match command::ask(self, instance) {
                Err(error) if error.is::<LockTaken>() || error.is::<Ended>() => {}
                done => return done,
            }
        }
        command::ask(self, instance)
    }

    /// Ends the protection of all instances, and writes an answer for each that protected something.
    /// One that fails does not keep the others from being ended.
    fn end_all(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        let (here, elsewhere) = instances::of_all_namespaces()?;
        let here = here.iter().map(|instance| (instance, self.end(instance)));
        let elsewhere = elsewhere
            .iter()
            .map(|instance| (instance, self.end_elsewhere(instance)));
        let mut failures = Vec::new();
        let mut is_any = false;
        for (instance, ended) in here.chain(elsewhere) {
            match ended {
                Ok(answer) if answer.interfaces.is_empty() => {}
                Ok(answer) => {
                    command::write::<Self>(&answer, &self.at, out)?;
                    is_any = true;
                }
                Err(error) => failures.push(format!(
                    "{}: {}",
                    instances::interfaces(instance),
                    os_error::describe(&error)
                )),
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        instances::are_none_hidden(None)?;
        if !is_any {
            command::write::<Self>(&Answer::default(), &self.at, out)?;
        }
        Ok(SubcommandOutcome::Done)
    }

    /// Ends the protection of an instance of another network namespace, whose interfaces can't be
    /// listed here.
    fn end_elsewhere(&self, instance: &Instance) -> Result<Answer> {
        ensure!(
            !barrier::is_any_pinned(instance),
            "a change of mode was cut off in another network namespace: run `knock-user detach` there"
        );
        let programs: Vec<_> = pins::links(instance)?
            .iter()
            .map(|link| link.program)
            .collect();
        let mut answer = self.end(instance)?;
        lock::wait_until_unloaded(&programs)?;
        if !self.at.json {
            for interface in &mut answer.interfaces {
                interface.push_str(" in another network namespace");
            }
        }
        Ok(answer)
    }
}
