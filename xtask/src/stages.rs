//! What `cargo xtask test` runs after the tests of the host: virtual machines, packages, other systems.

use anyhow::Result;
use xshell::Shell;

use crate::{
    containers, dist::Build, elsewhere, fleet, machine, package::Apt, packages, report::RunReport,
    shell, twice, vm,
};

/// A part of the run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RunStage {
    /// Root tests on other kernels.
    Kernels,
    /// The engine of a fleet.
    Fleet,
    /// Packages and archives in pristine systems.
    Packages,
    /// The package on a Debian with systemd.
    Machine,
    /// The same with other network cards.
    Cards,
    /// Root tests on another processor.
    Arm64,
    /// Container engines.
    Containers,
    /// The client on other systems.
    Elsewhere,
    /// Everything that is published, built in two directories.
    Twice,
}

/// The chosen stages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChosenStages<'a> {
    pub(crate) root: bool,
    pub(crate) vm: bool,
    /// Also what takes long.
    pub(crate) all: bool,
    pub(crate) filter: Option<&'a str>,
}

/// Runs a stage whose programs are there.
type Run = Box<dyn FnOnce(&Shell, &mut RunReport) -> Result<()>>;

/// A stage, and its run or the reason why it can't run.
pub(crate) struct PreparedStage {
    stage: RunStage,
    run: Result<Run>,
}

impl RunStage {
    const ALL: [Self; 9] = [
        Self::Kernels,
        Self::Fleet,
        Self::Packages,
        Self::Machine,
        Self::Cards,
        Self::Arm64,
        Self::Containers,
        Self::Elsewhere,
        Self::Twice,
    ];

    fn name(self) -> String {
        match self {
            Self::Kernels => format!("kernels {}", vm::SERIES.join(", ")),
            Self::Fleet => "fleet".to_owned(),
            Self::Packages => "packages".to_owned(),
            Self::Machine => "machine".to_owned(),
            Self::Cards => "machine with other cards".to_owned(),
            Self::Arm64 => "arm64".to_owned(),
            Self::Containers => "container engines".to_owned(),
            Self::Elsewhere => "clients elsewhere".to_owned(),
            Self::Twice => "dist --twice".to_owned(),
        }
    }

    /// Returns how many tests count as skipped where it can't run.
    fn count(self) -> u32 {
        match self {
            Self::Kernels => vm::suites(),
            Self::Fleet => fleet::rows(),
            Self::Packages => packages::rows(),
            Self::Machine => machine::ROWS,
            Self::Cards => machine::ROWS_OF_CARDS,
            Self::Arm64 => vm::arm64_suites(),
            Self::Containers => containers::rows(),
            Self::Elsewhere => elsewhere::rows(),
            Self::Twice => 1,
        }
    }

    /// Returns whether it takes too long for each change.
    fn is_long(self) -> bool {
        match self {
            Self::Kernels | Self::Fleet | Self::Packages => false,
            Self::Machine
            | Self::Cards
            | Self::Arm64
            | Self::Containers
            | Self::Elsewhere
            | Self::Twice => true,
        }
    }

    fn is_virtual(self) -> bool {
        match self {
            Self::Kernels | Self::Machine | Self::Cards | Self::Arm64 => true,
            Self::Fleet | Self::Packages | Self::Containers | Self::Elsewhere | Self::Twice => {
                false
            }
        }
    }

    /// Returns the reason why it is not part of a run, if there is one.
    fn left_out(self, chosen: ChosenStages<'_>) -> Option<String> {
        if !chosen.vm && self.is_virtual() {
            return Some("--no-vm".to_owned());
        }
        if !chosen.root {
            return Some("--no-root".to_owned());
        }
        if let Some(filter) = chosen.filter {
            return Some(format!("only tests named `{filter}`"));
        }
        (self.is_long() && !chosen.all).then(|| "--all runs it".to_owned())
    }

