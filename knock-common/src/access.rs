//! Access to protected ports: by a flow, a grant, or the allow list.

use crate::{
    Bytes, Reason, Stat, Subprograms, emit,
    env::{Table, Word},
    event::EventHead,
    grant::Grant,
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

    /// When it expires unless another packet comes, in milliseconds since boot.
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
    if Presence::of(env, info.source).may_pass(info.now()) {
        let packet = ProtectedPacket {
            env,
            segment,
            info: &info,
            port_group: rule.port_group,
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
}

impl<E: Subprograms> ProtectedPacket<'_, E> {
    #[inline(always)]
    fn judge(&self) -> Option<Reason> {
        let keep = self.env.features().has(Features::KEEP);
        // A SYN asks for a new connection, even with the ports of an old one: it needs a grant.
        let syn = self.segment.opens() && self.segment.protocol == Protocol::Tcp;
        if keep && !syn && self.continues_flow() {
            return Some(Reason::Flow);
        }
        let grant = self.grant(0).or_else(|| match self.info.target_id {
            0 => None,
            target_id => self.grant(target_id),
        })?;
        let ends_soon = grant.until_ms.saturating_sub(self.info.now().millis()) < HANDSHAKE_MS;
        if keep && !self.segment.ends() && (!syn || ends_soon) {
            self.record_flow();
        }
        Some(Reason::Granted)
    }

    #[inline(always)]
    fn grant(&self, target_id: u16) -> Option<Grant> {
        let key = GrantKey {
            source: self.info.source,
            port_group: self.port_group,
            target_id,
        };
        let grant = Grant::from_word(self.env.allow().find(&key)?.load());
        grant.is_valid(self.info.now()).then_some(grant)
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
        let flow = Flow::from_word(word.load());
        let idle_ms = self.idle_ms();
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
