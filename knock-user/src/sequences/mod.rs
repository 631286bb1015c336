//! TODO room

pub mod clock_skew;
pub mod next_line_server;
pub mod one_time;
pub mod replay_cache;
pub mod time_based;
