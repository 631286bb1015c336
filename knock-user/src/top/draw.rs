//! Draws the screen with plain characters: every terminal has them, and colours only add to them.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Clear, Paragraph, Wrap},
};

use super::{
    event_line::EventLine,
    screen::{KeyMode, Screen},
};
use crate::{
    admin::{list::ListedGrant, text::short},
    console::{EventKind, color::Tone},
    interfaces::coverage::CoverageState,
    model::terminal::harmless,
};

/// The smallest terminal that is drawn on.
const SMALLEST: (u16, u16) = (60, 12);
/// The most lines of interfaces.
const INTERFACES_MOST: usize = 4;
/// The width of the column of rates and attempts.
const LEFT: u16 = 34;
/// The width of the bar of a grant, in characters.
const BAR: usize = 10;

/// Whether colours are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DrawStyle {
    pub(super) colours: bool,
}

impl DrawStyle {
    fn colour(self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn of_event(self, event: &str) -> Style {
        match EventKind::named(event).map_or(Tone::Plain, EventKind::tone) {
            Tone::Good => self.good(),
            Tone::Attention => self.colour(Color::Yellow),
            Tone::Bad => self.bad(),
            Tone::Plain => Style::new(),
        }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, look: DrawStyle) {
    let area = frame.area();
    let (width, height) = SMALLEST;
    if area.width < width || area.height < height {
        let text =
            format!("the terminal is smaller than {width} columns and {height} lines; q quits");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let interfaces = screen.status.interfaces.len().clamp(1, INTERFACES_MOST);
    // The lower part has two fifths of what is left.
    let [top, names, pressure, middle, events, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(interfaces).unwrap_or(1)),
        Constraint::Length(1),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(area);
    let [left, right] =
        Layout::horizontal([Constraint::Length(LEFT), Constraint::Fill(1)]).areas(middle);
    let [rates, attempts] =
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(left);
    frame.render_widget(title(screen, look), top);
    frame.render_widget(interface_lines(screen, look), names);
    frame.render_widget(pressure_line(screen, look), pressure);
    draw_rates(frame, screen, rates);
    draw_attempts(frame, screen, attempts);
    draw_grants(frame, screen, right, look);
    draw_events(frame, screen, events, look);
    frame.render_widget(foot_line(screen, foot.width), foot);
    if let KeyMode::Text(text) = &screen.mode {
        draw_text(frame, text, middle.union(events));
    }
}

fn title(screen: &Screen, look: DrawStyle) -> Line<'static> {
    let status = &screen.status;
    let (word, style) = match (&screen.gone, status.in_force) {
        (Some(_), _) => ("NO ANSWER".to_owned(), look.bad()),
        (None, true) => ("in force".to_owned(), look.good()),
        (None, false) => {
            let count = status.shortfalls.len();
            let kinds: Vec<_> = status
                .shortfalls
                .iter()
                .map(|one| one.kind.as_str())
                .collect();
            (
                format!("NOT in force ({count}: {})", kinds.join(", ")),
                look.bad(),
            )
        }
    };
    let pid = status.pid.map(|pid| format!("pid {pid}"));
    let trial = status
        .trial_seconds
        .map(|left| format!("on trial, {} left", short(left)));
    let rest = [
        pid,
        status.dry_run.then(|| "dry run".to_owned()),
        trial,
        screen.gone.clone(),
    ];
    let rest: Vec<_> = rest.into_iter().flatten().collect();
    Line::from(vec![
        Span::from(format!(
            "knock-user {}  ",
            status.version.as_deref().unwrap_or("")
        )),
        Span::styled(word, style.add_modifier(Modifier::BOLD)),
        Span::from(format!("  {}", harmless(&rest.join(", ")))),
    ])
}

fn interface_lines(screen: &Screen, look: DrawStyle) -> Text<'static> {
    let all = &screen.status.interfaces;
    let is_protected = |state: &str| state == "protected";
    // What is wrong comes first.
    let mut sorted: Vec<_> = all.iter().collect();
    sorted.sort_by_key(|one| is_protected(&one.state));
    let more = sorted.len().saturating_sub(INTERFACES_MOST);
    let shown = sorted.len().min(INTERFACES_MOST);
    let lines = sorted
        .into_iter()
        .take(INTERFACES_MOST)
        .enumerate()
        .map(|(index, one)| {
            let (text, style) = match is_protected(&one.state) {
                true => {
                    let mode = one.mode.as_deref().unwrap_or("?");
                    let ports = screen.status.ports.join(", ");
                    (format!("protected ({mode}): {ports}"), look.good())
                }
                false => {
                    let because = one.because.as_deref().unwrap_or("not attached");
                    let word = match one.state == CoverageState::Blocked.name() {
                        true => "BLOCKED",
                        false => "NOT PROTECTED",
                    };
                    (format!("{word}: {because}"), look.bad())
                }
            };
            // Nobody knows whether it is still so.
            let (text, style) = match screen.gone {
                Some(_) => (format!("unknown, before: {text}"), look.bad()),
                None => (text, style),
            };
            let more = match (index + 1 == shown, more) {
                (true, 1..) => format!("  (and {more} more)"),
                _ => String::new(),
            };
            Line::from(vec![
                Span::from(format!("{:<12} ", harmless(&one.name))),
                Span::styled(harmless(&text).into_owned(), style),
                Span::from(more),
            ])
        });
    Text::from_iter(lines)
}

fn pressure_line(screen: &Screen, look: DrawStyle) -> Line<'static> {
    let status = &screen.status;
    let part = |name: &str, used: usize, most: u32| {
        let is_high = used as u64 * 10 >= u64::from(most) * 8;
        let style = if is_high { look.bad() } else { Style::new() };
        Span::styled(format!("{name} {used}/{most}  "), style)
    };
    let counter = |name: &str| {
        let rate = screen.rates.iter().find(|rate| rate.name == name);
        rate.map_or(0, |rate| rate.count)
    };
    let lost = counter("events-lost");
    let lost_style = if lost > 0 { look.bad() } else { Style::new() };
    Line::from(vec![
        part("grants", screen.grants_in_all, status.tables.grants),
        part("flows", status.flows, status.tables.flows),
        Span::from(format!(
            "events suppressed {}, ",
            counter("events-suppressed")
        )),
        Span::styled(format!("lost {lost}"), lost_style),
    ])
}

