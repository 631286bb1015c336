//! What the root tests share.
pub mod binary;
pub mod daemon;
pub mod frame;
pub mod kernel;
pub mod namespace;
pub mod net;
pub mod process;
pub mod server;
pub mod shapes;
pub mod source;
pub mod ssh;
pub mod wait;
pub mod wire;
