//! Configurations of several files.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use knock_user::{
    config::{self, Checked, Problems},
    host::Host,
    tools::{import, import_fwknop},
};
use nix::{sys::stat::Mode, unistd::mkfifo};

fn door(name: &str, first: u16) -> String {
    format!(
        "[[door]]\nname = \"{name}\"\nknock = [\"tcp/{first}\", \"tcp/9000\", \"tcp/{}\"]\n\
         open = [\"tcp/22\"]\n",
        first + 1
    )
}

/// Writes files, and reads the first one. Errors have the names of the files without their directory.
fn read(directory: &Path, files: &[(&str, &str)]) -> Result<Checked, String> {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let before = format!("{}/", directory.display());
    config::read(&directory.join(files[0].0))
        .map_err(|problems: Problems| problems.to_string().replace(&before, ""))
}

fn names(checked: &Checked) -> Vec<&str> {
    let doors = checked.settings.doors.iter();
    doors.map(|door| door.name.as_str()).collect()
}

#[test]
fn included_files_add_doors_and_users() {
    let include = "include = [\"seq.d/*.toml\", \"more.toml\"]\n";
    let (one, two, three) = (door("one", 7000), door("two", 7100), door("three", 7200));
    let wrong = format!("{two}open_for = \"1y\"\n");
    let broken = format!("# a comment\n{two}open = [\"tcp/22\"\n");
    let again = format!("\n\n{}", door("one", 7300));
    let nested = format!("include = [\"other.toml\"]\n{two}");
    let global = format!("trust = [\"192.0.2.1\"]\n{two}");
    type Row<'a> = (
        &'a str,
        Vec<(&'a str, &'a str)>,
        Result<Vec<&'a str>, &'a str>,
    );
    let main = format!("{include}{one}");
    let rows: Vec<Row<'_>> = vec![
        (
            "a pattern and a name",
            vec![
                ("seq.toml", &main),
                ("seq.d/b.toml", &two),
                ("more.toml", &three),
            ],
            Ok(vec!["one", "two", "three"]),
        ),
        (
            "in the order of names",
            vec![
                ("seq.toml", include),
                ("more.toml", &one),
                ("seq.d/20-b.toml", &two),
                ("seq.d/10-a.toml", &three),
            ],
            Ok(vec!["three", "two", "one"]),
        ),
        (
            "a pattern without a match",
            vec![("seq.toml", &main), ("more.toml", "")],
            Ok(vec!["one"]),
        ),
        (
            "hidden files and others",
            vec![
                ("seq.toml", &main),
                ("more.toml", ""),
                ("seq.d/.hidden.toml", &two),
                ("seq.d/other.conf", &two),
            ],
            Ok(vec!["one"]),
        ),
        (
            "a missing file",
            vec![("seq.toml", &main)],
            Err(
                "seq.toml:1: include: there is no file more.toml: create it, or remove it from include; \
                 only a pattern, such as \"*.toml\", may match none",
            ),
        ),
        (
            "a wrong value beside a missing file",
            vec![("seq.toml", &main), ("seq.d/a.toml", &wrong)],
            Err("seq.d/a.toml:5: open_for: \"1y\""),
        ),
        (
            "a missing file beside a wrong value",
            vec![("seq.toml", &main), ("seq.d/a.toml", &wrong)],
            Err("seq.toml:1: include: there is no file more.toml"),
        ),
        (
            "a user of a door in a missing file",
            vec![(
                "seq.toml",
                "include = [\"more.toml\"]\n[[user]]\nname = \"u\"\nkeys = []\ndoors = [\"d\"]\n",
            )],
            Err("seq.toml:1: include: there is no file more.toml"),
        ),
        (
            "a main file that is not TOML",
            vec![
                ("seq.toml", "include = [\"more.toml\"]\nmode = \"skb\n"),
                ("more.toml", &wrong),
            ],
            Err("more.toml:5: open_for: \"1y\""),
        ),
        (
            "the main file, matched by a pattern",
            vec![("seq.toml", "include = [\"*.toml\"]\n"), ("a.toml", &one)],
            Ok(vec!["one"]),
        ),
        (
            "directories of a pattern",
            vec![
                ("seq.toml", "include = [\"./people/[ab]*/*.toml\"]\n"),
                ("people/alice/x.toml", &one),
                ("people/bob/x.toml", &two),
                ("people/carol/x.toml", &three),
                ("people/b.toml", &three),
                ("people/bert/dir.toml/x", &three),
            ],
            Ok(vec!["one", "two"]),
        ),
        (
            "a file by two patterns",
            vec![
                ("seq.toml", "include = [\"seq.d/*.toml\", \"seq.d/a*\"]\n"),
                ("seq.d/a.toml", &one),
            ],
            Ok(vec!["one"]),
        ),
        (
            "a wrong value",
            vec![("seq.toml", &main), ("more.toml", &wrong)],
            Err("more.toml:5: open_for: \"1y\""),
        ),
        (
            "a file that is not TOML",
            vec![("seq.toml", &main), ("more.toml", &broken)],
            Err("more.toml:6: "),
        ),
        (
            "a name in two files",
            vec![("seq.toml", &main), ("more.toml", &again)],
            Err("more.toml:4: name: door \"one\" on line 2 of seq.toml has the same name"),
        ),
        (
            "an included file that includes",
            vec![("seq.toml", &main), ("more.toml", &nested)],
            Err("more.toml:1: include: an included file can't have it: move it to seq.toml"),
        ),
        (
            "a setting of the host",
            vec![("seq.toml", &main), ("more.toml", &global)],
            Err("more.toml:1: trust: an included file can't have it: move it to seq.toml"),
        ),
        (
            "itself",
            vec![("seq.toml", "include = [\"seq.toml\"]\n")],
            Err("seq.toml:1: include: \"seq.toml\" includes this file itself: remove it"),
        ),
        (
            "no list",
            vec![("seq.toml", "include = \"seq.d\"\n")],
            Err("seq.toml:1: include: expected a list, found a text: write [\"seq.d\"]"),
        ),
        (
            "a wrong pattern",
            vec![("seq.toml", "include = [\"a**.toml\"]\n")],
            Err("seq.toml:1: include: \"a**.toml\" is not a pattern of files: "),
        ),
        (
            "a misspelt table",
            vec![
                ("seq.toml", include),
                ("more.toml", "[[dor]]\nname = \"x\"\n"),
            ],
            Err("more.toml:1: dor: unknown key: did you mean door?"),
        ),
        (
            "an unknown key",
            vec![("seq.toml", include), ("more.toml", "whatever = 1\n")],
            Err("more.toml:1: whatever: unknown key: the keys of an included file are user, door"),
        ),
        (
            "any number of directories",
            vec![("seq.toml", "include = [\"**/*.toml\"]\n")],
            Err(
                "seq.toml:1: include: \"**/*.toml\" has **, which is not supported: name each \
                 directory, as in \"*/*.toml\"",
            ),
        ),
        (
            "an empty name",
            vec![("seq.toml", "include = [\"\"]\n")],
            Err("seq.toml:1: include: empty: name a file, or remove it"),
        ),
        (
            "a control character in an included file",
            vec![("seq.toml", include), ("more.toml", "\n\u{1}x\n")],
            Err(
                "seq.toml:1: include: more.toml:2 is not TOML: the line begins with a control character",
            ),
        ),
        (
            "a control character",
            vec![("seq.toml", "\u{1}more.toml\n")],
            Err("seq.toml:1: not TOML: the line begins with a control character"),
        ),
    ];
    for (name, files, expected) in rows {
        let directory = tempfile::tempdir().unwrap();
        let found = read(directory.path(), &files);
        match (&found, expected) {
            (Ok(checked), Ok(expected)) => assert_eq!(names(checked), expected, "{name}"),
            (Err(error), Err(expected)) => assert!(
                error.lines().any(|line| line.starts_with(expected)),
                "{name}: {error}"
            ),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn links_and_special_files_are_followed_or_named() {
    type Make = fn(&Path);
    let rows: [(&str, Make, Result<&str, &str>); 5] = [
        (
            "a link to a file elsewhere",
            |at| symlink("../elsewhere", at.join("seq.d/b.toml")).unwrap(),
            Ok("bob"),
        ),
        (
            "a link without a target",
            |at| symlink("none", at.join("seq.d/b.toml")).unwrap(),
            Err(
                "seq.toml:1: include: seq.d/b.toml is a symbolic link to a file that does not exist: \
                 create that, or remove the link",
            ),
        ),
        (
            "a link to itself",
            |at| symlink("b.toml", at.join("seq.d/b.toml")).unwrap(),
            Err("seq.toml:1: include: seq.d/b.toml can't be read: "),
        ),
        (
            "a pipe",
            |at| {
                mkfifo(&at.join("seq.d/b.toml"), Mode::S_IRWXU).unwrap();
            },
            Err("seq.toml:1: include: seq.d/b.toml can't be read: it is not a regular file"),
        ),
        (
            "a directory that can't be listed",
            |at| {
                fs::remove_dir(at.join("seq.d")).unwrap();
                symlink("seq.d", at.join("seq.d")).unwrap();
            },
            Err("seq.toml:1: include: seq.d can't be read: "),
        ),
    ];
    for (name, make, expected) in rows {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("seq.d")).unwrap();
        fs::write(directory.path().join("elsewhere"), door("bob", 7000)).unwrap();
        make(directory.path());
        let found = read(
            directory.path(),
            &[("seq.toml", "include = [\"seq.d/*.toml\"]\n")],
        );
        match (&found, expected) {
            (Ok(checked), Ok(expected)) => assert_eq!(names(checked), [expected], "{name}"),
            (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

/// As for the main file: a file that an included one names is searched for beside the main one.
#[test]
fn names_in_an_included_file_are_relative_to_the_main_one() {
    let directory = tempfile::tempdir().unwrap();
    let otp =
        "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\notp = { secret_file = \"ssh.secret\" }\n";
    let files = [
        ("seq.toml", "include = [\"seq.d/*.toml\"]\n"),
        ("seq.d/ssh.toml", otp),
    ];
    let error = read(directory.path(), &files).unwrap_err();
    assert!(
        error.starts_with("seq.d/ssh.toml:4: secret_file: ssh.secret: "),
        "{error}"
    );
    let secret = directory.path().join("ssh.secret");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    assert_eq!(names(&read(directory.path(), &files).unwrap()), ["ssh"]);
}

#[test]
fn files_that_everybody_can_use_are_warned_of() {
    let main = format!(
        "include = [\"seq.d/*.toml\", \"no.d/*\"]\n{}",
        door("one", 7000)
    );
    let two = door("two", 7100);
    type Modes = &'static [(&'static str, u32)];
    let rows: [(&str, Modes, &[&str]); 8] = [
        ("the administrator's alone", &[], &[]),
        ("the service's", &[("seq.d/two.toml", 0o640)], &[]),
        (
            "readable by all",
            &[("seq.d/two.toml", 0o644)],
            &[
                "seq.d/two.toml:3: warning: knock: every user of this host can read the knocks in \
               seq.d/two.toml: chmod 600 seq.d/two.toml, or chgrp knock seq.d/two.toml && \
               chmod 640 seq.d/two.toml for the service",
            ],
        ),
        (
            "readable by all, without knocks",
            &[("seq.d/empty.toml", 0o644)],
            &[],
        ),
        (
            "changed by all",
            &[("seq.toml", 0o602)],
            &[
                "seq.toml:1: warning: every user of this host can change seq.toml, and with the next \
               reload open every port and run commands: chmod o-w seq.toml",
            ],
        ),
        (
            "a directory of files",
            &[("seq.d", 0o1777)],
            &[
                "seq.toml: warning: every user of this host can write files in seq.d, and with the \
               next reload open every port and run commands: chmod o-w seq.d",
            ],
        ),
        (
            "the directory of the main file, as /tmp",
            &[(".", 0o1777)],
            &[],
        ),
        (
            "nobody enters the directory",
            &[(".", 0o700), ("seq.toml", 0o666), ("seq.d", 0o777)],
            &[],
        ),
    ];
    for (name, modes, expected) in rows {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let files = [
            ("seq.toml", main.as_str()),
            ("seq.d/two.toml", two.as_str()),
            ("seq.d/empty.toml", ""),
        ];
        let _read = read(at, &files).unwrap();
        let restricted = [(".", 0o755), ("seq.d", 0o755)].into_iter();
        let restricted = restricted.chain(files.iter().map(|(name, _)| (*name, 0o600)));
        for (name, mode) in restricted.chain(modes.iter().copied()) {
            fs::set_permissions(at.join(name), Permissions::from_mode(mode)).unwrap();
        }
        let checked = config::read(&at.join("seq.toml")).unwrap();
        let found: Vec<_> = checked
            .warnings(&Host::default())
            .iter()
            .map(|warning| warning.render_in("warning", &checked.file))
            .map(|line| line.replace(&format!("{}/", at.display()), ""))
            .filter(|line| !line.contains("guess"))
            .collect();
        let unmatched = format!(
            "seq.toml:1: warning: include: no file matches \"no.d/*\", so it includes nothing: names \
             are relative to {}",
            at.display()
        );
        let mut wanted: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
        wanted.push(unmatched);
        for line in &wanted {
            assert!(found.contains(line), "{name}: {line:?} not in {found:#?}");
        }
        let others = found.iter().filter(|line| line.contains("every user"));
        assert_eq!(others.count(), expected.len(), "{name}: {found:#?}");
    }
}

#[test]
fn the_kept_text_has_every_file() {
    let directory = tempfile::tempdir().unwrap();
    let main = format!("include = [\"seq.d/*.toml\"]\n{}", door("one", 7000));
    let two = door("two", 7100);
    let files = [
        ("seq.toml", main.as_str()),
        ("seq.d/two.toml", two.as_str()),
    ];
    let checked = read(directory.path(), &files).unwrap();
    let path = directory.path().join("seq.toml");
    let digest = config::digest_of_file(&path).unwrap();
    assert_eq!(checked.digest, Some(digest));
    // Another one, a changed one and a removed one are changes.
    let more = directory.path().join("seq.d/three.toml");
    fs::write(&more, door("three", 7200)).unwrap();
    let other = config::digest_of_file(&path).unwrap();
    assert_ne!(other, digest);
    fs::write(&more, door("three", 7300)).unwrap();
    assert_ne!(config::digest_of_file(&path).unwrap(), other);
    // A file that is needed and missing is a change, too.
    fs::write(&path, format!("include = [\"none.toml\"]\n{main}")).unwrap();
    assert_ne!(config::digest_of_file(&path).unwrap(), other);
    fs::write(&path, &main).unwrap();
    fs::remove_file(&more).unwrap();
    assert_eq!(config::digest_of_file(&path).unwrap(), digest);
    // It does not depend on how the directory is named.
    let again = directory.path().join("seq.d/../seq.toml");
    assert_eq!(config::digest_of_file(&again).unwrap(), digest);
    // The files are not read for what was kept.
    fs::remove_dir_all(directory.path().join("seq.d")).unwrap();
    let kept = config::read_kept(&path, &checked.text, true).unwrap();
    assert_eq!(names(&kept), ["one", "two"]);
    assert_eq!(kept.settings, checked.settings);
}

#[test]
fn an_included_file_is_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::create_dir(at.join("directory.toml")).unwrap();
    let error = read(at, &[("seq.toml", "include = [\"directory.toml\"]\n")]).unwrap_err();
    assert!(error.contains("directory.toml can't be read: "), "{error}");
    // Directories do not match patterns.
    let main = format!("include = [\"*.toml\"]\n{}", door("one", 7000));
    fs::write(at.join("a.toml"), door("two", 7100)).unwrap();
    let checked = read(at, &[("seq.toml", main.as_str())]).unwrap();
    assert_eq!(names(&checked), ["one", "two"]);
}

/// What `import-fwknop` and `import-knockd` print is a file that can be included, one for each person or package.
#[test]
fn imported_files_can_be_included() {
    let access = |name: &str, source: &str, ports: &str| {
        format!(
            "SOURCE {source}\nREQUIRE_USERNAME {name}\nOPEN_PORTS {ports}\nKEY_BASE64 {}\nHMAC_KEY_BASE64 {}\n",
            "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
            "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut files = vec![(
        "seq.toml".to_owned(),
        "include = [\"seq.d/*\"]\n".to_owned(),
    )];
    for (name, text) in [
        ("alice", access("alice", "192.0.2.0/24", "tcp/22")),
        ("bob", access("bob", "198.51.100.0/24", "tcp/80")),
    ] {
        let imported = import_fwknop::import(&text, None, &[]);
        for (key_file, keys) in imported.keys {
            let path = at.join(key_file);
            fs::write(&path, keys).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        // Both stanzas have no name of a person.
        let toml = imported
            .toml
            .replace("\"user-1", &format!("\"{name}-user-1"));
        files.push((format!("seq.d/{name}.toml"), toml));
    }
    let knockd = "[mail]\nsequence = 7000,8000:udp,9000\nseq_timeout = 5\ntcpflags = syn\n\
                  start_command = /sbin/iptables -A INPUT -s %IP% -p tcp --dport 25 -j ACCEPT\n";
    let imported = import::import(knockd, "knockd.conf").unwrap();
    files.push(("seq.d/mail.toml".to_owned(), imported.toml));
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let checked = read(at, &files).unwrap();
    assert_eq!(names(&checked).len(), 3, "{:?}", names(&checked));
    assert_eq!(checked.settings.users.len(), 2);
}
