//! Reasons: each has a name, a number, a verdict and a counter.

/// The treatment of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// The packet reaches the network stack.
    Pass,
    /// The packet is dropped; the knock that opens a door may be answered.
    Drop,
    /// The packet is dropped and answered.
    Answer,
}

impl Verdict {
    /// Returns the name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Answer => "answer",
        }
    }
}

/// How a reason is reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reporting {
    /// It is counted only.
    Never,
    /// An event, within the event limit for drops.
    Drops,
    /// An event, within the event limit for knocks.
    Knocks,
    /// An event each time; only a client that knows the sequence can cause it.
    Always,
}

macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $code:literal => $variant:ident, $name:literal, $text:literal, $verdict:ident, $reporting:ident;
    )+) => {
        /// Why a packet passed or was dropped.
        ///
        /// The number is the index of the counter and a field of the event. No number is reused for another
        /// reason.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason {
            $(#[doc = $text] $(#[$doc])* $variant = $code,)+
        }

        // Verdict and number agree.
        $(const _: () = assert!(
            matches!(Verdict::$verdict, Verdict::Pass) == (($code as u8) < Reason::DROPPED_FROM)
        );)+

        impl Reason {
            /// Packets with a lower reason pass.
            const DROPPED_FROM: u8 = 16;

            /// All reasons in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the reason with this number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Returns the name in JSON, metrics and counters.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the text on the console.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns the verdict on the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    // One comparison for all ordinary traffic.
                    _ if (self as u8) < Self::DROPPED_FROM => Verdict::Pass,
                    $(Self::$variant => Verdict::$verdict,)+
                }
            }

            /// Returns how the reason is reported.
            #[inline(always)]
            pub const fn reporting(self) -> Reporting {
                match self { $(Self::$variant => Reporting::$reporting,)+ }
            }
        }
    };
}

reasons! {
    0 => NotIp, "not-ip", "neither IPv4 nor IPv6", Pass, Never;
    1 => OtherProtocol, "other-protocol", "neither TCP nor UDP", Pass, Never;
    /// The network stack can't use it without the first fragment, which was judged.
    2 => LaterFragment, "later-fragment", "fragment after the first", Pass, Never;
    3 => Ordinary, "ordinary", "port not configured", Pass, Never;
    4 => Trusted, "trusted", "trusted source", Pass, Never;
    5 => Flow, "flow", "established connection", Pass, Never;
    6 => Granted, "granted", "source has a grant", Pass, Never;
    7 => OtherFlags, "other-flags", "knock port, but not a knock", Pass, Never;
    /// A new connection to an unused port from a source with an attempt.
    8 => StrayPort, "stray-port", "unrelated port during an attempt", Pass, Knocks;
    9 => TrialExpired, "trial-expired", "configuration not confirmed in time", Pass, Never;

    16 => Truncated, "truncated", "frame ends inside a header", Drop, Drops;
    17 => TinyFragment, "tiny-fragment", "first fragment without its ports", Drop, Drops;
    18 => ExtensionsTooLong, "extensions-too-long", "too many IPv6 extension headers", Drop, Drops;
    19 => VlanTooDeep, "vlan-too-deep", "more than two VLAN tags", Drop, Drops;
    20 => BadHeader, "bad-header", "impossible IP header", Drop, Drops;

    21 => SpaCommand, "spa-command", "fwknop packet with a command, which is never run", Drop, Always;
    22 => SpaNat, "spa-nat", "fwknop packet that asks for NAT, which is not supported", Drop, Always;
    /// One of a user's keys decrypts it, so it is not noise: the client sends no HMAC, or one of another type or key.
    23 => SpaUnsigned, "spa-unsigned", "fwknop packet of a user without a right HMAC-SHA256", Drop, Knocks;

    /// Any packet of a blocked source, to any port.
    24 => Blocked, "source-blocked", "source is blocked", Drop, Drops;

    32 => NoGrant, "no-grant", "no grant", Drop, Drops;

    /// A datagram to a port for single packet authorization that is none of its formats.
    33 => SpaNoise, "spa-noise", "no SPA packet", Drop, Drops;
    34 => SpaStale, "spa-stale", "SPA packet from outside the time window", Drop, Knocks;
    35 => SpaUnknown, "spa-unknown", "SPA packet of an unknown key", Drop, Knocks;
    36 => SpaReplayed, "spa-replayed", "SPA packet used before", Drop, Knocks;
    /// Its sender knows the host's public key, but not the client's private key.
    37 => SpaForged, "spa-forged", "SPA packet with a wrong authentication tag", Drop, Knocks;
    38 => SpaExpired, "spa-expired", "SPA packet of an expired key", Drop, Always;
    39 => SpaNotAllowed, "spa-not-allowed", "SPA packet for a door that the user may not open", Drop, Always;

    /// A SYN to a knock port that needs a handshake, or to a decoy beside it. It is not a knock yet.
    40 => SynCookieSent, "syn-cookie-sent", "SYN answered with a SYN cookie", Answer, Never;
    41 => HandshakeClosed, "handshake-closed", "end of a handshake", Answer, Never;
    /// An ACK of a SYN cookie that was never sent, or that has expired: it may be forged.
    42 => BadCookie, "bad-cookie", "ACK without a valid SYN cookie", Drop, Knocks;
    43 => HandshakeRest, "handshake-rest", "rest of a handshake", Drop, Never;

    44 => SpaElsewhere, "spa-elsewhere", "SPA packet for another address", Drop, Always;
    45 => SpaUnreadable, "spa-unreadable", "SPA packet with unreadable content", Drop, Always;
    /// The replay cache has no word for the key, or no room for the packet.
    46 => SpaFull, "spa-full", "replay cache of SPA packets is full", Drop, Knocks;

    /// A complete sequence or SPA packet for a door of the group, while this host is cut off from the group.
    47 => CutOff, "cut-off", "cut off from the group", Drop, Knocks;

    48 => FirstKnock, "first-knock", "first knock", Drop, Knocks;
    49 => NextKnock, "next-knock", "correct knock", Drop, Knocks;
    /// A retransmitted SYN or a doubled packet: nothing changes.
    50 => Duplicate, "duplicate", "repeated knock", Drop, Never;
    51 => Restarted, "restarted", "wrong knock that starts a sequence", Drop, Knocks;
    52 => WrongKnock, "wrong-knock", "wrong knock", Drop, Knocks;
    53 => TooLate, "too-late", "knock came too late", Drop, Knocks;
    54 => OutOfSequence, "out-of-sequence", "knock out of sequence", Drop, Knocks;
    55 => Decoy, "decoy", "decoy port", Drop, Knocks;
    56 => LockedOut, "locked-out", "locked out", Drop, Knocks;
    57 => Opened, "opened", "door opened", Drop, Always;
    /// Each packet to the port of a one-knock door refreshes its grant, hence the event limit.
    58 => Refreshed, "refreshed", "door opened again", Drop, Knocks;
    /// Within the event limit after knocks, as above; `knock-user` finds an end without an event in the map.
    59 => Closed, "closed", "door closed", Drop, Knocks;
    60 => GrantsFull, "grants-full", "no room for another grant", Drop, Knocks;
    /// Other CPUs changed the same attempt more often than this one retries.
    61 => Contended, "contended", "attempt changed by another CPU", Drop, Knocks;
    62 => SequenceReused, "sequence-reused", "sequence used before", Drop, Knocks;
    /// A complete sequence or SPA packet from outside the prefixes in `from` of its door, or any TCP packet from there
    /// to a port that completes handshakes for sources in them.
    63 => SourceNotAllowed, "source-not-allowed", "source may not use the door", Drop, Knocks;
}

