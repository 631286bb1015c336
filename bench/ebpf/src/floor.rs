//! Floor programs: for each row of the bench, one that does only what no design can avoid for that decision.
//!
//! That is: the headers up to the ports, with the checks without which a filter could be deceived; the port's rule; the
//! source, where it matters; one lookup of what is known about it; a comparison with a clock; the write without which
//! the next packet would be judged wrongly; an event, where the program reports each packet of the row; and the
//! count. Maps have the types, keys, values and sizes of the program's. What the program does beyond that (IPv6
//! extension headers, targets, limits of events, claims, the automaton) is what the bench compares.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, xdp_action},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    helpers::bpf_jiffies64,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use knock_common::{
    Address, Bytes as _, Reason, Verdict,
    event::Event,
    layout::{
        ALLOW_MAX, BUCKETS, EVENTS_BYTES, FLOWS_MAX, FlowKey, GrantKey, PORT_RULES, PRESENCE_SLOTS,
        PROGRESS_MAX, PortKind, PortRule, ProgressKey, WAYS, port_index,
    },
    packet::{Protocol, flag},
    reason::COUNTERS_MAX,
};

use crate::{current::Current as _, frame::Frame};

/// Of a knock port, `first` is the number of the knock, from 1.
#[btf_map]
static FLOOR_PORTS: Array<PortRule, { PORT_RULES as usize }> = Array::new();
/// Words that are 0 for sources about which nothing is known.
#[btf_map]
static FLOOR_FILTER: Array<u64, { PRESENCE_SLOTS as usize }> = Array::new();
/// The time of a first knock and a part of the source's hash.
#[btf_map]
static FLOOR_FIRST: Array<[u64; WAYS], { BUCKETS as usize }> = Array::new();
/// The time of the last knock, and how many were made.
#[btf_map]
static FLOOR_PROGRESS: LruHashMap<ProgressKey, u64, { PROGRESS_MAX as usize }> = LruHashMap::new();
/// When the grant ends.
#[btf_map]
static FLOOR_ALLOW: HashMap<GrantKey, u64, { ALLOW_MAX as usize }> = HashMap::new();
/// The time of the last packet.
#[btf_map]
static FLOOR_FLOWS: LruHashMap<FlowKey, u64, { FLOWS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static FLOOR_COUNTERS: PerCpuArray<u64, { COUNTERS_MAX as usize }> = PerCpuArray::new();
#[btf_map]
static FLOOR_EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// How long grants, flows and attempts last, in jiffies: hours.
const LASTS: u64 = 1 << 22;
/// The low bits of a word of progress: how many knocks were made.
const STAGE_BITS: u32 = 8;

/// What a packet is judged by, but for its source.
struct Ports {
    protocol: Protocol,
    /// Whether it asks for a connection.
    opens: bool,
    source_port: u16,
    port: u16,
    network: usize,
    v6: bool,
}

impl Ports {
    #[inline(always)]
    fn read(frame: &Frame<false>) -> Option<Self> {
        let [.., ethertype]: [u16; 7] = frame.words(0)?;
        // Most packets have no tag, and then headers have constant offsets.
        if ethertype == 0x0800_u16.to_be() {
            return Self::v4(frame, 14);
        }
        let mut network = 14;
        let mut ethertype = u16::from_be(ethertype);
        for _ in 0..2 {
            if !matches!(ethertype, 0x8100 | 0x88a8) {
                break;
            }
            ethertype = frame.be16(network + 2)?;
            network += 4;
        }
        match ethertype {
            0x0800 => Self::v4(frame, network),
            0x86dd => {
                let protocol = frame.u8(network + 6)?;
                Self::behind(frame, protocol, network, network + 40, true)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn v4(frame: &Frame<false>, network: usize) -> Option<Self> {
        let [first, _, _, fragment, ttl_and_protocol]: [u16; 5] = frame.words(network)?;
        // Later fragments have no ports.
        if fragment & 0x1fff_u16.to_be() != 0 {
            return None;
        }
        let [version_and_words, _] = first.to_ne_bytes();
        let [_, protocol] = ttl_and_protocol.to_ne_bytes();
        let length = usize::from(version_and_words & 0x0f) * 4;
        Self::behind(frame, protocol, network, network + length, false)
    }

    #[inline(always)]
    fn behind(
        frame: &Frame<false>,
        protocol: u8,
        network: usize,
        transport: usize,
        v6: bool,
    ) -> Option<Self> {
        let (protocol, opens, source_port, port) = match Protocol::from_number(protocol)? {
            protocol @ Protocol::Tcp => {
                let [source, port, _, _, _, _, flags]: [u16; 7] = frame.words(transport)?;
                let flags = u16::from_be(flags) as u8;
                let opens = flags & (flag::SYN | flag::ACK) == flag::SYN;
                (protocol, opens, source, port)
            }
            protocol @ Protocol::Udp => {
                let [source, port]: [u16; 2] = frame.words(transport)?;
                (protocol, true, source, port)
            }
        };
        Some(Self {
            protocol,
            opens,
            source_port: u16::from_be(source_port),
            port: u16::from_be(port),
            network,
            v6,
        })
    }

    #[inline(always)]
    fn source(&self, frame: &Frame<false>) -> Option<Address> {
        self.address(frame, 12, 8)
    }

    #[inline(always)]
    fn address(&self, frame: &Frame<false>, v4: usize, v6: usize) -> Option<Address> {
        Some(match self.v6 {
            false => Address::from_v4(bytemuck::cast(frame.words::<2>(self.network + v4)?)),
            true => Address::from_v6(bytemuck::cast(frame.words::<8>(self.network + v6)?)),
        })
    }

    #[inline(always)]
    fn grant_key(&self, frame: &Frame<false>, rule: PortRule) -> Option<GrantKey> {
        Some(GrantKey {
            source: self.source(frame)?,
            port_group: rule.port_group,
            target_id: 0,
        })
    }

    #[inline(always)]
    fn flow_key(&self, frame: &Frame<false>) -> Option<FlowKey> {
        Some(FlowKey {
            source: self.source(frame)?,
            source_port: self.source_port,
            port: self.port,
            target_id: 0,
            protocol: self.protocol as u16,
        })
    }

    #[inline(always)]
    fn progress_key(&self, frame: &Frame<false>) -> Option<ProgressKey> {
        Some(ProgressKey {
            source: self.source(frame)?,
            target_id: 0,
            padding: 0,
        })
    }
}

/// Decides about the packet by its port's rule, and counts the decision. Without one the packet is not of the row that
/// the program is for.
#[inline(always)]
fn floor(
    context: &XdpContext,
    decide: impl FnOnce(&Frame<false>, &Ports, PortRule) -> Option<Reason>,
) -> u32 {
    let frame = Frame::of(context.ctx);
    let reason = Ports::read(&frame).and_then(|ports| {
        let rule = FLOOR_PORTS.get(port_index(ports.protocol, ports.port))?;
        decide(&frame, &ports, *rule)
    });
    let Some(reason) = reason else {
        return xdp_action::XDP_ABORTED;
    };
    if let Some(counter) = FLOOR_COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the pointer is an aligned map value of this CPU alone.
        let counter = unsafe { &mut *counter };
        *counter = counter.wrapping_add(1);
    }
    match reason.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop | Verdict::Answer => xdp_action::XDP_DROP,
    }
}

/// Passes a packet that continues a connection to an unused port.
#[xdp(frags)]
#[inline(always)]
fn floor_port(context: XdpContext) -> u32 {
    floor(&context, |_, ports, rule| {
        (rule.kind() == PortKind::Ordinary && !ports.opens).then_some(Reason::Ordinary)
    })
}

/// Decides about a packet of a source about which nothing is known.
#[xdp(frags)]
#[inline(always)]
fn floor_filter(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let slot = hash(ports.source(frame)?) >> (u64::BITS - PRESENCE_SLOTS.trailing_zeros());
        if *FLOOR_FILTER.get(slot as u32)? != 0 {
            return None;
        }
        Some(match rule.kind() {
            PortKind::Ordinary | PortKind::Exempt => Reason::Ordinary,
            PortKind::Protected => Reason::NoGrant,
            PortKind::Knock | PortKind::Spa => Reason::OutOfSequence,
            PortKind::Decoy => Reason::Decoy,
        })
    })
}

