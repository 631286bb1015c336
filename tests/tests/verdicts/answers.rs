//! Handshakes and replies: which frames are answered, and that kernel and library write the same answers.

use knock_common::{
    Reason::{self, *},
    answer::{self, Answer, Memory},
    cookie,
    layout::GrantKey,
    port_digits::PortDigits,
    repliable::Repliable,
    time::Moment,
};
use knock_tests::{
    frame::{ACK, FIN, Frame, PSH, RST, SYN, SYN_ACK, URG, eth},
    kernel::{Kernel, compile, now},
    random::{Random, number},
};
use knock_user::kernel::program::LoadOptions;

const CONFIG: &str = r#"
    decoys = { ports = ["tcp/2222", "udp/2223"] }
    [[door]]
    name = "ssh"
    verify = "handshake"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
    [[door]]
    name = "silent"
    knock = ["tcp/7100", "udp/9100", "tcp/8100"]
    open = ["tcp/23"]
    [[door]]
    name = "replies"
    reply = true
    knock = ["tcp/7200", "udp/8200"]
    open = ["udp/53", "tcp/2000-2100"]
    [[door]]
    name = "replies-tcp"
    reply = true
    knock = ["udp/7300", "tcp/8300"]
    open = ["tcp/22"]
    [[door]]
    name = "both"
    verify = "handshake"
    reply = true
    knock = ["tcp/7400", "tcp/6400"]
    open = ["tcp/22"]
    [[door]]
    name = "slow"
    reply = true
    knock = ["udp/7500", "udp/6500"]
    open = ["tcp/22"]
    sequence_timeout = "100ms"
"#;
/// The length of an epoch, in which cookies are computed alike, in nanoseconds.
const EPOCH: u64 = 1 << 36;
/// How long a key is used.
const TURN: u64 = 64 * EPOCH;

#[test]
fn completed_handshakes_count_as_knocks() {
    let mut bench = Bench::new(LoadOptions::default());
    for (name, way) in ways(1) {
        let mut connects = |port, reason| {
            bench.connects(&way, port, reason, ExpectedAnswer::FinAck, name);
        };
        connects(7000, FirstKnock);
        connects(7000, Duplicate);
        connects(9000, NextKnock);
        connects(9000, Duplicate);
        connects(8000, Opened);
        connects(8000, Duplicate);
        connects(7000, FirstKnock);
        connects(2222, Decoy);
        connects(9000, OutOfSequence);
        connects(7000, FirstKnock);
        connects(8000, WrongKnock);
    }
}

#[test]
fn packets_without_a_valid_cookie_change_nothing() {
    let mut bench = Bench::new(LoadOptions::default());
    for (name, way) in ways(2) {
        bench.connects(&way, 7000, FirstKnock, ExpectedAnswer::FinAck, name);
        for port in [7000, 9000, 8000, 2222] {
            let syn = tcp(&way, port, SYN, 0);
            let offer = bench.offered(&syn, name);
            let next = offer.wrapping_add(1);
            let older = bench.cookie(&syn, 2).wrapping_add(1);
            let row = |what: &str| format!("{name}, tcp/{port}, {what}");
            for (what, number) in [
                ("the cookie itself", offer),
                ("nothing", 0),
                ("the other end", next ^ 1 << 31),
                ("of an older epoch", older),
            ] {
                bench.is(&tcp(&way, port, ACK, number), BadCookie, None, &row(what));
            }
            let mut is = |flags, reason, answer, what: &str| {
                bench.is(&tcp(&way, port, flags, next), reason, answer, &row(what));
            };
            is(SYN_ACK, HandshakeRest, None, "SYN, ACK");
            is(SYN | FIN, HandshakeRest, None, "SYN, FIN");
            is(SYN | RST, HandshakeRest, None, "SYN, RST");
            is(RST, HandshakeRest, None, "RST");
            is(RST | ACK, HandshakeRest, None, "RST, ACK");
            is(PSH | ACK, HandshakeRest, None, "data");
            is(FIN, HandshakeRest, None, "FIN alone");
            is(0, HandshakeRest, None, "no flags");
            is(FIN | PSH | URG, HandshakeRest, None, "Xmas");
            is(
                FIN | ACK,
                HandshakeClosed,
                Some(ExpectedAnswer::Reset),
                "FIN",
            );
            is(
                FIN | PSH | ACK,
                HandshakeClosed,
                Some(ExpectedAnswer::Reset),
                "data and FIN",
            );
            let end = tcp(&way, port, ACK, next.wrapping_add(1));
            bench.is(&end, HandshakeRest, None, &row("ACK of our FIN"));
        }
        bench.connects(&way, 9000, NextKnock, ExpectedAnswer::FinAck, name);
        bench.connects(&way, 8000, Opened, ExpectedAnswer::FinAck, name);
    }
}

