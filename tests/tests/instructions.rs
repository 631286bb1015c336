//! The size of the program: instructions as compiled, as the kernel stores them and as the verifier walks them, and
//! bytes of machine code.
//!
//! These numbers are the same on each run. `instructions.toml` records them, so that a change that makes one of them
//! grow fails. `KNOCK_BLESS=1 cargo xtask test instruction_counts` rewrites the file.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{collections::BTreeMap, env, fs, path::Path};

use knock_common::spa::port::Otherwise;
use knock_tests::{
    entry::Entry,
    kernel::{Kernel, compile},
    spa,
};
use knock_user::kernel::program::{self, LoadOptions};
use nix::sys::utsname::uname;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use serde::{Deserialize, Serialize};

/// The factor by which a number may grow before the file has to be rewritten.
const GROWTH_MOST: f64 = 1.02;
/// The size of an instruction in bytes.
const INSTRUCTION: u64 = 8;
/// The section of the object that names its compiler.
const COMPILER: &str = ".comment";

/// Names and settings of configurations. The kernel translates a program of its own for each set of features.
const CONFIGURATIONS: &[(&str, &str)] = &[
    ("answers", ""),
    ("least", "strict = false\nestablished = { keep = false }\n"),
    ("usual", ""),
    ("users", ""),
    ("fwknop", ""),
    (
        "everything",
        "trust = [\"10.0.0.0/8\"]\n\
         block = { prefixes = [\"203.0.113.0/24\"] }\n\
         lockout = { failures = 5, for = \"60s\" }\n\
         decoys = { ports = [\"tcp/7777\"] }\n\
         fleet = { servers = [\"http://127.0.0.1:2379\"], group = \"web\", host = \"a\", seal = [\"web.seal\"] }\n",
    ),
];
const DOOR: &str = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/9000\", \"udp/7000\", \"tcp/8000\"]\n\
                    open = [\"tcp/22\"]\n";
/// The keys that limit a door to one address and to some sources, for these features.
const TARGET: &str = "target = \"192.0.2.1\"\nfrom = [\"198.51.100.0/24\"]\n";
/// A door with a reply and one with a handshake, for the feature of answers.
const PROVED: &str = "reply = true\n[[door]]\nname = \"proved\"\nverify = \"handshake\"\n\
                      knock = [\"tcp/9001\", \"tcp/7001\"]\nopen = [\"tcp/22\"]\n";

/// A user of fwknop, whose keys are not read here, for the feature of its packets.
const FWKNOP: &str = "[[user]]\nname = \"bob\"\nfwknop = \"bob.fwknop\"\ndoors = [\"ssh\"]\n";

/// Numbers with their names.
type Named = Vec<(String, u64)>;

#[test]
fn instruction_counts_are_those_recorded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.toml");
    let now = Recorded {
        compiler: compiler(),
        kernel: kernel(),
        compiled: compiled(),
        loaded: CONFIGURATIONS
            .iter()
            .flat_map(|(name, settings)| {
                Entry::ALL.map(|entry| {
                    let key = match entry {
                        Entry::Xdp => (*name).to_owned(),
                        Entry::Bare | Entry::Tc | Entry::Ip => format!("{name}-{}", entry.name()),
                    };
                    (key, loaded(name, settings, entry))
                })
            })
            .collect(),
    };
    if env::var_os("KNOCK_BLESS").is_some() {
        let text = toml::to_string(&now).unwrap();
        let head = "# Written by `KNOCK_BLESS=1 cargo xtask test instruction_counts`; \
                    tests/tests/instructions.rs explains it.\n\n";
        fs::write(&path, format!("{head}{text}")).unwrap();
        println!("{} was rewritten", path.display());
        return;
    }
    let before: Recorded = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    // Another compiler generates other code from the same source, which is not a regression.
    if now.compiler != before.compiler {
        println!(
            "not compared: built by {}, not {}",
            now.compiler, before.compiler
        );
        return;
    }
    let ((compiled, loaded), (compiled_before, loaded_before)) = (numbers(&now), numbers(&before));
    compare(&compiled, &compiled_before);
    if now.kernel != before.kernel {
        println!(
            "sizes in the kernel are not compared: this is {}, not {}",
            now.kernel, before.kernel
        );
        return;
    }
    compare(&loaded, &loaded_before);
}

