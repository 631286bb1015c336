//! Writes the reasons in words, a sentence each.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use knock_common::{
    Address, Env, Judgement, Reason, Verdict,
    access::Flow,
    blocked::Blocked,
    env::{Table as _, Word as _},
    event::{Event, NO_DOOR},
    grant::Grant,
    knock,
    layout::{Features, FromKey, GrantKey, PortKind, PortRule, port_index},
    lockout,
    packet::Protocol,
    packet_info::PacketInfo,
    spa::port::Otherwise,
    time::Moment,
};
use knock_sequence::{Knock, Ports, duration::spell_short};

use super::{
    copy_on_read::CopyOnRead,
    live::Live,
    query::{Known, Query},
};
use crate::model::settings::{Door, Prefix};

/// Names of doors in one sentence.
const DOORS_SHOWN: usize = 5;

/// Returns the facts before the packet is judged, in the order of the checks.
pub(super) fn steps<L: Live>(
    query: &Query,
    known: &Known<'_>,
    seen: &CopyOnRead<'_, L>,
) -> Result<Vec<String>> {
    let source = Address::from(query.source);
    let Knock { protocol, port } = query.port;
    let rule = seen.port(port_index(protocol, port));
    let target_id = match query.destination {
        Some(to) if known.features.has(Features::TARGETS) => seen.target(to.into()),
        _ => 0,
    };
    let about = About {
        query,
        known,
        seen,
        info: PacketInfo {
            source,
            destination: query.destination.map_or(Address::ANY, Address::from),
            now_ns: known.now.nanos(),
            target_id,
            source_port: 0,
            port,
            protocol: protocol as u8,
            ..PacketInfo::default()
        },
        rule,
    };
    let mut steps = Vec::new();
    steps.extend(about.trial());
    steps.extend(about.block());
    steps.push(about.port());
    if about.is_protected() {
        steps.push(about.trust());
        steps.extend(about.grants());
        steps.extend(about.flows()?);
    }
    steps.extend(about.from());
    steps.extend(about.cut_off());
    steps.extend(about.attempt());
    steps.extend(about.lockout());
    Ok(steps)
}

/// Returns the outcome for the packet; `event` is the judge's event.
pub(super) fn outcome(
    query: &Query,
    known: &Known<'_>,
    rule: PortRule,
    judgement: Judgement,
    event: Option<Event>,
) -> String {
    let packet = match query.port.protocol {
        Protocol::Tcp => "a new connection",
        Protocol::Udp => "a datagram",
    };
    let is_dry = known.features.has(Features::DRY_RUN);
    let happens = match (judgement.verdict(), is_dry) {
        (Verdict::Pass, _) => "would pass",
        (Verdict::Drop, false) => "would be dropped",
        (Verdict::Drop, true) => "would be dropped if this were not a dry run",
        (Verdict::Answer, false) => "would be answered",
        (Verdict::Answer, true) => "would be answered if this were not a dry run",
    };
    let detail = event.and_then(|event| stage(&event, known));
    let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
    let kind = rule.kind();
    // The reason of a packet that no rule concerns is the same at ports that are named in a
    // configuration.
    let reason = match (judgement.reason == Reason::Ordinary, kind) {
        (true, PortKind::Spa) => "it is not a SPA packet, and others pass",
        (true, PortKind::Exempt) => "the port is exempt",
        (true, PortKind::Ordinary | PortKind::Protected | PortKind::Knock | PortKind::Decoy)
        | (false, _) => judgement.reason.text(),
    };
    format!("{packet} {happens}: {reason}{detail}")
}

/// Returns the progress of an event in its door, or the ports that it opens.
fn stage(event: &Event, known: &Known<'_>) -> Option<String> {
    let door = known.door(event.door)?;
    let name = &door.name;
    let ports = |ports: &[Ports]| list(ports.iter().map(ToString::to_string));
    let lasts_ms = event.until_ms.saturating_sub(known.now.millis());
    let reason = event.reason()?;
    if matches!(reason, Reason::Opened | Reason::Refreshed) {
        return Some(match door.opened() {
            [] => format!("{name} runs its command"),
            opened => format!(
                "{name} opens {} for {}",
                ports(opened),
                spell_short(Duration::from_millis(lasts_ms))
            ),
        });
    }
    if reason == Reason::Closed {
        return Some(format!("{name} closes {}", ports(door.closed())));
    }
    let ended = matches!(
        reason,
        Reason::WrongKnock | Reason::StrayPort | Reason::Decoy | Reason::TooLate
    );
    let after = if ended { "after " } else { "" };
    let of = whole(door);
    (event.stage > 0).then(|| format!("{after}{}{of} of {name}", event.stage))
}

