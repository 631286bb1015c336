//! No two files of a crate use each other, directly or through others.
//!
//! A module and its submodules count as one here: `mod.rs` may use its parts, and they may use what it has for all of
//! them. A re-exported name belongs to the file that defines it. Calls of methods count as far as names show the types
//! (`methods.rs`).

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a helper of a test fails with the test; the enums are those of syn, and grow"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Item, visit::Visit as _};

mod methods;
mod names;

use methods::Methods;
use names::Names;

/// The path of a module in its crate; empty for the root.
type Module = Vec<String>;
/// The modules that each module uses.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_files_use_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut circles = Vec::new();
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        let files = read(&root.join(member).join("src"));
        assert!(!files.is_empty(), "{member} has no files");
        for edge in circle(&graph(&files)) {
            circles.push(format!("{member}: {edge}"));
        }
    }
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_however_a_file_names_another() {
    for (name, files, found) in [
        (
            "no circle",
            vec![("a", "use crate::b::B;"), ("b", "pub struct B;")],
            false,
        ),
        (
            "imports",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "use crate::{c, a::{A, B}};"),
            ],
            true,
        ),
        (
            "through a third",
            vec![
                ("a", "use super::b::B;"),
                ("b", "use crate::c::C;"),
                ("c", "fn f(a: crate::a::A) {}"),
            ],
            true,
        ),
        (
            "in the arguments of a macro",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "fn f() { print!(\"{}\", crate::a::NAME) }"),
            ],
            true,
        ),
        (
            "through a re-export",
            vec![
                ("a", "use crate::m::B;"),
                ("m", "mod b; pub use b::B;"),
                ("m::b", "use crate::a::A;"),
            ],
            true,
        ),
        (
            "through a re-export under another name",
            vec![
                ("a", "use crate::m::C;"),
                ("m", "mod b; pub use b::B as C;"),
                ("m::b", "use crate::a::A;"),
            ],
            true,
        ),
        (
            "through a re-export of everything",
            vec![
                ("a", "use crate::m::B;"),
                ("m", "mod b; pub use b::*;"),
                ("m::b", "use crate::a::A; pub struct B;"),
            ],
            true,
        ),
        (
            "behind the name of an imported module",
            vec![
                ("a", "use crate::m; fn f(b: m::B) {}"),
                ("m", "mod b; pub use b::B;"),
                ("m::b", "use crate::a::A;"),
            ],
            true,
        ),
        (
            "only a part of an imported module",
            vec![
                ("a", "use crate::m; fn f() { m::b::g() }"),
                ("m", "mod b; fn f(a: crate::a::A) {}"),
                ("m::b", "pub fn g() {}"),
            ],
            false,
        ),
        (
            "behind a keyword in a macro",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "fn f() { select! { x = y => return crate::a::f() } }"),
            ],
            true,
        ),
        (
            "in an attribute",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "struct B { #[arg(value_parser = crate::a::f)] c: u8 }"),
            ],
            true,
        ),
        (
            "in a text of an attribute",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "struct B { #[serde(with = \"crate::a\")] c: u8 }"),
            ],
            true,
        ),
        (
            "with self in front of super",
            vec![("a", "use self::super::b::B;"), ("b", "use crate::a::A;")],
            true,
        ),
        (
            "a module and its part",
            vec![("m", "mod b; use b::B;"), ("m::b", "use super::A;")],
            false,
        ),
        (
            "parts of a module",
            vec![
                ("m", "mod b; mod c;"),
                ("m::b", "use super::c::C;"),
                ("m::c", "use super::b::B;"),
            ],
            true,
        ),
        (
            "through a method of its own type in another file",
            vec![
                ("a", "use crate::b::B; impl B { fn f(&self) {} }"),
                ("b", "struct B; impl B { fn g(&self) { self.f() } }"),
            ],
            true,
        ),
        (
            "through a method of a field",
            vec![
                (
                    "a",
                    "use crate::{b::B, c::C}; impl C { fn f(&self, b: B) {} }",
                ),
                (
                    "b",
                    "use crate::c::C; struct B { c: Box<C> } fn g(b: &B) { b.c.f() }",
                ),
                ("c", "struct C;"),
            ],
            true,
        ),
        (
            "through a method of a result",
            vec![
                (
                    "a",
                    "use crate::{b, c::C}; impl C { fn f(&self) { b::g() } }",
                ),
                (
                    "b",
                    "use crate::d::D; fn g(d: &D) -> Option<()> { let c = d.c()?; c.f() }",
                ),
                ("c", "struct C;"),
                (
                    "d",
                    "use crate::c::C; struct D; impl D { fn c(&self) -> Option<&C> { None } }",
                ),
            ],
            true,
        ),
        (
            "through a method behind the name of its type",
            vec![
                ("a", "use crate::{b, c::C}; impl C { fn f() { b::g() } }"),
                ("b", "use crate::c::C; fn g() { C::f() }"),
                ("c", "struct C;"),
            ],
            true,
        ),
        (
            "a method of the same name of another type",
            vec![
                ("a", "use crate::b::B; impl B { fn f(&self) {} }"),
                (
                    "b",
                    "struct B; impl B { fn g(&self, other: Other) { other.f() } }",
                ),
            ],
            false,
        ),
        (
            "only in tests",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "#[cfg(test)] mod tests { use crate::a::A; }"),
            ],
            false,
        ),
        (
            "only in a comment",
            vec![
                ("a", "use crate::b::B;"),
                ("b", "/// See [`crate::a`].\nstruct B;"),
            ],
            false,
        ),
    ] {
        let files = files
            .into_iter()
            .map(|(module, text)| {
                let module = module.split("::").map(str::to_owned).collect();
                (module, syn::parse_file(text).unwrap())
            })
            .collect();
        assert_eq!(!circle(&graph(&files)).is_empty(), found, "{name}");
    }
}

