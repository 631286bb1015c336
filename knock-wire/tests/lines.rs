//! Each request and report is one line, and is read as what was written.

use knock_wire::{
    Beat, Cause, Condition, Found, Keyed, LONGEST_LINE, Octets, Open, PROTOCOL, Point, Put, Report,
    Request, Unreadable, Watch, Write, read_line, to_line,
};

fn value(text: &str) -> Octets {
    Octets(text.as_bytes().to_vec())
}

fn write(key: &str) -> Write {
    Write {
        key: key.to_owned(),
        value: value("v"),
        keep_s: Some(90),
    }
}

/// Returns rows: a name, a request, its line, and what it replaces in a queue.
fn requests() -> Vec<(&'static str, Request, &'static str, Option<&'static str>)> {
    let put = |condition, keys: &[&str]| {
        Request::Put(Put {
            id: 7,
            condition,
            writes: keys.iter().copied().map(write).collect(),
        })
    };
    let condition = Condition {
        key: "/o".to_owned(),
        revision: 0,
    };
    vec![
        (
            "open",
            Request::Open(Open {
                protocol: PROTOCOL,
                servers: vec!["https://10.0.0.11:2379".to_owned()],
                ca: Some("/etc/ca.pem".into()),
                cert: None,
                key: None,
                watches: 2,
            }),
            r#"{"verb":"open","protocol":1,"servers":["https://10.0.0.11:2379"],"ca":"/etc/ca.pem","cert":null,"key":null,"watches":2}"#,
            None,
        ),
        (
            "watch",
            Request::Watch(Watch {
                prefix: "/knock/1/web/".to_owned(),
                after: Some(Point {
                    cluster: "c".to_owned(),
                    key: "/k".to_owned(),
                    value: value("v"),
                    revision: u64::MAX,
                }),
            }),
            r#"{"verb":"watch","prefix":"/knock/1/web/","after":{"cluster":"c","key":"/k","value":"dg==","revision":18446744073709551615}}"#,
            None,
        ),
        (
            "put",
            put(None, &["/a"]),
            r#"{"verb":"put","id":7,"condition":null,"writes":[{"key":"/a","value":"dg==","keep_s":90}]}"#,
            Some("/a"),
        ),
        (
            "a put of two keys",
            put(None, &["/a", "/b"]),
            r#"{"verb":"put","id":7,"condition":null,"writes":[{"key":"/a","value":"dg==","keep_s":90},{"key":"/b","value":"dg==","keep_s":90}]}"#,
            None,
        ),
        (
            "a claim",
            put(Some(condition), &["/o"]),
            r#"{"verb":"put","id":7,"condition":{"key":"/o","revision":0},"writes":[{"key":"/o","value":"dg==","keep_s":90}]}"#,
            None,
        ),
        (
            "beat",
            Request::Beat(Beat {
                key: "/p".to_owned(),
                value: Octets(vec![0, 255]),
                keep_s: 30,
            }),
            r#"{"verb":"beat","key":"/p","value":"AP8=","keep_s":30}"#,
            None,
        ),
    ]
}

