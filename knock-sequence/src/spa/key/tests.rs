use super::*;

const TEXT: &str = "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM";

#[test]
fn keys_have_one_text_and_one_id() {
    let private = PrivateKey::from_octets([0x11; 32]);
    let public = *private.public();
    assert_eq!(public.to_string(), TEXT);
    assert_eq!(TEXT.parse(), Ok(public));
    let line = private.line();
    assert_eq!(
        *line,
        "knock1-private:ERERERERERERERERERERERERERERERERERERERERERE\n"
    );
    let again = read_private_key(line.as_bytes()).expect("the key");
    assert_eq!(again.public(), &public);
    assert_eq!(again.secret().as_bytes(), &[0x11; 32]);

    let client = PrivateKey::from_octets([0x22; 32]);
    assert_eq!(client.public().id().to_string(), "ae08b31542742c32");
    assert_eq!(client.public().id().number(), 0x322c_7442_15b3_08ae);
}

#[test]
fn drawn_keys_differ() {
    let [one, other] = [0; 2].map(|_| PrivateKey::generate().expect("random numbers"));
    assert_ne!(one.public(), other.public());
}

#[test]
fn debug_shows_no_private_key() {
    let private = PrivateKey::from_octets([0x11; 32]);
    assert_eq!(format!("{private:?}"), format!("PrivateKey(of {TEXT})"));
}

#[test]
fn wrong_keys_are_refused_without_showing_them() {
    let secret = "knock1-private:ERERERERERERERERERERERERERERERERERERERERERE";
    let rows: [(&str, &str, &str, &str); 9] = [
        ("nothing", "", "not a public key", "not a private key"),
        (
            "a word",
            "ERERERER",
            "not a public key",
            "not a private key",
        ),
        ("a private key", secret, "this is a private key", ""),
        ("a public key", TEXT, "", "this is a public key"),
        (
            "capitals",
            "KNOCK1:ERERER",
            "not a public key",
            "not a private key",
        ),
        (
            "a blank in front",
            " knock1:e0",
            "not a public key",
            "not a private key",
        ),
        (
            "too short",
            "knock1:ERERERERERERERERERERERERERERERERERERERERER",
            "not a public key: 42 characters follow",
            "this is a public key",
        ),
        (
            "padding",
            "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM=",
            "not a public key: 44 characters follow",
            "this is a public key",
        ),
        (
            "another alphabet",
            "knock1:e06Qm75//kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM",
            "not a public key: a character is wrong",
            "this is a public key",
        ),
    ];
    for (name, text, public, private) in rows {
        for (error, expected) in [
            (text.parse::<PublicKey>().err(), public),
            (text.parse::<PrivateKey>().err(), private),
        ] {
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(
                error.starts_with(expected) && error.is_empty() == expected.is_empty(),
                "{name}: {error:?} instead of {expected:?}"
            );
            assert!(!error.contains("ERER"), "{name}: {error}");
        }
    }
    // The last character has two bits that no octet takes: one key has one text.
    let spare = TEXT.replace("PxM", "PxN");
    assert!(spare.parse::<PublicKey>().is_err());
}

#[test]
fn one_public_key_has_one_number() {
    let of = |first: u8, middle: u8, last: u8| {
        let mut octets = [middle; 32];
        (octets[0], octets[31]) = (first, last);
        octets
    };
    let mut twin = *PrivateKey::from_octets([0x11; 32]).public().octets();
    twin[31] |= 0x80;
    for (name, octets, is_read) in [
        ("the greatest", of(0xec, 0xff, 0x7f), true),
        ("the prime", of(0xed, 0xff, 0x7f), false),
        ("above the prime", of(0xff, 0xff, 0x7f), false),
        ("a smaller octet in the middle", of(0xff, 0xfe, 0x7f), true),
        ("a smaller last octet", of(0xff, 0xff, 0x7e), true),
        ("the highest bit", of(0x09, 0, 0x80), false),
        ("the highest bit of a client's key", twin, false),
    ] {
        let key = PublicKey::from_octets(octets);
        let read = key.to_string().parse::<PublicKey>();
        assert_eq!(read.is_ok(), is_read, "{name}: {read:?}");
    }
}

#[test]
fn a_key_file_has_one_key() {
    let key = "knock1-private:ERERERERERERERERERERERERERERERERERERERERERE";
    let long = "#".repeat(4_097);
    for (name, text, expected) in [
        ("a line", format!("{key}\n"), None),
        ("no line end", key.to_owned(), None),
        ("another system's line end", format!("{key}\r\n"), None),
        ("a comment", format!("# laptop\n\n{key}\n"), None),
        ("nothing", String::new(), Some("the file has no key")),
        (
            "a comment only",
            "# key\n".to_owned(),
            Some("the file has no key"),
        ),
        (
            "two",
            format!("{key}\n{key}\n"),
            Some("the file has more than one"),
        ),
        (
            "a public key",
            TEXT.to_owned(),
            Some("this is a public key"),
        ),
        ("a long file", long, Some("the file is too long")),
        ("other bytes", "\u{1}".repeat(9), Some("not a private key")),
    ] {
        let error = read_private_key(text.as_bytes()).err();
        let error = error.map(|error| error.to_string());
        match (&error, expected) {
            (None, None) => {}
            (Some(error), Some(expected)) => {
                assert!(error.starts_with(expected), "{name}: {error}");
            }
            _ => panic!("{name}: {error:?} instead of {expected:?}"),
        }
    }
    assert!(read_private_key(&b"\xff\xfe"[..]).is_err());
}
