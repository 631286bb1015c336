//! Checks the built kernel object.
//!
//! The build fails where the verifier would reject the object later, because it can name the reason.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

/// The programs of the object: section and function.
const PROGRAMS: [(&str, &str); 5] = [
    ("classifier", "knock_barrier"),
    ("classifier", "knock_ip"),
    ("classifier", "knock_tc"),
    ("xdp.frags", "knock"),
    ("xdp.frags", "knock_bare"),
];

/// The map of log statements, which exists only if there are any.
const LOG_MAP: &str = "AYA_LOGS";

/// The licences that are GPL compatible for the kernel, `license_is_gpl_compatible()` in include/linux/license.h.
const GPL_COMPATIBLE: [&str; 6] = [
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];

/// Sections that only `-C link-arg=--btf` makes.
const BTF_SECTIONS: [&str; 2] = [".BTF", ".BTF.ext"];

/// Those of the object with the baselines, and its maps.
const BASELINES: [(&str, &str); 21] = [
    ("classifier", "pass_tc"),
    ("xdp", "jump"),
    ("xdp", "plain"),
    ("xdp.frags", "deal"),
    ("xdp.frags", "deny"),
    ("xdp.frags", "drop"),
    ("xdp.frags", "flood"),
    ("xdp.frags", "floor_again"),
    ("xdp.frags", "floor_duplicate"),
    ("xdp.frags", "floor_end"),
    ("xdp.frags", "floor_filter"),
    ("xdp.frags", "floor_first"),
    ("xdp.frags", "floor_flow"),
    ("xdp.frags", "floor_give"),
    ("xdp.frags", "floor_grant"),
    ("xdp.frags", "floor_open"),
    ("xdp.frags", "floor_place"),
    ("xdp.frags", "floor_port"),
    ("xdp.frags", "floor_step"),
    ("xdp.frags", "pass"),
    ("xdp.frags", "vary"),
];
const BASELINE_MAPS: [&str; 13] = [
    "CHOICES",
    "DEALT",
    "FLOOR_ALLOW",
    "FLOOR_COUNTERS",
    "FLOOR_EVENTS",
    "FLOOR_FILTER",
    "FLOOR_FIRST",
    "FLOOR_FLOWS",
    "FLOOR_PORTS",
    "FLOOR_PROGRESS",
    "PLAN",
    "SENT",
    "SUBJECT",
];

/// The properties of an object that are checked.
#[derive(Clone, Debug, Default)]
pub struct ObjectFacts {
    programs: BTreeSet<(String, String)>,
    maps: BTreeSet<String>,
    panics: BTreeSet<String>,
    undefined: BTreeSet<String>,
    sections: BTreeSet<String>,
    license: Option<String>,
}

impl ObjectFacts {
    /// Reads them out of an ELF file.
    pub fn read(elf: &[u8]) -> Result<Self> {
        let file = object::File::parse(elf).context("not an ELF file")?;
        let mut facts = Self::default();
        for section in file.sections() {
            let name = section.name().context("a section has no name")?;
            if name == "license" {
                let bytes = section.data().context("reading the license section")?;
                let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
                facts.license = Some(String::from_utf8_lossy(text).into_owned());
            }
            facts.sections.insert(name.to_owned());
        }
        for symbol in file.symbols() {
            let name = symbol.name().context("a symbol has no name")?.to_owned();
            if name.contains("panic") {
                facts.panics.insert(name.clone());
            }
            let Some(index) = symbol.section_index() else {
                if symbol.is_undefined() && !name.is_empty() {
                    facts.undefined.insert(name);
                }
                continue;
            };
            let section = file
                .section_by_index(index)
                .context("a symbol has no section")?;
            let section_name = section.name().context("a section has no name")?;
            if symbol.kind() == SymbolKind::Text
                && section.kind() == SectionKind::Text
                && !section_name.starts_with(".text")
            {
                facts.programs.insert((section_name.to_owned(), name));
            } else if symbol.kind() == SymbolKind::Data && matches!(section_name, ".maps" | "maps")
            {
                facts.maps.insert(name);
            }
        }
        Ok(facts)
    }