/// Returns rows: a name, a report, its line, and what it replaces in a queue.
fn reports() -> Vec<(&'static str, Report, &'static str, Option<&'static str>)> {
    let text = str::to_owned;
    vec![
        (
            "linked",
            Report::Linked {
                member: text("https://a"),
                version: text("3.4.23"),
            },
            r#"{"report":"linked","member":"https://a","version":"3.4.23"}"#,
            None,
        ),
        (
            "lost",
            Report::Lost {
                reason: text("refused\nagain"),
            },
            r#"{"report":"lost","reason":"refused\nagain"}"#,
            None,
        ),
        (
            "list",
            Report::List {
                prefix: text("/p/"),
                cause: Cause::History,
                cluster: text("c"),
            },
            r#"{"report":"list","prefix":"/p/","cause":"history","cluster":"c"}"#,
            None,
        ),
        (
            "listed",
            Report::Listed {
                prefix: text("/p/"),
                revision: 4,
            },
            r#"{"report":"listed","prefix":"/p/","revision":4}"#,
            None,
        ),
        (
            "record",
            Report::Record {
                key: text("/p/a"),
                value: value("v"),
                revision: 5,
            },
            r#"{"report":"record","key":"/p/a","value":"dg==","revision":5}"#,
            Some("/p/a"),
        ),
        (
            "deleted",
            Report::Deleted {
                key: text("/p/a"),
                revision: 6,
            },
            r#"{"report":"deleted","key":"/p/a","revision":6}"#,
            Some("/p/a"),
        ),
        (
            "current",
            Report::Current {
                prefix: text("/p/"),
                revision: 6,
                at_ms: 9,
            },
            r#"{"report":"current","prefix":"/p/","revision":6,"at_ms":9}"#,
            Some("/p//"),
        ),
        (
            "written",
            Report::Written { id: 1, revision: 7 },
            r#"{"report":"written","id":1,"revision":7}"#,
            None,
        ),
        (
            "refused",
            Report::Refused {
                id: 1,
                found: Some(Found {
                    value: value("v"),
                    revision: 3,
                }),
                revision: 7,
            },
            r#"{"report":"refused","id":1,"found":{"value":"dg==","revision":3},"revision":7}"#,
            None,
        ),
        (
            "failed",
            Report::Failed {
                id: 1,
                may_be_written: true,
                reason: text("r"),
            },
            r#"{"report":"failed","id":1,"may_be_written":true,"reason":"r"}"#,
            None,
        ),
    ]
}

#[test]
fn a_request_is_one_line_and_comes_back() {
    for (name, request, line, key) in requests() {
        let written = to_line(&request).unwrap();
        assert_eq!(written, format!("{line}\n"), "{name}");
        assert_eq!(read_line::<Request>(&written).unwrap(), request, "{name}");
        assert_eq!(request.key().as_deref(), key, "{name}");
    }
}

#[test]
fn a_report_is_one_line_and_comes_back() {
    for (name, report, line, key) in reports() {
        let written = to_line(&report).unwrap();
        assert_eq!(written, format!("{line}\n"), "{name}");
        assert_eq!(read_line::<Report>(&written).unwrap(), report, "{name}");
        assert_eq!(report.key().as_deref(), key, "{name}");
    }
}

#[test]
fn a_line_that_is_no_report_is_refused() {
    for (name, line, expected) in [
        ("empty", "", "a line of 0 octets can't be read"),
        (
            "no JSON",
            "watching\n",
            "a line of 9 octets can't be read: expected value",
        ),
        (
            "another report",
            r#"{"report":"opened"}"#,
            "unknown variant `opened`",
        ),
        (
            "a control character",
            "{\"report\":\"open\u{7f}\"}",
            "unknown variant `open\\u{7f}`",
        ),
        (
            "no value",
            r#"{"report":"record","key":"a","revision":1}"#,
            "missing field `value`",
        ),
        (
            "no base64",
            r#"{"report":"record","key":"a","value":"?","revision":1}"#,
            "the value is not base64",
        ),
        (
            "a negative revision",
            r#"{"report":"written","id":1,"revision":-1}"#,
            "invalid value: integer `-1`",
        ),
        (
            "two lines",
            "{\"report\":\"written\",\"id\":1,\"revision\":1}\n{}",
            "trailing characters",
        ),
    ] {
        let error = read_line::<Report>(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_line_that_is_too_long_is_not_written() {
    let record = |octets| Report::Record {
        key: String::new(),
        value: Octets(vec![0; octets]),
        revision: 0,
    };
    to_line(&record(700_000)).unwrap();
    let error = to_line(&record(LONGEST_LINE)).unwrap_err();
    assert!(matches!(error, Unreadable::Long), "{error}");
}
