//! What shells complete: names of profiles and of doors, which the programs know. The shells ask them.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use knock_tests::{binary::binaries, namespace::text};

const PROFILES: &str = "[profile.home]\nknock = [\"1\"]\n[profile.work]\nknock = [\"1\"]\n";

const DOORS: &str = "include = [\"seq.d/*.toml\"]\n[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n";
const INCLUDED: &str = "[[door]]\nname = \"wiki\"\nopen = [\"tcp/80\"]\n";

/// Runs a command with another `/etc`, which has the directory `$1` as `/etc/knock`.
const WITH_DOORS: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/knock
cp -r "$1"/. /mnt/knock
mount --move /mnt /etc
shift
exec "$@"
"#;

/// Completes `$2` and writes the line to the file `$1`, as somebody at a terminal would see it.
const ZSH: &str = r#"
zmodload zsh/zpty
program=${2%% *}
zpty shell "zsh -f -i"
zpty -w shell "PS1= PROMPT_EOL_MARK=; autoload -Uz compinit && compinit -u -D"
zpty -w shell "source <($program completions zsh)"
zpty -w shell "report() { print -r -- \$BUFFER > $1.new; mv $1.new $1 }; zle -N report"
zpty -w shell "bindkey '^I' complete-word; bindkey '^X' report"
zpty -n -w shell "$2"$'\t'$'\x18'
for round in {1..600}; do
    [[ -s $1 ]] && break
    zpty -r -t shell line
    sleep 0.1
done
zpty -d shell
cat $1
"#;

const FISH: &str = r#"
set program (string split -f 1 ' ' $argv[1])
$program completions fish | source
complete -C "$argv[1]" | string split -f 1 \t
"#;

/// A line, and its only completion.
const ROWS: [(&str, &str); 8] = [
    ("knock-client w", "work"),
    ("knock-client proxy h", "home"),
    ("knock-client --then", "--then-connect"),
    ("knock-client completions z", "zsh"),
    ("knock-user grant 192.0.2.1 --door s", "ssh"),
    ("knock-user grant 192.0.2.1 --door w", "wiki"),
    ("knock-user --iface l", "lo"),
    ("knock-user --dry", "--dry-run"),
];

#[test]
fn zsh_completes_names_of_profiles_and_doors() {
    completes(|place, line| {
        let report = place.join("line").display().to_string();
        let output = run(place, &["zsh", "-f", "-c", ZSH, "zsh", &report, line]);
        let _read = fs::remove_file(place.join("line"));
        let printed = text(&output);
        let word = printed.trim_end().rsplit(' ').next();
        word.unwrap_or_default().to_owned()
    });
}

#[test]
fn fish_completes_names_of_profiles_and_doors() {
    completes(|place, line| {
        let output = run(place, &["fish", "--no-config", "-c", FISH, line]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
}

#[track_caller]
fn completes(complete: impl Fn(&Path, &str) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    for (name, content) in [
        ("knock/config.toml", PROFILES),
        ("etc/seq.toml", DOORS),
        ("etc/seq.d/wiki.toml", INCLUDED),
    ] {
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    for (line, completed) in ROWS {
        assert_eq!(complete(place, line), completed, "{line}");
    }
}

fn run(place: &Path, words: &[&str]) -> Output {
    let programs = binaries().client.parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    Command::new("unshare")
        .args(["--mount", "sh", "-c", WITH_DOORS, "sh"])
        .arg(place.join("etc"))
        .args(words)
        .env("PATH", path)
        .env("XDG_CONFIG_HOME", place)
        .env("HOME", place)
        .output()
        .unwrap()
}
