//! Parses knockd's file: sections of `key = value` lines.
//!
//! Values that knockd refuses are refused, and so are those that it misreads: a port that is not a
//! number, a key that is given twice.

use knock_common::layout::FlagClass;
use knock_sequence::Knock;

use super::values::{KnockdOtp, flags, otp, sequence, whole};
use crate::model::problem::Problem;

/// The section that is not a door; knockd requires lower case.
const OPTIONS: &str = "options";

/// A value, and its line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Located<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

impl<T> Located<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located {
            line: self.line,
            value: change(self.value),
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Conf {
    pub(super) interface: Option<Located<String>>,
    pub(super) syslog: Option<Located<()>>,
    pub(super) log_file: Option<Located<String>>,
    pub(super) pid_file: Option<Located<String>>,
    pub(super) doors: Vec<KnockdDoor>,
}

/// A section that is a door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KnockdDoor {
    pub(super) name: Located<String>,
    pub(super) sequence: KnockdSequence,
    /// Seconds.
    pub(super) seq_timeout: Option<Located<u64>>,
    pub(super) tcp_flags: Option<Located<FlagClass>>,
    pub(super) target: Option<Located<String>>,
    pub(super) start: Option<Located<String>>,
    pub(super) start_6: Option<Located<String>>,
    pub(super) stop: Option<Located<String>>,
    pub(super) stop_6: Option<Located<String>>,
    /// Seconds.
    pub(super) cmd_timeout: Option<Located<u64>>,
    /// Seconds in which the door accepts no further sequence; a key of some forks.
    pub(super) seq_cooldown: Option<Located<u64>>,
}

/// The kind of a door's sequence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum KnockdSequence {
    Fixed(Located<Vec<Knock>>),
    OneTime(Located<String>),
    Otp(Located<KnockdOtp>),
}

/// Reads a whole file.
///
/// # Errors
/// Returns every problem of the file.
pub(super) fn parse(text: &str) -> Result<Conf, Vec<Problem>> {
    let mut reader = ConfReader::default();
    for (index, line) in text.split('\n').enumerate() {
        reader.line(index + 1, line.trim());
    }
    reader.end_section();
    if reader.problems.is_empty() {
        Ok(reader.conf)
    } else {
        Err(reader.problems)
    }
}

/// A door while it is read.
#[derive(Debug, Default)]
struct PartialDoor {
    sequence: Option<KnockdSequence>,
    /// A sequence had an error.
    sequence_is_wrong: bool,
    seq_timeout: Option<Located<u64>>,
    tcp_flags: Option<Located<FlagClass>>,
    target: Option<Located<String>>,
    start: Option<Located<String>>,
    start_6: Option<Located<String>>,
    stop: Option<Located<String>>,
    stop_6: Option<Located<String>>,
    cmd_timeout: Option<Located<u64>>,
    seq_cooldown: Option<Located<u64>>,
}

/// The section that is being read.
#[derive(Debug, Default)]
enum ConfSection {
    #[default]
    None,
    Options,
    Door(Located<String>, Box<PartialDoor>),
}

#[derive(Debug, Default)]
struct ConfReader {
    conf: Conf,
    section: ConfSection,
    problems: Vec<Problem>,
}

impl ConfReader {
    fn wrong(&mut self, line: usize, key: &str, reason: impl Into<String>) {
        self.problems.push(Problem {
            line: Some(line),
            key: key.to_owned(),
            reason: reason.into(),
        });
    }

