//! `knock-fleet` as the daemon of a host starts it, and what the daemon knows from its reports.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use knock_wire::{
    Cause, Condition, Octets, Open, PROTOCOL, Point, Put, Report, Request, Watch, Write, to_line,
};

use crate::{cluster::Cluster, command::PATIENCE};

/// The prefix of the group that hosts follow.
pub(crate) const GROUP: &str = "/knock/1/web/";

/// A host.
pub(crate) struct Host {
    process: Child,
    socket: UnixStream,
    reports: Receiver<Report>,
    /// All reports that were received.
    pub(crate) seen: Vec<Report>,
    /// The records that the daemon knows, with their values and revisions.
    pub(crate) records: BTreeMap<String, (Vec<u8>, u64)>,
    /// Lists since the beginning.
    pub(crate) lists: Vec<Cause>,
    /// The cluster, by the last list.
    pub(crate) cluster: String,
    listing: Option<BTreeMap<String, (Vec<u8>, u64)>>,
    last_revision: u64,
    next_id: u64,
}

/// Returns the first line of a host with the certificates of a user.
pub(crate) fn open(cluster: &Cluster, user: &str) -> Open {
    let authority = &cluster.authority;
    Open {
        protocol: PROTOCOL,
        servers: cluster.urls(),
        ca: Some(authority.path("ca.pem").into()),
        cert: Some(authority.path(&format!("{user}.pem")).into()),
        key: Some(authority.path(&format!("{user}.key")).into()),
        watches: 2,
    }
}

/// Returns a write.
pub(crate) fn write(key: &str, value: &str, keep_s: Option<u64>) -> Write {
    Write {
        key: key.to_owned(),
        value: Octets(value.as_bytes().to_vec()),
        keep_s,
    }
}

