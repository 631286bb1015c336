//! Time-based sequences.
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::net::{IpAddr, Ipv6Addr};

use knock_common::{Reason, packet::Protocol};
use knock_tests::{
    frame::{SYN, eth},
    kernel::Kernel,
    otp::Otp,
    random::{Random, number},
};

fn door(otp: &Otp) -> String {
    format!(
        "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n{}\n",
        otp.key()
    )
}

fn frame(source: IpAddr, (protocol, port): (Protocol, u16)) -> Vec<u8> {
    let from = source.to_string();
    let frame = match source {
        IpAddr::V4(_) => eth().ip4(&from, "192.0.2.2"),
        IpAddr::V6(_) => eth().ip6(&from, "2001:db8::2"),
    };
    match protocol {
        Protocol::Tcp => frame.tcp(40_000, port, SYN).bytes(),
        Protocol::Udp => frame.udp(40_000, port).bytes(),
    }
}

/// An address whose text may be short or long.
fn address(random: &mut Random) -> IpAddr {
    if random.one_in(3) {
        return IpAddr::from((random.next() as u32 & 0x3fff_ffff | 0x4000_0000).to_be_bytes());
    }
    let mut groups = [0; 8];
    for group in &mut groups {
        *group = match random.below(3) {
            0 => 0,
            1 => random.next() as u16 & 0xff,
            _ => random.next() as u16,
        };
    }
    groups[0] = 0x2001;
    Ipv6Addr::from(groups).into()
}

/// What the kernel side works out is what the library does: of each source the right knocks open,
/// and with one of the second half one port higher they don't.
#[test]
fn the_kernel_makes_the_same_knocks() {
    let seed = number("KNOCK_SEED").unwrap_or(7);
    let mut random = Random::new(seed);
    for length in [1, 13, 26, 31] {
        let secret: String = (0..length)
            .map(|_| random.of(&['a', '%', 'O', '7']))
            .collect();
        let otp = Otp {
            protocols: (0..7)
                .map(|_| random.of(&[Protocol::Tcp, Protocol::Udp]))
                .collect(),
            ..Otp::steady(&secret)
        };
        let mut kernel = Kernel::load(&door(&otp)).unwrap();
        for number in 0..60 {
            let source = address(&mut random);
            let row = format!("seed {seed}, secret {secret:?}, source {number}: {source}");
            let period = otp.now() - 1 + random.below(3) as u64;
            let knocks = otp.knocks(period, source);
            let wrong = knocks.len() - 1 - random.below(otp.protocols.len());
            for (at, &(protocol, port)) in knocks.iter().enumerate().take(wrong) {
                let judged = kernel.judge(&frame(source, (protocol, port))).unwrap();
                let expected = [Reason::FirstKnock, Reason::NextKnock];
                assert!(
                    expected.contains(&judged.reason),
                    "{row}, knock {at}: {judged:?}"
                );
            }
            let (protocol, port) = knocks[wrong];
            let judged = kernel.judge(&frame(source, (protocol, port + 1))).unwrap();
            let passed = [Reason::NextKnock, Reason::Opened, Reason::Spent];
            assert!(
                !passed.contains(&judged.reason),
                "{row}, one higher: {judged:?}"
            );
            // It may have begun another attempt.
            kernel.judge(&frame(source, (Protocol::Tcp, 9))).unwrap();

            for (at, &knock) in knocks.iter().enumerate() {
                let judged = kernel.judge(&frame(source, knock)).unwrap();
                let is_last = at + 1 == knocks.len();
                let right = match judged.reason {
                    Reason::Opened | Reason::Spent => is_last,
                    Reason::FirstKnock => at == 0,
                    Reason::NextKnock => !is_last,
                    _ => false,
                };
                assert!(right, "{row}, knock {at}: {judged:?}");
            }
        }
    }
}
