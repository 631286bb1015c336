//! A connection to a member of etcd.

use std::{future::Future, rc::Rc, time::Duration};

use etcd_client::{
    Client, Compare, CompareOp, Error, Event, EventType, GetOptions, GetResponse, KeyValue,
    LeaseClient, PutOptions, ResponseHeader, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchResponse, WatchStream,
};
use knock_wire::{Put, Write};

use super::explain;
use crate::engine::{
    Change, Changes, Member, Message, Outcome, Page, Read, Record, Trouble, record::readable,
};

/// How long an answer may take; electing a leader takes etcd 1.6 s by default.
const ANSWER: Duration = Duration::from_secs(2);

/// The records of a page.
const PAGE: i64 = 500;

/// The most octets of a message from a member: pages, and changes of many revisions at once.
const LONGEST_MESSAGE: usize = 256 << 20;

/// A connection.
#[derive(Clone)]
pub(crate) struct EtcdMember {
    url: Rc<str>,
    version: Rc<str>,
    client: Client,
}

impl EtcdMember {
    /// Asks a member for its version.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn new(url: &str, mut client: Client) -> Result<Self, Trouble> {
        let answer = match tokio::time::timeout(ANSWER, client.status()).await {
            Ok(answer) => answer.map_err(|error| explain::first_answer(url, &error)),
            Err(_) => Err(no_answer(url).of_question()),
        };
        let version = match answer {
            Ok(status) => status.version().to_owned(),
            // The version is for people alone, and an etcd may keep it from users.
            Err(Trouble::Refused(_)) => "unknown".to_owned(),
            Err(other) => return Err(other),
        };
        Ok(Self {
            url: url.into(),
            version: version.into(),
            client,
        })
    }

    async fn get(
        &self,
        key: impl Into<Vec<u8>>,
        options: GetOptions,
    ) -> Result<GetResponse, Trouble> {
        let mut client = self
            .client
            .kv_client()
            .max_decoding_message_size(LONGEST_MESSAGE);
        let got = in_time(&self.url, client.get(key, Some(options))).await;
        got.map_err(Trouble::of_question)
    }

    fn leases(&self) -> LeaseClient {
        self.client.lease_client()
    }
}

/// Waits for an answer.
async fn in_time<T>(
    url: &str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(|error| explain::of(url, &error)),
        Err(_) => Err(no_answer(url)),
    }
}

fn no_answer(url: &str) -> Trouble {
    Trouble::Lost(format!(
        "{url}: no answer within {} s; check that a majority of the members runs",
        ANSWER.as_secs()
    ))
}

/// Revisions and numbers of etcd are positive numbers in signed fields.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn cluster(header: Option<&ResponseHeader>) -> String {
    header.map_or_else(String::new, |header| format!("{:x}", header.cluster_id()))
}

fn revision(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| unsigned(header.revision()))
}

fn record(from: &KeyValue) -> Record {
    Record::new(
        from.key(),
        from.value(),
        unsigned(from.mod_revision()),
        from.lease(),
    )
}

fn read(from: &GetResponse, header: Option<&ResponseHeader>) -> Read {
    Read {
        cluster: cluster(header),
        revision: revision(header),
        record: from.kvs().first().map(record),
    }
}

