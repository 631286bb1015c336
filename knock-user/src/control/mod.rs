//! The control socket: lines of JSON in and out, and which users have access.
//!
//! It does not know any command: a request is a name with fields, and a reply is a JSON value, after
//! which lines may follow. The daemon has a [`ControlServer`] in its loop, and clients use [`connection`].
//! May use every room from `model` to `console`, and must not know what a request does.
//!
//! ```text
//! let access = Access::new(settings.control.group.as_deref())?;      // before anything is attached
//! let mut server = Server::listen(&socket, access, console.watchers())?;
//! loop {
//!     tokio::select! {
//!         call = server.call() => call.answer(Reply::of(outcome)),
//!         …
//!     }
//! }
//! server.finish().await;                 // after the last line is written; at most a second
//! ```

pub mod access;
mod call;
pub mod connection;
pub mod conversation;
pub mod protocol;
pub mod server;
mod socket_file;

pub use crate::model::problem::Misuse;
pub use access::{Peer, SocketAccess};
pub use call::{Asker, Call};
pub use protocol::{BadFile, CommandFailure, Reply, Request};
pub use server::ControlServer;
