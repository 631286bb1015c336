use jiff::Timestamp;
use ratatui::{Terminal, backend::TestBackend};
use serde_json::json;

use super::*;
use crate::{
    admin::{
        list,
        status::{Counter, InterfaceAnswer, Shortfall},
    },
    top::draw::{self, DrawStyle},
};

fn grant_of(source: &str, door: &str, seconds: f64, lasts_s: i64) -> ListedGrant {
    let until: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    ListedGrant {
        source: Prefix::of(source.parse().unwrap()),
        door: door.to_owned(),
        ports: vec!["tcp/22".to_owned()],
        until: until.to_string(),
        seconds,
        since: Some((until - jiff::SignedDuration::from_secs(lasts_s)).to_string()),
        by: Some("knock".to_owned()),
    }
}

fn status(counters: &[(&str, u64)]) -> status::Answer {
    status::Answer {
        tables: status::TablesAnswer {
            grants: 65_536,
            flows: 262_144,
            ..status::TablesAnswer::default()
        },
        pid: Some(4711),
        version: Some("0.1.0".to_owned()),
        interfaces: vec![InterfaceAnswer {
            name: "eth0".to_owned(),
            state: "protected".to_owned(),
            attached: true,
            mode: Some("native".to_owned()),
            ..InterfaceAnswer::default()
        }],
        ports: vec!["tcp/22".to_owned()],
        in_force: true,
        flows: 3,
        counters: counters
            .iter()
            .map(|(name, count)| Counter {
                name: (*name).to_owned(),
                text: String::new(),
                verdict: Some("drop".to_owned()),
                count: *count,
            })
            .collect(),
        ..status::Answer::default()
    }
}

fn state(counters: &[(&str, u64)], grants: Vec<ListedGrant>) -> FeedEvent {
    FeedEvent::State(
        Box::new(status(counters)),
        list::Answer {
            grants,
            blocked: None,
        },
    )
}

fn event(value: Value) -> FeedEvent {
    let Value::Object(event) = value else {
        panic!("{value} is not an event");
    };
    FeedEvent::Event(event)
}

fn press(screen: &mut Screen, keys: &str) -> Vec<ScreenAnswer> {
    keys.chars()
        .map(|key| {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                other => KeyCode::Char(other),
            };
            screen.key(KeyEvent::new(code, KeyModifiers::NONE))
        })
        .collect()
}

fn lines(screen: &Screen, width: u16, height: u16, colours: bool) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw::draw(frame, screen, DrawStyle { colours }))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(width.into());
    cells
        .map(|row| {
            let text: String = row.iter().map(|cell| cell.symbol()).collect();
            text.trim_end().to_owned()
        })
        .collect()
}

fn filled(now: Instant) -> Screen {
    let mut screen = Screen::new(TimeZone::UTC);
    screen.take(state(&[("no-grant", 100), ("first-knock", 7)], vec![]), now);
    let grants = vec![
        grant_of("192.0.2.7", "ssh", 30.0, 60),
        grant_of("2001:db8::7", "web", 3_000.0, 3_600),
    ];
    screen.take(
        state(
            &[("no-grant", 150), ("first-knock", 7), ("opened", 1)],
            grants,
        ),
        now + Duration::from_secs(2),
    );
    for value in [
        json!({"time": "2026-01-02T03:04:05.678Z", "event": "knock", "source": "192.0.2.9",
               "door": "ssh", "protocol": "tcp", "port": 7000, "stage": 1, "stages": 3,
               "reason": "first-knock", "interface": "eth0"}),
        json!({"time": "2026-01-02T03:04:06.678Z", "event": "opened", "source": "192.0.2.7",
               "door": "ssh", "ports": ["tcp/22"], "seconds": 30.0, "interface": "eth0"}),
    ] {
        screen.take(event(value), now + Duration::from_secs(2));
    }
    screen.tick(now + Duration::from_secs(2));
    screen
}

#[test]
fn the_view_fits_eighty_columns_and_twenty_four_lines() {
    let screen = filled(Instant::now());
    for colours in [false, true] {
        let shown = lines(&screen, 80, 24, colours);
        let expected = [
            (0, "knock-user 0.1.0  in force  pid 4711"),
            (1, "eth0         protected (native): tcp/22"),
            (
                2,
                "grants 2/65536  flows 3/262144  events suppressed 0, lost 0",
            ),
            (3, "REASON               /s     TOTAL GRANTS 2"),
            (
                4,
                "no-grant             25       150 192.0.2.7       ssh          30s [#####     ]",
            ),
            (
                5,
                "opened              0.5         1 2001:db8::7     web          50m [######### ]",
            ),
            (6, "first-knock           -         7"),
            (10, "ATTEMPTS 1"),
            (11, "192.0.2.9         ssh      1/3"),
            (15, "EVENTS, the latest first"),
            (
                16,
                "03:04:06 opened     192.0.2.7       ssh      tcp/22 for 30s on eth0",
            ),
            (
                17,
                "03:04:05 knock      192.0.2.9       ssh      1/3 tcp/7000 first-knock on eth0",
            ),
            (23, "q quit  / filter  g grant  r revoke  e explain  ? help"),
        ];
        for (line, expected) in expected {
            assert_eq!(
                shown[line],
                expected,
                "line {line} of\n{}",
                shown.join("\n")
            );
        }
    }
}

