//! Finds doors whose sequence a port scan in order would complete.

use knock_common::layout::FlagClass;
use knock_sequence::Ports;

use super::{
    places::DoorProblem,
    scans::{Direction, Harmless, Touch, opens},
};
use crate::model::{
    settings::{Exempt, Settings},
    value::spell_flags,
};

/// Returns the doors whose sequence a port scan in order would complete.
pub(super) fn check(settings: &Settings) -> Vec<DoorProblem> {
    const MIX: &str = "mix ascending and descending ports";
    let exempt: &[Ports] = match &settings.exempt {
        Exempt::Listed(listed) => listed,
        // The file does not name the ports on which the host listens; a warning covers those.
        Exempt::Listening => &[],
    };
    let mut found = Vec::new();
    let mut harmless = Harmless::new(settings, exempt);
    for (index, door) in settings.doors.iter().enumerate() {
        // A warning covers sequences of one knock.
        if door.knock.len() < 2 {
            continue;
        }
        if !settings.strict
            && let Some(direction) = Direction::of(&door.knock)
        {
            found.push((
                index,
                "knock",
                format!("{direction}: {MIX}, or remove strict = false"),
            ));
            continue;
        }
        let Some(direction) = harmless.walk(&door.knock, Touch::of(door)) else {
            continue;
        };
        // If the default flags don't help, the sequence is at fault.
        let touch = Touch {
            flags: FlagClass::SYN,
            ..Touch::of(door)
        };
        if opens(door.tcp_flags) || harmless.walk(&door.knock, touch).is_some() {
            found.push((
                index,
                "knock",
                format!(
                    "{direction}, because no port between the knocks resets the attempt: \
                     {MIX}, or use ports that are further apart"
                ),
            ));
        } else {
            found.push((
                index,
                "tcp_flags",
                format!(
                    "{direction}: \"{}\" also matches packets that open no connection, and \
                     those do not reset the attempt on the ports in between; use the \
                     default, tcp_flags = \"{}\", or {MIX}",
                    spell_flags(door.tcp_flags),
                    spell_flags(FlagClass::SYN)
                ),
            ));
        }
    }
    found
}
