//! Recognises commands that failed because a server could not be reached.

use anyhow::Error;

/// Texts that apt-get, cargo and rustup print in that case, in lower case.
const SIGNS: [&str; 22] = [
    "temporary failure resolving",
    "could not resolve",
    "couldn't resolve",
    "failed to lookup address",
    "dns error",
    "unable to connect to",
    "could not connect to",
    "couldn't connect to",
    "failed to connect to",
    "connection failed",
    "connection refused",
    "connection reset by peer",
    "connection timed out",
    "timeout was reached",
    "operation timed out",
    "network is unreachable",
    "no route to host",
    "spurious network error",
    "error sending request",
    "could not download file",
    "ssl certificate problem",
    "certificate verification failed",
];

/// Returns the first line that reports an unreachable server.
pub fn sign(output: &str) -> Option<&str> {
    output.lines().map(str::trim).find(|line| is_sign(line))
}

/// Returns whether a line reports an unreachable server.
pub fn is_sign(line: &str) -> bool {
    let line = line.to_lowercase();
    SIGNS.iter().any(|sign| line.contains(sign))
}

/// The beginning of the error for a command that failed with such a line.
const UNREACHABLE: &str = "could not reach ";

/// Returns the error for a command that failed with such a line; `command` is its whole command line.
pub fn unreachable(command: &str, sign: &str) -> String {
    format!("{UNREACHABLE}{}: {sign}", server(command))
}

/// Returns whether an error is one of [`unreachable`].
pub fn is_unreachable(error: &Error) -> bool {
    format!("{error:#}").contains(UNREACHABLE)
}

fn server(command: &str) -> &'static str {
    let runs = |program: &str| {
        let mut words = command.split_whitespace();
        words.any(|word| word.rsplit('/').next() == Some(program))
    };
    if runs("apt-get") || runs("mmdebstrap") {
        "the package archive (apt's sources)"
    } else if runs("rustup") {
        "the server that rustup downloads toolchains from"
    } else if runs("cargo") {
        "the crate registry (crates.io)"
    } else {
        "a server"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_network_are_recognized() {
        let table = [
            (
                "apt, no name server",
                "apt-get update -qq",
                "Hit:1 x\nW: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.debian.org'",
                Some(
                    "could not reach the package archive (apt's sources): W: Failed to fetch \
                     http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure \
                     resolving 'deb.debian.org'",
                ),
            ),
            (
                "apt, proxy",
                "env A=B /usr/bin/apt-get install x",
                "E: Unable to connect to 127.0.0.1:1:",
                Some(
                    "could not reach the package archive (apt's sources): E: Unable to connect to \
                     127.0.0.1:1:",
                ),
            ),
            (
                "cargo",
                "/home/dev/.cargo/bin/cargo build",
                "error: failed to download from `https://static.crates.io/x`\n\nCaused by:\n  [6] Could not resolve hostname",
                Some(
                    "could not reach the crate registry (crates.io): [6] Could not resolve hostname",
                ),
            ),
            (
                "rustup",
                "rustup toolchain install nightly",
                "error: could not download file from 'https://static.rust-lang.org/x'",
                Some(
                    "could not reach the server that rustup downloads toolchains from: error: could \
                     not download file from 'https://static.rust-lang.org/x'",
                ),
            ),
            (
                "a compiler's fault",
                "cargo build",
                "error[E0425]: cannot find value `x`",
                None,
            ),
            (
                "apt, a conflict",
                "apt-get install x",
                "E: Packages need to be removed but remove is disabled.",
                None,
            ),
            (
                "apt, unknown package",
                "apt-get install x",
                "E: Unable to locate package x",
                None,
            ),
        ];
        for (name, command, output, expected) in table {
            let found = sign(output).map(|sign| unreachable(command, sign));
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
