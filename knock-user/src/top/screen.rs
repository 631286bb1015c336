//! What is shown, and what keys do. It knows no terminal, and time comes in.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Map, Value};

use super::{
    attempts::{AttemptRow, Attempts},
    event_line::EventLine,
    feed::{FeedEvent, request},
    line::{EditLine, Edited},
    typed_request,
};
use crate::{
    admin::{block::spare_own_session, list::ListedGrant, status},
    control::Request,
    model::{prefix::Prefix, terminal::harmless},
};

/// The most events that are kept.
const EVENTS_MOST: usize = 500;
/// How far Page Up and Page Down go.
const PAGE: usize = 10;

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) status: status::Answer,
    /// Why no process answers, if so; what is shown is then old.
    pub(super) gone: Option<String>,
    pub(super) rates: Vec<Rate>,
    pub(super) attempts: Attempts,
    /// The latest last.
    pub(super) events: VecDeque<EventLine>,
    /// Those that match the filter, by source and door.
    pub(super) grants: Vec<ListedGrant>,
    /// How many there are without the filter.
    pub(super) grants_in_all: usize,
    /// When the grants were listed.
    pub(super) listed_at: Option<Instant>,
    pub(super) now: Option<Instant>,
    pub(super) filter: String,
    pub(super) mode: KeyMode,
    /// The answer to the last request.
    pub(super) message: Option<String>,
    all_grants: Vec<ListedGrant>,
    /// Source and door of the selected grant.
    selected: Option<(Prefix, String)>,
    /// Whether a key selected it; until then the first grant is selected.
    is_chosen: bool,
    counted: Option<(Instant, BTreeMap<String, u64>)>,
    zone: TimeZone,
}

/// The mode that decides the meaning of keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum KeyMode {
    /// They move and begin something.
    View,
    /// They edit a line.
    Edit(InputPurpose, EditLine),
    /// They answer whether to revoke this grant.
    Revoke(Prefix, String),
    /// Any key closes this text.
    Text(String),
}

/// The purpose of an edited line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum InputPurpose {
    /// A part of what is shown.
    Filter,
    /// A grant by hand.
    Grant,
    /// An explanation.
    Explain,
    /// A block.
    Block,
}

impl InputPurpose {
    /// Returns what the line begins with.
    pub(super) const fn prompt(self) -> &'static str {
        match self {
            Self::Filter => "filter: ",
            Self::Grant => "grant SOURCE DOOR [TIME]: ",
            Self::Block => "block SOURCE [TIME]: ",
            Self::Explain => "explain SOURCE PORT [ADDRESS]: ",
        }
    }
}

/// The next step after a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ScreenAnswer {
    Continue,
    Quit,
    /// Send this to the daemon.
    Ask(Request),
}

/// A counter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) name: String,
    pub(super) verdict: String,
    pub(super) count: u64,
    /// The increase in a second; none before the second look.
    pub(super) per_s: Option<f64>,
}

