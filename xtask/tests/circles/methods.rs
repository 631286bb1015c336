//! Finds the files that a file uses by calling methods, which need no import.
//!
//! Types are followed from `self`, arguments and bindings through fields and results, as far as their names show them.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    Expr, ExprMethodCall, FnArg, GenericArgument, ImplItem, ImplItemFn, Item, ItemFn, ItemImpl,
    Local, Member, Pat, PathArguments, ReturnType, Type,
    visit::{self, Visit},
};

use super::{
    Exports, Module, defining,
    names::{Names, is_for_tests},
};

/// The path of a type in its crate.
type TypePath = Module;

/// Wrappers whose methods are those of what they hold.
const TRANSPARENT: [&str; 4] = ["Arc", "Box", "Option", "Result"];

/// The types of a crate, with their fields and methods.
#[derive(Default)]
pub(super) struct Methods {
    fields: BTreeMap<(TypePath, String), TypePath>,
    /// The file of each method, and the type that it returns.
    methods: BTreeMap<(TypePath, String), (Module, Option<TypePath>)>,
}

impl Methods {
    pub(super) fn of(
        files: &BTreeMap<Module, syn::File>,
        names: &BTreeMap<Module, Names>,
        exports: &Exports,
    ) -> Self {
        let mut all = Self::default();
        for (module, file) in files {
            let scope = TypeScope {
                module,
                names: &names[module],
                files,
                exports,
                own: None,
            };
            for item in &file.items {
                all.add(item, &scope);
            }
        }
        all
    }

