//! Writes lines about the protection itself: its start, its changes, its end and its faults.

use std::{io::Write, net::IpAddr, time::Duration};

use knock_common::time::NANOS_PER_MILLI;
use knock_sequence::duration::{spell, spell_short};

use super::{
    AttachMode, Console, NamedInterface,
    line::ConsoleLine,
    record::{EventKind, Record},
};
use crate::{
    interfaces::{admission::Refusal, preceding},
    kernel::tcx::Placed,
    ledger::Adopted,
    model::{
        fleet::Alone,
        settings::Prefix,
        terminal::harmless,
        text::{about, count, list, verb},
    },
};

impl<W: Write> Console<W> {
    /// Reports that the program is attached: `protecting tcp/22 on eth0 (native), 1 door`.
    pub fn protecting<'n>(
        &mut self,
        ports: &[String],
        interface: impl Into<NamedInterface<'n>>,
        mode: AttachMode,
        at_ns: u64,
    ) {
        let interface = interface.into();
        let doors = self.doors.iter();
        let doors = doors.filter(|door| !door.name.is_empty()).count();
        let text = format!(
            "{} {} on {} ({}), {}",
            if self.style.dry_run {
                "would protect"
            } else {
                "protecting"
            },
            list(ports),
            harmless(&interface.shown()),
            mode.name(),
            count(doors as u64, "door"),
        );
        let record = Record {
            ports: Some(ports),
            interface: Some(interface.asked_for),
            current_name: interface.now,
            mode: Some(mode.name()),
            doors: Some(doors),
            ..Record::default()
        };
        self.write_sentence(at_ns, EventKind::Protecting, &text, record);
    }

    /// Reports that the program does not run in the driver, with the reason: `fallback to skb on eth0
    /// because …`.
    pub fn fallback<'n>(
        &mut self,
        interface: impl Into<NamedInterface<'n>>,
        mode: AttachMode,
        because: &str,
        at_ns: u64,
    ) {
        let interface = interface.into();
        let mode = mode.name();
        let text = format!(
            "fallback to {mode} on {} because {}",
            harmless(&interface.shown()),
            harmless(because)
        );
        let record = Record {
            interface: Some(interface.asked_for),
            current_name: interface.now,
            mode: Some(mode),
            because: Some(because),
            ..Record::default()
        };
        self.write_sentence(at_ns, EventKind::Fallback, &text, record);
    }

    /// Reports that the program is detached: `detached: tcp/22 is no longer protected on eth0`.
    pub fn detached(&mut self, ports: &[String], interface: &str, at_ns: u64) {
        let end = if self.style.dry_run {
            "not protected in the dry run"
        } else {
            "no longer protected"
        };
        let verb = verb(ports, "is", "are");
        let text = format!(
            "detached: {} {verb} {end} on {}",
            list(ports),
            harmless(interface)
        );
        self.write_sentence(
            at_ns,
            EventKind::Detached,
            &text,
            Record::of_ports(ports, interface),
        );
    }

    /// Reports that a grant continues from a previous run: `kept 203.0.113.9 ssh tcp/22 for 12s
    /// more`.
    pub fn adopted(&mut self, adopted: &Adopted, at_ns: u64) {
        let Some(door) = self.door(adopted.door).cloned() else {
            return;
        };
        let left_ms = adopted.until_ms.saturating_sub(at_ns / NANOS_PER_MILLI);
        let source = Prefix::covered(adopted.source, door.prefix);
        if !self
            .quota
            .admits(EventKind::Kept.name(), source.address, &door.name, at_ns)
        {
            return;
        }
        let record = Record {
            source: Some(source),
            door: Some(&door.name),
            until: Some(self.utc(adopted.until_ms.saturating_mul(NANOS_PER_MILLI))),
            seconds: Some(Duration::from_millis(left_ms).as_secs_f64()),
            ports: Some(&door.ports),
            ..Record::default()
        };
        let line = ConsoleLine {
            what: EventKind::Kept,
            source: source.to_string(),
            door: door.name.clone(),
            why: format!(
                "{} for {} more",
                list(&door.ports),
                spell(Duration::from_millis(left_ms))
            ),
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that the protection continues without this process.
    pub fn left(&mut self, ports: &[String], interface: &str, at_ns: u64) {
        let verb = verb(ports, "stays", "stay");
        let text = format!(
            "detached: {} {verb} protected on {}; `knock-user detach` ends that",
            list(ports),
            harmless(interface)
        );
        self.write_sentence(
            at_ns,
            EventKind::LeftOn,
            &text,
            Record::of_ports(ports, interface),
        );
    }

    /// Reports that the process ends, and that it is unknown whether the program stays attached.
    pub fn uncertain(&mut self, ports: &[String], interface: &str, at_ns: u64) {
        let verb = verb(ports, "stays", "stay");
        let text = format!(
            "detached: it is unknown whether {} {verb} protected on {}; check with `knock-user \
             status`",
            list(ports),
            harmless(interface)
        );
        self.write_sentence(
            at_ns,
            EventKind::Uncertain,
            &text,
            Record::of_ports(ports, interface),
        );
    }

    /// Reports that an interface has disappeared.
    pub fn gone(&mut self, interface: &str, at_ns: u64) {
        let text = format!(
            "{} is gone; it is protected again as soon as it is back",
            harmless(interface)
        );
        self.write_sentence(
            at_ns,
            EventKind::Absent,
            &text,
            Record::of_interface(interface),
        );
    }

    /// Reports that an interface was moved to another network namespace, where these ports are open now.
    pub fn moved(&mut self, ports: &[String], interface: &str, at_ns: u64) {
        let text = format!(
            "{0} was moved to another network namespace and released: {1} {2} open through it there, unless a \
             knock-user there protects it; here it is protected again as soon as it is back",
            harmless(interface),
            list(ports),
            verb(ports, "is", "are")
        );
        let record = Record {
            reason: Some("moved"),
            ..Record::of_ports(ports, interface)
        };
        self.write_sentence(at_ns, EventKind::Absent, &text, record);
    }

    /// Reports that an interface can't be protected, with the cure.
    pub fn refused(&mut self, interface: &str, refusal: &Refusal, at_ns: u64) {
        let text = format!(
            "{} is NOT protected: {}; knock-user tries again every second",
            harmless(interface),
            harmless(&about(refusal.interface(), &refusal.to_string()))
        );
        let because = refusal.to_string();
        let record = Record {
            interface: Some(interface),
            reason: Some(refusal.name()),
            because: Some(&because),
            ..Record::default()
        };
        self.write_sentence(at_ns, EventKind::Refused, &text, record);
    }

    /// Reports that an interface was found without our program: packets since the last check, a
    /// second ago, were not judged.
    pub fn lost(&mut self, interface: &str, at_ns: u64) {
        let text = format!(
            "{} had lost the program: its pin was removed, bpffs was unmounted, or its link was \
             detached; what came in since was not judged",
            harmless(interface)
        );
        self.write_sentence(
            at_ns,
            EventKind::Lost,
            &text,
            Record::of_interface(interface),
        );
    }

    /// Reports that these programs of other owners run before ours on an interface.
    pub fn preceded(&mut self, interface: &str, programs: &[Placed], at_ns: u64) {
        let Some(because) = preceding::text(&preceding::named(programs)) else {
            return;
        };
        let text = format!("{}: {because}", harmless(interface));
        let record = Record {
            because: Some(&because),
            ..Record::of_interface(interface)
        };
        self.write_sentence(at_ns, EventKind::Preceded, &text, record);
    }

    /// Reports that an interface of the configuration does not exist yet.
    pub fn awaited(&mut self, interface: &str, at_ns: u64) {
        let text = format!(
            "{} does not exist yet; it is protected as soon as it appears",
            harmless(interface)
        );
        self.write_sentence(
            at_ns,
            EventKind::Absent,
            &text,
            Record::of_interface(interface),
        );
    }

    /// Reports that a new configuration is in force, and its changes.
    pub fn reloaded(&mut self, changes: &[String], at_ns: u64) {
        let what = match changes {
            [] => "no changes".to_owned(),
            changes => changes.join("; "),
        };
        let text = format!("reloaded: {}", harmless(&what));
        let record = Record {
            changes: Some(changes),
            ..Record::default()
        };
        self.write_sentence(at_ns, EventKind::Reloaded, &text, record);
    }

    /// Reports that the configuration is on trial, for how long, and how to keep it. `restores`
    /// says whether there is a previous configuration to restore.
    pub fn trial(&mut self, until_ms: u64, restores: bool, at_ns: u64) {
        let left_ms = until_ms.saturating_sub(at_ns / NANOS_PER_MILLI);
        let end = match restores {
            true => "the previous configuration is restored",
            false => "the protection ends, and the ports are open",
        };
        let text = format!(
            "on trial: run `knock-user confirm` within {} to keep it; without that {end}",
            spell_short(Duration::from_millis(left_ms))
        );
        let record = Record {
            until: Some(self.utc(until_ms.saturating_mul(NANOS_PER_MILLI))),
            seconds: Some(Duration::from_millis(left_ms).as_secs_f64()),
            because: Some("run `knock-user confirm` to keep it"),
            ..Record::default()
        };
        self.write_sentence(at_ns, EventKind::Trial, &text, record);
    }

    /// Reports that a trial was confirmed.
    pub fn confirmed(&mut self, at_ns: u64) {
        let text = "confirmed: the configuration stays in force";
        self.write_sentence(at_ns, EventKind::Confirmed, text, Record::default());
    }

    /// Reports that a line of a one-time file was used: `used - ssh line 12, 988 left`.
    pub fn used(&mut self, door: &str, line: u32, left: usize, at_ns: u64) {
        let record = Record {
            door: Some(door),
            line: Some(line),
            sequences_left: Some(left),
            ..Record::default()
        };
        let line = ConsoleLine {
            what: EventKind::Used,
            source: "-".to_owned(),
            door: door.to_owned(),
            why: format!("line {line}, {left} left"),
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that a door can't be opened, and why; or, without a reason, that it can be opened
    /// again.
    pub fn usable(&mut self, door: &str, because: Option<&str>, at_ns: u64) {
        let record = Record {
            door: Some(door),
            because,
            ..Record::default()
        };
        let line = ConsoleLine {
            what: match because {
                Some(_) => EventKind::Disabled,
                None => EventKind::Enabled,
            },
            source: "-".to_owned(),
            door: door.to_owned(),
            why: because.map(harmless).unwrap_or_default().into_owned(),
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that a user blocked a prefix: `blocked 203.0.113.7 - for 1h by uid 0`.
    pub fn blocked(&mut self, prefix: Prefix, until_ms: Option<u64>, uid: u32, at_ns: u64) {
        let by = format!("uid {uid}");
        let left = until_ms.map(|until_ms| {
            Duration::from_millis(until_ms.saturating_sub(at_ns / NANOS_PER_MILLI))
        });
        let record = Record {
            source: Some(prefix),
            by: Some(&by),
            until: until_ms.map(|until_ms| self.utc(until_ms.saturating_mul(NANOS_PER_MILLI))),
            seconds: left.map(|left| left.as_secs_f64()),
            ..Record::default()
        };
        let lasts = match left {
            Some(left) => format!("for {}", spell_short(left)),
            None => "until it is unblocked".to_owned(),
        };
        let line = ConsoleLine {
            what: EventKind::Blocked,
            source: prefix.to_string(),
            door: "-".to_owned(),
            why: format!("{lasts}, by {by}"),
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that the block of a prefix has ended: a user ended it, or it has expired.
    pub fn unblocked(&mut self, prefix: Prefix, uid: Option<u32>, at_ns: u64) {
        let by = uid.map(|uid| format!("uid {uid}"));
        let record = Record {
            source: Some(prefix),
            by: by.as_deref(),
            reason: Some(if uid.is_some() {
                "unblocked"
            } else {
                "expired"
            }),
            ..Record::default()
        };
        let line = ConsoleLine {
            what: EventKind::Unblocked,
            source: prefix.to_string(),
            door: "-".to_owned(),
            why: match &by {
                Some(by) => format!("by {by}"),
                None => "expired".to_owned(),
            },
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that the engine of a group is followed, `through` a member, or else that it is not, and what knocks do
    /// meanwhile: `cut-off - - web: ...`.
    pub fn followed_group(
        &mut self,
        group: &str,
        through: Option<&str>,
        alone: Alone,
        reason: &str,
        at_ns: u64,
    ) {
        let record = Record {
            because: through.is_none().then_some(reason),
            ..Record::default()
        };
        let (what, why) = match through {
            Some(through) => (EventKind::InSync, format!("group {group}, {through}")),
            None => {
                let meanwhile = match alone {
                    Alone::Closed => "knocks open no door of it",
                    Alone::Local => "knocks open here alone",
                };
                let why = format!("group {group}, so {meanwhile}: {}", harmless(reason));
                (EventKind::CutOff, why)
            }
        };
        let line = ConsoleLine {
            what,
            source: "-".to_owned(),
            door: "-".to_owned(),
            why,
        };
        self.report(at_ns, &line, record);
    }

    /// Reports a source whose knocks would be correct at another time.
    pub fn clock(&mut self, source: IpAddr, door: &str, behind_s: i64, at_ns: u64) {
        let record = Record {
            source: Some(Prefix::of(source)),
            door: Some(door),
            seconds_behind: Some(behind_s),
            ..Record::default()
        };
        let away = spell(Duration::from_secs(behind_s.unsigned_abs()));
        let why = match behind_s {
            ..0 => format!("the knocks of {away} from now: its clock seems to be ahead by that"),
            _ => format!(
                "the knocks of {away} ago: its clock seems to be behind by that, or somebody \
                 replays old knocks"
            ),
        };
        let line = ConsoleLine {
            what: EventKind::ClockSkew,
            source: source.to_string(),
            door: door.to_owned(),
            why,
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that something had no room, and how often since the last such line.
    pub fn pressure(&mut self, what: &str, times: u64, at_ns: u64) {
        let record = Record {
            because: Some(what),
            count: Some(times),
            ..Record::default()
        };
        let line = ConsoleLine {
            what: EventKind::Pressure,
            source: "-".to_owned(),
            door: "-".to_owned(),
            why: format!("{what}, {}", count(times, "time")),
        };
        self.report(at_ns, &line, record);
    }
}
