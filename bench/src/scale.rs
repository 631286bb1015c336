//! How long measuring may take.

use std::time::Duration;

/// How often things are measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Whether it is to take less than two minutes.
    pub quick: bool,
    /// How often each program is loaded.
    pub loads: u32,
    /// Rounds over everything for each load.
    pub rounds: u32,
    /// Packets of a kind in a round.
    pub times: u32,
    /// How often everybody who is knocked on is to open.
    pub openings: u32,
    /// How often each process is started.
    pub starts: u32,
    /// How long a process is watched.
    pub idle: Duration,
    /// How long a stream is watched.
    pub stream: Duration,
    /// How long a door is waited for.
    pub patience: Duration,
    /// Floods of each kind.
    pub floods: u32,
    /// Frames in a flood.
    pub frames: u32,
}

impl Scale {
    /// The whole, or what takes less than two minutes.
    pub const fn new(quick: bool) -> Self {
        if quick {
            Self {
                quick,
                loads: 2,
                rounds: 5,
                times: 50_000,
                openings: 20,
                starts: 3,
                idle: Duration::from_secs(1),
                stream: Duration::from_millis(500),
                patience: Duration::from_millis(500),
                floods: 3,
                frames: 2_000_000,
            }
        } else {
            Self {
                quick,
                loads: 6,
                rounds: 8,
                times: 200_000,
                openings: 200,
                starts: 15,
                idle: Duration::from_secs(10),
                stream: Duration::from_secs(3),
                patience: Duration::from_millis(2_500),
                floods: 7,
                frames: 6_000_000,
            }
        }
    }
}
