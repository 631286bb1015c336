//! Access to protected ports: by a flow, a grant, or the allow list.

use crate::{
    Address, Bytes, Reason, Stat, Subprograms, emit,
    env::{Table, Word},
    event::EventHead,
    grant::Grant,
    grant_prefix::GrantPrefix,
    layout::{Features, FlowKey, GrantKey, PortRule},
    packet::{Protocol, Segment},
    packet_info::PacketInfo,
    presence::{self, Presence},
    reason::Judged,
};

/// If its grant ends within this time, in milliseconds, a connection is recorded as a flow at its SYN. Otherwise it is
/// recorded at the next packet, so that SYNs from a source with a grant don't fill the table; forged later packets
/// can.
const HANDSHAKE_MS: u64 = 4_000;

/// An established connection.
///
/// Only idle time ends it. A FIN or RST may be forged by someone who guesses its ports, and a connection that its ends
/// have closed needs no protection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// The time of the source's last packet, in milliseconds since boot.
    pub seen_ms: u64,
}

impl Flow {
    /// Returns the word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.seen_ms
    }

    /// Reads a word of the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { seen_ms: word }
    }

    /// Returns when it expires unless another packet comes, in milliseconds since boot.
    #[inline(always)]
    pub const fn until_ms(self, idle_ms: u64) -> u64 {
        self.seen_ms.saturating_add(idle_ms)
    }
}

/// Judges a packet to a protected port.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn protected<B: Bytes + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    rule: PortRule,
    env: &E,
) -> Judged<Reason> {
    let info = PacketInfo::of(bytes, segment, env)?;
    let may_have_flow = Presence::of(env, info.source).may_pass(info.now());
    let grant_prefix = match env.features().has(Features::GRANT_PREFIX) {
        true => rule.grant_prefix(),
        false => GrantPrefix::SINGLE,
    };
    if may_have_flow || !grant_prefix.is_single() {
        let packet = ProtectedPacket {
            env,
            segment,
            info: &info,
            port_group: rule.port_group,
            grant_prefix,
            may_have_flow,
        };
        if let Some(reason) = packet.judge() {
            return Ok(reason);
        }
    }
    if env.features().has(Features::TRUST) && env.is_trusted(info.source) {
        return Ok(Reason::Trusted);
    }
    emit::report(env, &info, EventHead::new(Reason::NoGrant), 0);
    Ok(Reason::NoGrant)
}

/// A packet to a protected port from a source that may have a grant or a flow.
struct ProtectedPacket<'a, E> {
    env: &'a E,
    segment: &'a Segment,
    info: &'a PacketInfo,
    port_group: u16,
    grant_prefix: GrantPrefix,
    /// Whether the presence filter admits a flow of the source; another source of its prefix may have a grant.
    may_have_flow: bool,
}

impl<E: Subprograms> ProtectedPacket<'_, E> {
    #[inline(always)]
    fn judge(&self) -> Option<Reason> {
        let keep = self.env.features().has(Features::KEEP);
        // A SYN asks for a new connection, even with the ports of an old one: it needs a grant.
        let syn = self.segment.opens() && self.segment.protocol == Protocol::Tcp;
        if keep && !syn && self.may_have_flow && self.continues_flow() {
            return Some(Reason::Flow);
        }
        let grant = match self.grant_prefix.is_single() {
            true => find_grant(self.env, self.info, self.info.source, self.port_group),
            false => (self.env).find_prefix_grant(self.info, self.port_group, self.grant_prefix),
        }?;
        let ends_soon = grant.until_ms.saturating_sub(self.info.now().millis()) < HANDSHAKE_MS;
        if keep && !self.segment.ends() && (!syn || ends_soon) {
            self.record_flow();
        }
        Some(Reason::Granted)
    }

    #[inline(always)]
    fn flow_key(&self) -> FlowKey {
        let PacketInfo {
            source,
            source_port,
            port,
            target_id,
            protocol,
            ..
        } = *self.info;
        FlowKey {
            source,
            source_port,
            port,
            target_id,
            protocol: protocol.into(),
        }
    }

    #[inline(always)]
    fn idle_ms(&self) -> u64 {
        let idle_ms = self.env.config().map(|config| config.flow_idle_ms);
        let [tcp, udp] = idle_ms.unwrap_or_default();
        match self.segment.protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
        }
    }

    #[inline(always)]
    fn flow_now(&self) -> Flow {
        Flow {
            seen_ms: self.info.now().millis(),
        }
    }

    /// Refreshes the flow of this packet; `false` if there is none.
    #[inline(always)]
    fn continues_flow(&self) -> bool {
        let Some(word) = self.env.flows().find(&self.flow_key()) else {
            return false;
        };
        let idle_ms = self.idle_ms();
        let flow = Flow::from_word(word.load());
        let seen = self.flow_now();
        if seen.seen_ms >= flow.until_ms(idle_ms) {
            return false;
        }
        if seen != flow {
            word.store(seen.to_word());
            // The presence filter is updated once a second, not at each packet of the flow.
            if seen.seen_ms >> 10 != flow.seen_ms >> 10 {
                self.expect_flow(idle_ms);
            }
        }
        true
    }

    #[inline(always)]
    fn record_flow(&self) {
        self.expect_flow(self.idle_ms());
        let key = self.flow_key();
        let word = self.flow_now().to_word();
        if let Some(old) = self.env.flows().find(&key) {
            old.store(word);
        } else if !self.env.flows().insert(&key, word) {
            self.env.count(Stat::FlowsRefused);
        }
    }

    #[inline(always)]
    fn expect_flow(&self, idle_ms: u64) {
        // Two seconds more than the flow, since the presence filter is updated once a second.
        let until = self.info.now().after_millis(idle_ms.saturating_add(2_000));
        presence::expect_pass(self.env, self.info.source, until);
    }
}

/// Returns the valid grant for a port group whose key has this source: for any address of this host, or for the one
/// that the packet was sent to.
#[inline(always)]
fn find_grant<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    source: Address,
    port_group: u16,
) -> Option<Grant> {
    let find = |target_id| {
        let key = GrantKey {
            source,
            port_group,
            target_id,
        };
        let grant = Grant::from_word(env.allow().find(&key)?.load());
        grant.is_valid(info.now()).then_some(grant)
    };
    find(0).or_else(|| match info.target_id {
        0 => None,
        target_id => find(target_id),
    })
}

/// Returns the valid grant of the prefix of a packet's source for a port group.
#[inline(always)]
pub fn find_prefix_grant<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    port_group: u16,
    grant_prefix: GrantPrefix,
) -> Option<Grant> {
    let source = grant_prefix.first_of(info.source);
    match Presence::of(env, source).may_pass(info.now()) {
        true => find_grant(env, info, source, port_group),
        false => None,
    }
}
