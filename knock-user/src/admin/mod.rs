//! The subcommands that need a running daemon, or the pins where none runs: a file each, with the
//! arguments, the request, the answer, its text, and what the daemon does.
//!
//! To add one, write its file and a line in the list below; [`command`] has the form. The daemon gets
//! [`handle`] when it is made. May use every room from `model` to `daemon`, and must not know `tools`
//! and `cli`.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use crate::{
    control::{Call, Reply, Request},
    daemon::Daemon,
};

pub mod block;
pub mod command;
pub mod confirm;
pub mod detach;
pub mod explain;
pub mod facts;
pub mod fleet;
pub mod grant;
pub mod instances;
pub mod list;
pub mod metrics;
pub mod reload;
pub mod report;
pub mod revoke;
pub mod status;
pub mod text;
pub mod unblock;
pub mod users;
pub mod watch;

mod pinned;

use command::{Command, SubcommandOutcome};
use text::LocalTime;

/// The groups of `--help`, each with its subcommands and their modules.
macro_rules! subcommands {
    ($($heading:literal: { $($variant:ident($module:ident),)+ })+) => {
        /// A subcommand of this room.
        #[derive(Clone, Debug, Subcommand)]
        #[expect(missing_docs, reason = "the arguments of each subcommand have its description")]
        pub enum Subcommands {
            $($($variant($module::Args),)+)+
        }

        /// The groups of `--help`: a heading, and the names of the subcommands below it.
        pub const GROUPS: &[(&str, &[&str])] = &[
            $(($heading, &[$($module::Args::NAME),+]),)+
        ];

        impl Subcommands {
            /// Runs the subcommand and writes the answer.
            ///
            /// # Errors
            /// The subcommand failed; a [`crate::model::problem::Misuse`] if the user is at fault.
            pub fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
                match self {
                    $($(Self::$variant(args) => args.run(out),)+)+
                }
            }
        }

        /// Answers a call in a daemon, now or later.
        pub fn handle<W: Write>(daemon: &mut Daemon<W>, call: Call) {
            match call.request.command.as_str() {
                $($($module::Args::NAME => {
                    command::handle::<$module::Args, W>(daemon, call);
                })+)+
                other => {
                    let reason = unknown(other);
                    call.answer(Reply::bad(reason));
                }
            }
        }

        /// Checks that there is a command with the fields of a request.
        ///
        /// # Errors
        /// There is none, or its fields are others.
        pub fn check(request: &Request) -> Result<(), String> {
            match request.command.as_str() {
                $($($module::Args::NAME => {
                    command::understand::<$module::Args>(request).map(drop)
                })+)+
                other => Err(unknown(other)),
            }
        }

        /// Returns the text that a client prints for the `done` of a reply, if it is an answer.
        pub fn render(done: &Value, time: &LocalTime) -> Option<String> {
            $($(if let Some(answer) = command::answer_in::<$module::Args>(done) {
                let answer = answer.ok()?;
                return Some(text::lines($module::Args::render(&answer, time)));
            })+)+
            None
        }
    };
}

subcommands! {
    "Commands that show": {
        Status(status),
        List(list),
        Users(users),
        Watch(watch),
        Explain(explain),
        Metrics(metrics),
        Report(report),
    }
    "Commands about sources": {
        Grant(grant),
        Revoke(revoke),
        Block(block),
        Unblock(unblock),
    }
    "Commands about the group of hosts": {
        Fleet(fleet),
    }
    "Commands about the protection": {
        Reload(reload),
        Confirm(confirm),
        Detach(detach),
    }
}

fn unknown(command: &str) -> String {
    let names: Vec<_> = GROUPS
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    format!(
        "unknown command {command:?}: it is one of {}",
        names.join(", ")
    )
}
