//! A run: sends the packet to each address, waits for the answer, and connects.

use super::answer::{HostRefusal, PacketAnswer, ReceivedAnswer, Unanswered};
use super::packet::{SentPacket, StampClock};
use super::settings::CheckedSpa;
use crate::connect::{Attempted, ConnectError, Connected, FailedConnect, Knocked, connect_any};
use crate::destination::Destination;
use crate::failure::Failure;
use crate::plan::KnockPlan;
use crate::reply::ConnectTo;
use crate::report::Reporter;
use knock_sequence::duration::spell;
use std::io::Write;
use std::net::{IpAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// How long a connection is still waited for after the host has refused: the door may be open for another
/// reason.
const GRACE: Duration = Duration::from_secs(1);

/// An event while a run waits.
enum RunEvent {
    /// The number of the packet, and what was received.
    Received(usize, ReceivedAnswer),
    /// The attempts to connect have ended.
    Ended(Option<Result<(Destination, TcpStream, Connected), ConnectError>>),
}

/// The answers so far.
struct Answers<'a> {
    spa: &'a CheckedSpa,
    /// For each packet, the address that it asks to open for.
    asked: Vec<Option<IpAddr>>,
    received: Vec<Option<ReceivedAnswer>>,
    first: Destination,
    limit: Duration,
    /// Whether no connection follows.
    are_result: bool,
}

/// Sends packets and carries out the rest of the plan; again with a new stamp if that fails and retries are
/// left.
///
/// # Errors
///
/// The first step that failed.
pub(crate) fn run(
    spa: &CheckedSpa,
    plan: &KnockPlan,
    destinations: &[Destination],
    report: &mut Reporter<impl Write>,
) -> Result<Option<TcpStream>, Failure> {
    let mut stamps = StampClock::default();
    let mut retry = 0;
    loop {
        let sent = send(spa, plan, destinations, &mut stamps, report)?;
        let error = match finish(spa, plan, sent, report) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if retry >= plan.retries || !error.is_worth_a_retry() {
            return Err(error);
        }
        retry += 1;
        report.retry(retry, plan.retries, &error);
        report.flush();
    }
}

