//! What the root tests share.
pub mod frame;
pub mod kernel;
pub mod shapes;
