//! The client on other systems: it compiles for macOS and Android, and knocks as a program for Windows under Wine.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use crate::{
    dist, lanes,
    package::Apt,
    prepared,
    report::RunReport,
    shell,
    tools::{self, Verb},
};

/// Targets whose linkers and libraries need a licence or a download that a test can't have: the compiler checks the
/// client for them, and nothing is linked.
const CHECKED: [&str; 3] = [
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
    "aarch64-linux-android",
];

/// The test program.
const TARGET: &str = "wine";

/// After this time the program hangs.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Returns the number of tests that count as skipped where they can't run.
pub(crate) fn rows() -> u32 {
    prepared::declared("tests/tests/wine.rs")
}

/// Where Debian's package has Wine, which is not on the path.
const WINE: &str = "/usr/lib/wine/wine64";

/// A library that Wine 8.0 lacks, of the one function that Rust's standard library uses.
const RANDOM: &str = "\
#include <windows.h>
#include <bcrypt.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length) {
    return BCryptGenRandom(NULL, data, (ULONG)length, BCRYPT_USE_SYSTEM_PREFERRED_RNG) >= 0;
}
";

/// Finds or installs what the tests need.
///
/// # Errors
/// Something can't be installed.
pub fn get(sh: &Shell, apt: &Apt<'_>) -> Result<()> {
    tools::get(apt, Verb::Elsewhere)?;
    if !PathBuf::from(WINE).is_file() {
        apt.install(&["wine64"], "the client for Windows runs in it")?;
    }
    ensure!(PathBuf::from(WINE).is_file(), "there is no {WINE}");
    for target in CHECKED {
        dist::get_target(sh, target)?;
    }
    dist::prepare_windows(sh)
}

/// Runs the tests and adds their results.
///
/// # Errors
/// A program can't be started.
pub fn test(sh: &Shell, report: &mut RunReport) -> Result<()> {
    for target in CHECKED {
        let check = shell::cargo(sh).args(["check", "--package", "knock-client"]);
        let name = format!("client for {target}");
        report.step(&name, check.args(["--target", target]))?;
    }
    let client = dist::windows_client(sh)?;
    let place = shell::target_dir().join("wine");
    fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    let program = place.join("knock-client.exe");
    fs::copy(&client, &program).with_context(|| format!("copying {}", client.display()))?;
    let source = place.join("random.c");
    fs::write(&source, RANDOM).with_context(|| format!("writing {}", source.display()))?;
    let compile = sh
        .cmd("x86_64-w64-mingw32-gcc")
        .args(["-shared", "-o"])
        .args([&place.join("bcryptprimitives.dll"), &source])
        .arg("-lbcrypt");
    shell::run_quietly("compiling a library for Wine", compile)?;
    let Some(tests) = prepared::build(sh, TARGET, report)? else {
        return Ok(());
    };
    let variables = vec![
        ("KNOCK_WINE", WINE.into()),
        ("KNOCK_WINDOWS_CLIENT", program.into()),
        ("WINEPREFIX", place.join("prefix").into()),
    ];
    let setting = prepared::setting(variables, Vec::new(), LIMIT);
    lanes::run("clients elsewhere", &[tests], &setting, report)?;
    Ok(())
}