/// Returns ` of N`, the number of knocks of a door, if it is known.
fn whole(door: &Door) -> String {
    door.length()
        .map_or(String::new(), |of| format!(" of {of}"))
}

/// A packet, and the data for its explanation.
struct About<'a, L> {
    query: &'a Query,
    known: &'a Known<'a>,
    seen: &'a CopyOnRead<'a, L>,
    info: PacketInfo,
    rule: PortRule,
}

impl<L: Live> About<'_, L> {
    /// Returns whether packets that are not SPA packets need a grant.
    fn is_protected(&self) -> bool {
        match self.rule.kind() {
            PortKind::Protected => true,
            PortKind::Spa => matches!(self.rule.spa_port().otherwise, Otherwise::Protected(_)),
            PortKind::Knock | PortKind::Decoy | PortKind::Exempt | PortKind::Ordinary => false,
        }
    }

    fn has(&self, feature: Features) -> bool {
        self.known.features.has(feature)
    }

    fn now_ms(&self) -> u64 {
        self.known.now.millis()
    }

    /// Writes the time from now until an end, as in `12s`.
    fn until(&self, at_ms: u64) -> String {
        spell_short(Duration::from_millis(at_ms.saturating_sub(self.now_ms())))
    }

    fn trial(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if self.has(Features::DRY_RUN) {
            sentences.push("this is a dry run: nothing is dropped".to_owned());
        }
        let end_ms = self.seen.config().map(|config| config.confirm_by_ms);
        let is_awaited = |end_ms: &u64| self.has(Features::CONFIRM) && *end_ms != u64::MAX;
        if let Some(end_ms) = end_ms.filter(is_awaited) {
            sentences.push(if end_ms <= self.now_ms() {
                "no confirmation came in time: everything passes".to_owned()
            } else {
                let left = self.until(end_ms);
                format!("on trial: everything passes in {left} unless `knock-user confirm` is run")
            });
        }
        sentences
    }

    fn port(&self) -> String {
        let port = self.query.port;
        let is_here = |ports: &Ports| ports.overlaps(port.into());
        let doors = self.known.settings.doors.iter();
        match self.rule.kind() {
            PortKind::Protected => {
                let opening = doors.filter(|door| door.opened().iter().any(is_here));
                let names: Vec<_> = opening.map(with_target).collect();
                if names.is_empty() {
                    format!("{port} is protected; no door opens it")
                } else {
                    format!("{port} is protected; opened by {}", list(names))
                }
            }
            PortKind::Knock => {
                let places = doors.filter_map(|door| {
                    let place = door.knock.iter().position(|knock| *knock == port)?;
                    let of = door.knock.len();
                    Some(format!("{} of {of} of {}", place + 1, with_target(door)))
                });
                let passes = match self.rule.passes_knocks() {
                    true => ", and knocks pass",
                    false => "",
                };
                format!("{port} is knock {}{passes}{}", list(places), self.proof())
            }
            PortKind::Decoy => format!("{port} is a decoy{}", self.proof()),
            PortKind::Spa => {
                let others = match self.rule.spa_port().otherwise {
                    Otherwise::Drop => "other packets are dropped",
                    Otherwise::Pass => "other packets pass",
                    Otherwise::Protected(_) => "it is protected for other packets",
                };
                format!("{port} accepts single packet authorization; {others}")
            }
            PortKind::Exempt => format!("{port} is exempt: packets pass, and reset no attempt"),
            PortKind::Ordinary if self.has(Features::STRICT) => {
                format!(
                    "{port} is an unused port: packets pass, and a new connection to it resets an attempt"
                )
            }
            PortKind::Ordinary => format!("{port} is an unused port: packets pass"),
        }
    }

    fn proof(&self) -> &'static str {
        match self.query.port.protocol == Protocol::Tcp && self.rule.needs_handshake() {
            true if !self.is_answered() => "; its handshakes are not answered for this source",
            true => "; it counts once a TCP handshake has verified the source",
            false => "",
        }
    }

    /// Returns whether the port, which completes handshakes, answers the source.
    fn is_answered(&self) -> bool {
        let key = |door: u16| FromKey {
            door: door.into(),
            source: self.info.source,
        };
        let audience = self.rule.audience().door();
        audience.is_none_or(|door| self.seen.is_from(&key(door)))
    }

    fn block(&self) -> Option<String> {
        let source = self.info.source;
        let block = self.seen.blocked(source);
        let block = block.filter(|block| block.is_valid(self.known.now));
        let is_listed = self.has(Features::BLOCK) && self.seen.is_in_block_list(source);
        let how = match block {
            Some(block) if block.until_ms == Blocked::NEVER => "by a command".to_owned(),
            Some(block) => format!("by a command, {} left", self.until(block.until_ms)),
            None if is_listed => "by [block] of the configuration".to_owned(),
            None => return None,
        };
        let is_trusted = self.has(Features::TRUST) && self.seen.is_trusted(source);
        let but = match is_trusted {
            true => ", but it is trusted, which wins",
            false => ": all its packets are dropped",
        };
        Some(format!("{} is blocked {how}{but}", self.query.source))
    }

    /// Returns the doors that open the port, or that it is a knock of, and that the source may not use.
    fn from(&self) -> Option<String> {
        let source = self.query.source;
        let is_elsewhere = |door: &&Door| {
            !door.from.is_empty() && !door.from.iter().any(|prefix| prefix.has(source))
        };
        let names: Vec<_> = self.doors().filter(is_elsewhere).map(with_target).collect();
        (!names.is_empty()).then(|| format!("{source} is not in from of {}", list(names)))
    }

    /// Returns how the host is cut off, if the group opens the port, or if it is a knock of such a door.
    fn cut_off(&self) -> Option<String> {
        let settings = self.known.settings;
        let mut doors = self.doors();
        let is_about = doors.any(|door| settings.is_shared(door));
        let cut_off = self.known.cut_off.filter(|_| is_about)?;
        Some(format!("this host is {cut_off}"))
    }

    /// Returns the doors that open the port, or that it is a knock of.
    fn doors(&self) -> impl Iterator<Item = &Door> {
        let port = self.query.port;
        let doors = self.known.settings.doors.iter();
        doors.filter(move |door| {
            let mut opened = door.opened().iter();
            opened.any(|ports| ports.overlaps(port.into())) || door.knock.contains(&port)
        })
    }

    fn trust(&self) -> String {
        let source = self.query.source;
        let is_trusted = self.has(Features::TRUST) && self.seen.is_trusted(self.info.source);
        let word = if is_trusted { "is" } else { "is not" };
        format!("{source} {word} trusted")
    }

    fn grants(&self) -> Vec<String> {
        let target_ids = match self.info.target_id {
            0 => vec![0],
            target_id => vec![0, target_id],
        };
        let prefix = self.rule.grant_prefix();
        let covered = Prefix::covered(self.info.source, prefix);
        let whose = match covered == Prefix::of(self.query.source) {
            true => "it".to_owned(),
            false => format!("its network {covered}"),
        };
        let held = target_ids.into_iter().filter_map(|target_id| {
            let key = GrantKey {
                source: prefix.first_of(self.info.source),
                port_group: self.rule.port_group,
                target_id,
            };
            self.seen.allow().find(&key)
        });
        let held: Vec<_> = held.map(|word| Grant::from_word(word.load())).collect();
        let valid = held.iter().filter(|grant| grant.is_valid(self.known.now));
        let sentences: Vec<_> = valid
            .map(|grant| {
                let left = self.until(grant.until_ms);
                let door = self.known.door(grant.door);
                let door = door.map_or("a door that was removed", |door| &door.name);
                format!("{whose} has a grant for {door}, {left} left")
            })
            .collect();
        if !sentences.is_empty() {
            return sentences;
        }
        let ended = held.iter().map(|grant| grant.until_ms);
        let ended = ended.chain(self.known.ended_ms).max();
        vec![match ended {
            Some(ended_ms) => {
                let ago = Duration::from_millis(self.now_ms().saturating_sub(ended_ms));
                let ago = spell_short(ago);
                format!("no grant (the last ended {ago} ago)")
            }
            None => "no grant".to_owned(),
        }]
    }

    fn flows(&self) -> Result<Option<String>> {
        if !self.has(Features::KEEP) {
            return Ok(None);
        }
        let Knock { protocol, port } = self.query.port;
        let idle_ms = self
            .seen
            .config()
            .map_or([0; 2], |config| config.flow_idle_ms);
        let flows = self.seen.below.flows()?.into_iter();
        let count = flows
            .filter(|(key, word)| {
                key.source == self.info.source
                    && key.protocol == protocol as u16
                    && key.port == port
                    && self.now_ms() < Flow::from_word(*word).until_ms(key.idle_ms(idle_ms))
            })
            .count();
        Ok(match count {
            0 => None,
            1 => Some("1 connection from it continues".to_owned()),
            _ => Some(format!("{count} connections from it continue")),
        })
    }

    fn attempt(&self) -> Option<String> {
        let now = self.known.now.tick();
        let progress = knock::progress(self.seen, &self.info);
        let node = self.seen.node(progress.node);
        let alive = node.filter(|node| !progress.is_none() && progress.is_alive(node, now));
        let Some(node) = alive.filter(|node| !node.ends_sequence()) else {
            let matters = matches!(self.rule.kind(), PortKind::Protected | PortKind::Knock);
            return matters.then(|| "no attempt is under way".to_owned());
        };
        let door = self.known.door(node.via_door);
        let since = now.since(progress.last);
        let sequence_timeout_ticks = node
            .sequence_timeout_ticks
            .saturating_sub(progress.elapsed.saturating_add(since));
        let left_ticks = sequence_timeout_ticks.min(node.step_timeout_ticks.saturating_sub(since));
        let left_ms = Moment::default().after_ticks(left_ticks).millis();
        let made = node.depth;
        let whole = door.map_or_else(
            || format!("{made} knocks made"),
            |door| format!("{made}{} knocks of {} made", whole(door), door.name),
        );
        let rest = if node.step_timeout_ticks < sequence_timeout_ticks {
            "next"
        } else {
            "rest"
        };
        Some(format!(
            "{whole}, {} left for the {rest}",
            spell_short(Duration::from_millis(left_ms))
        ))
    }

    fn lockout(&self) -> Option<String> {
        if !self.has(Features::LOCKOUT) {
            return None;
        }
        let config = self.seen.config()?;
        let is_global = self.has(Features::LOCKOUT_GLOBAL);
        let failures = lockout::failures(self.seen, self.info.source, config, self.known.now)?;
        let left = spell_short(Duration::from_millis(
            failures.left_ms(self.known.now, config),
        ));
        let lockout_failures = config.lockout_failures;
        let count = failures.count;
        let who = if is_global { "every source is " } else { "" };
        Some(if u32::from(count) >= lockout_failures {
            format!("{who}locked out for {left} more: knocks are ignored")
        } else {
            format!("{count} of {lockout_failures} failed attempts before a lockout")
        })
    }
}

impl Known<'_> {
    fn door(&self, number: u16) -> Option<&Door> {
        if number == NO_DOOR {
            return None;
        }
        let mut doors = self.settings.doors.iter();
        doors.find(|door| self.numbers.get(&door.name) == Some(&number))
    }
}

fn with_target(door: &Door) -> String {
    match door.target {
        Some(target) => format!("{} (to {})", door.name, IpAddr::to_string(&target)),
        None => door.name.clone(),
    }
}

/// Returns a list such as `a, b, c and 3 more`.
fn list(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    let shown = words.get(..DOORS_SHOWN).unwrap_or(&words).join(", ");
    match words.len().saturating_sub(DOORS_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
