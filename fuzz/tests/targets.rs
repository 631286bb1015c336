//! Every target on its corpus and on mutations of it. `KNOCK_SEED` and `KNOCK_MUTATIONS` choose others.
//!
//! A failure prints the input; put it into the corpus, and the test fails until the cause is mended.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use knock_fuzz::{
    TARGETS,
    mutate::{Mutator, dictionary},
};
use knock_user::{
    admin::{self, text::LocalTime},
    config,
    control::{Reply, Request},
};

const SEED: u64 = 0x006b_6e6f_636b;
/// All inputs of all targets together, in bytes.
const CORPUS_MOST: u64 = 300_000;

macro_rules! targets {
    ($($test:ident: $target:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            run($target);
        })+

        #[test]
        fn every_target_has_a_test_a_program_and_a_corpus() {
            let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, BTreeSet::from([$($target),+]));
            let files = |directory: &str, end: &str| -> BTreeSet<String> {
                let entries = fs::read_dir(here().join(directory)).unwrap();
                let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                names.map(|name| name.strip_suffix(end).unwrap().to_owned()).collect()
            };
            let names: BTreeSet<_> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(files("fuzz_targets", ".rs"), names);
            assert_eq!(files("corpus", ""), names);
            assert!(files("dict", ".dict").is_subset(&names));
        }
    };
}

targets! {
    the_parser_agrees_with_two_others: "parser",
    the_judge_does_what_the_configuration_says: "judge",
    events_become_lines_and_openings: "events",
    an_accepted_configuration_compiles_and_means_the_same_when_written: "config",
    a_one_time_file_works_once: "one_time",
    a_control_line_gets_a_line_with_json: "control",
    an_imported_file_is_a_configuration: "import",
    a_reply_is_understood_as_it_was_meant: "reply",
    no_packet_of_fwknop_is_accepted_without_its_key: "fwknop",
    a_key_has_one_text_and_no_error_shows_it: "keys",
    no_secret_of_a_client_of_fwknop_is_printed: "fwknoprc",
    a_word_is_read_as_it_was_written: "words",
    lines_open_no_door_without_the_key: "fleet",
}

#[test]
fn the_corpus_is_small() {
    let sizes = TARGETS.iter().flat_map(|target| corpus(target.name));
    let bytes: u64 = sizes
        .map(|(path, _)| fs::metadata(path).unwrap().len())
        .sum();
    assert!(bytes < CORPUS_MOST, "{bytes} bytes");
}

/// Renamed keys and fields must not turn them into inputs that are refused at once.
#[test]
fn the_written_inputs_are_what_their_names_say() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    // Inputs that libFuzzer found have a hash as their name.
    let written = |name: &str| {
        let inputs = corpus(name).into_iter();
        let named = inputs.map(|(path, input)| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, input)
        });
        named.filter(|(name, _)| name.len() != 40)
    };
    for (name, input) in written("config") {
        let checked = config::parse(&text(input), &name);
        assert!(checked.is_ok(), "{}", checked.unwrap_err());
    }
    for (name, line) in written("control") {
        if name.starts_with("ask-") {
            let asked = Request::from_line(&line).and_then(|request| admin::check(&request));
            assert!(asked.is_ok(), "{name}: {asked:?}");
        } else if name.starts_with("done-") || name == "failed" {
            let time = LocalTime {
                zone: TimeZone::UTC,
                now: Timestamp::UNIX_EPOCH,
            };
            let is_answer = match Reply::from_line(&line).unwrap() {
                Reply::Done(done) => admin::render(&done, &time).is_some(),
                Reply::Failed(_) => name == "failed",
            };
            assert!(is_answer, "{name}");
        }
    }
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "no corpus");
    for (path, input) in &corpus {
        checked(target.check, input, &path.display().to_string());
    }
    let seed = number("KNOCK_SEED").unwrap_or(SEED);
    let mutations = number("KNOCK_MUTATIONS").unwrap_or(target.mutations.into());
    println!(
        "{name}: {} inputs, {mutations} mutations, KNOCK_SEED={seed}",
        corpus.len()
    );
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let words = words(name);
    let mut mutator = Mutator::new(seed, &inputs, &words);
    for number in 0..mutations {
        let input = mutator.next_input();
        checked(
            target.check,
            &input,
            &format!("mutation {number} of KNOCK_SEED={seed}"),
        );
    }
}

fn checked(check: fn(&[u8]), input: &[u8], name: &str) {
    let result = panic::catch_unwind(AssertUnwindSafe(|| check(input)));
    if let Err(panic) = result {
        eprintln!("{name}: b\"{}\"", input.escape_ascii());
        panic::resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is not a number")),
    )
}

/// Returns the inputs of a target with their files, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(here().join("corpus").join(name)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let input = fs::read(&path).unwrap();
        (path, input)
    };
    paths.into_iter().map(read).collect()
}

fn words(name: &str) -> Vec<Vec<u8>> {
    let path = here().join("dict").join(name).with_extension("dict");
    match fs::read_to_string(&path) {
        Ok(text) => {
            dictionary(&text).unwrap_or_else(|line| panic!("{}:{line}: not a word", path.display()))
        }
        Err(_) => Vec::new(),
    }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
