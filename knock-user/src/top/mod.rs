//! `knock-user top`: a view of an instance that follows what happens, for a terminal.
//!
//! It asks a running daemon through the control socket, as `status`, `list` and `watch` do, and so sees
//! and may do what these may. `screen` has what is shown and what keys do, without a terminal; `draw`
//! turns it into characters.
//!
//! May use `admin` for requests and answers. Must not know the kernel or the daemon.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use crate::{
    admin::instances::{self, Which},
    console::color::ColorChoice,
    kernel::instance::Instance,
    model::problem::Misuse,
};

mod attempts;
mod draw;
mod event_line;
mod feed;
mod line;
mod screen;
mod typed_request;

use draw::DrawStyle;
use feed::Feed;
use screen::{Screen, ScreenAnswer};

/// How long to wait for a key before what arrived is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Follow interfaces, rates, grants, attempts and events on a terminal
#[derive(clap::Args, Clone, Debug)]
pub struct TopOptions {
    #[command(flatten)]
    at: Which,
    /// Choose when to use colors; auto means unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// Shows the view until `q` is pressed or a signal ends it; the terminal is then as before.
///
/// # Errors
/// No terminal or no daemon is there, or the terminal can't be used.
pub fn run(options: &TopOptions) -> Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Misuse(
            "top needs a terminal for its view and its keys: use `knock-user status`, `list` and \
             `watch` elsewhere"
                .to_owned(),
        )
        .into());
    }
    let instance = instances::only(&options.at)?;
    let ended = caught()?;
    // The first answers come before the terminal changes, so that an error is an ordinary line.
    let feed = Feed::start(&instance)?;
    // This also restores the terminal after a panic.
    let mut terminal = ratatui::try_init().context("using the terminal")?;
    let done = show(
        options.color.is_on(),
        &mut terminal,
        &instance,
        &feed,
        &ended,
    );
    let restored = ratatui::try_restore().context("restoring the terminal");
    done.and(restored)
}

/// Reads keys in a thread: crossterm does not return from reading a terminal that has gone, as after
/// the end of an ssh connection.
fn keys() -> Receiver<io::Result<Event>> {
    let (sender, keys) = channel();
    thread::spawn(move || {
        loop {
            let event = event::read();
            let has_failed = event.is_err();
            if sender.send(event).is_err() || has_failed {
                return;
            }
        }
    });
    keys
}

/// Returns a flag that SIGTERM, SIGINT and SIGHUP set.
fn caught() -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register(signal, Arc::clone(&ended)).context("catching signals")?;
    }
    Ok(ended)
}

fn show(
    colours: bool,
    terminal: &mut ratatui::DefaultTerminal,
    instance: &Instance,
    feed: &Feed,
    ended: &AtomicBool,
) -> Result<()> {
    let mut screen = Screen::new(TimeZone::system());
    let keys = keys();
    let look = DrawStyle { colours };
    while !ended.load(Ordering::Relaxed) {
        for news in feed.news() {
            screen.take(news, Instant::now());
        }
        screen.tick(Instant::now());
        terminal
            .draw(|frame| draw::draw(frame, &screen, look))
            .context("drawing on the terminal")?;
        let key = match keys.recv_timeout(FRAME) {
            Ok(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => key,
            Ok(Err(error)) => return Err(error).context("reading keys"),
            // Another size, or nothing: what there is is drawn again.
            Ok(Ok(_)) | Err(_) => continue,
        };
        match screen.key(key) {
            ScreenAnswer::Continue => {}
            ScreenAnswer::Quit => return Ok(()),
            ScreenAnswer::Ask(request) => feed.ask(instance, request),
        }
    }
    Ok(())
}
