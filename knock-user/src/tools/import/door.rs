//! Converts one of knockd's doors.

use std::time::Duration;

use knock_common::{layout::FlagClass, packet::flag};
use knock_sequence::{Ports, duration::spell};

use super::{
    conf::{KnockdDoor, KnockdSequence, Located},
    door_commands::{OPEN_FOR_MOST, SHORT},
    draft::DraftDoor,
    values::KnockdOtp,
};
use crate::{
    config::SEQUENCE_TIMEOUT_MOST,
    model::value::spell_flags,
    tools::toml_text::{list, string},
};

impl DraftDoor {
    /// Converts a door; `interface` is where its knocks arrive, and `closable` are the ports that
    /// it can close, if not all.
    pub(super) fn of(
        door: &KnockdDoor,
        name: &str,
        interface: &str,
        closable: Option<&[Ports]>,
    ) -> Self {
        let mut draft = Self {
            line: door.name.line,
            keys: Vec::new(),
            notes: Vec::new(),
            name: name.to_owned(),
            opens: Vec::new(),
            closes: Vec::new(),
            refused: Vec::new(),
        };
        draft.key("name", string(name), door.name.line);
        if door.name.value != name {
            let reason = format!("{:?} is renamed to {name:?}", door.name.value);
            draft.note(door.name.line, "", reason);
        }
        draft.sequence(&door.sequence);
        draft.conditions(door);
        draft.commands(door, interface, closable);
        draft.cooldown(door);
        draft.passing(door);
        draft
    }

    fn sequence(&mut self, sequence: &KnockdSequence) {
        match sequence {
            KnockdSequence::Fixed(Located { line, value }) => self.key("knock", list(value), *line),
            KnockdSequence::OneTime(Located { line, value }) => {
                self.key("one_time", string(value), *line);
                self.note(
                    *line,
                    "",
                    "knock-user marks used lines in this file from now on; docs/config.md describes \
                     under one_time who must own it",
                );
            }
            KnockdSequence::Otp(Located { line, value }) => self.key("otp", otp(value), *line),
        }
    }

    fn conditions(&mut self, door: &KnockdDoor) {
        if let Some(Located { line, value }) = door.seq_timeout {
            let written = Duration::from_secs(value);
            let sequence_timeout = written.min(SEQUENCE_TIMEOUT_MOST);
            if sequence_timeout < written {
                let reason = format!(
                    "{value} s is shortened to {}, the longest",
                    spell(sequence_timeout)
                );
                self.note(line, "seq_timeout", reason);
            }
            self.key("sequence_timeout", string(&spell(sequence_timeout)), line);
        }
        if let Some(Located { line, value }) = door.tcp_flags
            && !is_any_syn(value)
        {
            self.key("tcp_flags", string(&spell_flags(value)), line);
        }
        if let Some(Located { line, value }) = &door.target {
            self.key("target", string(value), *line);
        }
    }

    /// Carries over `seq_cooldown`, as far as there is an equivalent.
    fn cooldown(&mut self, door: &KnockdDoor) {
        let Some(Located {
            line,
            value: seconds @ 1..,
        }) = door.seq_cooldown
        else {
            return;
        };
        let runs_alone = !self.has("open") && !self.has("close") && !self.has("on_close");
        let reason = if runs_alone
            && let Some(key) = self.keys.iter_mut().find(|key| key.name == "open_for")
        {
            let cooldown = Duration::from_secs(seconds).clamp(SHORT, OPEN_FOR_MOST);
            key.value = string(&spell(cooldown));
            key.source = line;
            "carried over as open_for: until it ends, another sequence runs no command and \
             restarts the time"
        } else if self.has("close") {
            "not carried over: each completed sequence closes the ports"
        } else {
            "not carried over: during open_for, another sequence runs no command and restarts \
             the time"
        };
        self.note(line, "seq_cooldown", reason);
    }

    /// Lets knocks pass if a door only runs commands, as knockd does: they may be for a service.
    fn passing(&mut self, door: &KnockdDoor) {
        let line = match &door.sequence {
            KnockdSequence::Fixed(entry) => entry.line,
            KnockdSequence::Otp(entry) => entry.line,
            // These ports change, and may become knocks of another door.
            KnockdSequence::OneTime(_) => return,
        };
        if self.has("on_open") && !self.has("open") && !self.has("close") {
            self.key("knock_pass", true.to_string(), line);
        }
    }
}

/// Returns whether flags match exactly the SYNs that open connections, which is the default here.
fn is_any_syn(flags: FlagClass) -> bool {
    flags == FlagClass::SYN || (flags.mask == flag::SYN && flags.value == flag::SYN)
}

fn otp(otp: &KnockdOtp) -> String {
    let KnockdOtp {
        secret,
        period,
        base,
        bind_source,
        protocols,
    } = otp;
    let protocols: Vec<String> = protocols
        .iter()
        .map(|protocol| string(protocol.name()))
        .collect();
    format!(
        "{{ secret = {}, period = \"{period}s\", port_base = {base}, protocols = [{}], \
         bind_source = {bind_source} }}",
        string(secret),
        protocols.join(", ")
    )
}