/// The key of the next turn can be drawn while cookies are on their way, and is then used.
#[test]
fn cookie_keys_alternate_by_epoch() {
    let mut bench = Bench::new(LoadOptions::default());
    let turn = now().unwrap().nanos() / TURN;
    let way = eth().ip4("198.51.100.9", "192.0.2.2");
    let syn = tcp(&way, 7000, SYN, 0);
    let next = bench.offered(&syn, "the first key").wrapping_add(1);
    let ack = tcp(&way, 7000, ACK, next);
    for (name, turn, reason) in [
        ("the next turn's key", turn, FirstKnock),
        ("the next turn's key, again", turn, Duplicate),
        ("this turn's key, when it was over", turn + 1, BadCookie),
    ] {
        let drawn = Moment::from_nanos(turn * TURN + TURN / 2);
        let program = bench.kernel.program();
        program.renew_cookie_key(drawn).unwrap();
        let answer = (reason != BadCookie).then_some(ExpectedAnswer::FinAck);
        bench.is(&ack, reason, answer, name);
    }
}

/// Cookies are for one connection: source, destination, both ports.
#[test]
fn cookies_of_other_connections_are_not_accepted() {
    let mut bench = Bench::new(LoadOptions::default());
    let way = |source: &str, destination: &str| eth().ip4(source, destination);
    let own = way("198.51.100.3", "192.0.2.2");
    let syn = tcp(&own, 7000, SYN, 0);
    let next = bench.offered(&syn, "own").wrapping_add(1);
    let from = |way: Frame, source_port, port| {
        let mut frame = way.tcp(source_port, port, ACK).bytes();
        let at = frame.len() - 12;
        frame[at..at + 4].copy_from_slice(&next.to_be_bytes());
        frame
    };
    for (name, frame) in [
        (
            "another source",
            from(way("198.51.100.4", "192.0.2.2"), 40_000, 7000),
        ),
        (
            "another address of the host",
            from(way("198.51.100.3", "192.0.2.3"), 40_000, 7000),
        ),
        ("another source port", from(own.clone(), 40_001, 7000)),
        ("another knock", from(own.clone(), 40_000, 9000)),
        ("a decoy", from(own.clone(), 40_000, 2222)),
    ] {
        bench.is(&frame, BadCookie, None, name);
    }
    let ack = from(own, 40_000, 7000);
    bench.is(&ack, FirstKnock, Some(ExpectedAnswer::FinAck), "its own");
}

/// A cookie of the previous epoch is still valid, also for a slow client.
#[test]
fn cookies_of_the_last_epoch_are_accepted() {
    let mut bench = Bench::new(LoadOptions::default());
    for (name, way) in ways(5) {
        let last = bench.cookie(&tcp(&way, 7000, SYN, 0), 1).wrapping_add(1);
        // At the very end of an epoch the next one has begun for the program.
        let (reason, _) = bench.kernel.answer(&tcp(&way, 7000, ACK, last)).unwrap();
        assert!(matches!(reason, FirstKnock | BadCookie), "{name}");
        if reason == BadCookie {
            let last = bench.cookie(&tcp(&way, 7000, SYN, 0), 1).wrapping_add(1);
            let ack = tcp(&way, 7000, ACK, last);
            bench.is(&ack, FirstKnock, Some(ExpectedAnswer::FinAck), name);
        }
    }
}