/// Sends a packet to each address, and succeeds if one can be sent.
fn send(
    spa: &CheckedSpa,
    plan: &KnockPlan,
    destinations: &[Destination],
    stamps: &mut StampClock,
    report: &mut Reporter<impl Write>,
) -> Result<Vec<SentPacket>, Failure> {
    let has_several = destinations.len() > 1;
    let mut all = Vec::new();
    let mut failed = None;
    for (number, destination) in destinations.iter().enumerate() {
        if number > 0 && !plan.delay.is_zero() {
            thread::sleep(plan.delay);
        }
        match spa.send(destination, has_several, stamps) {
            Ok(sent) => {
                report.packet(spa, &sent);
                all.push(sent);
            }
            Err(error) if has_several => {
                report.skipped(&error.destination, &error);
                failed = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match failed {
        Some(error) if all.is_empty() => Err(error.into()),
        Some(_) | None => Ok(all),
    }
}

/// The port that the host has opened.
pub(crate) struct Opened {
    /// How long, if it was asked for an answer: the shortest time of its addresses.
    pub(crate) time: Option<Duration>,
    /// The addresses where the door is open, as far as that is known.
    pub(crate) hosts: Vec<Knocked>,
    /// The TCP port that an answer names.
    pub(crate) port: Option<u16>,
}

/// Sends a packet to each address and waits for the answers, without a connection.
///
/// # Errors
///
/// No packet was sent, or no address opened the door.
pub(crate) fn open(
    spa: &CheckedSpa,
    plan: &KnockPlan,
    destinations: &[Destination],
    stamps: &mut StampClock,
    are_result: bool,
    report: &mut Reporter<impl Write>,
) -> Result<Opened, Failure> {
    let sent = send(spa, plan, destinations, stamps, report)?;
    let mut hosts: Vec<Knocked> = sent.iter().map(SentPacket::knocked).collect();
    let (mut time, mut port) = (None, None);
    if let (true, Some(first)) = (spa.answer, sent.first().map(|sent| sent.destination)) {
        let answers = Answers {
            are_result,
            ..Answers::new(spa, &sent, first, spa.answer_timeout)
        };
        let answers = wait_for_all(answers, sent, report)?;
        let open = answers
            .answered()
            .filter(|(answered, _)| answered.is_open());
        let open: Vec<PacketAnswer> = open.map(|(answered, _)| answered).collect();
        hosts.retain(|host| {
            open.iter()
                .any(|answered| answered.destination == host.destination)
        });
        let seconds = open.iter().map(|answered| answered.answer.seconds).min();
        time = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        port = open.iter().find_map(|answered| answered.answer.port);
    }
    Ok(Opened { time, hosts, port })
}

fn finish(
    spa: &CheckedSpa,
    plan: &KnockPlan,
    sent: Vec<SentPacket>,
    report: &mut Reporter<impl Write>,
) -> Result<Option<TcpStream>, Failure> {
    let Some(first) = sent.first().map(|sent| sent.destination) else {
        return Ok(None);
    };
    let knocked: Vec<Knocked> = sent.iter().map(SentPacket::knocked).collect();
    let limit = match plan.then_connect {
        Some(ConnectTo::Port(_)) => plan.timeout,
        Some(ConnectTo::Reply) | None => spa.answer_timeout,
    };
    let answers = Answers {
        are_result: plan.then_connect.is_none(),
        ..Answers::new(spa, &sent, first, limit)
    };
    match (plan.then_connect, spa.answer) {
        (None, false) => Ok(None),
        (None, true) => {
            wait_for_all(answers, sent, report)?;
            Ok(None)
        }
        (Some(ConnectTo::Port(port)), false) => {
            report.waits_for_port(port, first, plan.timeout);
            let Some(ended) = connect_any(&knocked, port, plan.timeout) else {
                return Ok(None);
            };
            report.has_waited();
            let (destination, stream, connected) =
                ended.map_err(|error| error.after(Attempted::Packet))?;
            report.connected(&destination, port, &connected);
            Ok(Some(stream))
        }
        (Some(ConnectTo::Port(port)), true) => connect(answers, port, knocked, sent, report),
        // A plan that connects to `reply` always asks for an answer.
        (Some(ConnectTo::Reply), _) => {
            let (place, port) = wait_for_port(answers, sent, report)?;
            report.flush();
            let knocked: Vec<Knocked> = knocked.into_iter().skip(place).take(1).collect();
            report.waits_for_port(port, first, plan.timeout);
            let Some(ended) = connect_any(&knocked, port, plan.timeout) else {
                return Ok(None);
            };
            let (destination, stream, connected) = ended?;
            report.connected(&destination, port, &connected);
            Ok(Some(stream))
        }
    }
}

/// Waits for the answers to all packets; the host must comply with one of them.
fn wait_for_all<'a>(
    mut answers: Answers<'a>,
    sent: Vec<SentPacket>,
    report: &mut Reporter<impl Write>,
) -> Result<Answers<'a>, Failure> {
    report.flush();
    answers.wait_is_said(report);
    let (sender, events) = mpsc::channel();
    answers.listen(sent, &sender);
    drop(sender);
    for event in events {
        if let RunEvent::Received(place, received) = event {
            answers.add(place, received, report);
        }
    }
    report.has_waited();
    match answers.is_any_done() {
        true => Ok(answers),
        false => Err(answers.failure(None)),
    }
}

/// Waits for an answer that names the open port; returns the number of its packet, too.
fn wait_for_port(
    mut answers: Answers<'_>,
    sent: Vec<SentPacket>,
    report: &mut Reporter<impl Write>,
) -> Result<(usize, u16), Failure> {
    report.flush();
    answers.wait_is_said(report);
    let (sender, events) = mpsc::channel();
    answers.listen(sent, &sender);
    drop(sender);
    let mut without_port = None;
    for event in events {
        if let RunEvent::Received(place, received) = event {
            answers.add(place, received, report);
            if let ReceivedAnswer::Answer(answered) = received
                && answered.is_open()
            {
                match answered.answer.port {
                    Some(port) => return Ok((place, port)),
                    None => without_port = Some(answered.destination),
                }
            }
        }
    }
    match without_port {
        Some(destination) => Err(Failure::NoPort { destination }),
        None => Err(answers.failure(None)),
    }
}

/// Connects at once, and gives up early if the host refuses.
fn connect(
    mut answers: Answers<'_>,
    port: u16,
    knocked: Vec<Knocked>,
    sent: Vec<SentPacket>,
    report: &mut Reporter<impl Write>,
) -> Result<Option<TcpStream>, Failure> {
    let timeout = answers.limit;
    let (sender, events) = mpsc::channel();
    let ended = sender.clone();
    // The first SYN is sent before anything else.
    thread::spawn(move || {
        // The receiver is gone if the host has refused.
        let _late = ended.send(RunEvent::Ended(connect_any(&knocked, port, timeout)));
    });
    answers.listen(sent, &sender);
    drop(sender);
    report.waits_for_port(port, answers.first, timeout);
    let mut deadline: Option<Instant> = None;
    loop {
        let event = match deadline {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        };
        match event {
            Ok(RunEvent::Received(place, received)) => {
                answers.add(place, received, report);
                if answers.are_all_refused() {
                    deadline.get_or_insert_with(|| Instant::now() + GRACE);
                }
            }
            Ok(RunEvent::Ended(None)) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Ok(RunEvent::Ended(Some(Ok((destination, stream, connected))))) => {
                report.connected(&destination, port, &connected);
                return Ok(Some(stream));
            }
            Ok(RunEvent::Ended(Some(Err(error)))) => {
                if matches!(error.closed, FailedConnect::NoAnswer) {
                    // The time for answers has passed, too.
                    for event in events {
                        if let RunEvent::Received(place, received) = event {
                            answers.add(place, received, report);
                        }
                    }
                }
                return Err(answers.not_connected(error));
            }
            Err(RecvTimeoutError::Timeout) => return Err(answers.failure(Some(port))),
        }
    }
}

impl SentPacket {
    fn knocked(&self) -> Knocked {
        Knocked {
            destination: self.destination,
            last_knock: self.at,
        }
    }
}

impl<'a> Answers<'a> {
    fn new(spa: &'a CheckedSpa, sent: &[SentPacket], first: Destination, limit: Duration) -> Self {
        Self {
            spa,
            asked: sent.iter().map(|sent| sent.source).collect(),
            received: vec![None; sent.len()],
            first,
            limit,
            are_result: true,
        }
    }

    fn wait_is_said(&self, report: &mut Reporter<impl Write>) {
        let Self {
            spa, first, limit, ..
        } = self;
        report.waits_for(|| {
            let limit = spell(*limit);
            format!("the answer of {first} from {}, up to {limit}", spa.port)
        });
    }
    /// Listens for the answers, each in a thread of its own.
    fn listen(&self, sent: Vec<SentPacket>, events: &Sender<RunEvent>) {
        let limit = self.limit;
        for (place, sent) in sent.into_iter().enumerate() {
            let (events, channel) = (events.clone(), self.spa.channel.clone());
            thread::spawn(move || {
                // The receiver is gone after a connection.
                let _late = events.send(RunEvent::Received(place, sent.receive(&channel, limit)));
            });
        }
    }

    fn add(&mut self, place: usize, received: ReceivedAnswer, report: &mut Reporter<impl Write>) {
        if let ReceivedAnswer::Answer(answered) = received {
            report.answered(self.spa, &answered, self.are_result);
        }
        if let Some(slot) = self.received.get_mut(place) {
            *slot = Some(received);
        }
    }

    /// Returns the answers with what their packets asked for.
    fn answered(&self) -> impl Iterator<Item = (PacketAnswer, Option<IpAddr>)> + '_ {
        let both = self.received.iter().zip(&self.asked);
        both.filter_map(|(received, &asked)| match received {
            Some(ReceivedAnswer::Answer(answered)) => Some((*answered, asked)),
            Some(ReceivedAnswer::Nothing { .. }) | None => None,
        })
    }

    fn refusals(&self) -> impl Iterator<Item = HostRefusal> + '_ {
        self.answered()
            .filter_map(|(answered, asked)| answered.refusal(self.spa, asked))
    }

    fn is_any_done(&self) -> bool {
        let mut answered = self.answered();
        answered.any(|(answered, asked)| answered.refusal(self.spa, asked).is_none())
    }

    fn are_all_refused(&self) -> bool {
        self.refusals().count() == self.asked.len()
    }

    /// Returns why nothing was opened: a refusal, or else that there was no answer.
    fn failure(&self, not_connected: Option<u16>) -> Failure {
        if let Some(refusal) = self.refusals().next() {
            return refusal.into();
        }
        let is_closed = |received: &Option<ReceivedAnswer>| {
            matches!(received, Some(ReceivedAnswer::Nothing { is_closed: true }))
        };
        Failure::Unanswered(Unanswered {
            destination: self.first,
            port: self.spa.port,
            limit: self.limit,
            is_closed: self.received.iter().any(is_closed),
            not_connected,
        })
    }

    /// Returns why there is no connection.
    fn not_connected(&self, error: ConnectError) -> Failure {
        let open = self.answered().find(|(answered, _)| answered.is_open());
        match (&error.closed, open) {
            (FailedConnect::NoAnswer, Some((answered, _))) => Failure::OpenButSilent {
                opened: answered.text(self.spa),
                port: error.port,
                limit: error.limit,
            },
            (FailedConnect::NoAnswer, None) => self.failure(Some(error.port)),
            (
                FailedConnect::Refused | FailedConnect::Unreachable(_) | FailedConnect::Unable(_),
                _,
            ) => error.into(),
        }
    }
}
