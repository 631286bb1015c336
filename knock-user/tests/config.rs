//! What is said about files that are wrong, or unwise: each `golden/*.toml` has a `.txt` beside it.
//!
//! `KNOCK_BLESS=1 cargo test -p knock-user --test config` writes the texts anew.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use knock_user::{
    check,
    compile::{Given, Numbers, compile},
    config,
    host::Host,
};

/// What is said about a file.
fn told(path: &Path) -> String {
    let file = path.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(path).unwrap();
    let mut told = String::new();
    match config::parse(&text, file) {
        Err(problems) => told += &format!("{problems}\n"),
        Ok(checked) => {
            for warning in checked.warnings(&Host::default()) {
                told += &format!("{}\n", warning.told("warning", file));
            }
        }
    }
    told
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The lines of two texts, with `-` before those only in the first and `+` before those only in the
/// second.
fn diff(wanted: &str, found: &str) -> String {
    let only = |these: &str, others: &str, sign: &str| -> String {
        let others: Vec<&str> = others.lines().collect();
        let only = these.lines().filter(|line| !others.contains(line));
        only.map(|line| format!("  {sign} {line}\n")).collect()
    };
    only(wanted, found, "-") + &only(found, wanted, "+")
}

#[test]
fn golden_texts() {
    let bless = env::var_os("KNOCK_BLESS").is_some();
    let mut different = String::new();
    for path in files("tests/golden") {
        let found = told(&path);
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, &found).unwrap();
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        if wanted != found {
            different += &format!("{}:\n{}", path.display(), diff(&wanted, &found));
        }
    }
    assert!(
        different.is_empty(),
        "not as in the golden texts:\n{different}"
    );
}

#[test]
fn examples_are_accepted() {
    for path in files("../examples") {
        let file = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let checked = config::parse(&text, file).unwrap_or_else(|problems| panic!("{problems}"));
        let mut random = 0_u64;
        let tables = compile(
            &checked.settings,
            &mut Given {
                host: &Host::default(),
                cell_key: [1; 12],
                known: &Numbers::default(),
                draw: &mut || {
                    random += 1;
                    random.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                },
                sequences: &knock_user::compile::Sequences::new(),
                before: None,
            },
        );
        assert!(tables.is_ok(), "{file}: {:?}", tables.err());
    }
}

#[test]
fn check_says_what_a_file_means() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-doors.toml");
    let text = fs::read_to_string(path).unwrap();
    let checked = config::parse(&text, "two-doors.toml").unwrap();
    let mut out = Vec::new();
    check::check(&checked, &Host::default(), &mut out).unwrap();
    let wanted = "\
door ssh
  knock    udp/7431 tcp/2290 udp/19112 tcp/3085
  within   25s
  effect   opens tcp/22 for 30s
  guessing 4 knocks of 131070: about 2^68 sequences; one is found after about 2^67 tries, \
millions of years at a thousand a second, unless a scan tells the few silent ports from closed ones \
that answer
door admin
  knock    udp/7431 tcp/2290 udp/1844 tcp/12007
  within   25s
  effect   opens tcp/8443 tcp/9090 for 10m
  guessing 4 knocks of 131070: about 2^68 sequences; one is found after about 2^67 tries, \
millions of years at a thousand a second, unless a scan tells the few silent ports from closed ones \
that answer
protected: tcp/22 tcp/5432 tcp/8443 tcp/9090
without knocking: 198.51.100.0/24 2001:db8:77::/48
";
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
}

#[test]
fn a_file_that_is_not_there_is_a_problem() {
    let problems = config::read(Path::new("/nonexistent/seq.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/nonexistent/seq.toml: can't be read: No such file or directory (os error 2)"
    );
}
