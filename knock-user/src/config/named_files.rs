//! Warns about one-time files and programs that the configuration names and that can't be used.
//! They do not affect other doors, so they are not errors.

use std::path::Path;

use nix::unistd::{Uid, User};

use super::{
    checked::Checked, include, one_time_lines, places::FileLines, reader, whole_file::read_text,
};
use crate::{
    host::{credentials, files, programs},
    model::{
        otp::SecretOrigin,
        problem::{Problem, ProblemReport},
        settings::{Dynamic, Settings},
    },
};

/// The user as which the service runs (`dist/knock.sysusers`).
const SERVICE: &str = "knock";

impl Checked {
    /// Returns warnings about the one-time files and programs that it names.
    pub fn file_warnings(&self) -> Vec<Problem> {
        warnings(&self.settings, &self.places)
    }
}

impl Checked {
    /// Returns warnings about files that root can read and the service can't, if there is its user.
    pub fn file_warnings_of_service(&self) -> Vec<Problem> {
        let user = match Uid::effective().is_root() {
            true => User::from_name(SERVICE).ok().flatten(),
            false => None,
        };
        user.map(|user| self.unreadable_for(&user))
            .unwrap_or_default()
    }

    fn unreadable_for(&self, user: &User) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut look = |line: Option<usize>, key: &str, path: &Path| {
            if files::may_read(path, user) || credentials::has(path) {
                return;
            }
            let (shown, name) = (path.display(), &user.name);
            let cure = match key {
                // Used lines are marked in it.
                "one_time" => format!("sudo chown {name} {shown}"),
                _ => format!("sudo chgrp {name} {shown} && sudo chmod 640 {shown}"),
            };
            found.push(Problem {
                line,
                key: key.to_owned(),
                reason: format!(
                    "the service runs as user {name}, which can't read {shown}: `{cure}`, and let \
                     that user enter its directory"
                ),
            });
        };
        let Self {
            settings, places, ..
        } = self;
        let include = places.keys.get("include").copied();
        for (_, file) in self.file.files().skip(1) {
            look(include, "include", Path::new(file));
        }
        for (index, door) in settings.doors.iter().enumerate() {
            match &door.dynamic {
                Some(Dynamic::OneTime(one_time)) => {
                    look(
                        places.of_door(index, "one_time"),
                        "one_time",
                        &one_time.file,
                    );
                }
                Some(Dynamic::Otp(otp)) => {
                    if let SecretOrigin::File(path) = &otp.origin {
                        look(places.of_door(index, "otp"), "secret_file", path);
                    }
                }
                None => {}
            }
        }
        if let Some(spa) = settings.spa().filter(|_| settings.has_user_keys()) {
            for (key, path) in spa.files() {
                look(places.of_spa(key), key, path);
            }
        }
        for (index, _, fwknop) in settings.fwknop_users() {
            look(places.of_user(index, "fwknop"), "fwknop", &fwknop.file);
        }
        found
    }
}

/// Returns the same warnings about the doors of a file that may have errors.
pub fn warnings_despite_errors(path: &Path) -> Vec<Problem> {
    let Ok(text) = read_text(path) else {
        return Vec::new();
    };
    let text = include::join(path, &text).text;
    let mut report = ProblemReport::new(&text, path.parent().unwrap_or(Path::new("")));
    let read = reader::read(&text, &mut report);
    read.map(|read| warnings(&read.settings, &read.places))
        .unwrap_or_default()
}

fn warnings(settings: &Settings, places: &FileLines) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (index, door) in settings.doors.iter().enumerate() {
        let mut add = |key: &str, reason| {
            warnings.push(Problem {
                line: places.of_door(index, key),
                key: key.to_owned(),
                reason,
            });
        };
        if let Some(Dynamic::OneTime(one_time)) = &door.dynamic {
            for reason in one_time_lines::warnings(settings, door, one_time) {
                add("one_time", reason);
            }
        }
        for (key, command) in [("on_open", &door.on_open), ("on_close", &door.on_close)] {
            let program = command.as_ref().map(|command| command.program.as_path());
            if let Some(obstacle) = program.and_then(programs::obstacle) {
                add(key, obstacle);
            }
        }
    }
    warnings
}