#[test]
fn without_colours_no_cell_has_one() {
    let mut screen = filled(Instant::now());
    screen.status.in_force = false;
    screen.status.interfaces[0].state = "missing".to_owned();
    for (colours, expected) in [(true, true), (false, false)] {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal
            .draw(|frame| draw::draw(frame, &screen, DrawStyle { colours }))
            .unwrap();
        let cells = terminal.backend().buffer().content();
        let has = cells
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset);
        assert_eq!(has, expected, "{colours}");
    }
}

#[test]
fn interfaces_with_a_shortfall_are_shown_first() {
    let mut screen = filled(Instant::now());
    let mut wrong = status(&[]);
    wrong.in_force = false;
    wrong.dry_run = true;
    wrong.shortfalls = vec![Shortfall {
        kind: "bypassed".to_owned(),
        ..Shortfall::default()
    }];
    for number in 0..6 {
        wrong.interfaces.push(InterfaceAnswer {
            name: format!("eth{}", 9 - number),
            state: if number == 5 { "bypassed" } else { "protected" }.to_owned(),
            because: (number == 5).then(|| "frames bypass it".to_owned()),
            ..InterfaceAnswer::default()
        });
    }
    let news = FeedEvent::State(Box::new(wrong), list::Answer::default());
    screen.take(news, Instant::now());
    let shown = lines(&screen, 80, 24, false);
    assert_eq!(
        shown[0],
        "knock-user 0.1.0  NOT in force (1: bypassed)  pid 4711, dry run"
    );
    assert_eq!(shown[1], "eth4         NOT PROTECTED: frames bypass it");
    assert!(shown[4].ends_with("(and 3 more)"), "{}", shown[4]);
    screen.take(
        FeedEvent::Gone("no process runs".to_owned()),
        Instant::now(),
    );
    let shown = lines(&screen, 80, 24, false);
    assert!(shown[0].contains("NO ANSWER"), "{}", shown[0]);
    assert_eq!(
        shown[1],
        "eth4         unknown, before: NOT PROTECTED: frames bypass it"
    );
    assert!(
        shown[2].contains("unknown, before: protected"),
        "{}",
        shown[2]
    );
}

#[test]
fn every_size_is_drawn() {
    let mut screen = filled(Instant::now());
    for mode in [
        KeyMode::View,
        KeyMode::Text(HELP.to_owned()),
        KeyMode::Edit(InputPurpose::Grant, EditLine("x".repeat(200))),
        KeyMode::Revoke(Prefix::of("2001:db8::1".parse().unwrap()), "d".repeat(64)),
    ] {
        screen.mode = mode;
        for (width, height) in [(1, 1), (59, 24), (60, 12), (80, 24), (80, 11), (300, 100)] {
            let shown = lines(&screen, width, height, true);
            assert_eq!(shown.len(), usize::from(height));
        }
    }
}

#[test]
fn text_of_others_does_nothing_to_the_terminal() {
    let mut screen = filled(Instant::now());
    let bad = "\x1b[2J\u{202e}";
    screen.take(
        event(json!({"time": bad, "event": bad, "source": bad, "door": bad, "because": bad})),
        Instant::now(),
    );
    screen.take(FeedEvent::Answer(Err(bad.to_owned())), Instant::now());
    screen.status.interfaces[0].name = bad.to_owned();
    let shown = lines(&screen, 80, 24, false).join("\n");
    assert!(!shown.contains(['\x1b', '\u{202e}']), "{shown:?}");
}

#[test]
fn ten_thousand_grants_are_drawn_around_the_selected_one() {
    let now = Instant::now();
    let mut screen = Screen::new(TimeZone::UTC);
    let grants = (0..10_000_u32).map(|number| {
        let source = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        grant_of(&source, "ssh", 60.0, 60)
    });
    let grants: Vec<_> = grants.collect();
    screen.take(state(&[], grants.clone()), now);
    assert_eq!(screen.selected(), Some(0));
    // Until a key selects another one, that is the first one.
    let earlier = grant_of("10.0.0.0", "earlier", 60.0, 60);
    screen.take(state(&[], [vec![earlier], grants.clone()].concat()), now);
    assert_eq!(screen.selected(), Some(0));
    screen.take(state(&[], grants.clone()), now);
    screen.key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
    assert_eq!(screen.selected(), Some(9_999));
    let shown = lines(&screen, 80, 24, false).join("\n");
    assert!(shown.contains("10.0.39.15 "), "{shown}");
    // What is selected stays selected when others end.
    screen.take(state(&[], grants[5_000..].to_vec()), now);
    assert_eq!(screen.selected(), Some(4_999));
    press(&mut screen, "/10.0.39.1\n");
    assert_eq!(screen.grants.len(), 7, "10.0.39.1 and 10.0.39.10 to .15");
    let shown = lines(&screen, 80, 24, false).join("\n");
    assert!(
        shown.contains("GRANTS 7 of 5000 with \"10.0.39.1\""),
        "{shown}"
    );
    press(&mut screen, "\x1b");
    assert_eq!(screen.grants.len(), 5_000);
}

