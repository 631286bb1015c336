//! From the first line of the daemon to its end.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use knock_wire::{Beat, LONGEST_QUEUE, Open, PROTOCOL, Put, Report, Request, Watch};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    task::spawn_local,
};

use crate::{
    beat, engine::Engine, follow::Followed, input::Input, leases::Leases, link::Link,
    members::Members, output::Output, pauses::Pauses, write::Writer, writes,
};

/// Serves the daemon until it closes its end.
///
/// # Errors
/// A line can't be followed. It is also reported.
pub(crate) async fn run<E: Engine>(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    pauses: Pauses,
    engine: impl FnOnce(Open) -> E,
) -> Result<(), String> {
    let output = Rc::new(Output::default());
    let served = async {
        let served = serve(Input::new(from), &output, pauses, engine).await;
        if let Err(reason) = &served {
            output
                .send(Report::Lost {
                    reason: reason.clone(),
                })
                .await;
            output.drained().await;
        }
        served
    };
    tokio::select! {
        served = served => served,
        // The daemon no longer reads: it has ended.
        _closed = output.write(to) => Ok(()),
    }
}

async fn serve<E: Engine>(
    mut input: Input<impl AsyncRead + Unpin>,
    output: &Rc<Output>,
    pauses: Pauses,
    engine: impl FnOnce(Open) -> E,
) -> Result<(), String> {
    let open = match input.next().await? {
        Some(Request::Open(open)) => open,
        Some(Request::Watch(_) | Request::Put(_) | Request::Beat(_)) => {
            return Err(input.problem("the first line is not `open`"));
        }
        None => return Ok(()),
    };
    if open.protocol != PROTOCOL {
        return Err(input.problem(&format!(
            "the lines are of version {}, not {PROTOCOL}",
            open.protocol
        )));
    }
    if open.servers.is_empty() {
        return Err(input.problem("`servers` has no member"));
    }
    let watches = usize::from(open.watches.max(1)).min(open.servers.len());
    let members = Rc::new(Members::new(engine(open)));
    let link = Rc::new(Link::new(Rc::clone(output)));
    let writer = Rc::new(Writer {
        members: Rc::clone(&members),
        leases: Leases::default(),
        pauses,
    });
    let (puts, waiting) = mpsc::channel::<Put>(LONGEST_QUEUE);
    spawn_local(writes::run(writer, Rc::clone(output), waiting));
    let mut prefixes = HashSet::new();
    let mut beats: HashMap<String, watch::Sender<Beat>> = HashMap::new();
    while let Some(request) = input.next().await? {
        match request {
            Request::Open(_) => return Err(input.problem("a second `open`")),
            Request::Watch(Watch { prefix, after }) => {
                if prefix.is_empty() || !prefixes.insert(prefix.clone()) {
                    return Err(input.problem(&format!(
                        "`{prefix}` can't be watched, or is watched already"
                    )));
                }
                let (members, link) = (Rc::clone(&members), Rc::clone(&link));
                let output = Rc::clone(output);
                let followed = Followed::new(members, link, output, pauses, prefix, after);
                let followed = Rc::new(followed);
                for _ in 0..watches {
                    spawn_local(Rc::clone(&followed).follow());
                }
            }
            Request::Put(put) => {
                let id = put.id;
                if puts.try_send(put).is_err() {
                    let reason = format!(
                        "{LONGEST_QUEUE} writes wait already; the engine does not answer in time"
                    );
                    output
                        .send(Report::Failed {
                            id,
                            may_be_written: false,
                            reason,
                        })
                        .await;
                }
            }
            Request::Beat(beat) => match beats.get(&beat.key) {
                Some(known) => {
                    // The task lives as long as this channel.
                    let _sent = known.send(beat);
                }
                None => {
                    let key = beat.key.clone();
                    let (sender, receiver) = watch::channel(beat);
                    spawn_local(beat::keep(Rc::clone(&members), pauses, receiver));
                    beats.insert(key, sender);
                }
            },
        }
    }
    Ok(())
}