#[test]
fn silent_doors_stay_silent_beside_handshake_doors() {
    let mut bench = Bench::new(LoadOptions::default());
    for (name, way) in ways(6) {
        for (frame, reason) in [
            (tcp(&way, 7100, SYN, 0), FirstKnock),
            (udp(&way, 9100, 20), NextKnock),
            (tcp(&way, 8100, SYN, 0), Opened),
            (tcp(&way, 8100, ACK, 5), OtherFlags),
            (udp(&way, 2223, 20), Decoy),
            (tcp(&way, 22, SYN, 0), NoGrant),
        ] {
            bench.is(&frame, reason, None, name);
        }
    }
}

#[test]
fn only_the_last_knock_gets_a_reply_with_the_port() {
    let mut bench = Bench::new(LoadOptions::default());
    for (name, way) in ways(7) {
        let replied = Some(ExpectedAnswer::Port(2000));
        // The answer has no options.
        let tight = replied.filter(|_| name.ends_with("options"));
        for (what, frame, reason, answer) in [
            ("first", tcp(&way, 7200, SYN, 0), FirstKnock, None),
            ("last", udp(&way, 8200, 8), Opened, replied),
            ("last again", udp(&way, 8200, 8), Duplicate, None),
            ("first", tcp(&way, 7200, SYN, 0), FirstKnock, None),
            (
                "last, while it is open",
                udp(&way, 8200, 8),
                Refreshed,
                None,
            ),
            ("first", tcp(&way, 7200, SYN, 0), FirstKnock, None),
            ("over, no room", udp(&way, 8200, 1), Opened, tight),
            ("first", tcp(&way, 7200, SYN, 0), FirstKnock, None),
            ("over, just room", udp(&way, 8200, 4), Opened, replied),
            ("last alone", udp(&way, 6500, 8), OutOfSequence, None),
            ("udp first", udp(&way, 7300, 8), FirstKnock, None),
            ("wrong", udp(&way, 8200, 8), WrongKnock, None),
            ("udp first", udp(&way, 7300, 8), FirstKnock, None),
        ] {
            if what.starts_with("over") {
                bench.end_grants();
            }
            bench.is(&frame, reason, answer, &format!("{name}, {what}"));
        }
        let last = tcp(&way, 8300, SYN, 0);
        bench.is(&last, Opened, Some(ExpectedAnswer::Port(22)), name);
        bench.connects(&way, 7400, FirstKnock, ExpectedAnswer::FinAck, name);
        bench.end_grants();
        bench.connects(&way, 6400, Opened, ExpectedAnswer::Port(22), name);
        bench.connects(&way, 7400, FirstKnock, ExpectedAnswer::FinAck, name);
        bench.connects(&way, 6400, Refreshed, ExpectedAnswer::FinAck, name);
        bench.is(&udp(&way, 7500, 8), FirstKnock, None, name);
        std::thread::sleep(std::time::Duration::from_millis(400));
        bench.is(&udp(&way, 6500, 8), TooLate, None, name);
    }
}

#[test]
fn a_dry_run_answers_nothing() {
    let mut bench = Bench::new(LoadOptions {
        dry_run: true,
        ..LoadOptions::default()
    });
    for (name, way) in ways(8) {
        bench.is(&tcp(&way, 7000, SYN, 0), SynCookieSent, None, name);
        bench.is(&tcp(&way, 7000, ACK | FIN, 0), HandshakeClosed, None, name);
        bench.is(&tcp(&way, 7200, SYN, 0), FirstKnock, None, name);
        bench.is(&udp(&way, 8200, 8), Opened, None, name);
    }
}

#[test]
fn an_expired_trial_answers_nothing() {
    let mut bench = Bench::new(LoadOptions {
        confirm_by_ms: Some(1),
        ..LoadOptions::default()
    });
    for (name, way) in ways(9) {
        bench.is(&tcp(&way, 7000, SYN, 0), TrialExpired, None, name);
        bench.is(&tcp(&way, 7000, ACK | FIN, 0), TrialExpired, None, name);
        bench.is(&udp(&way, 8200, 8), TrialExpired, None, name);
    }
}