    /// Finds or installs what it needs; packages have programs of this build.
    fn get(self, sh: &Shell, apt: &Apt<'_>, build: Build) -> Result<Run> {
        Ok(match self {
            Self::Kernels => {
                let machines = vm::get(sh, apt, &vm::SERIES)?;
                Box::new(move |sh, report| vm::test(sh, &machines, report))
            }
            Self::Arm64 => {
                let machines = vm::get_arm64(sh, apt)?;
                Box::new(move |sh, report| vm::test(sh, &machines, report))
            }
            Self::Fleet => {
                fleet::get(apt)?;
                Box::new(|sh, report| fleet::test(sh, None, report))
            }
            Self::Packages => {
                packages::get(sh, apt)?;
                Box::new(move |sh, report| packages::test(sh, None, build, report))
            }
            Self::Machine => {
                let parts = machine::get(sh, apt)?;
                let rows = machine::Rows::WithoutOtherCards;
                Box::new(move |sh, report| machine::test(sh, &parts, rows, report))
            }
            Self::Cards => {
                let parts = machine::get(sh, apt)?;
                let rows = machine::Rows::OfOtherCards;
                Box::new(move |sh, report| machine::test(sh, &parts, rows, report))
            }
            Self::Containers => {
                containers::get(apt)?;
                Box::new(containers::test)
            }
            Self::Elsewhere => {
                elsewhere::get(sh, apt)?;
                Box::new(elsewhere::test)
            }
            Self::Twice => {
                twice::get(sh, apt)?;
                Box::new(twice::test)
            }
        })
    }
}

/// Finds or installs what the chosen stages need, and reports which are left out.
pub(crate) fn prepare(
    sh: &Shell,
    apt: &Apt<'_>,
    chosen: ChosenStages<'_>,
    report: &mut RunReport,
) -> Vec<PreparedStage> {
    let mut prepared = Vec::new();
    for stage in RunStage::ALL {
        if let Some(why) = stage.left_out(chosen) {
            report.left_out(&stage.name(), &why);
            continue;
        }
        let build = match chosen.all {
            // The machine installs what is published, and packages are built once in a run.
            true => Build::Published,
            false => Build::Quick,
        };
        let run = stage.get(sh, apt, build).inspect_err(|why| {
            println!("{}: skipped: {}", stage.name(), shell::in_short(why));
        });
        prepared.push(PreparedStage { stage, run });
    }
    prepared
}

/// Runs the stages one after the other.
pub(crate) fn run(sh: &Shell, prepared: Vec<PreparedStage>, report: &mut RunReport) {
    for PreparedStage { stage, run } in prepared {
        let name = stage.name();
        match run {
            Ok(run) => {
                if let Err(why) = run(sh, report) {
                    report.fail(&format!("{name}: {}", shell::in_short(&why)), 0.0);
                }
            }
            Err(why) => report.skipped(&name, stage.count(), &shell::in_short(&why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_why_a_stage_is_left_out() {
        let all = ChosenStages {
            root: true,
            vm: true,
            all: true,
            filter: None,
        };
        let table = [
            ("everything", all, &[][..]),
            (
                "by default",
                ChosenStages { all: false, ..all },
                &[
                    (RunStage::Machine, "--all runs it"),
                    (RunStage::Cards, "--all runs it"),
                    (RunStage::Arm64, "--all runs it"),
                    (RunStage::Containers, "--all runs it"),
                    (RunStage::Elsewhere, "--all runs it"),
                    (RunStage::Twice, "--all runs it"),
                ],
            ),
            (
                "no machines",
                ChosenStages { vm: false, ..all },
                &[
                    (RunStage::Kernels, "--no-vm"),
                    (RunStage::Machine, "--no-vm"),
                    (RunStage::Cards, "--no-vm"),
                    (RunStage::Arm64, "--no-vm"),
                ],
            ),
            (
                "no root",
                ChosenStages { root: false, ..all },
                &RunStage::ALL.map(|stage| (stage, "--no-root")),
            ),
            (
                "a filter",
                ChosenStages {
                    filter: Some("scan"),
                    ..all
                },
                &RunStage::ALL.map(|stage| (stage, "only tests named `scan`")),
            ),
        ];
        for (name, chosen, expected) in table {
            let left_out = |stage: RunStage| Some((stage, stage.left_out(chosen)?));
            let left_out: Vec<_> = RunStage::ALL.into_iter().filter_map(left_out).collect();
            let left_out: Vec<_> = left_out
                .iter()
                .map(|(stage, why)| (*stage, why.as_str()))
                .collect();
            assert_eq!(left_out, expected, "{name}");
        }
    }
}