/// Passes a packet of a source with a grant.
#[xdp(frags)]
#[inline(always)]
fn floor_grant(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let until = FLOOR_ALLOW.get_ptr(ports.grant_key(frame, rule)?)?;
        // SAFETY: the pointer is an aligned map value, which lives while the program runs.
        let until = unsafe { until.read_volatile() };
        (now() < until).then_some(Reason::Granted)
    })
}

/// Passes a packet of a flow.
#[xdp(frags)]
#[inline(always)]
fn floor_flow(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, _| {
        let word = FLOOR_FLOWS.get_ptr_mut(ports.flow_key(frame)?)?;
        // SAFETY: as in `floor_grant`.
        let seen = unsafe { word.read_volatile() };
        let now = now();
        if now >= seen.wrapping_add(LASTS) {
            return None;
        }
        if now != seen {
            // SAFETY: as in `floor_grant`; other CPUs see the old word or the new one.
            unsafe { word.write_volatile(now) };
        }
        Some(Reason::Flow)
    })
}

/// Records a first knock.
#[xdp(frags)]
#[inline(always)]
fn floor_first(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        if rule.kind() != PortKind::Knock || !ports.opens {
            return None;
        }
        let hash = hash(ports.source(frame)?);
        let bucket = (hash >> (u64::BITS - BUCKETS.trailing_zeros())) as u32;
        let cells = FLOOR_FIRST.get_ptr_mut(bucket)?.cast::<u64>();
        let cell = cells.wrapping_add(hash as usize & (WAYS - 1));
        // SAFETY: as in `floor_flow`.
        unsafe { cell.write_volatile(hash << u32::BITS | now() & u64::from(u32::MAX)) };
        Some(Reason::FirstKnock)
    })
}

