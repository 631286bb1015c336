use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use tempfile::TempDir;

use super::{disk::WriteStep, *};

struct TestDirectory {
    directory: TempDir,
    path: PathBuf,
}

impl TestDirectory {
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

    /// Returns the record of accepted lines, of this boot or another.
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
        .map(|current| mark::line_of(&file.one_time_text, current.sequence_id).unwrap())
        .collect()
}

fn use_up(file: &mut OneTimeFile, line: u32) -> Result<(), String> {
    let sequence_id = mark::sequence_id(line, file.one_time_text.sequence(line).unwrap());
    file.mark_used(sequence_id).map_err(ToString::to_string)
}

#[test]
fn lines_are_used_one_after_the_other() {
    let place = TestDirectory::new("# mine\n 7000\n 8000\n ssh\n 9000\n 10000\n");
    let mut file = place.open(2);
    assert_eq!(lines(&file), [2, 3]);
    let state = FileState {
        left: 4,
        next: Some(2),
        ..FileState::default()
    };
    assert_eq!(file.state(), state);
    use_up(&mut file, 2).unwrap();
    assert_eq!(lines(&file), [3, 5]);
    assert_eq!(lines(&place.open(2)), [3, 5], "read again");
    use_up(&mut file, 5).unwrap();
    assert_eq!(lines(&file), [6], "what was skipped is void");
    assert_eq!(place.text(), "# mine\n#7000\n#8000\n ssh\n#9000\n 10000\n");
    use_up(&mut file, 2).unwrap();
    assert_eq!(lines(&file), [6], "it was marked before");
    let state = FileState {
        used: Some(5),
        next: Some(6),
        left: 1,
        failure: None,
    };
    assert_eq!(file.state(), state);
    use_up(&mut file, 6).unwrap();
    assert_eq!(lines(&file), [] as [u32; 0]);
    let FileState { next, left, .. } = file.state();
    assert_eq!((next, left), (None, 0));
    let failure = place.open(2).state().failure.unwrap();
    assert!(failure.contains("no sequence is left"), "{failure}");
    assert_eq!(place.names(), ["once"]);
}

/// Lines that were accepted when the host went down may have been used.
#[test]
fn accepted_lines_are_void_after_a_reboot() {
    const TEXT: &str = " 7000\n 8000\n 9000\n 10000\n";
    let place = TestDirectory::new(TEXT);
    let mut file = place.open(2);
    assert!(place.live().unwrap().ends_with(" 2 tcp/8000\n"));
    assert_eq!(lines(&place.open(2)), [1, 2], "the kernel has the record");
    use_up(&mut file, 1).unwrap();
    assert!(place.live().unwrap().ends_with(" 3 tcp/9000\n"));
    place.reboot();
    let mut file = place.open(2);
    assert_eq!(lines(&file), [4]);
    assert_eq!(place.text(), "#7000\n#8000\n#9000\n 10000\n");
    assert_eq!(file.state().used, None);

    file.withdraw();
    assert_eq!(lines(&file), [] as [u32; 0]);
    assert!(place.live().is_some(), "not closed yet");
    file.close();
    assert_eq!(place.names(), ["once"]);
    assert_eq!(lines(&place.open(2)), [4], "it ended as it should");

    // Another file takes its place.
    place.reboot();
    fs::write(&place.path, TEXT.replace("10000", "11000")).unwrap();
    assert_eq!(lines(&place.open(2)), [1, 2]);
    for nonsense in ["", "x", "x y z", "x 99 tcp/1", "x 1 tcp/8000"] {
        fs::write(place.directory.path().join(".once.live"), nonsense).unwrap();
        assert_eq!(lines(&place.open(2)), [1, 2], "{nonsense:?}");
    }
}