/// A confirmation is one word of a map, so it takes effect at once and no other program is loaded.
#[test]
fn a_confirmed_trial_protects_after_its_deadline() {
    let mut bench = Bench::new(LoadOptions {
        confirm_by_ms: Some(1),
        ..LoadOptions::default()
    });
    for (name, way) in ways(10) {
        for (end_ms, reason) in [(None, NoGrant), (Some(1), TrialExpired)] {
            bench.kernel.program().set_confirm_by(end_ms).unwrap();
            bench.is(&tcp(&way, 22, SYN, 0), reason, None, name);
        }
    }
}

/// A frame passes unchanged, or is answered as by the library.
#[test]
fn the_kernel_answers_any_frame_like_the_library() {
    let mut random = Random::new(number("KNOCK_SEED").unwrap_or(1));
    let mut bench = Bench::new(LoadOptions::default());
    let mut answers = 0;
    for round in 0..20_000 {
        let source = 20 + random.of(&[0, 1, 2]);
        let mut all = ways(source);
        let (name, way) = all.swap_remove(random.below(all.len()));
        let port = random.of(&[7000, 9000, 8000, 2222, 7100, 7400, 6400, 22, 1234]);
        let flags = random.of(&[SYN, SYN, ACK, FIN | ACK, RST, SYN_ACK, PSH | ACK]);
        let mut frame = tcp(&way, port, flags, 0);
        if random.one_in(8) {
            frame = udp(&way, random.of(&[8200, 9100, 7500]), random.below(30));
        } else if flags == ACK && !random.one_in(4) {
            let number = bench.cookie(&frame, 0).wrapping_add(1);
            frame = tcp(&way, port, flags, number);
        }
        frame.extend(vec![0xee; random.below(40)]);
        if random.one_in(4) {
            let place = random.below(frame.len());
            frame[place] = random.next() as u8;
        }
        let name = format!("round {round}, {name}: {frame:02x?}");
        let question = Repliable::find(&frame[..]);
        let (reason, answered) = bench.kernel.answer(&frame).unwrap();
        let Some(answered) = answered else {
            continue;
        };
        answers += 1;
        let Some(question) = question else {
            panic!("{name}: answered, but not a question");
        };
        assert!(answered.len() <= frame.len(), "{name}");
        let possible = if reason == SynCookieSent {
            let cookies = [0, 1].map(|ago| bench.cookie(&frame, ago));
            cookies.map(ExpectedAnswer::SynAck).to_vec()
        } else if reason == HandshakeClosed {
            vec![ExpectedAnswer::Reset]
        } else if question.flags == 0 {
            vec![ExpectedAnswer::Port(2000), ExpectedAnswer::Port(22)]
        } else {
            vec![ExpectedAnswer::FinAck, ExpectedAnswer::Port(22)]
        };
        let mut possible = possible.into_iter().map(|answer| turned(&frame, answer));
        assert!(
            possible.any(|turned| turned == answered),
            "{name}: {reason:?} {answered:02x?}"
        );
    }
    assert!(answers > 5_000, "only {answers} were answered");
}

/// The expected answer to a frame.
#[derive(Clone, Copy, Debug)]
enum ExpectedAnswer {
    SynAck(u32),
    FinAck,
    Reset,
    Port(u16),
}

impl ExpectedAnswer {
    fn to(self, frame: &[u8]) -> Answer {
        let question = Repliable::find(frame).unwrap();
        match self {
            Self::SynAck(cookie) => Answer::syn_ack(&question, cookie),
            Self::FinAck => Answer::fin_ack(&question),
            Self::Reset => Answer::reset(&question),
            Self::Port(port) => Answer::port(PortDigits::of(port)),
        }
    }
}

struct Bench {
    kernel: Kernel,
    /// The key of the cookies.
    key: cookie::CookieKey,
}

impl Bench {
    fn new(options: LoadOptions<'_>) -> Self {
        let tables = compile(CONFIG).unwrap();
        let [key, _] = tables.config.cookie_keys;
        Self {
            kernel: Kernel::with(&tables, options).unwrap(),
            key,
        }
    }