/// Number of counters: reasons below [`Stat::FIRST`], stats from there.
pub const COUNTERS_MAX: u32 = 80;

/// Counters besides the reasons.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stat {
    /// Events that a limit suppressed.
    EventsSuppressed = 64,
    /// Events that the full ring buffer lost.
    EventsLost = 65,
    /// First knocks that were overwritten before they expired: the table is under pressure.
    FirstKnocksEvicted = 66,
    /// Connections that could not be recorded as flows.
    FlowsRefused = 67,
    /// Progress that could not be recorded.
    ProgressRefused = 68,
    /// Knocks that reached the network stack because their doors have `knock_pass`.
    KnocksPassed = 69,
    /// Failed attempts that were not counted, because all cells of their bucket lock out other sources.
    LockoutsFull = 70,
}

impl Stat {
    /// The lowest number.
    pub const FIRST: u32 = 64;

    /// All stats in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::EventsSuppressed,
        Self::EventsLost,
        Self::FirstKnocksEvicted,
        Self::FlowsRefused,
        Self::ProgressRefused,
        Self::KnocksPassed,
        Self::LockoutsFull,
    ];

    /// Returns the name in JSON, metrics and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventsSuppressed => "events-suppressed",
            Self::EventsLost => "events-lost",
            Self::FirstKnocksEvicted => "first-knocks-evicted",
            Self::FlowsRefused => "flows-refused",
            Self::ProgressRefused => "progress-refused",
            Self::KnocksPassed => "knocks-passed",
            Self::LockoutsFull => "lockouts-full",
        }
    }
}

/// A value, or the reason with which a judgement ends early.
pub type Judged<T> = Result<T, Reason>;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_below_the_stats() {
        let mut names = HashSet::new();
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason as u8), Some(reason));
            assert!(u32::from(reason as u8) < Stat::FIRST, "{reason:?}");
            assert!(names.insert(reason.name()), "{reason:?}");
        }
        for &stat in Stat::ALL {
            assert!(
                (Stat::FIRST..COUNTERS_MAX).contains(&u32::from(stat as u8)),
                "{stat:?}"
            );
            assert!(names.insert(stat.name()), "{stat:?}");
        }
        assert_eq!(Reason::from_code(255), None);
    }
}