/// The content of `instructions.toml`.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Recorded {
    /// The version of the compiler that built the object.
    compiler: String,
    /// The first two numbers of the kernel's release, and its architecture: verifier and translation depend on
    /// both.
    kernel: String,
    /// Instructions of the object, by function. Each packet starts in `knock` or another entry, and ordinary packets
    /// call no other function.
    compiled: BTreeMap<String, u64>,
    /// Sizes in the kernel, by configuration; of entries other than `knock` with their names behind it.
    loaded: BTreeMap<String, Loaded>,
}

/// A program in the kernel.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Loaded {
    /// Instructions that are left after the verifier has removed unused features.
    translated: u64,
    /// Bytes of machine code.
    machine_code: u64,
    /// Instructions that the verifier walked.
    verified: u64,
}

fn compiler() -> String {
    let words = program::object().unwrap();
    let file = object::File::parse(bytemuck::cast_slice::<_, u8>(&words)).unwrap();
    let section = file.section_by_name(COMPILER).unwrap();
    let text = String::from_utf8_lossy(section.data().unwrap()).into_owned();
    // "rustc 1.96.0 (LLVM 22.1.8), bpf-linker 0.13.0 …"
    text.split(" (").next().unwrap().to_owned()
}

fn kernel() -> String {
    let system = uname().unwrap();
    let release = system.release().to_string_lossy();
    let numbers: Vec<_> = release.splitn(3, '.').take(2).collect();
    format!("{} {}", numbers.join("."), system.machine().display())
}

fn compiled() -> BTreeMap<String, u64> {
    let words = program::object().unwrap();
    let file = object::File::parse(bytemuck::cast_slice::<_, u8>(&words)).unwrap();
    let symbols = file.symbols();
    let functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    functions
        .map(|symbol| {
            (
                symbol.name().unwrap().to_owned(),
                symbol.size() / INSTRUCTION,
            )
        })
        .collect()
}

fn loaded(name: &str, settings: &str, entry: Entry) -> Loaded {
    let more = match name {
        "everything" => TARGET,
        "answers" => PROVED,
        "fwknop" => FWKNOP,
        _ => "",
    };
    let mut tables = compile(&format!("{settings}{DOOR}{more}")).unwrap();
    if name == "users" {
        spa::add_port(&mut tables, 62_201, spa::port(Otherwise::Drop));
        spa::add_user(&mut tables, 1, 0, &["ssh"]);
    }
    let mut kernel = Kernel::with_entry(&tables, LoadOptions::default(), entry).unwrap();
    let info = entry.info(kernel.program().ebpf()).unwrap();
    Loaded {
        translated: u64::from(info.size_translated().unwrap()) / INSTRUCTION,
        machine_code: info.size_jitted().into(),
        verified: info.verified_instruction_count().unwrap().into(),
    }
}

/// Returns the numbers of the object, and those of the loaded programs.
fn numbers(recorded: &Recorded) -> (Named, Named) {
    let compiled = recorded.compiled.iter();
    let compiled = compiled.map(|(name, count)| (format!("compiled.{name}"), *count));
    let loaded = recorded.loaded.iter().flat_map(|(name, loaded)| {
        [
            (format!("loaded.{name}.translated"), loaded.translated),
            (format!("loaded.{name}.machine_code"), loaded.machine_code),
            (format!("loaded.{name}.verified"), loaded.verified),
        ]
    });
    (compiled.collect(), loaded.collect())
}

fn compare(now: &[(String, u64)], before: &[(String, u64)]) {
    const HOW: &str = "to accept them, run `KNOCK_BLESS=1 cargo xtask test instruction_counts`";
    let names = |numbers: &[(String, u64)]| -> Vec<String> {
        numbers.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(
        names(now),
        names(before),
        "the file has other functions or configurations: {HOW}"
    );
    let grown: Vec<String> = now
        .iter()
        .zip(before)
        .filter(|((_, now), (_, before))| *now as f64 > *before as f64 * GROWTH_MOST)
        .map(|((name, now), (_, before))| format!("{name}: {now}, recorded {before}"))
        .collect();
    assert!(
        grown.is_empty(),
        "numbers grew: {}; {HOW}",
        grown.join(", ")
    );
}