/// Returns the files of a crate by module, without those of tests.
fn read(source: &Path) -> BTreeMap<Module, syn::File> {
    let mut files = BTreeMap::new();
    let mut rest = vec![source.to_owned()];
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            rest.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = module_of(path.strip_prefix(source).unwrap());
            if !module.contains(&"tests".to_owned()) {
                let text = fs::read_to_string(&path).unwrap();
                files.insert(module, syn::parse_file(&text).unwrap());
            }
        }
    }
    files
}

fn module_of(path: &Path) -> Module {
    let mut module: Module = PathBuf::from(path)
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
        module.pop();
    }
    module
}

fn graph(files: &BTreeMap<Module, syn::File>) -> Graph {
    let mut named = BTreeMap::new();
    let mut exports = Exports::default();
    for (module, file) in files {
        let mut names = Names {
            module: module.clone(),
            ..Names::default()
        };
        for item in &file.items {
            if let Item::Use(item) = item {
                names.import(item);
            }
            exports
                .defined
                .extend(defined(item).map(|name| (module.clone(), name)));
        }
        names.visit_file(file);
        for (name, path) in &names.exports {
            let name = (module.clone(), name.clone());
            exports.named.insert(name, path.clone());
        }
        exports.whole.insert(module.clone(), names.whole.clone());
        named.insert(module.clone(), names);
    }
    let methods = Methods::of(files, &named, &exports);
    let is_within = |one: &Module, other: &Module| one.starts_with(other);
    let edges = |(module, names): (&Module, &Names)| {
        // Who imports a module uses what is named behind it.
        let items = names.imports.values();
        let items = items.filter(|path| !files.contains_key(*path));
        let paths = names.paths.iter().chain(items).cloned();
        let used = paths.filter_map(|path| defining(path, files, &exports));
        let used = used
            .chain(methods.called_by(module, files, names, &exports))
            .filter(|used| !is_within(used, module) && !is_within(module, used));
        (module.clone(), used.collect())
    };
    named.iter().map(edges).collect()
}

/// Returns the module of the file that defines what a path names; `None` if it is in none of the files.
fn defining(
    mut path: Module,
    files: &BTreeMap<Module, syn::File>,
    exports: &Exports,
) -> Option<Module> {
    // Re-exports of re-exports end sooner.
    for _ in 0..8 {
        let length = (1..=path.len())
            .rev()
            .find(|&length| files.contains_key(&path[..length]))?;
        let (module, rest) = path.split_at(length);
        let export = rest.first().and_then(|name| exports.of(module, name));
        match export {
            Some(export) if *export != path[..=length] => {
                path = [&export, &rest[1..]].concat();
            }
            _ => return Some(module.to_owned()),
        }
    }
    None
}

/// Returns the uses of one file by another that lead back to it.
fn circle(graph: &Graph) -> Vec<String> {
    let mut edges = Vec::new();
    for (module, uses) in graph {
        for used in uses {
            if reached(graph, used).contains(module) {
                edges.push(format!("{} uses {}", module.join("::"), used.join("::")));
            }
        }
    }
    edges
}

/// Returns the modules that a module uses, directly or through others.
fn reached(graph: &Graph, from: &Module) -> BTreeSet<Module> {
    let mut all = BTreeSet::new();
    let mut rest = vec![from];
    while let Some(module) = rest.pop() {
        let uses = graph.get(module).into_iter().flatten();
        rest.extend(uses.filter(|used| all.insert((*used).clone())));
    }
    all
}

/// What the files of a crate define and re-export.
#[derive(Default)]
struct Exports {
    defined: BTreeSet<(Module, String)>,
    /// The path of each re-exported name.
    named: BTreeMap<(Module, String), Module>,
    /// The modules of which all names are re-exported.
    whole: BTreeMap<Module, BTreeSet<Module>>,
}

impl Exports {
    /// Returns the path that a module re-exports under a name.
    fn of(&self, module: &[String], name: &str) -> Option<Module> {
        let key = (module.to_owned(), name.to_owned());
        if let Some(path) = self.named.get(&key) {
            return Some(path.clone());
        }
        let mut whole = self.whole.get(module).into_iter().flatten();
        whole.find_map(|inner| {
            let key = (inner.clone(), name.to_owned());
            let has_it = self.defined.contains(&key) || self.named.contains_key(&key);
            has_it.then(|| [inner.as_slice(), &[key.1]].concat())
        })
    }
}

/// Returns the name of an item that others can import.
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
