//! Describes programs of other owners that run before ours at traffic control.

use serde::{Deserialize, Serialize};

use crate::{interfaces::admission, kernel::tcx::Placed};

/// A program of another owner that runs before ours.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Preceding {
    /// The id of the program.
    pub program: u32,
    /// The id of its link; 0 if it was attached without one.
    pub link: u32,
    /// Its name; none if this process may not read it.
    pub name: Option<String>,
}

/// Returns the programs at these places, with their names.
pub fn named(places: &[Placed]) -> Vec<Preceding> {
    let named = places.iter().map(|placed| Preceding {
        program: placed.program,
        link: placed.link,
        name: admission::name_of(placed.program),
    });
    named.collect()
}

/// Describes what these programs do, in words that follow the name of the interface; none if there are none.
pub fn effect(programs: &[Preceding]) -> Option<String> {
    let described = programs
        .iter()
        .map(|Preceding { program, name, .. }| match name {
            Some(name) => format!("{program} (`{name}`)"),
            None => program.to_string(),
        });
    let described = described.collect::<Vec<_>>().join(", ");
    match programs {
        [] => None,
        [_] => Some(format!(
            "program {described} of another owner runs before it: what that drops, passes or redirects is \
             not judged"
        )),
        _ => Some(format!(
            "programs {described} of other owners run before it: what these drop, pass or redirect is not \
             judged"
        )),
    }
}

/// Describes the same with the cure, and how to find names that this process may not read.
pub fn text(programs: &[Preceding]) -> Option<String> {
    let effect = effect(programs)?;
    let unnamed = programs.iter().filter(|one| one.name.is_none());
    let unnamed: Vec<_> = unnamed
        .map(|one| format!("`bpftool prog show id {}`", one.program))
        .collect();
    let unnamed = match unnamed.as_slice() {
        [] => String::new(),
        [only] => format!("{only} names it; "),
        _ => format!("{} name them; ", unnamed.join(" and ")),
    };
    let linked = programs.iter().filter(|one| one.link != 0);
    let linked: Vec<_> = linked
        .map(|one| format!("`bpftool link detach id {}`", one.link))
        .collect();
    let detach = match linked.as_slice() {
        [] => String::new(),
        _ => format!(", or run {}", linked.join(" and ")),
    };
    Some(format!("{effect}; {unnamed}stop what attached it{detach}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_its_name_and_its_cure() {
        let program = |program, link, name: Option<&str>| Preceding {
            program,
            link,
            name: name.map(str::to_owned),
        };
        for (row, programs, expected) in [
            ("none", vec![], None),
            (
                "one with a name",
                vec![program(7, 3, Some("cil_from_netdev"))],
                Some(
                    "program 7 (`cil_from_netdev`) of another owner runs before it: what that drops, passes or \
                     redirects is not judged; stop what attached it, or run `bpftool link detach id 3`",
                ),
            ),
            (
                "one without a link, whose name can't be read",
                vec![program(7, 0, None)],
                Some(
                    "program 7 of another owner runs before it: what that drops, passes or redirects is not \
                     judged; `bpftool prog show id 7` names it; stop what attached it",
                ),
            ),
            (
                "two",
                vec![program(7, 3, Some("one")), program(8, 4, None)],
                Some(
                    "programs 7 (`one`), 8 of other owners run before it: what these drop, pass or redirect is \
                     not judged; `bpftool prog show id 8` names it; stop what attached it, or run `bpftool link \
                     detach id 3` and `bpftool link detach id 4`",
                ),
            ),
        ] {
            assert_eq!(text(&programs).as_deref(), expected, "{row}");
        }
    }
}