    /// Returns all complaints at once: one broken build often breaks several rules.
    pub fn check(&self, programs: &[(&str, &str)], maps: &[&str]) -> Result<()> {
        let mut wrong = Vec::new();
        if !self.panics.is_empty() {
            wrong.push(format!(
                "it can panic ({}): an index, arithmetic or unwrap check survived and the \
                 verifier will reject it; use get(), a mask, wrapping_ or saturating_ operations",
                list(&self.panics)
            ));
        }
        if !self.undefined.is_empty() {
            wrong.push(format!(
                "undefined symbols ({}): define them in knock-ebpf, nothing links them later",
                list(&self.undefined)
            ));
        }
        let expected: BTreeSet<_> = programs
            .iter()
            .map(|&(section, function)| (section.to_owned(), function.to_owned()))
            .collect();
        if self.programs != expected {
            wrong.push(format!(
                "it has the programs {} instead of {}: is `#[xdp]` on the entry function, and \
                 only there?",
                programs_list(&self.programs),
                programs_list(&expected)
            ));
        }
        let missing: BTreeSet<_> = maps
            .iter()
            .copied()
            .filter(|&map| !self.maps.contains(map))
            .collect();
        if !missing.is_empty() {
            wrong.push(format!(
                "it lacks the maps {}: a map that no code uses is optimised away",
                list(&missing)
            ));
        }
        let extra: BTreeSet<_> = self
            .maps
            .iter()
            .map(String::as_str)
            .filter(|map| !maps.contains(map) && *map != LOG_MAP)
            .collect();
        if !extra.is_empty() {
            wrong.push(format!(
                "it has the maps {}, which knock_common::layout::MAPS does not name: add them there",
                list(&extra)
            ));
        }
        for section in BTF_SECTIONS
            .iter()
            .filter(|&&name| !self.sections.contains(name))
        {
            wrong.push(format!(
                "no section {section}: link with `-C link-arg=--btf`"
            ));
        }
        match &self.license {
            None => wrong.push(
                "no section `license`: helpers that knock-ebpf calls are for GPL programs only"
                    .to_owned(),
            ),
            Some(license) if !GPL_COMPATIBLE.contains(&license.as_str()) => wrong.push(format!(
                "its license `{license}` is not one the kernel takes for GPL compatible ({})",
                list(&BTreeSet::from(GPL_COMPATIBLE))
            )),
            Some(_) => {}
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("the kernel object is wrong:\n  {}", wrong.join("\n  "))
    }
}

impl fmt::Display for ObjectFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let license = self.license.as_deref().unwrap_or("none");
        write!(
            f,
            "programs {}; maps {}; license {license}; BTF; nothing that panics",
            programs_list(&self.programs),
            list(&self.maps)
        )
    }
}

/// Checks the object of this workspace and returns its properties.
pub fn check(elf: &[u8]) -> Result<ObjectFacts> {
    let facts = ObjectFacts::read(elf)?;
    facts.check(&PROGRAMS, knock_common::layout::MAPS)?;
    Ok(facts)
}

/// Checks the object with the programs that the bench compares.
pub fn check_baselines(elf: &[u8]) -> Result<ObjectFacts> {
    let facts = ObjectFacts::read(elf)?;
    facts.check(&BASELINES, &BASELINE_MAPS)?;
    Ok(facts)
}

