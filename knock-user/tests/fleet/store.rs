//! An engine of sealed records, and hosts that use it by lines.

use std::collections::BTreeMap;

use knock_user::fleet::{Exchange, FleetAction, GroupKey, Keyring, Member, Now, Step};
use knock_wire::{Cause, Found, Octets, Put, Report, Request};

pub(crate) const PREFIX: &str = "/knock/1/web/";
pub(crate) const NOW: Now = Now {
    boot_ms: 50_000,
    wall_ms: 1_700_000_000_000,
};

/// What an engine has: values with their revisions, by their keys.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) revision: u64,
    pub(crate) records: BTreeMap<String, (Octets, u64)>,
}

impl Store {
    pub(crate) fn write(&mut self, key: &str, value: Octets) {
        self.revision += 1;
        self.records.insert(key.to_owned(), (value, self.revision));
    }

    /// Does what a host requested; returns the answer.
    pub(crate) fn put(&mut self, put: &Put) -> Report {
        let id = put.id;
        if let Some(condition) = &put.condition {
            let found = self.records.get(&condition.key);
            if found.map_or(0, |(_, revision)| *revision) != condition.revision {
                return Report::Refused {
                    id,
                    found: found.map(|(value, revision)| Found {
                        value: value.clone(),
                        revision: *revision,
                    }),
                    revision: self.revision,
                };
            }
        }
        for write in &put.writes {
            self.write(&write.key, write.value.clone());
        }
        Report::Written {
            id,
            revision: self.revision,
        }
    }

    pub(crate) fn record(&self, key: &str) -> Report {
        let (value, revision) = self.records[key].clone();
        Report::Record {
            key: key.to_owned(),
            value,
            revision,
        }
    }

    pub(crate) fn list(&self) -> Vec<Report> {
        let begin = Report::List {
            prefix: PREFIX.to_owned(),
            cause: Cause::Asked,
            cluster: "c".to_owned(),
        };
        let end = Report::Listed {
            prefix: PREFIX.to_owned(),
            revision: self.revision,
        };
        let records = self.records.keys().map(|key| self.record(key));
        [begin]
            .into_iter()
            .chain(records)
            .chain([end, self.current()])
            .collect()
    }

    pub(crate) fn current(&self) -> Report {
        Report::Current {
            prefix: PREFIX.to_owned(),
            revision: self.revision,
            at_ms: NOW.boot_ms,
        }
    }
}

pub(crate) fn member(name: &str) -> Member {
    Member {
        host: name.to_owned(),
        longest_ms: 86_400_000,
        grace_ms: 15_000,
    }
}

pub(crate) fn host(name: &str, key: &GroupKey) -> Exchange {
    let keyring = Keyring::new(vec![key.clone()]).unwrap();
    Exchange::new("web", 3, member(name), keyring)
}

/// Passes reports on; returns the doors that open (`true`) and close, and carries writes out.
pub(crate) fn pass(
    host: &mut Exchange,
    store: &mut Store,
    reports: Vec<Report>,
) -> Vec<(String, bool)> {
    let mut steps = Vec::new();
    for report in reports {
        steps.extend(host.take(report, NOW));
    }
    let mut acts = Vec::new();
    carry_out(host, store, steps, &mut acts);
    acts
}

pub(crate) fn carry_out(
    host: &mut Exchange,
    store: &mut Store,
    steps: Vec<Step>,
    acts: &mut Vec<(String, bool)>,
) {
    for step in steps {
        match &step {
            Step::Act(FleetAction::Open { source, .. }) => acts.push((source.to_string(), true)),
            Step::Act(FleetAction::Close { source, .. }) => acts.push((source.to_string(), false)),
            Step::Send(Request::Put(put)) => {
                let more = host.take(store.put(put), NOW);
                carry_out(host, store, more, acts);
            }
            Step::Act(_) | Step::Send(_) => panic!("{step:?}"),
        }
    }
}

/// Returns an engine that has the grant of a host, the key of that record, and the key of the group.
pub(crate) fn granted() -> (Store, String, GroupKey) {
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let mut giver = host("web-1", &key);
    let list = store.list();
    pass(&mut giver, &mut store, list);
    let source = "203.0.113.7".parse().unwrap();
    let steps = giver.act(|group| group.given("ssh", source, 50_000, 80_000, None, NOW));
    carry_out(&mut giver, &mut store, steps, &mut Vec::new());
    let path = store.records.keys().next().unwrap().clone();
    (store, path, key)
}
