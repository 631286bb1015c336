//! Keys and answers of single packet authorization: a key has one text, an error shows nothing of it, and no bytes are
//! an answer of a host that made none.

use knock_sequence::spa::{
    Channel, DoorAction, DoorId, PrivateKey, PublicKey, Request, WeakKey, read_private_key,
};

use crate::text::assert_harmless;

/// The shortest part of a key that an error must not show.
const PART: usize = 8;

/// Takes bytes as a key's text, a key's file, a public key and an answer.
pub fn check(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        match text.parse::<PublicKey>() {
            Ok(key) => assert_eq!(key.to_string(), text),
            Err(error) => assert_hides(&error.to_string(), text),
        }
        match text.parse::<PrivateKey>() {
            Ok(key) => assert_eq!(key.line().trim_end(), text),
            Err(error) => assert_hides(&error.to_string(), text),
        }
        if let Err(error) = read_private_key(bytes) {
            assert_hides(&error.to_string(), text);
        }
    }
    let own = PrivateKey::from_octets([0x22; 32]);
    if let Some(octets) = bytes.first_chunk() {
        check_channel(&own, &PublicKey::from_octets(*octets), bytes);
    }
}

/// Fails if an error has a part of the text, other than words of its own.
fn assert_hides(error: &str, text: &str) {
    const WORDS: [&str; 3] = ["knock1-private:", "knock1:", "private key"];
    assert_harmless(error);
    let mut rest = text.to_owned();
    WORDS
        .iter()
        .for_each(|word| rest = rest.replace(word, "\0"));
    let letters: Vec<char> = rest.chars().collect();
    for part in letters.windows(PART) {
        let part: String = part.iter().collect();
        let is_of_key = part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let has_both = part.contains(|c: char| c.is_ascii_uppercase())
            && part.contains(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        assert!(
            !(is_of_key && has_both && error.contains(&part)),
            "{part:?} in {error:?}"
        );
    }
}

/// Checks that a weak key is refused, and that with any other only the host could make an answer.
fn check_channel(own: &PrivateKey, host: &PublicKey, bytes: &[u8]) {
    let channel = match Channel::new(own, host) {
        Ok(channel) => channel,
        Err(WeakKey) => return,
    };
    let packet = channel.seal(&Request {
        stamp: 1,
        source: None,
        door: DoorId::FIRST,
        seconds: 0,
        action: DoorAction::Open,
        answer: true,
    });
    assert!(channel.open_answer(&packet, bytes).is_err(), "{bytes:02x?}");
    assert!(
        channel.open_answer(&packet, &packet).is_err(),
        "its own packet"
    );
}
