//! Finds the programs that a configuration runs.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::os_error;

/// The search path for programs if the daemon has no `PATH`.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More of a script's first line is not read by the kernel (`BINPRM_BUF_SIZE`).
const SHEBANG_MAX: u64 = 256;

/// Returns the directories in which programs without a slash are searched for.
pub fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| SEARCH_PATH.into())
}

/// Returns why a program can't be run by this process, and the cure; none if it can.
pub fn obstacle(program: &Path) -> Option<String> {
    let shown = program.display();
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return of_file(program);
    }
    let path = search_path();
    let found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .filter(|path| path.is_file())
        .collect();
    match found.first() {
        Some(first) => match found.iter().any(|path| of_file(path).is_none()) {
            true => None,
            false => of_file(first),
        },
        None => Some(format!(
            "there is no program {shown} in {}: install it, or write its path",
            path.display()
        )),
    }
}

fn of_file(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Some(format!(
                "there is no program {shown}: install it, or correct the path"
            ));
        }
        Err(error) => {
            let reason = os_error::reason(&error, &shown.to_string());
            return Some(format!("{shown} can't be run: {reason}"));
        }
        Ok(found) if !found.is_file() => {
            return Some(format!(
                "{shown} is not a regular file, so it can't be run: name a program"
            ));
        }
        Ok(_) => {}
    }
    if access(path, AccessFlags::X_OK).is_err() {
        return Some(format!("{shown} is not executable: chmod +x {shown}"));
    }
    let interpreter = interpreter(path)?;
    (!interpreter.exists()).then(|| {
        format!(
            "{shown} can't be run, because there is no interpreter {}: install it, or correct the \
             first line of the script",
            interpreter.display()
        )
    })
}

/// Returns the interpreter of a script; none if the file is not a script or can't be read.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    let file = File::open(path).ok()?.take(SHEBANG_MAX);
    BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.trim_ascii_start();
    let name = line.split(u8::is_ascii_whitespace).next()?;
    let name = std::str::from_utf8(name).ok()?;
    name.starts_with('/').then(|| name.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_that_cannot_be_run_is_named_with_the_reason() {
        let at = tempfile::tempdir().unwrap();
        let at = at.path();
        let script = |name: &str, text: &str, mode: u32| {
            let path = at.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        script("fine", "#!/bin/sh\n", 0o755);
        script("closed", "#!/bin/sh\n", 0o644);
        script("foreign", "#! /nonexistent/sh -e\n", 0o755);
        fs::create_dir(at.join("directory")).unwrap();
        let path = |name: &str| at.join(name).display().to_string();
        for (name, program, expected) in [
            ("a script", path("fine"), None),
            ("a program in PATH", "sh".to_owned(), None),
            ("no file", path("none"), Some("there is no program")),
            (
                "a file as directory",
                path("fine/x"),
                Some("there is no program"),
            ),
            (
                "no permission",
                path("closed"),
                Some("is not executable: chmod +x"),
            ),
            (
                "no interpreter",
                path("foreign"),
                Some("no interpreter /nonexistent/sh:"),
            ),
            (
                "a directory",
                path("directory"),
                Some("is not a regular file"),
            ),
            (
                "not in PATH",
                "no-such-program".to_owned(),
                Some("install it, or write its path"),
            ),
        ] {
            let found = obstacle(Path::new(&program));
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(part)) => assert!(found.contains(part), "{name}: {found}"),
                (_, _) => panic!("{name}: {program}: {found:?}, expected {expected:?}"),
            }
        }
    }
}