/// Advances an attempt by its next knock.
#[xdp(frags)]
#[inline(always)]
fn floor_step(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let key = ports.progress_key(frame)?;
        advance(&key, rule, progress(now(), rule.first))?;
        Some(Reason::NextKnock)
    })
}

/// Ends an attempt by its last knock, and gives the grant.
#[xdp(frags)]
#[inline(always)]
fn floor_open(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let now = now();
        let key = ports.progress_key(frame)?;
        advance(&key, rule, 0)?;
        let until = now.wrapping_add(LASTS);
        let key = ports.grant_key(frame, rule)?;
        FLOOR_ALLOW
            .insert(key, until, u64::from(BPF_NOEXIST))
            .ok()?;
        let mut entry = FLOOR_EVENTS.reserve(0)?;
        entry.write(Event {
            at_ns: now,
            until_ms: until,
            source: key.source,
            destination: ports.address(frame, 16, 24).unwrap_or_default(),
            source_port: ports.source_port,
            port: ports.port,
            protocol: ports.protocol as u8,
            reason: Reason::Opened as u8,
            ..Event::default()
        });
        entry.submit(0);
        Some(Reason::Opened)
    })
}

/// Ends an attempt by its last knock, and prolongs the grant.
#[xdp(frags)]
#[inline(always)]
fn floor_again(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let key = ports.progress_key(frame)?;
        advance(&key, rule, 0)?;
        let until = FLOOR_ALLOW.get_ptr_mut(ports.grant_key(frame, rule)?)?;
        // SAFETY: as in `floor_flow`.
        unsafe { until.write_volatile(now().wrapping_add(LASTS)) };
        Some(Reason::Refreshed)
    })
}