impl Screen {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self {
            status: status::Answer::default(),
            gone: None,
            rates: Vec::new(),
            attempts: Attempts::default(),
            events: VecDeque::new(),
            grants: Vec::new(),
            grants_in_all: 0,
            listed_at: None,
            now: None,
            filter: String::new(),
            mode: KeyMode::View,
            message: None,
            all_grants: Vec::new(),
            selected: None,
            is_chosen: false,
            counted: None,
            zone,
        }
    }

    /// Takes what arrived.
    pub(super) fn take(&mut self, news: FeedEvent, now: Instant) {
        match news {
            FeedEvent::State(status, list) => {
                self.gone = None;
                self.count(&status, now);
                self.status = *status;
                self.all_grants = list.grants;
                self.listed_at = Some(now);
                self.select_grants();
            }
            FeedEvent::Event(event) => self.event(&event, now),
            FeedEvent::Gone(because) => self.gone = Some(harmless(&because).into_owned()),
            FeedEvent::Answer(Ok(text)) if text.trim_end().lines().count() > 1 => {
                self.mode = KeyMode::Text(text);
            }
            FeedEvent::Answer(Ok(text)) => {
                self.message = Some(harmless(text.trim_end()).into_owned())
            }
            FeedEvent::Answer(Err(reason)) => {
                self.message = Some(format!("failed: {}", harmless(reason.trim_end())));
            }
        }
    }

    /// Follows the time.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = Some(now);
        self.attempts.expire(now);
    }

    /// Returns how many seconds are left of a grant now.
    pub(super) fn left_s(&self, grant: &ListedGrant) -> f64 {
        let since = self.now.zip(self.listed_at);
        let since = since.map_or(Duration::ZERO, |(now, at)| {
            now.saturating_duration_since(at)
        });
        (grant.seconds - since.as_secs_f64()).max(0.0)
    }

    /// Returns the place of the selected grant among those that are shown.
    pub(super) fn selected(&self) -> Option<usize> {
        let (source, door) = self.selected.as_ref()?;
        self.grants
            .iter()
            .position(|grant| grant.source == *source && grant.door == *door)
    }

    /// Returns the events that match the filter, the latest first.
    pub(super) fn shown_events(&self) -> impl Iterator<Item = &EventLine> {
        self.events.iter().rev().filter(|event| {
            [&event.event, &event.source, &event.door, &event.why]
                .into_iter()
                .any(|text| text.contains(&self.filter))
        })
    }

    /// Returns the attempts that match the filter.
    pub(super) fn shown_attempts(&self) -> Vec<(&str, &str, AttemptRow)> {
        let mut all = self.attempts.latest();
        all.retain(|(source, door, _)| {
            source.contains(&self.filter) || door.contains(&self.filter)
        });
        all
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> ScreenAnswer {
        match self.mode.clone() {
            KeyMode::View => self.view(key),
            KeyMode::Edit(purpose, line) => self.edit(purpose, line, key),
            KeyMode::Revoke(source, door) => {
                self.mode = KeyMode::View;
                if key.code != KeyCode::Char('y') {
                    return ScreenAnswer::Continue;
                }
                ScreenAnswer::Ask(request(
                    "revoke",
                    [
                        ("source", source.address.to_string().into()),
                        ("door", door.into()),
                    ],
                ))
            }
            KeyMode::Text(_) => {
                self.mode = KeyMode::View;
                ScreenAnswer::Continue
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum of the library has keys that do nothing here"
    )]
    fn view(&mut self, key: KeyEvent) -> ScreenAnswer {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return ScreenAnswer::Quit,
            KeyCode::Char('q') => return ScreenAnswer::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-(PAGE as isize)),
            KeyCode::PageDown => self.move_by(PAGE as isize),
            KeyCode::Home => self.move_by(isize::MIN),
            KeyCode::End => self.move_by(isize::MAX),
            KeyCode::Char('/') => {
                self.mode = KeyMode::Edit(InputPurpose::Filter, EditLine(self.filter.clone()));
            }
            KeyCode::Char('g') => {
                self.mode = KeyMode::Edit(InputPurpose::Grant, EditLine::default())
            }
            KeyCode::Char('e') => {
                let source = self.selected.as_ref();
                let source = source.map(|(source, _)| format!("{} ", source.address));
                let line = EditLine(source.unwrap_or_default());
                self.mode = KeyMode::Edit(InputPurpose::Explain, line);
            }
            KeyCode::Char('b') => {
                let source = self.selected.as_ref().filter(|_| self.is_chosen);
                let source = source.map(|(source, _)| format!("{source} "));
                let line = EditLine(source.unwrap_or_default());
                self.mode = KeyMode::Edit(InputPurpose::Block, line);
            }
            KeyCode::Char('r') => match &self.selected {
                Some((source, door)) => self.mode = KeyMode::Revoke(*source, door.clone()),
                None => self.message = Some("there is no grant to revoke".to_owned()),
            },
            KeyCode::Char('?') => self.mode = KeyMode::Text(HELP.to_owned()),
            KeyCode::Esc => {
                self.message = None;
                self.filter.clear();
                self.select_grants();
            }
            _ => {}
        }
        ScreenAnswer::Continue
    }

    fn edit(&mut self, purpose: InputPurpose, mut line: EditLine, key: KeyEvent) -> ScreenAnswer {
        match line.key(key) {
            Edited::Continues => {
                if purpose == InputPurpose::Filter {
                    self.filter.clone_from(&line.0);
                    self.select_grants();
                }
                self.mode = KeyMode::Edit(purpose, line);
                return ScreenAnswer::Continue;
            }
            Edited::Cancelled => {
                self.mode = KeyMode::View;
                return ScreenAnswer::Continue;
            }
            Edited::Done => self.mode = KeyMode::View,
        }
        let asked = match purpose {
            InputPurpose::Filter => return ScreenAnswer::Continue,
            InputPurpose::Grant => typed_request::grant(&line.0),
            InputPurpose::Explain => typed_request::explain(&line.0),
            InputPurpose::Block => typed_request::block(&line.0, spare_own_session),
        };
        match asked {
            Ok(request) => ScreenAnswer::Ask(request),
            Err(reason) => {
                self.message = Some(format!("failed: {reason}"));
                ScreenAnswer::Continue
            }
        }
    }

    fn move_by(&mut self, by: isize) {
        let last = self.grants.len().saturating_sub(1);
        self.is_chosen = true;
        let place = self.selected().unwrap_or(0).saturating_add_signed(by);
        self.select(place.min(last));
    }

    fn select(&mut self, place: usize) {
        let grant = self.grants.get(place);
        self.selected = grant.map(|grant| (grant.source, grant.door.clone()));
    }

    /// Applies the filter, and selects another grant only if the selected one has ended.
    fn select_grants(&mut self) {
        let before = self.selected();
        self.grants_in_all = self.all_grants.len();
        let filter = self.filter.as_str();
        let is_shown = |grant: &&ListedGrant| {
            filter.is_empty()
                || grant.source.to_string().contains(filter)
                || grant.door.contains(filter)
                || grant.by.as_ref().is_some_and(|by| by.contains(filter))
        };
        self.grants = self.all_grants.iter().filter(is_shown).cloned().collect();
        if !self.is_chosen {
            self.select(0);
        } else if self.selected().is_none() {
            let last = self.grants.len().saturating_sub(1);
            self.select(before.unwrap_or(0).min(last));
        }
    }

    fn count(&mut self, status: &status::Answer, now: Instant) {
        let counts = status.counters.iter();
        let counts: BTreeMap<_, _> = counts
            .map(|counter| (counter.name.clone(), counter.count))
            .collect();
        let before = self.counted.take();
        let rates = status.counters.iter().map(|counter| Rate {
            name: counter.name.clone(),
            verdict: counter.verdict.clone().unwrap_or_default(),
            count: counter.count,
            per_s: before.as_ref().and_then(|(at, before)| {
                let seconds = now.saturating_duration_since(*at).as_secs_f64();
                // A counter that was 0 is not listed. A smaller one began again.
                let before = before.get(&counter.name).copied().unwrap_or(0);
                let more = counter.count.checked_sub(before)?;
                (seconds > 0.0).then(|| more as f64 / seconds)
            }),
        });
        self.rates = rates.collect();
        let rank = |rate: &Rate| rate.per_s.unwrap_or(0.0);
        self.rates.sort_by(|a, b| {
            rank(b)
                .total_cmp(&rank(a))
                .then_with(|| b.count.cmp(&a.count))
        });
        self.counted = Some((now, counts));
    }

    fn event(&mut self, event: &Map<String, Value>, now: Instant) {
        let line = EventLine::of(event, &self.zone);
        let number = |name: &str| event.get(name).and_then(Value::as_u64);
        match (line.event.as_str(), number("stage")) {
            ("knock", Some(stage)) => {
                let attempt = AttemptRow {
                    stage,
                    stages: number("stages"),
                    at: now,
                };
                self.attempts.knock(&line.source, &line.door, attempt);
            }
            ("opened" | "refreshed" | "reset" | "late" | "decoy" | "locked-out", _) => {
                self.attempts.end(&line.source);
            }
            _ => {}
        }
        if self.events.len() >= EVENTS_MOST {
            self.events.pop_front();
        }
        self.events.push_back(line);
    }
}

/// The text of `?`.
const HELP: &str = "\
Keys
  up, down, k, j, PgUp, PgDn, Home, End   select a grant
  /   show only what contains a text; Esc shows all again
  g   grant without knocks: SOURCE DOOR [TIME], such as 203.0.113.7 ssh 10m
  r   revoke the selected grant, after a question
  b   block a source: SOURCE [TIME], such as 203.0.113.7 1h
  e   explain what would happen to a connection: SOURCE PORT
  q   quit
Press any key.";

#[cfg(test)]
mod tests;