    fn add(&mut self, item: &Item, scope: &TypeScope<'_>) {
        match item {
            Item::Struct(item) => {
                let own = [scope.module.as_slice(), &[item.ident.to_string()]].concat();
                for (index, field) in item.fields.iter().enumerate() {
                    let name = field.ident.as_ref().map(ToString::to_string);
                    if let Some(path) = scope.path_of(&field.ty) {
                        let name = name.unwrap_or_else(|| index.to_string());
                        self.fields.insert((own.clone(), name), path);
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() && !is_for_tests(&item.attrs) => {
                let Some(own) = scope.path_of(&item.self_ty) else {
                    return;
                };
                let scope = scope.within(Some(own.clone()));
                for item in &item.items {
                    if let ImplItem::Fn(item) = item
                        && !is_for_tests(&item.attrs)
                    {
                        let result = match &item.sig.output {
                            ReturnType::Default => None,
                            ReturnType::Type(_, result) => scope.path_of(result),
                        };
                        let name = item.sig.ident.to_string();
                        let found = (scope.module.clone(), result);
                        self.methods.insert((own.clone(), name), found);
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the modules whose methods a file calls.
    pub(super) fn called_by(
        &self,
        module: &Module,
        files: &BTreeMap<Module, syn::File>,
        names: &Names,
        exports: &Exports,
    ) -> BTreeSet<Module> {
        let scope = TypeScope {
            module,
            names,
            files,
            exports,
            own: None,
        };
        let mut calls = Calls {
            methods: self,
            scope,
            variables: BTreeMap::new(),
            found: BTreeSet::new(),
        };
        calls.visit_file(&files[module]);
        calls.found
    }
}

/// Where names of types have a meaning.
struct TypeScope<'a> {
    module: &'a Module,
    names: &'a Names,
    files: &'a BTreeMap<Module, syn::File>,
    exports: &'a Exports,
    /// What `Self` is.
    own: Option<TypePath>,
}

impl TypeScope<'_> {
    fn within(&self, own: Option<TypePath>) -> Self {
        Self { own, ..*self }
    }

    /// Returns the path of a type, without references and wrappers; `None` if it is none of this crate.
    fn path_of(&self, found: &Type) -> Option<TypePath> {
        let path = match found {
            Type::Reference(found) => return self.path_of(&found.elem),
            Type::Paren(found) => return self.path_of(&found.elem),
            Type::Path(found) => &found.path,
            _ => return None,
        };
        let last = path.segments.last()?;
        if TRANSPARENT.iter().any(|name| last.ident == name) {
            let PathArguments::AngleBracketed(arguments) = &last.arguments else {
                return None;
            };
            return arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(inner) => self.path_of(inner),
                _ => None,
            });
        }
        self.path_named(path)
    }

    fn path_named(&self, path: &syn::Path) -> Option<TypePath> {
        let parts: Module = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if parts == ["Self"] {
            return self.own.clone();
        }
        let name = parts.last()?.clone();
        let whole = match self.names.absolute(&parts, false) {
            Some(whole) => whole,
            None if parts.len() == 1 => [self.module.as_slice(), &parts].concat(),
            None => return None,
        };
        let mut module = defining(whole, self.files, self.exports)?;
        module.push(name);
        Some(module)
    }
}

/// The calls of a file.
struct Calls<'a> {
    methods: &'a Methods,
    scope: TypeScope<'a>,
    variables: BTreeMap<String, TypePath>,
    found: BTreeSet<Module>,
}

impl Calls<'_> {
    fn type_of(&self, expression: &Expr) -> Option<TypePath> {
        match expression {
            Expr::Path(path) => {
                let name = path.path.get_ident()?.to_string();
                self.variables.get(&name).cloned()
            }
            Expr::Field(field) => {
                let name = match &field.member {
                    Member::Named(name) => name.to_string(),
                    Member::Unnamed(index) => index.index.to_string(),
                };
                let holder = self.type_of(&field.base)?;
                self.methods.fields.get(&(holder, name)).cloned()
            }
            Expr::MethodCall(call) => {
                let name = call.method.to_string();
                let holder = self.type_of(&call.receiver)?;
                self.methods.methods.get(&(holder, name))?.1.clone()
            }
            Expr::Reference(inner) => self.type_of(&inner.expr),
            Expr::Paren(inner) => self.type_of(&inner.expr),
            Expr::Try(inner) => self.type_of(&inner.expr),
            Expr::Await(inner) => self.type_of(&inner.base),
            Expr::Unary(inner) => self.type_of(&inner.expr),
            _ => None,
        }
    }

    fn call(&mut self, holder: TypePath, name: String) {
        if let Some((module, _)) = self.methods.methods.get(&(holder, name)) {
            self.found.insert(module.clone());
        }
    }

    fn enter(&mut self, inputs: impl Iterator<Item = FnArg>) {
        self.variables.clear();
        for input in inputs {
            match input {
                FnArg::Receiver(_) => {
                    if let Some(own) = self.scope.own.clone() {
                        self.variables.insert("self".to_owned(), own);
                    }
                }
                FnArg::Typed(input) => {
                    if let (Pat::Ident(name), Some(path)) =
                        (&*input.pat, self.scope.path_of(&input.ty))
                    {
                        self.variables.insert(name.ident.to_string(), path);
                    }
                }
            }
        }
    }
}

impl<'a> Visit<'a> for Calls<'_> {
    fn visit_item_mod(&mut self, _: &'a syn::ItemMod) {}

    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        if !is_for_tests(&item.attrs) {
            self.scope.own = self.scope.path_of(&item.self_ty);
            visit::visit_item_impl(self, item);
            self.scope.own = None;
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.enter(item.sig.inputs.iter().cloned());
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.enter(item.sig.inputs.iter().cloned());
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_local(&mut self, local: &'a Local) {
        visit::visit_local(self, local);
        let (name, path) = match (&local.pat, &local.init) {
            (Pat::Ident(name), Some(init)) => (&name.ident, self.type_of(&init.expr)),
            (Pat::Type(typed), _) => match &*typed.pat {
                Pat::Ident(name) => (&name.ident, self.scope.path_of(&typed.ty)),
                _ => return,
            },
            _ => return,
        };
        match path {
            Some(path) => self.variables.insert(name.to_string(), path),
            None => self.variables.remove(&name.to_string()),
        };
    }

    fn visit_expr_method_call(&mut self, call: &'a ExprMethodCall) {
        visit::visit_expr_method_call(self, call);
        if let Some(holder) = self.type_of(&call.receiver) {
            self.call(holder, call.method.to_string());
        }
    }

    /// Records `Type::method`, called or named.
    fn visit_expr_path(&mut self, path: &'a syn::ExprPath) {
        visit::visit_expr_path(self, path);
        let mut holder = path.path.clone();
        let Some(last) = holder.segments.pop() else {
            return;
        };
        holder.segments.pop_punct();
        if let Some(holder) = self.scope.path_named(&holder) {
            self.call(holder, last.ident.to_string());
        }
    }
}
