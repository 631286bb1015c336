//! The order of writes: side by side, and one after the other where they have a key in common.

use std::{
    collections::{HashSet, VecDeque},
    rc::Rc,
};

use knock_wire::Put;
use tokio::{sync::mpsc::Receiver, task::JoinSet};

use crate::{engine::Engine, output::Output, write::Writer};

/// The most writes at a time.
const AT_A_TIME: usize = 64;

/// The most that are looked through for one that can begin; the others wait in the channel.
const LOOKED_AT: usize = 256;

/// Does the writes of a channel, without end.
pub(crate) async fn run<E: Engine>(
    writer: Rc<Writer<E>>,
    output: Rc<Output>,
    mut puts: Receiver<Put>,
) {
    let mut waiting = VecDeque::new();
    let mut running: JoinSet<Vec<String>> = JoinSet::new();
    let mut busy = HashSet::new();
    loop {
        tokio::select! {
            put = puts.recv(), if waiting.len() < LOOKED_AT => match put {
                Some(put) => waiting.push_back(put),
                None => return,
            },
            Some(done) = running.join_next(), if !running.is_empty() => {
                for key in done.unwrap_or_default() {
                    busy.remove(&key);
                }
            }
        }
        while running.len() < AT_A_TIME
            && let Some(put) = next(&mut waiting, &busy)
        {
            let keys = keys(&put);
            busy.extend(keys.iter().cloned());
            let (writer, output) = (Rc::clone(&writer), Rc::clone(&output));
            running.spawn_local(async move {
                let answer = writer.put(&put).await;
                output.send(answer).await;
                keys
            });
        }
    }
}

/// Removes and returns the first write that has no key in common with those that run or wait before it.
fn next(waiting: &mut VecDeque<Put>, busy: &HashSet<String>) -> Option<Put> {
    let mut before = HashSet::new();
    let place = waiting.iter().position(|put| {
        let keys = keys(put);
        let is_free = !keys
            .iter()
            .any(|key| busy.contains(key) || before.contains(key));
        before.extend(keys);
        is_free
    })?;
    waiting.remove(place)
}

/// Returns the keys that a write reads or writes.
fn keys(put: &Put) -> Vec<String> {
    let condition = put.condition.iter().map(|condition| condition.key.clone());
    let writes = put.writes.iter().map(|write| write.key.clone());
    condition.chain(writes).collect()
}

#[cfg(test)]
mod tests {
    use knock_wire::{Condition, Octets, Write};

    use super::*;

    fn put(id: u64, key: &str, condition: Option<&str>) -> Put {
        Put {
            id,
            condition: condition.map(|key| Condition {
                key: key.to_owned(),
                revision: 0,
            }),
            writes: vec![Write {
                key: key.to_owned(),
                value: Octets::default(),
                keep_s: None,
            }],
        }
    }

    #[test]
    fn writes_with_a_key_in_common_keep_their_order() {
        for (name, busy, waiting, expected) in [
            ("none waits", vec![], vec![], vec![]),
            (
                "others",
                vec![],
                vec![put(1, "a", None), put(2, "b", None)],
                vec![1, 2],
            ),
            (
                "the same key",
                vec![],
                vec![put(1, "a", None), put(2, "a", None)],
                vec![1],
            ),
            (
                "a key that is being written",
                vec!["a"],
                vec![put(1, "a", None), put(2, "b", None)],
                vec![2],
            ),
            (
                "a condition on a key that is being written",
                vec!["a"],
                vec![put(1, "b", Some("a")), put(2, "b", None), put(3, "c", None)],
                vec![3],
            ),
        ] {
            let mut busy: HashSet<_> = busy.into_iter().map(str::to_owned).collect();
            let mut waiting = VecDeque::from(waiting);
            let mut begun = Vec::new();
            while let Some(put) = next(&mut waiting, &busy) {
                busy.extend(keys(&put));
                begun.push(put.id);
            }
            assert_eq!(begun, expected, "{name}");
        }
    }
}