#[test]
fn keys_ask_for_what_they_name() {
    let now = Instant::now();
    for (name, keys, asked) in [
        (
            "revoke",
            "ry",
            Some(request(
                "revoke",
                [("source", "192.0.2.7".into()), ("door", "ssh".into())],
            )),
        ),
        ("revoke, and no", "rn", None),
        ("revoke, and Enter", "r\n", None),
        (
            "revoke the second",
            "jry",
            Some(request(
                "revoke",
                [("source", "2001:db8::7".into()), ("door", "web".into())],
            )),
        ),
        (
            "grant",
            "g192.0.2.8 ssh 10m\n",
            Some(request(
                "grant",
                [
                    ("source", "192.0.2.8".into()),
                    ("door", "ssh".into()),
                    ("for_ms", 600_000.into()),
                ],
            )),
        ),
        (
            "grant for the door's time",
            "g 192.0.2.8  sshx\x08 \n",
            Some(request(
                "grant",
                [("source", "192.0.2.8".into()), ("door", "ssh".into())],
            )),
        ),
        ("grant, cancelled", "g192.0.2.8 ssh\x1b", None),
        ("grant without a door", "g192.0.2.8\n", None),
        ("grant to a name", "ghost ssh\n", None),
        ("grant for no time", "g192.0.2.8 ssh soon\n", None),
        (
            "explain, with the selected source",
            "etcp/22\n",
            Some(request(
                "explain",
                [("source", "192.0.2.7".into()), ("port", "tcp/22".into())],
            )),
        ),
        ("explain without a port", "e\n", None),
        ("letters in a filter are not keys", "/qgre", None),
    ] {
        let mut screen = filled(now);
        let next = press(&mut screen, keys);
        let found = next.iter().find_map(|next| match next {
            ScreenAnswer::Ask(request) => Some(request.clone()),
            ScreenAnswer::Continue => None,
            ScreenAnswer::Quit => panic!("{name}: it ended"),
        });
        assert_eq!(found, asked, "{name}");
    }
    let mut screen = filled(now);
    assert_eq!(press(&mut screen, "q"), [ScreenAnswer::Quit]);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control_c), ScreenAnswer::Quit);
}

/// The grant that the question names is revoked, whatever arrives before the answer.
#[test]
fn a_question_keeps_its_grant() {
    let now = Instant::now();
    let mut screen = filled(now);
    press(&mut screen, "r");
    screen.take(state(&[], vec![grant_of("192.0.2.99", "ssh", 9.0, 9)]), now);
    let asked = request(
        "revoke",
        [("source", "192.0.2.7".into()), ("door", "ssh".into())],
    );
    assert_eq!(press(&mut screen, "y"), [ScreenAnswer::Ask(asked)]);
}

#[test]
fn requests_have_the_fields_of_their_commands() {
    for line in ["192.0.2.8 ssh 10m", "192.0.2.8 ssh"] {
        crate::admin::check(&typed_request::grant(line).unwrap()).unwrap();
    }
    for line in ["192.0.2.8 tcp/22", "2001:db8::1 udp/53 2001:db8::2"] {
        crate::admin::check(&typed_request::explain(line).unwrap()).unwrap();
    }
    let revoke = request(
        "revoke",
        [("source", "192.0.2.7".into()), ("door", "ssh".into())],
    );
    crate::admin::check(&revoke).unwrap();
    crate::admin::check(&request("watch", [("json", true.into())])).unwrap();
}

#[test]
fn answers_are_shown() {
    let mut screen = filled(Instant::now());
    for (name, answer, expected) in [
        ("one line", Ok("granted\n"), "granted"),
        (
            "a failure",
            Err("no door is named web"),
            "failed: no door is named web",
        ),
    ] {
        let answer = answer.map(str::to_owned).map_err(str::to_owned);
        screen.take(FeedEvent::Answer(answer), Instant::now());
        let shown = lines(&screen, 80, 24, false);
        assert_eq!(shown[23], expected, "{name}");
    }
    screen.take(
        FeedEvent::Answer(Ok("one\ntwo\n".to_owned())),
        Instant::now(),
    );
    let shown = lines(&screen, 80, 24, false).join("\n");
    assert!(shown.contains("press any key\none\ntwo"), "{shown}");
    press(&mut screen, "x");
    assert_eq!(screen.mode, KeyMode::View);
}
