use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{disk::Step, *};

fn words(knocks: &[Knock]) -> String {
    let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
    words.join(" ")
}

fn unused(book: &Book) -> Vec<String> {
    let unused = book.unused();
    unused
        .map(|(line, knocks)| format!("{line}: {}", words(knocks)))
        .collect()
}

fn flaws(book: &Book) -> Vec<String> {
    let flaws = book.flaws();
    flaws
        .map(|flaw| format!("{}: {}", flaw.line, flaw.reason))
        .collect()
}

/// Name, file, sequences, flaws.
type LineRow<'a> = (&'a str, &'a [u8], &'a [&'a str], &'a [&'a str]);

#[test]
fn what_lines_are() {
    let long = format!(" {}7000\n", "7000,".repeat(128));
    let rows: [LineRow<'_>; 20] = [
        ("nothing", b"", &[], &[]),
        (
            "knockd's form",
            b" 7000:tcp,8000:udp,9000\n",
            &["1: tcp/7000 udp/8000 tcp/9000"],
            &[],
        ),
        (
            "ours",
            b"tcp/7000 udp/8000\n",
            &["1: tcp/7000 udp/8000"],
            &[],
        ),
        ("capitals", b" 7000:UDP\n", &["1: udp/7000"], &[]),
        (
            "blanks, comments, used ones",
            b"# mine\n\n  \n #7000\n#8000,9000\n 9000\n",
            &["6: tcp/9000"],
            &[],
        ),
        (
            "Windows line ends",
            b" 7000\r\n 8000\r\n",
            &["1: tcp/7000", "2: tcp/8000"],
            &[],
        ),
        (
            "port 0",
            b" 0,8000\n 9000\n",
            &["2: tcp/9000"],
            &["1: \"0\" is not a knock: write 7000:tcp, with a port from 1 to 65535, tcp or udp"],
        ),
        (
            "a port too high",
            b" 70000\n",
            &[],
            &[
                "1: \"70000\" is not a knock: write 7000:tcp, with a port from 1 to 65535, tcp or udp",
            ],
        ),
        (
            "an unknown protocol",
            b" 7000:icmp\n",
            &[],
            &[
                "1: \"7000:icmp\" is not a knock: write 7000:tcp, with a port from 1 to 65535, tcp or udp",
            ],
        ),
        (
            "no port",
            b" :tcp\n",
            &[],
            &[
                "1: \":tcp\" is not a knock: write 7000:tcp, with a port from 1 to 65535, tcp or udp",
            ],
        ),
        (
            "a sign",
            b" -1,7000\n",
            &[],
            &["1: \"-1\" is not a knock: write 7000:tcp, with a port from 1 to 65535, tcp or udp"],
        ),
        (
            "an empty item",
            b" 7000,,8000\n",
            &[],
            &["1: nothing stands where a knock belongs, beside a comma"],
        ),
        (
            "a comma at the end",
            b" 7000,\n",
            &[],
            &["1: nothing stands where a knock belongs, beside a comma"],
        ),
        (
            "too many knocks",
            long.as_bytes(),
            &[],
            &["1: 129 knocks: a sequence has at most 128"],
        ),
        (
            "not UTF-8",
            b" 7000\xff\n 9000\n",
            &["2: tcp/9000"],
            &["1: not a text in UTF-8"],
        ),
        (
            "a comment that is not UTF-8",
            b"#\xff\n 9000\n",
            &["2: tcp/9000"],
            &[],
        ),
        (
            "cut off",
            b" 7000\n 8000,90",
            &["1: tcp/7000"],
            &["2: the line has no end, so the file may have been cut off"],
        ),
        (
            "twice",
            b" 7000\n 8000\n7000:tcp\n",
            &["1: tcp/7000", "2: tcp/8000"],
            &["3: the same as line 1, and a sequence works once"],
        ),
        (
            "used before",
            b"#7000\n 8000\n 7000\n",
            &["2: tcp/8000"],
            &["3: the same as line 1, and a sequence works once"],
        ),
        ("used, and cut off", b" 7000\n#8000", &["1: tcp/7000"], &[]),
    ];
    for (name, text, sequences, wrong) in rows {
        let book = Book::new(text.to_vec());
        assert_eq!(unused(&book), sequences, "{name}");
        assert_eq!(flaws(&book), wrong, "{name}");
        assert_eq!(book.text(), text, "{name}");
    }
}

/// Name, file, line, the file with the mark.
type MarkRow<'a> = (&'a str, &'a [u8], u32, Option<&'a [u8]>);

#[test]
fn what_is_marked() {
    let rows: [MarkRow<'_>; 9] = [
        ("the first", b" 7000\n 8000\n", 1, Some(b"#7000\n 8000\n")),
        (
            "and those before",
            b" 7000\n\t8000\n 9000\n",
            2,
            Some(b"#7000\n#8000\n 9000\n"),
        ),
        (
            "no blank in front",
            b"7000\n8000\n",
            1,
            Some(b"#7000\n8000\n"),
        ),
        ("two blanks", b"  7000\n", 1, Some(b"# 7000\n")),
        (
            "Windows line ends",
            b" 7000\r\n 8000\r\n",
            1,
            Some(b"#7000\r\n 8000\r\n"),
        ),
        (
            "what else is there stays",
            b"# mine\n\n ssh\n\xff\n 7000\n 8000,9",
            5,
            Some(b"# mine\n\n ssh\n\xff\n#7000\n 8000,9"),
        ),
        (
            "twice",
            b" 7000\n 7000\n 8000\n",
            2,
            Some(b"#7000\n#7000\n 8000\n"),
        ),
        ("marked", b"#7000\n 8000\n", 1, None),
        ("no line", b" 7000\n", 0, None),
    ];
    for (name, text, line, marked) in rows {
        let found = Book::new(text.to_vec()).marked(line);
        let text = found.as_ref().map(Book::text);
        assert_eq!(text, marked, "{name}");
        if let Some(found) = &found {
            let again = Book::new(found.text().to_vec());
            assert_eq!(unused(found), unused(&again), "{name}");
            assert_eq!(found.marked(line), None, "{name}");
        }
    }
}

/// Something like a file: mostly what is meant, some of it broken.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b" 7000:tcp,8000:udp".to_vec()),
        (1_u16..9).prop_map(|port| format!(" {port}").into_bytes()),
        Just(b"tcp/7000 udp/8000".to_vec()),
        Just(b"#".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b",".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever is in a file: a mark ends its line and those before it, once, and changes nothing
    /// else.
    #[test]
    fn marking(text in any_text(), choice: prop::sample::Index) {
        let book = Book::new(text.clone());
        let lines: Vec<u32> = book.unused().map(|(line, _)| line).collect();
        prop_assume!(!lines.is_empty());
        let line = lines[choice.index(lines.len())];
        let marked = book.marked(line).unwrap();
        prop_assert_eq!(marked.marked(line), None, "idempotent");
        let later: Vec<u32> = lines.iter().copied().filter(|&later| later > line).collect();
        let left: Vec<u32> = marked.unused().map(|(line, _)| line).collect();
        prop_assert_eq!(&left, &later);
        let again = Book::new(marked.text().to_vec());
        prop_assert_eq!(unused(&marked), unused(&again), "as it is read again");
        // Without marks and the blanks that they replace, the lines are the same.
        let bare = |text: &[u8]| -> Vec<Vec<u8>> {
            let lines = text.split(|&byte| byte == b'\n');
            lines
                .map(|line| {
                    let line = line.strip_prefix(b"#").unwrap_or(line);
                    line.trim_ascii_start().to_vec()
                })
                .collect()
        };
        prop_assert_eq!(bare(marked.text()), bare(&text));
        let end = marked.text().len() - book_end(&book, line);
        prop_assert_eq!(&marked.text()[end..], &text[text.len() - book_end(&book, line)..]);
    }
}

/// How many bytes stand behind a line.
fn book_end(book: &Book, line: u32) -> usize {
    let lines = book.text().split_inclusive(|&byte| byte == b'\n');
    lines.skip(line as usize).map(<[u8]>::len).sum()
}

struct Place {
    directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("once");
        fs::write(&path, text).unwrap();
        Self { directory, path }
    }

    fn open(&self, lookahead: u16) -> OneTimeFile {
        OneTimeFile::open(&self.path, lookahead, |_| None)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// What is listened to, on the disk, of this boot or another.
    fn live(&self) -> Option<String> {
        fs::read_to_string(self.directory.path().join(".once.live")).ok()
    }

    fn reboot(&self) {
        let live = self.live().unwrap();
        let (_, rest) = live.split_once(' ').unwrap();
        let before = format!("00000000-0000-4000-8000-000000000000 {rest}");
        fs::write(self.directory.path().join(".once.live"), before).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn lines(file: &OneTimeFile) -> Vec<u32> {
    let lines = file.current().into_iter();
    lines
        .map(|current| file.book.line_of(current.mark).unwrap())
        .collect()
}

fn use_up(file: &mut OneTimeFile, line: u32) -> Result<(), String> {
    let mark = book::mark(line, file.book.sequence(line).unwrap());
    file.mark_used(mark).map_err(ToString::to_string)
}

#[test]
fn one_after_the_other() {
    let place = Place::new("# mine\n 7000\n 8000\n ssh\n 9000\n 10000\n");
    let mut file = place.open(2);
    assert_eq!(lines(&file), [2, 3]);
    let standing = Standing {
        left: 4,
        next: Some(2),
        ..Standing::default()
    };
    assert_eq!(file.standing(), standing);
    use_up(&mut file, 2).unwrap();
    assert_eq!(lines(&file), [3, 5]);
    assert_eq!(lines(&place.open(2)), [3, 5], "read again");
    use_up(&mut file, 5).unwrap();
    assert_eq!(lines(&file), [6], "what was skipped is void");
    assert_eq!(place.text(), "# mine\n#7000\n#8000\n ssh\n#9000\n 10000\n");
    use_up(&mut file, 2).unwrap();
    assert_eq!(lines(&file), [6], "it was marked before");
    let standing = Standing {
        used: Some(5),
        next: Some(6),
        left: 1,
        failure: None,
    };
    assert_eq!(file.standing(), standing);
    use_up(&mut file, 6).unwrap();
    assert_eq!(lines(&file), [] as [u32; 0]);
    let Standing { next, left, .. } = file.standing();
    assert_eq!((next, left), (None, 0));
    let failure = place.open(2).standing().failure.unwrap();
    assert!(failure.contains("no sequence is left"), "{failure}");
    assert_eq!(place.names(), ["once"]);
}

/// What was listened to when the host went down may have been used.
#[test]
fn what_a_reboot_leaves() {
    const TEXT: &str = " 7000\n 8000\n 9000\n 10000\n";
    let place = Place::new(TEXT);
    let mut file = place.open(2);
    assert!(place.live().unwrap().ends_with(" 2 tcp/8000\n"));
    assert_eq!(
        lines(&place.open(2)),
        [1, 2],
        "the kernel knows what was used"
    );
    use_up(&mut file, 1).unwrap();
    assert!(place.live().unwrap().ends_with(" 3 tcp/9000\n"));
    place.reboot();
    let mut file = place.open(2);
    assert_eq!(lines(&file), [4]);
    assert_eq!(place.text(), "#7000\n#8000\n#9000\n 10000\n");
    assert_eq!(file.standing().used, None);

    file.withdraw();
    assert_eq!(lines(&file), [] as [u32; 0]);
    assert!(place.live().is_some(), "not put away yet");
    file.close();
    assert_eq!(place.names(), ["once"]);
    assert_eq!(lines(&place.open(2)), [4], "it ended as it should");

    // Another file in its place.
    place.reboot();
    fs::write(&place.path, TEXT.replace("10000", "11000")).unwrap();
    assert_eq!(lines(&place.open(2)), [1, 2]);
    for nonsense in ["", "x", "x y z", "x 99 tcp/1", "x 1 tcp/8000"] {
        fs::write(place.directory.path().join(".once.live"), nonsense).unwrap();
        assert_eq!(lines(&place.open(2)), [1, 2], "{nonsense:?}");
    }
}

#[test]
fn what_the_door_refuses_is_not_used() {
    let place = Place::new(" 7000\n 22\n 8000\n");
    let refuses = |knocks: &[Knock]| (knocks[0].port == 22).then(|| "protected".to_owned());
    let mut file = OneTimeFile::open(&place.path, 2, refuses);
    assert_eq!(lines(&file), [1, 3]);
    assert_eq!(flaws(&file.book), ["2: protected"]);
    use_up(&mut file, 1).unwrap();
    assert_eq!(lines(&file), [3], "still not");
    // Nobody has asked whether the door takes it.
    fs::write(&place.path, "#7000\n 22\n 8000\n 9000\n").unwrap();
    use_up(&mut file, 3).unwrap();
    assert_eq!(
        place.text(),
        "#7000\n#22\n#8000\n 9000\n",
        "what was added stays"
    );
    assert_eq!(lines(&file), [] as [u32; 0]);
    assert_eq!(lines(&place.open(1)), [4]);
}

/// A note of the kernel may be about the file that was there before.
#[test]
fn another_file_in_its_place() {
    let place = Place::new(" 7000\n 8000\n");
    let notes: Vec<u32> = (1..=2)
        .map(|line| book::mark(line, place.open(2).book.sequence(line).unwrap()))
        .collect();
    const OTHER: &str = " 7001\n 8001\n 9001\n";
    fs::write(&place.path, OTHER).unwrap();
    let mut file = place.open(2);
    for note in notes {
        file.mark_used(note).unwrap();
    }
    assert_eq!(lines(&file), [1, 2]);
    assert_eq!(place.text(), OTHER);
    for nonsense in [0, u32::MAX, 1, 4] {
        file.mark_used(nonsense).unwrap();
    }
    assert_eq!(place.text(), OTHER);
}

/// It is kept by kernels that run, and by processes of other versions.
#[test]
fn the_mark_of_a_line() {
    let knocks = ["tcp/7100", "udp/8100", "tcp/6100"].map(|knock| knock.parse().unwrap());
    assert_eq!(book::mark(1, &knocks), 0x57f0_0001);
    assert_eq!(book::mark(2, &knocks), 0x57f0_0001 + 1);
    assert_eq!(SEQUENCES_MOST, 0xf_ffff);
}

#[test]
fn a_file_that_somebody_else_changed() {
    let place = Place::new(" 7000\n 8000\n");
    let mut file = place.open(1);
    fs::write(&place.path, " 1000\n 7000\n 8000\n").unwrap();
    let error = use_up(&mut file, 1).unwrap_err();
    assert!(
        error.contains("line 1 of") && error.contains("reload"),
        "{error}"
    );
    assert_eq!(
        lines(&file),
        [] as [u32; 0],
        "nothing works until it is known what"
    );
    assert_eq!(place.text(), " 1000\n 7000\n 8000\n");
    assert!(use_up(&mut file, 1).is_err());
    fs::write(&place.path, " 7000\n 8000\n").unwrap();
    use_up(&mut file, 1).unwrap();
    assert_eq!(place.text(), "#7000\n 8000\n");
    assert_eq!(lines(&file), [2]);
}

#[test]
fn files_that_are_of_no_use() {
    let place = Place::new(" 7000\n");
    let rows = [
        (place.directory.path().join("none"), "cannot read"),
        (place.directory.path().to_owned(), "it is not a file"),
        ("/dev/zero".into(), "it is not a file"),
        // Nobody can make files there, not even root.
        ("/proc/version".into(), "no sequence is left"),
    ];
    for (path, told) in rows {
        let file = OneTimeFile::open(&path, 1, |_| None);
        let failure = file.standing().failure.unwrap();
        assert!(
            failure.contains("/proc") || failure.contains(told),
            "{failure}"
        );
        assert_eq!(lines(&file), [] as [u32; 0]);
    }
    let file = OneTimeFile::open(Path::new("/proc/version"), 1, |_| None);
    let failure = file.standing().failure.unwrap();
    assert!(failure.starts_with("cannot mark what is used"), "{failure}");
    assert!(failure.contains("sudo install"), "{failure}");
}

#[test]
fn the_file_stays_what_it_was() {
    let place = Place::new(" 7000\n 8000\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let link = place.directory.path().join("link");
    symlink(&place.path, &link).unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = |path: &Path| {
        let file = fs::metadata(path).unwrap();
        (file.uid(), file.gid())
    };
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&place.path, Some(12_345), Some(12_346)).unwrap();
    }
    let before = owner(&place.path);
    let mut file = OneTimeFile::open(&link, 1, |_| None);
    use_up(&mut file, 1).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(mode(&place.path), 0o640);
    assert_eq!(owner(&place.path), before);
    assert_eq!(place.text(), "#7000\n 8000\n");
    assert_eq!(place.names(), [".once.live", "link", "once"]);
}

/// Whoever is killed between two steps leaves the old file or the new one.
#[test]
fn stopped_between_any_two_steps() {
    const OLD: &str = " 7000\n";
    const NEW: &str = "#7000\n";
    let steps = [
        (Step::Made, OLD),
        (Step::Written, OLD),
        (Step::Owned, OLD),
        (Step::Synced, OLD),
        (Step::Renamed, NEW),
    ];
    for (stop, expected) in steps {
        let place = Place::new(OLD);
        let stopped = disk::replace_in_steps(&place.path, NEW.as_bytes(), |step| {
            if step == stop {
                return Err(io::Error::other("stopped"));
            }
            Ok(())
        });
        assert_eq!(stopped.unwrap_err().to_string(), "stopped", "{stop:?}");
        assert_eq!(place.text(), expected, "{stop:?}");
        // What may be left behind is in nobody's way.
        fs::write(place.directory.path().join(".once.new"), "half").unwrap();
        let mut file = place.open(1);
        use_up(&mut file, 1).unwrap();
        assert_eq!(place.text(), NEW, "{stop:?}");
        assert_eq!(place.names(), ["once"], "{stop:?}");
    }
}

#[test]
fn what_strangers_may_do() {
    let rows = [
        (0o600, 0o755, None),
        (0o640, 0o755, None),
        (0o644, 0o755, Some("may read")),
        (0o602, 0o755, Some("may change")),
        (0o600, 0o777, Some("may replace")),
        (0o600, 0o1777, None),
    ];
    let place = Place::new("");
    for (mode, directory, told) in rows {
        fs::set_permissions(&place.path, fs::Permissions::from_mode(mode)).unwrap();
        let permissions = fs::Permissions::from_mode(directory);
        fs::set_permissions(place.directory.path(), permissions).unwrap();
        let found = exposure(&place.path);
        assert_eq!(found.is_some(), told.is_some(), "{mode:o} {directory:o}");
        let found = found.unwrap_or_default();
        assert!(found.contains(told.unwrap_or_default()), "{found}");
    }
    assert_eq!(exposure(Path::new("/nonexistent")), None);
}
