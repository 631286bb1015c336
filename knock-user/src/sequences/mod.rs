//! Sequences that change: one-time sequences from a file, time-based sequences from a secret, the
//! replay cache, the stamps that keys of users have used, the detection of clients whose clock is wrong,
//! and the server from which clients learn the next line of a one-time file.
//!
//! May use `kernel` (for the instance that a replay cache belongs to) and the rooms below it. Must
//! not know how a change of sequences reaches the maps: that is in `apply`.

mod boot_mark;
pub mod clock_skew;
pub mod next_line_server;
pub mod one_time;
pub mod replay_cache;
mod stamp_file;
mod stamp_floor;
pub mod stamps;
pub mod state_directory;
pub mod time_based;
