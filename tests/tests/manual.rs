//! Man pages and completions have every command and every option. Needs no root.

use std::{fs, path::Path, process};

use clap::{Arg, Command};
use knock_tests::{
    binary::binaries,
    manual::{self, COMPLETIONS},
};

#[test]
fn every_option_is_in_every_page_and_completion() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path();
    manual::write(prefix).unwrap();
    for (command, section) in manual::programs() {
        let name = command.get_name().to_owned();
        let mut command = command.disable_help_subcommand(true);
        command.build();
        check_pages(&command, section, prefix);

        for (shell, place) in COMPLETIONS {
            let file = match shell.to_string().as_str() {
                "zsh" => format!("_{name}"),
                "fish" => format!("{name}.fish"),
                "bash" => format!("{name}.bash"),
                other => panic!("{other}: where are its files?"),
            };
            let completion = read(&prefix.join(place).join(&file));
            for arg in options(&command) {
                for name in names(arg) {
                    let word = match shell.to_string().as_str() {
                        "fish" if name.starts_with("--") => format!(" -l {}", &name[2..]),
                        "fish" => format!(" -s {}", &name[1..]),
                        _ => name,
                    };
                    assert!(completion.contains(&word), "{file} lacks {word}");
                }
            }
        }
    }
}

#[test]
fn knock_fleet_has_a_page_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    manual::write_fleet(directory.path()).unwrap();
    let (command, section) = manual::fleet();
    check_pages(
        &command.disable_help_subcommand(true),
        section,
        directory.path(),
    );
    let files: Vec<_> = fs::read_dir(directory.path().join("share/man/man8"))
        .unwrap()
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

/// The page about the configuration has every key of docs/config.md, and nothing that only Markdown shows.
#[test]
fn the_configuration_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    manual::write(directory.path()).unwrap();
    let page = read(&directory.path().join("share/man/man5/seq.toml.5"));
    let text = page.replace("\\-", "-").replace("\\.", ".");
    assert!(page.starts_with(".TH \"seq.toml\" 5"), "{page}");
    assert!(
        text.contains("seq.toml - the configuration file of knock-user"),
        "{text}"
    );
    let documented = include_str!("../../docs/config.md");
    let keys = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut count = 0;
    for (key, _) in keys {
        let key = key.replace('…', "...");
        assert!(text.contains(&key), "{key} is not in\n{text}");
        count += 1;
    }
    assert!(count > 50, "{count} keys and values");
    assert!(text.contains("2^51 sequences"), "{text}");
    for mark in ["](", "|---", "| `", "```"] {
        assert!(!text.contains(mark), "{mark} is in\n{text}");
    }
}

/// The shell itself reads the completions.
#[test]
fn bash_completes_options_and_commands() {
    let directory = tempfile::tempdir().unwrap();
    manual::write(directory.path()).unwrap();
    let place = directory.path().join("share/bash-completion/completions");
    for (program, words, completed) in [
        ("knock-user", "--dry", "--dry-run"),
        ("knock-client", "--then", "--then-connect"),
    ] {
        let script = format!(
            "set -eu; . {}; COMP_WORDS=({program} {words}); COMP_CWORD=1; \
             $(complete -p {program} | sed 's/.* -F \\([^ ]*\\).*/\\1/') {program} {words} {program}; \
             echo \"${{COMPREPLY[@]}}\"",
            place.join(format!("{program}.bash")).display()
        );
        let output = process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {output:?}");
        assert_eq!(printed.trim(), completed, "{program}");
    }
}

/// The shell asks the programs, which know the names.
#[test]
fn bash_completes_names() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("knock")).unwrap();
    let profiles = "[profile.home]\nknock = [\"1\"]\n[profile.holiday]\nknock = [\"1\"]\n\
                    [profile.work]\nknock = [\"1\"]\n";
    fs::write(directory.path().join("knock/config.toml"), profiles).unwrap();
    let programs = binaries().client.parent().unwrap();
    for (program, words, completed) in [
        ("knock-client", "ho", "holiday home"),
        ("knock-client", "--then", "--then-connect"),
        ("knock-client", "proxy w", "work"),
        ("knock-client", "ssh-config w", "work"),
        ("knock-client", "completions z", "zsh"),
        ("knock-user", "--dry", "--dry-run"),
        ("knock-user", "--iface l", "lo"),
        ("knock-user", "grant 192.0.2.1 --door ''", ""),
        ("knock-user", "completions z", "zsh"),
    ] {
        let script = format!(
            "set -e; source <({program} completions bash); COMP_WORDS=({program} {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; COMP_LINE='{program}'; COMP_POINT=0; \
             $(complete -p {program} | sed 's/.* -F \\([^ ]*\\).*/\\1/') {program} \
             \"${{COMP_WORDS[$COMP_CWORD]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\" | sort"
        );
        let path = format!("{}:/usr/bin:/bin", programs.display());
        let output = process::Command::new("bash")
            .args(["-c", &script])
            .env("PATH", path)
            .env("XDG_CONFIG_HOME", directory.path())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {words}: {output:?}");
        let found: Vec<_> = printed.split_whitespace().collect();
        assert_eq!(found.join(" "), completed, "{program} {words}: {output:?}");
    }
}

/// Returns the option as it is typed on the command line.
fn names(arg: &Arg) -> Vec<String> {
    let long = arg.get_long().map(|long| format!("--{long}"));
    let short = arg.get_short().map(|short| format!("-{short}"));
    long.into_iter().chain(short).collect()
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Checks the page of a command, and those of its subcommands.
fn check_pages(command: &Command, section: &str, prefix: &Path) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = format!("share/man/man{section}/{name}.{section}");
    let page = read(&prefix.join(&file));
    // In roff a dash that is not to become a hyphen is escaped.
    let text = page.replace("\\-", "-");
    assert!(
        text.contains(&format!(".TH {name} {section}")),
        "{file}:\n{text}"
    );
    for arg in shown(command) {
        for name in names(arg) {
            assert!(text.contains(&name), "{file} lacks {name}:\n{text}");
        }
        let takes_value = arg.get_action().takes_values();
        let values = arg.get_value_names().filter(|_| takes_value);
        for value in values.into_iter().flatten() {
            assert!(
                text.contains(value.as_str()),
                "{file} lacks {value}:\n{text}"
            );
        }
    }
    for subcommand in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = subcommand.get_name();
        assert!(text.contains(name), "{file} lacks {name}:\n{text}");
        check_pages(subcommand, section, prefix);
    }
}

fn options(command: &Command) -> Vec<&Arg> {
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown(command)
        .chain(subcommands.flat_map(options))
        .collect()
}
