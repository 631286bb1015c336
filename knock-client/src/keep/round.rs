//! One renewal: knocks or packets to each address, and a connection where the plan asks for one.

use super::KeepEvent;
use super::network::OwnAddresses;
use super::schedule::SuspendAwareMoment;
use crate::connect::{Attempted, connect_any};
use crate::failure::Failure;
use crate::plan::{KnockPlan, Method, Rounds};
use crate::reply::ConnectTo;
use crate::report::Reporter;
use crate::spa::{self, StampClock};
use crate::{connect_to, knock, resolve};
use std::io::Write;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// The result of a renewal.
#[derive(Debug)]
pub(super) struct Renewed {
    /// A moment before anything was sent.
    pub(super) since: SuspendAwareMoment,
    /// How long the grant lasts, if the host answered that.
    pub(super) answered: Option<Duration>,
    /// This machine's addresses before anything was sent.
    pub(super) own: OwnAddresses,
}

/// The packets or knocks to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendOrder {
    /// Whether the door may be closed: then success is reported, and the plan's connection is made.
    pub(super) is_closed: bool,
}

/// Sends, and keeps what successive renewals share.
pub(super) struct Renewals<W: Write> {
    plan: KnockPlan,
    report: Reporter<W>,
    stamps: StampClock,
    rounds: Rounds,
}

impl<W: Write + Send + 'static> Renewals<W> {
    pub(super) fn new(plan: KnockPlan, report: Reporter<W>) -> Self {
        Self {
            plan,
            report,
            stamps: StampClock::default(),
            rounds: Rounds::unused(),
        }
    }

    /// Opens the door, with the plan's retries.
    ///
    /// # Errors
    ///
    /// The first step that failed.
    pub(super) fn open(&mut self) -> Result<Renewed, Failure> {
        let mut retry = 0;
        loop {
            let error = match self.renew(SendOrder { is_closed: true }) {
                Ok(renewed) => return Ok(renewed),
                Err(error) => error,
            };
            if retry >= self.plan.retries || !error.is_worth_a_retry() {
                return Err(error);
            }
            retry += 1;
            self.report.retry(retry, self.plan.retries, &error);
            self.report.flush();
        }
    }

    /// Carries out orders in a thread, since each can take seconds; [`KeepEvent::Done`] reports the result.
    pub(super) fn start(mut self, events: Sender<KeepEvent>) -> Sender<SendOrder> {
        let (orders, received) = mpsc::channel();
        self.report.end_waiting();
        thread::spawn(move || {
            for order in received {
                let done = self.renew(order);
                if events.send(KeepEvent::Done(Box::new(done))).is_err() {
                    return;
                }
            }
        });
        orders
    }

    fn renew(&mut self, order: SendOrder) -> Result<Renewed, Failure> {
        let done = self.send(order);
        self.report.flush();
        done
    }

    fn send(&mut self, SendOrder { is_closed }: SendOrder) -> Result<Renewed, Failure> {
        let Self {
            plan,
            report,
            stamps,
            rounds,
        } = self;
        let destinations = resolve(plan, report)?;
        let own = OwnAddresses::new(destinations.clone());
        let since = SuspendAwareMoment::now();
        let goal = plan.then_connect.filter(|_| is_closed);
        let answered = match &plan.method {
            Method::Knocks(source) => {
                let (mut knocked, listeners, last) =
                    knock(plan, source, &destinations, rounds, report)?;
                if let Some(goal) = goal {
                    connect_to(goal, &mut knocked, listeners, last, plan, report)?;
                }
                None
            }
            Method::Packet(spa) => {
                let opened = spa::open(spa, plan, &destinations, stamps, is_closed, report)?;
                if let (Some(goal), Some(first)) = (goal, opened.hosts.first()) {
                    let destination = first.destination;
                    let port = match goal {
                        ConnectTo::Port(port) => port,
                        ConnectTo::Reply => opened.port.ok_or(Failure::NoPort { destination })?,
                    };
                    report.waits_for_port(port, destination, plan.timeout);
                    let ended = connect_any(&opened.hosts, port, plan.timeout);
                    report.has_waited();
                    let ended =
                        ended.map(|ended| ended.map_err(|error| error.after(Attempted::Packet)));
                    if let Some((destination, _, connected)) = ended.transpose()? {
                        report.connected(&destination, port, &connected);
                    }
                }
                opened.time
            }
        };
        Ok(Renewed {
            since,
            answered,
            own,
        })
    }
}
