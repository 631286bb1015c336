//! Man pages and shell completions of the programs, made of their command lines.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

/// The programs and the sections of the manual that they belong to.
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
    Ok(())
}

/// A page for a command and for each of its subcommands: `knock-user.8`, `knock-user-check.8`.
fn write_pages(command: &Command, section: &str, directory: &Path) -> io::Result<()> {
    let man = Man::new(command.clone()).section(section);
    man.generate_to(directory)?;
    for subcommand in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(subcommand, section, directory)?;
    }
    Ok(())
}
