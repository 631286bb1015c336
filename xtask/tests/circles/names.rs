//! The paths that a file names.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    Attribute, ImplItemFn, Item, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility,
    visit::{self, Visit},
};

use super::Module;

/// The paths that a file names, from the root of its crate.
#[derive(Default)]
pub(super) struct Names {
    pub(super) module: Module,
    pub(super) paths: BTreeSet<Module>,
    /// The paths of the names that the file imports.
    pub(super) imports: BTreeMap<String, Module>,
    /// Those that it re-exports.
    pub(super) exports: BTreeMap<String, Module>,
    /// The modules of which it re-exports all names.
    pub(super) whole: BTreeSet<Module>,
}

impl Names {
    /// Returns a path from the root of the crate; `None` if it leads elsewhere.
    pub(super) fn absolute(&self, path: &[String], is_import: bool) -> Option<Module> {
        let mut base = self.module.clone();
        let mut rest = path;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" => base.clear(),
                "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = &rest[1..];
        }
        // Without these words: a submodule, or another crate, which no file has the name of.
        if rest.len() == path.len() && !is_import {
            base = self.imports.get(path.first()?)?.clone();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    pub(super) fn import(&mut self, item: &ItemUse) {
        if !is_for_tests(&item.attrs) {
            let is_exported = !matches!(item.vis, Visibility::Inherited);
            self.import_tree(&item.tree, &mut Module::new(), is_exported);
        }
    }

    fn import_tree(&mut self, tree: &UseTree, path: &mut Module, is_exported: bool) {
        let (name, local) = match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.import_tree(&tree.tree, path, is_exported);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import_tree(tree, path, is_exported);
                }
                return;
            }
            UseTree::Name(tree) => (Some(&tree.ident), Some(&tree.ident)),
            UseTree::Rename(tree) => (Some(&tree.ident), Some(&tree.rename)),
            UseTree::Glob(_) => (None, None),
        };
        let name = name.map(ToString::to_string).filter(|name| name != "self");
        let whole: Module = path.iter().cloned().chain(name).collect();
        let Some(whole) = self.absolute(&whole, true).filter(|path| !path.is_empty()) else {
            return;
        };
        let local = local.map(ToString::to_string);
        let local = local.map(|name| match name.as_str() {
            "self" => whole[whole.len() - 1].clone(),
            _ => name,
        });
        match local {
            Some(local) => {
                if is_exported {
                    self.exports.insert(local.clone(), whole.clone());
                }
                self.imports.insert(local, whole);
            }
            None => {
                if is_exported {
                    self.whole.insert(whole.clone());
                }
                self.paths.insert(whole);
            }
        }
    }

    /// Adds the paths in code that is not parsed.
    fn tokens(&mut self, text: &str) {
        let text = text.replace(" :: ", "::").replace(":: ", "::");
        let is_in_name = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
        for path in text.split(|letter| !is_in_name(letter)) {
            let parts: Module = path.split("::").map(str::to_owned).collect();
            if parts.len() > 1 {
                self.paths.extend(self.absolute(&parts, false));
            }
        }
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Use(item) => self.import(item),
            Item::Fn(item) if is_for_tests(&item.attrs) => {}
            Item::Impl(item) if is_for_tests(&item.attrs) => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if item.content.is_some() && !is_for_tests(&item.attrs) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Module = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        self.paths.extend(self.absolute(&parts, false));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a Macro) {
        self.tokens(&item.tokens.to_string());
        visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.tokens(&list.tokens.to_string()),
            // The text of a comment.
            Meta::NameValue(_) | Meta::Path(_) => {}
        }
    }
}

pub(super) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, Meta::List(list) if list.tokens.to_string() == "test")
    })
}