    fn line(&mut self, number: usize, line: &str) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            self.end_section();
            self.begin_section(number, name.trim());
            return;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (line, None),
        };
        let name = key.to_ascii_lowercase();
        match (std::mem::take(&mut self.section), value) {
            (ConfSection::None, _) => {
                let reason = "is before the first section: begin with [options], or with the \
                              name of a door in brackets";
                self.wrong(number, &name, reason);
            }
            (section, None) => {
                // knockd accepts it in any section.
                if name == "usesyslog" {
                    self.conf.syslog = Some(Located {
                        line: number,
                        value: (),
                    });
                } else {
                    self.wrong(number, &name, "has no value: write key = value");
                }
                self.section = section;
            }
            (ConfSection::Options, Some(value)) => {
                self.section = ConfSection::Options;
                self.option(number, &name, value);
            }
            (ConfSection::Door(header, mut door), Some(value)) => {
                self.door(number, &name, value, &mut door);
                self.section = ConfSection::Door(header, door);
            }
        }
    }

    fn begin_section(&mut self, line: usize, name: &str) {
        if name.is_empty() {
            self.wrong(line, "", "a section needs a name, as in [openSSH]");
        }
        self.section = if name == OPTIONS {
            ConfSection::Options
        } else {
            let header = Located {
                line,
                value: name.to_owned(),
            };
            ConfSection::Door(header, Box::default())
        };
    }

    fn end_section(&mut self) {
        let ConfSection::Door(name, door) = std::mem::take(&mut self.section) else {
            return;
        };
        let PartialDoor {
            sequence,
            sequence_is_wrong,
            seq_timeout,
            tcp_flags,
            target,
            start,
            start_6,
            stop,
            stop_6,
            cmd_timeout,
            seq_cooldown,
        } = *door;
        let Some(sequence) = sequence else {
            if !sequence_is_wrong {
                let reason = format!(
                    "[{}] has no sequence, so knockd does not start with it: write one, as in \
                     sequence = 7000,8000:udp,9000",
                    name.value
                );
                self.wrong(name.line, "", reason);
            }
            return;
        };
        self.conf.doors.push(KnockdDoor {
            name,
            sequence,
            seq_timeout,
            tcp_flags,
            target,
            start,
            start_6,
            stop,
            stop_6,
            cmd_timeout,
            seq_cooldown,
        });
    }

    fn option(&mut self, line: usize, name: &str, value: &str) {
        let entry = Located {
            line,
            value: value.to_owned(),
        };
        let before = match name {
            "interface" => self.conf.interface.replace(entry),
            "logfile" => self.conf.log_file.replace(entry),
            "pidfile" => self.conf.pid_file.replace(entry),
            "usesyslog" => {
                self.wrong(line, name, "takes no value: write UseSyslog alone");
                None
            }
            _ => {
                let reason = "unknown key: those of [options] are UseSyslog, LogFile, PidFile and \
                              Interface";
                self.wrong(line, name, reason);
                None
            }
        };
        if let Some(before) = before {
            self.twice(line, name, before.line);
        }
    }

    fn door(&mut self, line: usize, name: &str, value: &str, door: &mut PartialDoor) {
        let text = Located {
            line,
            value: value.to_owned(),
        };
        let before = match name {
            "sequence" => {
                let read = sequence(value).map(|knocks| {
                    KnockdSequence::Fixed(Located {
                        line,
                        value: knocks,
                    })
                });
                return self.sequence(line, name, read, door);
            }
            "one_time_sequences" => {
                let read = if value.is_empty() {
                    Err("no file: name the one that has the sequences".to_owned())
                } else {
                    Ok(KnockdSequence::OneTime(text))
                };
                return self.sequence(line, name, read, door);
            }
            "otp" => {
                let read = otp(value).map(|otp| KnockdSequence::Otp(text.map(|_| otp)));
                return self.sequence(line, name, read, door);
            }
            "seq_timeout" | "timeout" => self.seconds(line, name, value, &mut door.seq_timeout),
            "seq_cooldown" => self.seconds(line, name, value, &mut door.seq_cooldown),
            "cmd_timeout" => self.seconds(line, name, value, &mut door.cmd_timeout),
            "tcpflags" => match flags(value) {
                Ok(flags) => {
                    let entry = Located { line, value: flags };
                    let before = door.tcp_flags.replace(entry);
                    before.map(|before| before.line)
                }
                Err(reason) => return self.wrong(line, name, reason),
            },
            "target" => replaced(&mut door.target, text),
            "start_command" | "command" => replaced(&mut door.start, text),
            "start_command_6" | "command_6" => replaced(&mut door.start_6, text),
            "stop_command" => replaced(&mut door.stop, text),
            "stop_command_6" => replaced(&mut door.stop_6, text),
            _ => {
                let reason = "unknown key: those of a door are Sequence, One_Time_Sequences, otp, \
                              Seq_Timeout, TCPFlags, Target, Start_Command, Start_Command_6, \
                              Stop_Command, Stop_Command_6, Cmd_Timeout and Seq_Cooldown";
                return self.wrong(line, name, reason);
            }
        };
        if let Some(before) = before {
            self.twice(line, name, before);
        }
    }

    fn twice(&mut self, line: usize, name: &str, before: usize) {
        let reason = format!("is also on line {before}: remove one of them");
        self.wrong(line, name, reason);
    }

    fn sequence(
        &mut self,
        line: usize,
        name: &str,
        read: Result<KnockdSequence, String>,
        door: &mut PartialDoor,
    ) {
        match read {
            Ok(_) if door.sequence.is_some() => {
                let reason = "the door already has a sequence: remove one of them";
                self.wrong(line, name, reason);
            }
            Ok(sequence) => door.sequence = Some(sequence),
            Err(reason) => {
                door.sequence_is_wrong = true;
                self.wrong(line, name, reason);
            }
        }
    }

    fn seconds(
        &mut self,
        line: usize,
        name: &str,
        value: &str,
        slot: &mut Option<Located<u64>>,
    ) -> Option<usize> {
        match whole(value) {
            Some(seconds) => {
                let entry = Located {
                    line,
                    value: seconds,
                };
                slot.replace(entry).map(|before| before.line)
            }
            None => {
                let reason = format!(
                    "{value:?} is not a whole number of seconds, and knockd misreads it: \
                     write one, as in 10"
                );
                self.wrong(line, name, reason);
                None
            }
        }
    }
}

fn replaced(slot: &mut Option<Located<String>>, entry: Located<String>) -> Option<usize> {
    slot.replace(entry).map(|before| before.line)
}
