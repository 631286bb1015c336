//! Lines of `knock-fleet`, keys, and what a daemon keeps over a restart: no lines open or close a door without the
//! key of the group, and a key has one text.

use knock_user::fleet::{AdminKey, AdminPublic, Exchange, GroupKey, Keyring, Member, Now, Step};
use knock_wire::{Report, read_line, to_line};

use crate::text::assert_harmless;

/// Takes bytes as lines, and as the text of a key file.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match GroupKey::parse(text) {
        Ok(key) => match GroupKey::parse(&key.text()) {
            Ok(again) => assert_eq!(again.text(), key.text()),
            Err(error) => panic!("a written key is not read again: {error}"),
        },
        Err(error) => assert_harmless(error),
    }
    check_keys(text);
    let Some(mut host) = host() else {
        return;
    };
    let now = Now {
        boot_ms: 50_000,
        wall_ms: 1_700_000_000_000,
    };
    if let Err(error) = host.restore(text, "boot") {
        assert_harmless(error);
    }
    let before = host.group().unwritten();
    for line in text.lines() {
        let report = match read_line::<Report>(line) {
            Ok(report) => report,
            Err(error) => {
                assert_harmless(&error.to_string());
                continue;
            }
        };
        let written = to_line(&report).unwrap_or_default();
        let again = read_line::<Report>(&written).ok();
        assert_eq!(again.as_ref(), Some(&report), "{line:?}");
        let steps = host.take(report, now);
        let acts = |step: &Step| matches!(step, Step::Act(_));
        assert!(!steps.iter().any(acts), "{line:?}: {steps:?}");
    }
    assert_eq!(host.group().unwritten(), before);
    assert!(host.group().good_until_ms() <= now.boot_ms + 15_000);
}

/// Takes a text as keys of an administrator.
fn check_keys(text: &str) {
    match AdminPublic::parse(text.trim()) {
        Ok(key) => assert_eq!(key.to_string(), text.trim()),
        Err(error) => assert_harmless(error),
    }
    match AdminKey::parse(text) {
        Ok(key) => match AdminKey::parse(&key.text()) {
            Ok(again) => assert_eq!(again.public(), key.public()),
            Err(error) => panic!("a written key is not read again: {error}"),
        },
        Err(error) => assert_harmless(error),
    }
}

/// Returns a host whose key nobody else has.
fn host() -> Option<Exchange> {
    let keyring = Keyring::new(vec![GroupKey::generate().ok()?]).ok()?;
    let member = Member {
        host: "web-2".to_owned(),
        longest_ms: 86_400_000,
        grace_ms: 15_000,
    };
    Some(Exchange::new("web", 0, member, keyring))
}
