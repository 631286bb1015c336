//! Adds notes to doors once all of them are converted.

use knock_sequence::Ports;

use super::{
    conf::{KnockdDoor, KnockdSequence},
    draft::{DraftDoor, shown},
};

/// Notes for each door what happens to its knocks, and for each that protects nothing that it does
/// not.
pub(super) fn annotate(drafts: &mut [DraftDoor], doors: &[KnockdDoor]) {
    let protected: Vec<Ports> = opened(drafts);
    for (draft, door) in drafts.iter_mut().zip(doors) {
        if draft.refused.is_empty() {
            knocks(draft, door);
            nothing_protected(draft, door, &protected);
        }
    }
}

/// Returns the ports that the remaining doors open.
fn opened(drafts: &[DraftDoor]) -> Vec<Ports> {
    let kept = drafts.iter().filter(|draft| draft.refused.is_empty());
    let mut ports: Vec<Ports> = kept.flat_map(|draft| draft.opens.iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Returns the ports that are not protected because a door was left out.
pub(super) fn lost(draft: &DraftDoor, drafts: &[DraftDoor]) -> String {
    let protected = opened(drafts);
    let is_lost = |ports: &&Ports| {
        let covers = |other: &Ports| {
            other.protocol == ports.protocol
                && other.first <= ports.first
                && ports.last <= other.last
        };
        !protected.iter().any(covers)
    };
    let lost: Vec<Ports> = draft.opens.iter().filter(is_lost).copied().collect();
    match lost.as_slice() {
        [] => String::new(),
        [port] => format!("; so {port} is not protected"),
        ports => format!("; so {} are not protected", shown(ports)),
    }
}

fn knocks(draft: &mut DraftDoor, door: &KnockdDoor) {
    let (line, key, place) = match &door.sequence {
        KnockdSequence::Fixed(entry) => (entry.line, "sequence", shown(&entry.value)),
        KnockdSequence::Otp(entry) => (entry.line, "otp", "its 256 ports".to_owned()),
        KnockdSequence::OneTime(entry) => (
            entry.line,
            "one_time_sequences",
            "the ports of the next line".to_owned(),
        ),
    };
    let reason = match draft.has("knock_pass") {
        true => format!(
            "knocks reach the services on {place}, as with knockd; without knock_pass they are \
             dropped"
        ),
        false => format!(
            "knock-user drops knocks, which knockd lets pass: clients can't reach services on \
             {place}"
        ),
    };
    draft.note(line, key, reason);
}

fn nothing_protected(draft: &mut DraftDoor, door: &KnockdDoor, protected: &[Ports]) {
    if !draft.opens.is_empty() || !draft.closes.is_empty() {
        return;
    }
    let commands = [&door.start, &door.start_6, &door.stop, &door.stop_6];
    let line = commands.into_iter().flatten().map(|entry| entry.line).min();
    let others = match protected {
        [] => String::new(),
        [port] => format!("; {port} is protected, and this door does not open it"),
        ports => format!(
            "; {} are protected, and this door does not open them",
            shown(ports)
        ),
    };
    let reason = format!(
        "this door protects no port and only runs a command: if the command opens a port for the \
         source, write open = [\"tcp/443\"], with that port, and remove knock_pass{others}"
    );
    draft.note(line.unwrap_or(draft.line), "", reason);
}