#[test]
fn lines_that_the_door_refuses_are_skipped() {
    let place = TestDirectory::new(" 7000\n 22\n 8000\n");
    let refuses = |knocks: &[Knock]| (knocks[0].port == 22).then(|| "protected".to_owned());
    let mut file = OneTimeFile::open(&place.path, 2, refuses);
    assert_eq!(lines(&file), [1, 3]);
    assert_eq!(
        file.one_time_text.flaw(2).map(|flaw| flaw.reason),
        Some("protected")
    );
    use_up(&mut file, 1).unwrap();
    assert_eq!(lines(&file), [3], "still not");
    // These lines were not checked against the door.
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

/// A record of the kernel may concern the file that was there before.
#[test]
fn an_id_of_the_previous_file_marks_nothing() {
    let place = TestDirectory::new(" 7000\n 8000\n");
    let notes: Vec<u32> = (1..=2)
        .map(|line| mark::sequence_id(line, place.open(2).one_time_text.sequence(line).unwrap()))
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

/// Running kernels and processes of other versions have these ids.
#[test]
fn the_id_of_a_line_is_stable() {
    let knocks = ["tcp/7100", "udp/8100", "tcp/6100"].map(|knock| knock.parse().unwrap());
    assert_eq!(mark::sequence_id(1, &knocks), 0x57f0_0001);
    assert_eq!(mark::sequence_id(2, &knocks), 0x57f0_0001 + 1);
}

#[test]
fn a_changed_file_is_not_marked() {
    let place = TestDirectory::new(" 7000\n 8000\n");
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
        "no line is accepted until the file is restored"
    );
    assert_eq!(place.text(), " 1000\n 7000\n 8000\n");
    assert!(use_up(&mut file, 1).is_err());
    fs::write(&place.path, " 7000\n 8000\n").unwrap();
    use_up(&mut file, 1).unwrap();
    assert_eq!(place.text(), "#7000\n 8000\n");
    assert_eq!(lines(&file), [2]);
}

#[test]
fn unusable_files_are_reported() {
    let place = TestDirectory::new(" 7000\n");
    let rows = [
        (place.directory.path().join("none"), "cannot read"),
        (place.directory.path().to_owned(), "it is not a file"),
        ("/dev/zero".into(), "it is not a file"),
        // No user, not even root, can create files there.
        ("/proc/version".into(), "no sequence is left"),
    ];
    for (path, expected) in rows {
        let file = OneTimeFile::open(&path, 1, |_| None);
        let failure = file.state().failure.unwrap();
        assert!(
            failure.contains("/proc") || failure.contains(expected),
            "{failure}"
        );
        assert_eq!(lines(&file), [] as [u32; 0]);
    }
    let file = OneTimeFile::open(Path::new("/proc/version"), 1, |_| None);
    let failure = file.state().failure.unwrap();
    assert!(failure.starts_with("cannot mark used lines"), "{failure}");
    assert!(failure.contains("sudo install"), "{failure}");
}

#[test]
fn marking_keeps_owner_mode_and_link() {
    let place = TestDirectory::new(" 7000\n 8000\n");
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

/// A process that is killed between two steps leaves the old file or the new one.
#[test]
fn a_replacement_that_stops_leaves_a_whole_file() {
    const OLD: &str = " 7000\n";
    const NEW: &str = "#7000\n";
    let steps = [
        (WriteStep::Made, OLD),
        (WriteStep::Written, OLD),
        (WriteStep::Owned, OLD),
        (WriteStep::Synced, OLD),
        (WriteStep::Renamed, NEW),
    ];
    for (stop, expected) in steps {
        let place = TestDirectory::new(OLD);
        let stopped = disk::replace_in_steps(&place.path, NEW.as_bytes(), |step| {
            if step == stop {
                return Err(io::Error::other("stopped"));
            }
            Ok(())
        });
        assert_eq!(stopped.unwrap_err().to_string(), "stopped", "{stop:?}");
        assert_eq!(place.text(), expected, "{stop:?}");
        // A file that is left behind does not disturb the next replacement.
        fs::write(place.directory.path().join(".once.new"), "half").unwrap();
        let mut file = place.open(1);
        use_up(&mut file, 1).unwrap();
        assert_eq!(place.text(), NEW, "{stop:?}");
        assert_eq!(place.names(), ["once"], "{stop:?}");
    }
}

#[test]
fn permissions_of_other_users_are_reported() {
    let rows = [
        (0o600, 0o755, None),
        (0o640, 0o755, None),
        (0o644, 0o755, Some("may read")),
        (0o602, 0o755, Some("may change")),
        (0o600, 0o777, Some("may replace")),
        (0o600, 0o1777, None),
    ];
    let place = TestDirectory::new("");
    for (mode, directory, expected) in rows {
        fs::set_permissions(&place.path, fs::Permissions::from_mode(mode)).unwrap();
        let permissions = fs::Permissions::from_mode(directory);
        fs::set_permissions(place.directory.path(), permissions).unwrap();
        let found = exposure(&place.path);
        assert_eq!(
            found.is_some(),
            expected.is_some(),
            "{mode:o} {directory:o}"
        );
        let found = found.unwrap_or_default();
        assert!(found.contains(expected.unwrap_or_default()), "{found}");
    }
    assert_eq!(exposure(Path::new("/nonexistent")), None);
}
