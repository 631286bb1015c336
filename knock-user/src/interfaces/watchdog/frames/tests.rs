use super::*;

const NOTHING: FramesSeen = FramesSeen {
    arrived: 0,
    foreign: 0,
};
const IP: FramesSeen = FramesSeen {
    arrived: 1,
    foreign: 0,
};
const ARP: FramesSeen = IP;

fn pppoe(frames: u64) -> FramesSeen {
    let foreign = frames << 16 | 0x8864;
    FramesSeen {
        arrived: 1,
        foreign,
    }
}

/// The attach mode of an interface, and which part counts.
#[derive(Clone, Copy)]
enum FrameKind {
    /// In a driver made of software, such as that of veth.
    Native,
    /// In the driver of a card, which counts.
    Card,
    /// Behind such a driver.
    Generic,
    /// Behind one made of software.
    Software,
}

#[test]
fn counters_lead_to_findings() {
    use Finding::{Blind, Filtered, Foreign, Generic, Rearm, Sees};
    use FrameKind::{Native, Software};
    /// The frames that the program saw, the counter of the kernel, and the finding.
    type Step = (FramesSeen, u64, Option<Finding>);
    let rows: &[(&str, FrameKind, &[Step])] = &[
        (
            "a host with traffic",
            Native,
            &[(IP, 500, None), (IP, 9_000, None)],
        ),
        (
            "a silent link",
            Native,
            &[(NOTHING, 7, None), (NOTHING, 7, None), (NOTHING, 7, None)],
        ),
        (
            "only ARP, for long",
            Native,
            &[
                (ARP, 100, None),
                (ARP, 5_000, None),
                (NOTHING, 5_000, None),
                (ARP, 90_000, None),
            ],
        ),
        (
            "frames on their way when it was attached",
            Native,
            &[(NOTHING, 40, None), (NOTHING, 60, None), (IP, 70, None)],
        ),
        (
            "few frames, at long intervals",
            Native,
            &[
                (NOTHING, 0, None),
                (NOTHING, 2, None),
                (NOTHING, 2, None),
                (NOTHING, 9, Some(Rearm(9))),
            ],
        ),
        (
            "the driver forgot, and another copy helps",
            Native,
            &[
                (IP, 100, None),
                (NOTHING, 110, None),
                (NOTHING, 115, None),
                (NOTHING, 120, Some(Rearm(10))),
                (IP, 130, Some(Sees)),
                (NOTHING, 130, None),
            ],
        ),
        (
            "another copy does not help, generic does",
            Native,
            &[
                (NOTHING, 0, None),
                (NOTHING, 50, None),
                (NOTHING, 100, Some(Rearm(100))),
                (NOTHING, 110, None),
                (NOTHING, 140, Some(Generic(40))),
                (IP, 150, Some(Sees)),
            ],
        ),
        (
            "the driver forgets again and again",
            Native,
            &[
                (NOTHING, 0, None),
                (NOTHING, 50, None),
                (NOTHING, 100, Some(Rearm(100))),
                (IP, 150, Some(Sees)),
                (NOTHING, 200, None),
                (NOTHING, 220, None),
                (NOTHING, 240, Some(Generic(40))),
                (IP, 250, Some(Sees)),
            ],
        ),
        (
            "nothing helps",
            Native,
            &[
                (NOTHING, 0, None),
                (NOTHING, 50, None),
                (NOTHING, 100, Some(Rearm(100))),
                (NOTHING, 150, None),
                (NOTHING, 200, Some(Generic(100))),
                (NOTHING, 250, None),
                (NOTHING, 300, Some(Blind(100))),
                (NOTHING, 400, None),
                (NOTHING, 500, None),
                (ARP, 600, Some(Sees)),
            ],
        ),
        (
            "a card that counts frames of other VLANs, and was attached natively",
            FrameKind::Card,
            &[
                (NOTHING, 0, None),
                (NOTHING, 50, None),
                (NOTHING, 100, Some(Rearm(100))),
                (NOTHING, 150, None),
                (NOTHING, 200, Some(Generic(100))),
                (NOTHING, 250, None),
                (NOTHING, 300, Some(Filtered(100))),
                (NOTHING, 400, None),
                (NOTHING, 500, None),
                (IP, 600, None),
            ],
        ),
        (
            "software hands frames past the program",
            Software,
            &[
                (NOTHING, 0, None),
                (NOTHING, 50, None),
                (NOTHING, 100, Some(Blind(100))),
            ],
        ),
        (
            "a card that counts frames of other VLANs",
            FrameKind::Generic,
            &[
                (NOTHING, 0, None),
                (NOTHING, 500, None),
                (NOTHING, 9_000, None),
                (NOTHING, 90_000, None),
            ],
        ),
        (
            "the driver counts from 0 again",
            Native,
            &[
                (NOTHING, 5_000, None),
                (NOTHING, 3, None),
                (NOTHING, 3, None),
                (NOTHING, 4, None),
            ],
        ),
        (
            "one burst is not enough",
            Native,
            &[
                (NOTHING, 0, None),
                (NOTHING, 500, None),
                (NOTHING, 500, None),
                (IP, 501, None),
            ],
        ),
        (
            "all of it is PPPoE",
            Native,
            &[
                (pppoe(40), 40, None),
                (pppoe(60), 100, None),
                (
                    pppoe(60),
                    160,
                    Some(Foreign {
                        frames: 120,
                        ethertype: 0x8864,
                    }),
                ),
                (pppoe(150), 310, None),
                (IP, 400, None),
                (IP, 500, Some(Sees)),
                (IP, 600, None),
            ],
        ),
        (
            "PPPoE beside IP",
            Native,
            &[
                (pppoe(60), 60, None),
                (pppoe(90), 160, None),
                (pppoe(90), 300, None),
                (IP, 400, None),
                (pppoe(90), 500, None),
            ],
        ),
        (
            "some frames of other types beside ARP",
            Native,
            &[
                (ARP, 0, None),
                (pppoe(90), 1_000, None),
                (pppoe(90), 2_000, None),
            ],
        ),
    ];
    for (name, kind, steps) in rows {
        let mut frames = Frames::default();
        let mut native = matches!(kind, Native | FrameKind::Card);
        for (place, &(seen, received, expected)) in steps.iter().enumerate() {
            let look = FrameCounts {
                seen,
                received,
                now_ms: 1_000 * place as u64,
                native,
                counts_what_enters: matches!(kind, Native | Software),
            };
            let found = frames.look(look);
            assert_eq!(found, expected, "{name}, step {place}");
            native &= !matches!(found, Some(Generic(_)));
        }
    }
}
