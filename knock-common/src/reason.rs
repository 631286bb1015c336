//! Every outcome has a name, a number and a counter.

/// What happens to the packet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// The packet goes on to the network stack.
    Pass,
    /// The packet ends here, mostly without an answer.
    Drop,
    /// The packet ends here, and is answered.
    Answer,
}

impl Verdict {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Answer => "answer",
        }
    }
}

/// Who gets to hear of an outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reporting {
    /// Nobody: it is counted only.
    Never,
    /// An event, as far as the gate for drops lets it through.
    Drops,
    /// An event, as far as the gate for knocks lets it through.
    Knocks,
    /// An event each time; a stranger can't cause it.
    Always,
}

macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $code:literal => $variant:ident, $name:literal, $text:literal, $verdict:ident, $reporting:ident;
    )+) => {
        /// Why a packet passed or was dropped.
        ///
        /// The numbers are part of the map layout: the index of the counter, and a field of the
        /// event. A number is never given to another reason.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason {
            $(#[doc = $text] $(#[$doc])* $variant = $code,)+
        }

        // The table and the number say the same.
        $(const _: () = assert!(
            matches!(Verdict::$verdict, Verdict::Pass) == (($code as u8) < Reason::DROPPED_FROM)
        );)+

        impl Reason {
            /// Reasons with a lower number are those of packets that pass.
            const DROPPED_FROM: u8 = 16;

            /// All reasons in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason with this number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The word used in JSON, metrics and counters.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The words used on the console.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What happens to the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    // One comparison on the way of all ordinary traffic.
                    _ if (self as u8) < Self::DROPPED_FROM => Verdict::Pass,
                    $(Self::$variant => Verdict::$verdict,)+
                }
            }

            /// Who gets to hear of it.
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
    /// Without the first fragment, which was judged, the stack can't use it.
    2 => LaterFragment, "later-fragment", "fragment after the first", Pass, Never;
    3 => Ordinary, "ordinary", "port not configured", Pass, Never;
    4 => Trusted, "trusted", "source is trusted", Pass, Never;
    5 => Flow, "flow", "established connection", Pass, Never;
    6 => Granted, "granted", "source has a grant", Pass, Never;
    7 => OtherFlags, "other-flags", "knock port, but not a knock", Pass, Never;
    /// A new connection to a port that is in no sequence, from a source that was knocking.
    8 => StrayPort, "stray-port", "packet to an unused port while knocking", Pass, Knocks;
    9 => TrialExpired, "trial-expired", "configuration not confirmed in time", Pass, Never;

    16 => Truncated, "truncated", "frame ends inside a header", Drop, Drops;
    17 => TinyFragment, "tiny-fragment", "first fragment without its ports", Drop, Drops;
    18 => ExtensionsTooLong, "extensions-too-long", "too many IPv6 extension headers", Drop, Drops;
    19 => VlanTooDeep, "vlan-too-deep", "more than two VLAN tags", Drop, Drops;
    20 => BadHeader, "bad-header", "impossible IP header", Drop, Drops;

    32 => NoGrant, "no-grant", "no grant", Drop, Drops;

    /// A SYN to a knock that is proved by a handshake, or to a decoy beside it: nothing has happened yet.
    40 => SynCookieSent, "syn-cookie-sent", "SYN answered with a SYN cookie", Answer, Never;
    41 => HandshakeClosed, "handshake-closed", "end of a handshake", Answer, Never;
    /// An ACK of what was never sent, or long ago: somebody forges them.
    42 => BadCookie, "bad-cookie", "ACK without a valid SYN cookie", Drop, Knocks;
    43 => HandshakeRest, "handshake-rest", "rest of a handshake", Drop, Never;

    48 => FirstKnock, "first-knock", "first knock", Drop, Knocks;
    49 => NextKnock, "next-knock", "correct knock", Drop, Knocks;
    /// SYN retransmission, doubled packet: nothing changes.
    50 => Duplicate, "duplicate", "repeated knock", Drop, Never;
    51 => Restarted, "restarted", "wrong knock, which begins a new attempt", Drop, Knocks;
    52 => WrongKnock, "wrong-knock", "wrong knock", Drop, Knocks;
    53 => TooLate, "too-late", "knock came too late", Drop, Knocks;
    54 => OutOfSequence, "out-of-sequence", "no sequence begins with this knock", Drop, Knocks;
    55 => Decoy, "decoy", "decoy port", Drop, Knocks;
    56 => LockedOut, "locked-out", "locked out", Drop, Knocks;
    57 => Opened, "opened", "sequence complete", Drop, Always;
    /// A one-knock door is refreshed by every packet to its port, hence the gate.
    58 => Refreshed, "refreshed", "sequence complete again", Drop, Knocks;
    59 => Closed, "closed", "closing sequence complete", Drop, Knocks;
    60 => GrantsFull, "grants-full", "no room for another grant", Drop, Knocks;
    /// Several CPUs changed the same progress at once, more often than is retried.
    61 => Contended, "contended", "attempt changed by another CPU", Drop, Knocks;
    62 => SequenceReused, "sequence-reused", "sequence used before", Drop, Knocks;
}

/// How many counters there are: reasons below [`Stat::FIRST`], stats from there.
pub const COUNTERS_MAX: u32 = 80;

/// Things that are counted besides the reasons.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stat {
    /// Events that a limit suppressed.
    EventsSuppressed = 64,
    /// Events that the full ring buffer lost.
    EventsLost = 65,
    /// First knocks that were still good and were overwritten by others: pressure on the table.
    FirstKnocksEvicted = 66,
    /// Connections that could not be recorded as flows.
    FlowsRefused = 67,
    /// Progress that could not be recorded.
    ProgressRefused = 68,
    /// Knocks that went on to the network stack, because their doors have `knock_pass`.
    KnocksPassed = 69,
    /// Failed attempts that were not counted, since all cells of their bucket lock others out.
    LockoutsFull = 70,
}

impl Stat {
    /// The lowest number of a stat.
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

    /// The word used in JSON, metrics and counters.
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