/// Ends an attempt.
#[xdp(frags)]
#[inline(always)]
fn floor_end(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let word = FLOOR_PROGRESS.get_ptr_mut(ports.progress_key(frame)?)?;
        // SAFETY: as in `floor_grant`.
        if unsafe { word.read_volatile() } == 0 {
            return None;
        }
        // SAFETY: as in `floor_flow`.
        unsafe { word.write_volatile(0) };
        match rule.kind() {
            PortKind::Knock => Some(Reason::WrongKnock),
            PortKind::Decoy => Some(Reason::Decoy),
            PortKind::Ordinary | PortKind::Exempt | PortKind::Protected | PortKind::Spa => None,
        }
    })
}

/// Drops the repetition of an attempt's last knock.
#[xdp(frags)]
#[inline(always)]
fn floor_duplicate(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let word = FLOOR_PROGRESS.get_ptr(ports.progress_key(frame)?)?;
        // SAFETY: as in `floor_grant`.
        let held = unsafe { word.read_volatile() };
        (is_alive(held) && stage(held) == rule.first).then_some(Reason::Duplicate)
    })
}

/// Records that the source has made the knocks in front of this one; not measured.
#[xdp(frags)]
#[inline(always)]
fn floor_place(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let word = progress(now(), rule.first.saturating_sub(1).max(1));
        let key = ports.progress_key(frame)?;
        FLOOR_PROGRESS.insert(key, word, u64::from(BPF_ANY)).ok()?;
        Some(Reason::Ordinary)
    })
}

/// Gives the source a grant and a flow; not measured.
#[xdp(frags)]
#[inline(always)]
fn floor_give(context: XdpContext) -> u32 {
    floor(&context, |frame, ports, rule| {
        let until = now().wrapping_add(LASTS);
        let key = ports.grant_key(frame, rule)?;
        FLOOR_ALLOW.insert(key, until, u64::from(BPF_ANY)).ok()?;
        let key = ports.flow_key(frame)?;
        FLOOR_FLOWS.insert(key, now(), u64::from(BPF_ANY)).ok()?;
        Some(Reason::Ordinary)
    })
}

/// Replaces the word of an attempt whose next knock is that of the rule. It does so in one step, so that two CPUs don't
/// both continue the attempt.
#[inline(always)]
fn advance(key: &ProgressKey, rule: PortRule, new: u64) -> Option<()> {
    const SEQ: AtomicOrdering = AtomicOrdering::SeqCst;
    let word = FLOOR_PROGRESS.get_ptr_mut(key)?;
    // SAFETY: as in `floor_grant`.
    let held = unsafe { word.read_volatile() };
    if rule.kind() != PortKind::Knock
        || !is_alive(held)
        || stage(held).wrapping_add(1) != rule.first
    {
        return None;
    }
    // SAFETY: as in `floor_grant`.
    let (_, replaced) = unsafe { atomic_cxchg::<u64, SEQ, SEQ>(word, held, new) };
    replaced.then_some(())
}

#[inline(always)]
fn progress(now: u64, stage: u32) -> u64 {
    now << STAGE_BITS | u64::from(stage)
}

#[inline(always)]
fn is_alive(progress: u64) -> bool {
    now().wrapping_sub(progress >> STAGE_BITS) < LASTS
}

#[inline(always)]
fn stage(progress: u64) -> u32 {
    progress as u32 & ((1 << STAGE_BITS) - 1)
}

/// Returns the cheapest clock that a program has: on x86-64 the kernel replaces the call by a load.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
fn hash(source: Address) -> u64 {
    let [a, b, c, d] = source.words.map(u64::from);
    let mixed = (a << 32 | b).wrapping_mul(0xc2b2_ae3d_27d4_eb4f) ^ (c << 32 | d);
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