impl Host {
    /// Starts the program without a first line, in a namespace if one is given.
    pub(crate) fn bare(namespace: Option<&str>) -> Self {
        let program = env!("CARGO_BIN_EXE_knock-fleet");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = match namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, program]);
                command
            }
            None => Command::new(program),
        };
        let process = command.stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let (sender, reports) = mpsc::channel();
        let lines = BufReader::new(ours.try_clone().unwrap()).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let report =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            socket: ours,
            reports,
            seen: Vec::new(),
            records: BTreeMap::new(),
            lists: Vec::new(),
            cluster: String::new(),
            listing: None,
            last_revision: 0,
            next_id: 1,
        }
    }

    /// Starts the program and follows the group.
    pub(crate) fn start(cluster: &Cluster, octet: u8) -> Self {
        Self::start_after(cluster, octet, None)
    }

    /// Starts the program and follows the group from a point.
    pub(crate) fn start_after(cluster: &Cluster, octet: u8, after: Option<Point>) -> Self {
        let mut host = Self::bare(Some(&cluster.network.place(octet).name));
        host.send(&Request::Open(open(cluster, "web-1")));
        host.watch(after);
        host
    }

    /// Follows the group.
    pub(crate) fn watch(&mut self, after: Option<Point>) {
        self.send(&Request::Watch(Watch {
            prefix: GROUP.to_owned(),
            after,
        }));
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, request: &Request) {
        self.send_line(&to_line(request).unwrap());
    }

    /// Sends any text.
    pub(crate) fn send_line(&mut self, line: &str) {
        self.socket.write_all(line.as_bytes()).unwrap();
    }

    /// Sends a put; returns its number.
    pub(crate) fn put(&mut self, condition: Option<(&str, u64)>, writes: Vec<Write>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&Request::Put(Put {
            id,
            condition: condition.map(|(key, revision)| Condition {
                key: key.to_owned(),
                revision,
            }),
            writes,
        }));
        id
    }

    /// Waits until a condition holds after a report.
    #[track_caller]
    pub(crate) fn wait_for<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.take(report),
                Err(error) => {
                    let last = self.seen.len().saturating_sub(12);
                    panic!(
                        "{what}: {error}; lists {:?}; last reports {:#?}",
                        self.lists,
                        &self.seen[last..]
                    )
                }
            }
        }
    }

    /// Waits for the answer to a put.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: u64) -> Report {
        self.wait_for("an answer", |host| {
            let mut seen = host.seen.iter().rev();
            seen.find(|report| answers(report) == Some(id)).cloned()
        })
    }

    /// Waits for a record with this value.
    #[track_caller]
    pub(crate) fn wait_for_record(&mut self, key: &str, value: &str) {
        self.wait_for(&format!("{key} = {value}"), |host| {
            let (found, _) = host.records.get(key)?;
            (found == value.as_bytes()).then_some(())
        });
    }

    /// Waits until everything was reported that was there when this was called.
    #[track_caller]
    pub(crate) fn wait_until_current(&mut self) {
        let before = self.seen.len();
        let mut known = 0;
        self.wait_for("the report that it is current", |host| {
            let times = host
                .seen
                .iter()
                .skip(before)
                .filter_map(|report| match report {
                    Report::Current { at_ms, .. } => Some(*at_ms),
                    _ => None,
                });
            // The second one was asked after this call.
            let times: std::collections::BTreeSet<_> = times.collect();
            known = known.max(times.len());
            (known > 2).then_some(())
        });
    }

    /// Returns whether a report like this was received.
    pub(crate) fn has(&self, is_one: impl Fn(&Report) -> bool) -> bool {
        self.seen.iter().any(is_one)
    }

    /// Closes the daemon's end; returns how the program ended.
    pub(crate) fn close(mut self) -> ExitStatus {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.process.wait().unwrap()
    }

    /// Waits for the end of the program.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    /// Handles a report as the daemon does, and checks its order.
    fn take(&mut self, report: Report) {
        match &report {
            Report::List { cause, cluster, .. } => {
                self.lists.push(*cause);
                self.cluster.clone_from(cluster);
                self.listing = Some(BTreeMap::new());
            }
            Report::Listed { revision, .. } => {
                self.records = self.listing.take().expect("a list that was begun");
                self.last_revision = *revision;
            }
            Report::Record {
                key,
                value,
                revision,
            } => {
                let entry = (value.0.clone(), *revision);
                match &mut self.listing {
                    Some(listing) => {
                        let old = listing.insert(key.clone(), entry);
                        assert_eq!(old, None, "{key} is in the list twice");
                    }
                    None => {
                        self.changed(key, *revision);
                        self.records.insert(key.clone(), entry);
                    }
                }
            }
            Report::Deleted { key, revision } => {
                assert!(self.listing.is_none(), "{key} was deleted within a list");
                self.changed(key, *revision);
                self.records.remove(key);
            }
            Report::Current { revision, .. } => {
                assert!(
                    *revision >= self.last_revision,
                    "{report:?} after {}",
                    self.last_revision
                );
            }
            Report::Linked { .. }
            | Report::Lost { .. }
            | Report::Written { .. }
            | Report::Refused { .. }
            | Report::Failed { .. } => {}
        }
        self.seen.push(report);
    }

    fn changed(&mut self, key: &str, revision: u64) {
        assert!(
            revision >= self.last_revision,
            "{key} of revision {revision} after {}",
            self.last_revision
        );
        let known = self.records.get(key).map_or(0, |(_, revision)| *revision);
        assert!(revision > known, "{key} of revision {revision} twice");
        self.last_revision = revision;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Returns the number of the put that a report answers.
fn answers(report: &Report) -> Option<u64> {
    match report {
        Report::Written { id, .. } | Report::Refused { id, .. } | Report::Failed { id, .. } => {
            Some(*id)
        }
        Report::Linked { .. }
        | Report::Lost { .. }
        | Report::List { .. }
        | Report::Listed { .. }
        | Report::Record { .. }
        | Report::Deleted { .. }
        | Report::Current { .. } => None,
    }
}