/// Returns the end of the keys with a prefix.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Text has no octet 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl Member for EtcdMember {
    type Changes = EtcdChanges;

    fn version(&self) -> &str {
        &self.version
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&[u8]>,
        at: Option<u64>,
    ) -> Result<Page, Trouble> {
        let mut from = after.unwrap_or(prefix.as_bytes()).to_vec();
        if after.is_some() {
            from.push(0);
        }
        let options = GetOptions::new()
            .with_range(end_of(prefix))
            .with_revision(at.map_or(0, signed))
            .with_limit(PAGE);
        let got = self.get(from, options).await?;
        let last = got.kvs().last().map(|record| record.key().to_vec());
        Ok(Page {
            cluster: cluster(got.header()),
            revision: revision(got.header()),
            records: got.kvs().iter().map(record).collect(),
            rest: last.filter(|_| got.more()),
        })
    }

    async fn read(&self, key: &str, at: Option<u64>) -> Result<Read, Trouble> {
        let options = GetOptions::new().with_revision(at.map_or(0, signed));
        let got = self.get(key, options).await?;
        Ok(read(&got, got.header()))
    }

    async fn newest(&self, prefix: &str) -> Result<Read, Trouble> {
        let options = GetOptions::new()
            .with_range(end_of(prefix))
            .with_sort(SortTarget::Mod, SortOrder::Descend)
            .with_limit(1)
            .with_keys_only();
        let got = self.get(prefix, options).await?;
        Ok(read(&got, got.header()))
    }

    async fn watch(&self, prefix: &str, from: u64) -> Result<EtcdChanges, Trouble> {
        let options = WatchOptions::new()
            .with_range(end_of(prefix))
            .with_start_revision(signed(from));
        let mut client = self
            .client
            .watch_client()
            .max_decoding_message_size(LONGEST_MESSAGE);
        let watch = in_time(&self.url, client.watch(prefix, Some(options))).await;
        let mut changes = EtcdChanges {
            url: Rc::clone(&self.url),
            stream: watch.map_err(Trouble::of_question)?,
        };
        let created = in_time(&self.url, changes.stream.message()).await;
        match created.map_err(Trouble::of_question)? {
            Some(message) if message.created() => {
                changes.checked(&message)?;
                Ok(changes)
            }
            Some(_) | None => Err(changes.ended()),
        }
    }

    async fn write(&self, put: &Put, leases: &[Option<i64>]) -> Result<Outcome, Trouble> {
        let lease = |index: usize| leases.get(index).copied().flatten();
        let puts = put.writes.iter().enumerate().map(|(index, write)| {
            let Write { key, value, .. } = write;
            let options = lease(index).map(|lease| PutOptions::new().with_lease(lease));
            TxnOp::put(key.as_str(), value.0.as_slice(), options)
        });
        let puts: Vec<_> = puts.collect();
        let txn = match &put.condition {
            None => Txn::new().and_then(puts),
            Some(condition) => {
                let (key, revision) = (condition.key.as_str(), signed(condition.revision));
                Txn::new()
                    .when([Compare::mod_revision(key, CompareOp::Equal, revision)])
                    .and_then(puts)
                    .or_else([TxnOp::get(key, None)])
            }
        };
        let answer = in_time(&self.url, self.client.kv_client().txn(txn)).await?;
        if answer.succeeded() {
            return Ok(Outcome::Written(revision(answer.header())));
        }
        let found = answer.op_responses().into_iter().find_map(|one| match one {
            TxnOpResponse::Get(got) => Some(got),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        let found = found
            .ok_or_else(|| Trouble::Refused(format!("{}: the answer has no record", self.url)))?;
        Ok(Outcome::Refused(read(&found, answer.header())))
    }

    async fn lease(&self, seconds: u64) -> Result<i64, Trouble> {
        let granted = in_time(&self.url, self.leases().grant(signed(seconds), None)).await;
        // A lease whose answer was lost ends without keys.
        Ok(granted.map_err(Trouble::of_question)?.id())
    }

    async fn keep_alive(&self, lease: i64) -> Result<(), Trouble> {
        match tokio::time::timeout(ANSWER, self.leases().keep_alive(lease)).await {
            Ok(Ok(_kept)) => Ok(()),
            Ok(Err(Error::LeaseKeepAliveError(_))) => Err(Trouble::NoLease),
            Ok(Err(error)) => Err(explain::before_sending(&self.url, &error)),
            Err(_) => Err(Trouble::Unreached(format!(
                "{}: no answer to a keep-alive within {} s",
                self.url,
                ANSWER.as_secs()
            ))),
        }
    }
}

/// The changes of a prefix.
#[derive(Debug)]
pub(crate) struct EtcdChanges {
    url: Rc<str>,
    stream: WatchStream,
}

impl EtcdChanges {
    fn ended(&self) -> Trouble {
        Trouble::Unreached(format!("{}: the member ended the watch", self.url))
    }

    /// Checks that the watch continues after a message.
    fn checked(&self, message: &WatchResponse) -> Result<(), Trouble> {
        if message.compact_revision() > 0 {
            return Err(Trouble::Compacted);
        }
        if message.canceled() {
            return Err(explain::cancelled(&self.url, message.cancel_reason()));
        }
        Ok(())
    }
}

fn change(event: &Event) -> Option<Change> {
    let about = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => Change::Put(record(about)),
        EventType::Delete => Change::Deleted {
            key: readable(about.key()),
            revision: unsigned(about.mod_revision()),
        },
    })
}

impl Changes for EtcdChanges {
    async fn next(&mut self) -> Result<Message, Trouble> {
        let message = self.stream.message().await;
        let message = message.map_err(|error| explain::before_sending(&self.url, &error))?;
        let message = message.ok_or_else(|| self.ended())?;
        self.checked(&message)?;
        if message.events().is_empty() {
            return Ok(Message::Progress);
        }
        Ok(Message::Changes(
            message.events().iter().filter_map(change).collect(),
        ))
    }

    async fn ask(&mut self) -> Result<(), Trouble> {
        let asked = self.stream.request_progress().await;
        asked.map_err(|error| explain::before_sending(&self.url, &error))
    }
}
