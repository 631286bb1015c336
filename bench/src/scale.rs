//! The extent of measurements.

use std::time::Duration;

/// How often and for how long each section measures.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Whether the whole takes a few minutes.
    pub quick: bool,
    /// Loads of each program.
    pub loads: u32,
    /// Rounds over all cases for each load.
    pub rounds: u32,
    /// Packets of a kind in a round.
    pub times: u32,
    /// Openings of each subject.
    pub openings: u32,
    /// Starts of each process.
    pub starts: u32,
    /// How long an idle process is measured.
    pub idle: Duration,
    /// How long a stream is measured.
    pub stream: Duration,
    /// How long to wait for a door.
    pub patience: Duration,
    /// Floods of each kind.
    pub floods: u32,
    /// Frames in a flood.
    pub frames: u32,
}

impl Scale {
    /// Returns the extent of a full or a quick run.
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