    /// Returns the cookie of a frame's connection this many epochs ago.
    fn cookie(&self, frame: &[u8], ago: u64) -> u32 {
        let connection = Repliable::find(frame).unwrap().connection;
        let epoch = (now().unwrap().nanos() / EPOCH).wrapping_sub(ago) as u32;
        cookie::of(self.key, &connection, epoch)
    }

    /// Judges a frame that must be answered like this, or not at all.
    #[track_caller]
    fn is(&mut self, frame: &[u8], reason: Reason, answer: Option<ExpectedAnswer>, name: &str) {
        let (found, answered) = self.kernel.answer(frame).unwrap();
        assert_eq!(found, reason, "{name}");
        let expected = answer.map(|answer| turned(frame, answer));
        assert_eq!(answered, expected, "{name}: {answer:02x?}");
    }

    fn end_grants(&mut self) {
        let over = |_: &GrantKey, _| 0;
        self.kernel.change("ALLOW", over).unwrap();
    }

    /// Sends a SYN, and asserts that the answer has the cookie that the library computes.
    #[track_caller]
    fn offered(&mut self, frame: &[u8], name: &str) -> u32 {
        // An epoch may end in between.
        for _ in 0..2 {
            let cookie = self.cookie(frame, 0);
            let (reason, answered) = self.kernel.answer(frame).unwrap();
            assert_eq!(reason, SynCookieSent, "{name}");
            if answered == Some(turned(frame, ExpectedAnswer::SynAck(cookie))) {
                return cookie;
            }
        }
        panic!("{name}: another cookie than the library's");
    }

    /// Makes a whole handshake with this ACK.
    #[track_caller]
    fn connects(
        &mut self,
        way: &Frame,
        port: u16,
        reason: Reason,
        answer: ExpectedAnswer,
        name: &str,
    ) {
        let cookie = self.offered(&tcp(way, port, SYN, 0), name);
        let ack = tcp(way, port, ACK, cookie.wrapping_add(1));
        self.is(&ack, reason, Some(answer), &format!("{name}, tcp/{port}"));
    }
}

fn turned(frame: &[u8], answer: ExpectedAnswer) -> Vec<u8> {
    let answer = answer.to(frame);
    let mut frame = frame.to_vec();
    let mut memory = Memory(&mut frame);
    answer::rewrite_as_reply(&mut memory, answer).unwrap();
    memory.0.to_vec()
}

fn tcp(way: &Frame, port: u16, flags: u8, acknowledged: u32) -> Vec<u8> {
    let mut frame = way.clone().tcp(40_000, port, flags).bytes();
    let at = frame.len() - 12;
    frame[at..at + 4].copy_from_slice(&acknowledged.to_be_bytes());
    frame
}

/// Returns a datagram with this many octets.
fn udp(way: &Frame, port: u16, octets: usize) -> Vec<u8> {
    let mut frame = way.clone().udp(40_000, port).bytes();
    frame.extend(vec![0; octets]);
    frame
}

/// Returns every kind of headers that can be answered, each with a source of its own.
fn ways(number: u8) -> Vec<(&'static str, Frame)> {
    let v4 = |frame: Frame| frame.ip4(&format!("198.51.100.{number}"), "192.0.2.2");
    let v6 = |frame: Frame| frame.ip6(&format!("2001:db8:1::{number:x}"), "2001:db8::2");
    let tagged = |number: u8| format!("198.51.101.{number}");
    vec![
        ("IPv4", v4(eth())),
        ("IPv6", v6(eth())),
        (
            "IPv4, tagged",
            eth().vlan(7).ip4(&tagged(number), "192.0.2.2"),
        ),
        (
            "IPv6, two tags",
            eth()
                .qinq(7)
                .vlan(8)
                .ip6(&format!("2001:db8:2::{number:x}"), "2001:db8::2"),
        ),
        (
            "IPv4, options",
            eth()
                .ip4(&format!("198.51.102.{number}"), "192.0.2.2")
                .options(2),
        ),
    ]
}
