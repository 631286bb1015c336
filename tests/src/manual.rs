//! Man pages and shell completions of the programs, made of their command lines; and the man page of the
//! configuration file, made of docs/config.md.

/// The command line alone: knock-fleet itself takes protoc to build.
#[path = "../../knock-fleet/src/cli.rs"]
mod fleet;

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

/// Returns the programs and the sections of the manual that they belong to.
pub fn programs() -> [(Command, &'static str); 2] {
    [
        // Administrators run it, as root.
        (knock_user::cli::Cli::command(), "8"),
        (knock_client::cli::Cli::command(), "1"),
    ]
}

/// Where a shell looks for completions, below a prefix such as `/usr/local`.
pub const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions"),
    (Shell::Fish, "share/fish/vendor_completions.d"),
    (Shell::Zsh, "share/zsh/site-functions"),
];

/// Writes pages and completions of all programs below a prefix.
///
/// # Errors
/// They can't be written.
pub fn write(prefix: &Path) -> io::Result<()> {
    for (command, section) in programs() {
        let name = command.get_name().to_owned();
        // The help of the help needs no page.
        let mut command = command.disable_help_subcommand(true);
        for (shell, place) in COMPLETIONS {
            let directory = prefix.join(place);
            fs::create_dir_all(&directory)?;
            clap_complete::generate_to(shell, &mut command, &name, directory)?;
        }
        let pages = prefix.join(format!("share/man/man{section}"));
        fs::create_dir_all(&pages)?;
        write_pages(&command, section, &pages)?;
    }
    let pages = prefix.join("share/man/man5");
    fs::create_dir_all(&pages)?;
    fs::write(pages.join("seq.toml.5"), config_page())
}

/// Returns knock-fleet, whose package is one of its own.
pub fn fleet() -> (Command, &'static str) {
    (fleet::Cli::command(), "8")
}

/// Writes the page of knock-fleet below a prefix. It has no options to complete.
///
/// # Errors
/// It can't be written.
pub fn write_fleet(prefix: &Path) -> io::Result<()> {
    let (command, section) = fleet();
    let pages = prefix.join(format!("share/man/man{section}"));
    fs::create_dir_all(&pages)?;
    write_pages(&command, section, &pages)
}

/// Returns the page of docs/config.md as `man 5 seq.toml` shows it.
pub fn config_page() -> String {
    let text = include_str!("../../docs/config.md");
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("* ["))
        .collect();
    let mut page = "# NAME\n\nseq.toml - the configuration file of knock-user\n\n".to_owned();
    let mut is_code = false;
    let mut columns: Vec<&str> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        is_code ^= line.starts_with("```");
        let is_head = lines
            .get(index + 1)
            .is_some_and(|next| next.starts_with("|---"));
        match cells(line).filter(|_| !is_code) {
            Some(names) if is_head => columns = names,
            Some(_) if line.starts_with("|---") => page.push('\n'),
            // A page is too narrow for tables: each row becomes an item of a list.
            Some(row) => page += &item(&columns, &row),
            None if is_code => page += line,
            None => page += &without_links(line),
        }
        if cells(line).is_none() || is_code {
            page.push('\n');
        }
    }
    mandown::convert(&with_plain_powers(&page), "seq.toml", 5)
}

/// Writes `2⁵¹` as `2^51`: a page has only what ASCII has, where it would become 251.
fn with_plain_powers(text: &str) -> String {
    const DIGITS: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    let mut plain = String::new();
    let mut is_raised = false;
    for c in text.chars() {
        let digit = DIGITS.chars().position(|digit| digit == c);
        let Some(digit) = digit else {
            is_raised = false;
            plain.push(c);
            continue;
        };
        if !is_raised {
            plain.push('^');
        }
        is_raised = true;
        plain += &digit.to_string();
    }
    plain
}

/// Returns the cells of a row of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// Returns a row of a table as an item of a list; a column without a name needs none.
fn item(columns: &[&str], row: &[&str]) -> String {
    let mut cells = columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
    let first = cells.next().map_or("", |(_, cell)| cell);
    let rest: Vec<_> = cells
        .map(|(column, cell)| match *column {
            "" => (*cell).to_owned(),
            column => format!("{column} {cell}."),
        })
        .collect();
    without_links(&format!("* {first}: {}\n", rest.join(" ")))
}

/// Returns a line with the texts of its links only: a man page can't follow them.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((_, after)) = after.split_once(')') else {
            break;
        };
        match before.rsplit_once('[') {
            Some((begin, name)) => text.extend([begin, name]),
            None => text += before,
        }
        rest = after;
    }
    text + rest
}

/// Writes a page for a command and for each of its subcommands: `knock-user.8`, `knock-user-check.8`.
fn write_pages(command: &Command, section: &str, directory: &Path) -> io::Result<()> {
    let man = Man::new(command.clone()).section(section);
    man.generate_to(directory)?;
    for subcommand in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(subcommand, section, directory)?;
    }
    Ok(())
}