fn list<T: fmt::Display>(names: &BTreeSet<T>) -> String {
    if names.is_empty() {
        return "(none)".to_owned();
    }
    names
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn programs_list(programs: &BTreeSet<(String, String)>) -> String {
    list(
        &programs
            .iter()
            .map(|(section, function)| format!("{section}/{function}"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use object::{
        Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolScope,
        write::{Object, SectionId, Symbol, SymbolSection},
    };

    use super::*;

    const MAPS: [&str; 2] = ["GRANTS", "PORTS"];

    /// A small valid object, which each row breaks in one way.
    struct TestObject(Object<'static>);

    impl TestObject {
        fn right() -> Self {
            let mut builder = Self::bare();
            builder.program("xdp", "knock");
            builder.map(".maps", "PORTS");
            builder.map(".maps", "GRANTS");
            builder.section(".BTF", SectionKind::Metadata, b"btf");
            builder.section(".BTF.ext", SectionKind::Metadata, b"ext");
            builder.section("license", SectionKind::Data, b"Dual MIT/GPL\0");
            builder
        }

        fn bare() -> Self {
            Self(Object::new(
                BinaryFormat::Elf,
                Architecture::Bpf,
                Endianness::Little,
            ))
        }

        fn section(&mut self, name: &str, kind: SectionKind, data: &[u8]) -> SectionId {
            let id = self.0.add_section(Vec::new(), name.into(), kind);
            self.0.append_section_data(id, data, 8);
            id
        }

        fn symbol(&mut self, name: &str, kind: SymbolKind, section: SymbolSection) {
            self.0.add_symbol(Symbol {
                name: name.into(),
                value: 0,
                size: 8,
                kind,
                scope: SymbolScope::Linkage,
                weak: false,
                section,
                flags: SymbolFlags::None,
            });
        }

        fn program(&mut self, section: &str, function: &str) {
            let id = self.section(section, SectionKind::Text, &[0; 8]);
            self.symbol(function, SymbolKind::Text, SymbolSection::Section(id));
        }

        fn map(&mut self, section: &str, name: &str) {
            let id = self.section(section, SectionKind::Data, &[0; 8]);
            self.symbol(name, SymbolKind::Data, SymbolSection::Section(id));
        }

        fn verdict(&self) -> Result<()> {
            let elf = self.0.write().unwrap();
            ObjectFacts::read(&elf)
                .unwrap()
                .check(&[("xdp", "knock")], &MAPS)
        }
    }

    #[test]
    fn a_correct_object_passes() {
        let mut object = TestObject::right();
        object.verdict().unwrap();
        object.program(".text", "memset");
        object.map("maps", LOG_MAP);
        object.verdict().unwrap();
    }

    type Break = fn(&mut TestObject);

    #[test]
    fn each_fault_is_named() {
        let table: [(&str, Break, &str); 6] = [
            (
                "a bounds check survived",
                |o| o.program(".text", "_ZN4core9panicking18panic_bounds_check17h"),
                "it can panic (_ZN4core9panicking18panic_bounds_check17h)",
            ),
            (
                "nobody defines memcpy",
                |o| o.symbol("memcpy", SymbolKind::Unknown, SymbolSection::Undefined),
                "undefined symbols (memcpy)",
            ),
            (
                "a second program",
                |o| o.program("tc", "other"),
                "the programs tc/other, xdp/knock instead of xdp/knock",
            ),
            (
                "a map too many",
                |o| o.map(".maps", "EXTRA"),
                "the maps EXTRA, which",
            ),
            (
                "a license of its own",
                |o| {
                    *o = TestObject::bare();
                    o.section("license", SectionKind::Data, b"MIT\0");
                },
                "its license `MIT` is not",
            ),
            (
                "nothing but code",
                |o| {
                    *o = TestObject::bare();
                    o.program(".text", "knock");
                },
                "the programs (none) instead of xdp/knock",
            ),
        ];
        for (name, break_it, expected) in table {
            let mut object = TestObject::right();
            break_it(&mut object);
            let error = object.verdict().unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn all_faults_are_reported_together() {
        let error = TestObject::bare().verdict().unwrap_err().to_string();
        for expected in [
            "lacks the maps GRANTS, PORTS",
            "no section .BTF:",
            "no section .BTF.ext:",
            "no section `license`",
        ] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_elf_is_refused() {
        assert!(ObjectFacts::read(b"no ELF at all").is_err());
    }
}
