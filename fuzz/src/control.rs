//! Lines on the control socket, in both directions.

use jiff::{Timestamp, tz::TimeZone};
use knock_user::{
    admin::{self, text::LocalTime},
    control::{Reply, Request},
};

use crate::text::assert_harmless;

/// Checks a line as a request to the daemon, and as a reply to the client.
pub fn check(line: &[u8]) {
    match Request::from_line(line) {
        Ok(request) => {
            let written = request.to_line();
            assert_line(&written);
            let again = Request::from_line(written.as_bytes());
            let again = again.map(|again| admin::check(&again).is_ok());
            assert_eq!(again, Ok(admin::check(&request).is_ok()), "{written}");
        }
        Err(reason) => {
            let reply = Reply::bad(reason);
            let written = reply.to_line();
            assert_line(&written);
            assert_eq!(Reply::from_line(written.as_bytes()), Ok(reply), "{written}");
        }
    }
    if let Ok(reply) = Reply::from_line(line) {
        check_reply(&reply);
    }
}

/// Checks a reply, which is printed on a terminal, whatever process sent it.
fn check_reply(reply: &Reply) {
    let written = reply.to_line();
    assert_line(&written);
    let again = Reply::from_line(written.as_bytes());
    let again = again.map(|again| again.to_line());
    assert!(again.is_ok(), "{again:?}: {written}");
    if let Reply::Done(done) = reply {
        let time = LocalTime {
            zone: TimeZone::UTC,
            now: Timestamp::UNIX_EPOCH,
        };
        if let Some(text) = admin::render(done, &time) {
            assert_harmless(&text);
            assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        }
    }
}

/// Checks that there is one line with one JSON object.
fn assert_line(line: &str) {
    let Some(object) = line.strip_suffix('\n') else {
        panic!("a line without its end: {line:?}");
    };
    assert!(!object.contains('\n'), "{line:?}");
    let value = serde_json::from_str::<serde_json::Value>(object);
    assert!(value.is_ok_and(|value| value.is_object()), "{line:?}");
}
