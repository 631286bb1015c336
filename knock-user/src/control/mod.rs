//! What an administrator asks of a running daemon: a Unix socket, and both ends of it.
//!
//! ```text
//! cli ─▶ client ─▶ protocol ─▶ server ─▶ Call ─▶ daemon ─▶ Reply ─▶ client ─▶ text | --json
//! ```
//!
//! The daemon has a [`Server`] in its loop:
//!
//! ```text
//! let access = Access::new(settings.control.group.as_deref())?;      // before anything is attached
//! let mut server = Server::listen(&socket, access, console.watchers())?;
//! loop {
//!     tokio::select! {
//!         call = server.call() => {
//!             let reply = self.reply(&call.request, call.peer);       // a Reply; Reply::of(Result)
//!             call.answer(reply);
//!         }
//!         …
//!     }
//! }
//! server.finish().await;                 // after the last line is told; at most a second
//! ```
//!
//! `watch` never gets to the daemon: the server takes the lines from [`Console::watchers`].
//!
//! [`Console::watchers`]: crate::console::Console::watchers

pub mod access;
pub mod answers;
pub mod connection;
pub mod protocol;
pub mod server;

pub use crate::model::problem::Misuse;
pub use access::{Access, Peer};
pub use protocol::{Answer, BadFile, Failure, Incoming, Reply, Request};
pub use server::{Call, Server};
