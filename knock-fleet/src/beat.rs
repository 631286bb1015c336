//! Signs of life: keys that end with this process, unless it keeps them alive.

use std::{rc::Rc, time::Duration};

use knock_wire::{Beat, Put, Write};
use tokio::{
    sync::watch::Receiver,
    time::{sleep, timeout},
};

use crate::{
    engine::{Engine, Member as _, Outcome, Trouble},
    members::Members,
    pauses::Pauses,
};

/// The number of failed attempts whose members are remembered.
const REMEMBERED: usize = 16;

/// Keeps a key alive, until the other end of the channel is gone. A value that is sent there replaces the old one.
pub(crate) async fn keep<E: Engine>(
    members: Rc<Members<E>>,
    pauses: Pauses,
    mut beats: Receiver<Beat>,
) {
    let mut lease = None;
    // The members that did not answer since the last answer, the latest ones.
    let mut tried = Vec::new();
    let mut last_reason = None;
    loop {
        let beat = beats.borrow_and_update().clone();
        let number = members.for_write(&tried);
        match once(&members, number, &beat, &mut lease).await {
            Ok(()) => {
                tried.clear();
                last_reason = None;
                let period = Duration::from_secs(beat.keep_s.max(3)) / 3;
                match timeout(period, beats.changed()).await {
                    Ok(Ok(())) | Err(_) => {}
                    Ok(Err(_)) => return,
                }
            }
            Err(Trouble::NoLease) => lease = None,
            Err(other) => {
                // The state of the link is reported by watches; a right that only this needs is not.
                let reason = other.to_string();
                if last_reason.as_ref() != Some(&reason) {
                    eprintln!("knock-fleet: {}: {reason}", beat.key);
                }
                last_reason = Some(reason);
                if !matches!(other, Trouble::Refused(_)) {
                    members.forget(number);
                }
                tried.push(number);
                if tried.len() > REMEMBERED {
                    tried.remove(0);
                }
                let failures = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                sleep(pauses.after(failures, false)).await;
            }
        }
    }
}

/// Extends the lease, and writes the key if the engine has not this value under it.
async fn once<E: Engine>(
    members: &Members<E>,
    number: usize,
    beat: &Beat,
    lease: &mut Option<i64>,
) -> Result<(), Trouble> {
    let member = members.get(number).await?;
    let kept = match *lease {
        Some(kept) => {
            member.keep_alive(kept).await?;
            kept
        }
        None => *lease.insert(member.lease(beat.keep_s).await?),
    };
    let there = member.read(&beat.key, None).await?.record;
    if there.is_some_and(|record| record.value == beat.value && record.lease == kept) {
        return Ok(());
    }
    let put = Put {
        id: 0,
        condition: None,
        writes: vec![Write {
            key: beat.key.clone(),
            value: beat.value.clone(),
            keep_s: None,
        }],
    };
    match member.write(&put, &[Some(kept)]).await? {
        Outcome::Written(_) | Outcome::Refused(_) => Ok(()),
    }
}
