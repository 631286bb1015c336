//! Mutations and dictionaries.

use knock_fuzz::mutate::{Mutator, dictionary};

#[test]
fn a_dictionary_is_read_as_words() {
    let text = "# words\n\n\"tcp/22\"\n  new=\"a\\x0A\\\\b\\\"\"\n";
    let words = [b"tcp/22".to_vec(), b"a\n\\b\"".to_vec()];
    assert_eq!(dictionary(text), Ok(words.to_vec()));
    for (name, text, line) in [
        ("no quotes", "\"a\"\ntcp", 2),
        ("half", "\"tcp", 1),
        ("no number", "\"\\xzz\"", 1),
        ("nothing escaped", "\"\\\"", 1),
    ] {
        assert_eq!(dictionary(text), Err(line), "{name}");
    }
}

#[test]
fn a_seed_makes_the_same_inputs_again() {
    let corpus = [b"knock = [\"tcp/7000\"]".to_vec(), vec![0; 64]];
    let words = [b"udp".to_vec()];
    let inputs = |seed| -> Vec<Vec<u8>> {
        let mut mutator = Mutator::new(seed, &corpus, &words);
        (0..100).map(|_| mutator.next_input()).collect()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}