/// Draws the heading of a part; returns the area below it.
fn heading(frame: &mut Frame<'_>, area: Rect, text: &str) -> Rect {
    let [head, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let style = Style::new().add_modifier(Modifier::REVERSED);
    let width = usize::from(head.width.saturating_sub(1));
    frame.render_widget(Span::styled(format!("{text:<width$.width$}"), style), head);
    rest
}

fn draw_rates(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let area = heading(
        frame,
        area,
        &format!("{:<17}{:>6} {:>9}", "REASON", "/s", "TOTAL"),
    );
    let lines = screen.rates.iter().take(area.height.into()).map(|rate| {
        let per_s = match rate.per_s {
            Some(per_s) if per_s >= 9_999.5 => format!("{:.0}k", per_s / 1_000.0),
            Some(per_s) if per_s >= 9.95 => format!("{per_s:.0}"),
            Some(per_s) if per_s > 0.0 => format!("{per_s:.1}"),
            Some(_) | None => "-".to_owned(),
        };
        let count = match rate.count {
            ..1_000_000_000 => rate.count.to_string(),
            count => format!("{}M", count / 1_000_000),
        };
        Line::from(format!("{:<17.17}{per_s:>6} {count:>9}", rate.name))
    });
    frame.render_widget(Text::from_iter(lines), area);
}

fn draw_attempts(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let attempts = screen.shown_attempts();
    let area = heading(frame, area, &format!("ATTEMPTS {}", attempts.len()));
    let lines = attempts
        .iter()
        .take(area.height.into())
        .map(|(source, door, attempt)| {
            let stages = attempt
                .stages
                .map(|stages| format!("/{stages}"))
                .unwrap_or_default();
            Line::from(format!(
                "{source:<17} {door:<8.8} {}{stages}",
                attempt.stage
            ))
        });
    frame.render_widget(Text::from_iter(lines), area);
}

fn draw_grants(frame: &mut Frame<'_>, screen: &Screen, area: Rect, look: DrawStyle) {
    let shown = match screen.filter.as_str() {
        "" => format!("GRANTS {}", screen.grants_in_all),
        filter => format!(
            "GRANTS {} of {} with \"{}\"",
            screen.grants.len(),
            screen.grants_in_all,
            harmless(filter)
        ),
    };
    let area = heading(frame, area, &shown);
    let selected = screen.selected();
    let rows = usize::from(area.height);
    // The selected grant stays in the middle of a long list.
    let first = selected
        .unwrap_or(0)
        .saturating_sub(rows / 2)
        .min(screen.grants.len().saturating_sub(rows));
    let width = usize::from(area.width).saturating_sub(BAR + 21);
    let lines = screen.grants.iter().enumerate().skip(first).take(rows);
    let lines = lines.map(|(index, grant)| {
        let left_s = screen.left_s(grant);
        let text = format!(
            "{:<width$.width$} {:<8.8} {:>7} ",
            grant.source.to_string(),
            harmless(&grant.door),
            short(left_s.floor()),
        );
        let bar = bar(left_s, lasts_s(grant));
        let line = Line::from(vec![Span::from(text), Span::styled(bar, look.good())]);
        match selected == Some(index) {
            true => line.style(Style::new().add_modifier(Modifier::REVERSED)),
            false => line,
        }
    });
    frame.render_widget(Text::from_iter(lines), area);
}

/// Returns how long a grant lasts from its beginning, in seconds, if that is known.
fn lasts_s(grant: &ListedGrant) -> Option<f64> {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let since = moment(grant.since.as_deref()?)?;
    let lasts = moment(&grant.until)?.duration_since(since);
    Some(lasts.as_secs_f64())
}

/// Returns a bar for what is left.
fn bar(left_s: f64, lasts_s: Option<f64>) -> String {
    let Some(lasts_s) = lasts_s.filter(|lasts_s| *lasts_s > 0.0) else {
        return format!("[{:BAR$}]", "");
    };
    // A bar that ends is shorter than a character and still there.
    let full = (left_s / lasts_s * BAR as f64)
        .ceil()
        .clamp(0.0, BAR as f64);
    format!("[{:<BAR$}]", "#".repeat(full as usize))
}

fn draw_events(frame: &mut Frame<'_>, screen: &Screen, area: Rect, look: DrawStyle) {
    let area = heading(frame, area, "EVENTS, the latest first");
    let lines = screen.shown_events().take(area.height.into()).map(|event| {
        let EventLine {
            time,
            event,
            source,
            door,
            why,
        } = event;
        Line::from(vec![
            Span::from(format!("{time} ")),
            Span::styled(format!("{event:<10} "), look.of_event(event)),
            Span::from(format!("{source:<15} {door:<8} {why}")),
        ])
    });
    frame.render_widget(Text::from_iter(lines), area);
}

fn foot_line(screen: &Screen, width: u16) -> Line<'static> {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    match &screen.mode {
        KeyMode::Edit(purpose, line) => {
            // The end of a long line is what is being written.
            let text = format!("{}{}_", purpose.prompt(), harmless(&line.0));
            let hidden = text.chars().count().saturating_sub(width.into());
            Line::from(text.chars().skip(hidden).collect::<String>())
        }
        KeyMode::Revoke(source, door) => {
            let question = format!("revoke the grant of {source} for {}? y/n", harmless(door));
            Line::styled(question, style)
        }
        KeyMode::View | KeyMode::Text(_) => match &screen.message {
            Some(message) => Line::from(message.replace('\n', "; ")),
            None => Line::from("q quit  / filter  g grant  r revoke  e explain  ? help"),
        },
    }
}

fn draw_text(frame: &mut Frame<'_>, text: &str, area: Rect) {
    let lines: Vec<_> = text
        .lines()
        .map(|line| Line::from(harmless(line).into_owned()))
        .collect();
    let height = u16::try_from(lines.len() + 1)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let area = Rect { height, ..area };
    frame.render_widget(Clear, area);
    let area = heading(frame, area, "press any key");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}
