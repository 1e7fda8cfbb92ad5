//! The files of `src` as far as their imports and functions go. What only tests compile counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, ImplItemFn, Item, ItemFn, ItemImpl, ItemMod, ItemTrait, ItemUse, Macro,
    TraitItemFn, Type, UseTree, Visibility,
};

/// Of a module, from the root of the crate; the root itself has none.
pub type Module = Vec<String>;

pub struct Source {
    /// By module.
    pub files: BTreeMap<Module, File>,
}

#[derive(Default)]
pub struct File {
    /// Below `src`, with slashes.
    pub name: String,
    /// That are no test's.
    pub lines: usize,
    /// Paths from the root of the crate.
    inside: BTreeSet<Module>,
    /// Crates that are named, of those that can be.
    pub crates: BTreeSet<String>,
    /// What is to be had from here and comes from elsewhere, by name.
    passed_on: BTreeMap<String, Module>,
    pub functions: Vec<Function>,
}

pub struct Function {
    /// The type or trait that it belongs to, if any.
    pub of: Option<String>,
    pub name: String,
    pub lines: usize,
}

impl File {
    /// Which folder it is in, or is alone.
    pub fn folder(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

impl Source {
    pub fn read(root: &Path, crates: &BTreeSet<String>) -> Source {
        let (mut files, mut only_tests) = (BTreeMap::new(), BTreeSet::new());
        for name in names(root, "") {
            let text = fs::read_to_string(root.join(&name)).expect("a file of src is text");
            let tree = syn::parse_file(&text).expect("what compiles can be parsed");
            let module = module_of(&name);
            only_tests.extend(tree.items.iter().filter_map(|item| match item {
                Item::Mod(child) if is_tests(&child.attrs) => {
                    Some([module.as_slice(), &[child.ident.to_string()]].concat())
                }
                _ => None,
            }));
            files.insert(module.clone(), Reader::read(name, &text, module, &tree.items, crates));
        }
        files.retain(|module, _| !only_tests.contains(module));
        Source { files }
    }

    /// The other files whose items a file uses.
    pub fn used(&self, module: &Module) -> BTreeSet<&Module> {
        let paths = self.files[module].inside.iter();
        paths.map(|path| self.home(path)).filter(|used| *used != module).collect()
    }

    /// Where an item stands that is named by this path, whoever passes it on.
    fn home(&self, path: &[String]) -> &Module {
        let (module, file) = (0..=path.len())
            .rev()
            .find_map(|length| self.files.get_key_value(&path[..length]))
            .expect("the root is a module");
        match path.get(module.len()).and_then(|name| file.passed_on.get(name)) {
            Some(from) => self.home(from),
            None => module,
        }
    }
}

fn names(root: &Path, below: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(below)).expect("src is there") {
        let entry = entry.expect("src can be read");
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => names.extend(self::names(root, &format!("{name}/"))),
            false if name.ends_with(".rs") => names.push(name),
            false => {}
        }
    }
    names
}

fn module_of(name: &str) -> Module {
    let mut module: Module = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    module.pop_if(|last| ["mod", "lib"].contains(&last.as_str()));
    module
}

/// Goes through one file.
struct Reader<'a> {
    file: File,
    /// Where in the crate, in modules that stand in the file too.
    module: Module,
    /// Modules that are declared here: paths may begin with their names.
    children: BTreeSet<String>,
    crates: &'a BTreeSet<String>,
    of: Option<String>,
    /// Of what only tests compile.
    test_lines: usize,
}

impl Reader<'_> {
    fn read(
        name: String,
        text: &str,
        module: Module,
        items: &[Item],
        crates: &BTreeSet<String>,
    ) -> File {
        let children = items.iter().filter_map(|item| match item {
            Item::Mod(child) => Some(child.ident.to_string()),
            _ => None,
        });
        let mut reader = Reader {
            file: File { name, ..File::default() },
            children: children.collect(),
            module,
            crates,
            of: None,
            test_lines: 0,
        };
        items.iter().for_each(|item| reader.visit_item(item));
        reader.file.lines = text.lines().count() - reader.test_lines;
        reader.file
    }

    /// A path as it is written, from the root of the crate.
    fn path(&self, written: &[String]) -> Option<Module> {
        let is_program = self.file.name == "main.rs";
        let mut path = match written[0].as_str() {
            "crate" => Module::new(),
            "shardcast" if is_program => Module::new(),
            "self" | "super" => self.module.clone(),
            first if self.children.contains(first) => {
                return Some([self.module.as_slice(), written].concat());
            }
            _ => return None,
        };
        let supers = written.iter().take_while(|segment| *segment == "super").count();
        path.truncate(path.len() - supers);
        path.extend(
            written.iter().skip(supers.max(1)).filter(|segment| *segment != "self").cloned(),
        );
        Some(path)
    }

    fn note(&mut self, written: &[String]) {
        if let Some(path) = self.path(written) {
            self.file.inside.insert(path);
        } else if self.crates.contains(&written[0]) {
            self.file.crates.insert(written[0].clone());
        }
    }

    /// Paths in what a macro or an attribute is given.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let (mut written, mut colons) = (Vec::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.note_whole(&mut written);
                    }
                    written.push(name.to_string());
                }
                TokenTree::Punct(sign) if sign.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.note_whole(&mut written);
                    self.note_tokens(group.stream());
                }
                _ => self.note_whole(&mut written),
            }
            colons = 0;
        }
        self.note_whole(&mut written);
    }

    fn note_whole(&mut self, written: &mut Vec<String>) {
        if written.len() > 1 {
            self.note(written);
        }
        written.clear();
    }

    fn note_function(&mut self, name: &syn::Ident, block: &Block, from: proc_macro2::Span) {
        let lines = block.span().end().line + 1 - from.start().line;
        let (of, name) = (self.of.clone(), name.to_string());
        self.file.functions.push(Function { of, name, lines });
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_tests(attributes(item)) {
            let span = item.span();
            self.test_lines += span.end().line + 1 - span.start().line;
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, inner: &'ast ItemMod) {
        if inner.content.is_some() {
            self.module.push(inner.ident.to_string());
            visit::visit_item_mod(self, inner);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_passed_on = !matches!(item.vis, Visibility::Inherited);
        for (written, name) in leaves(&item.tree) {
            self.note(&written);
            if let (true, Some(path)) = (is_passed_on, self.path(&written)) {
                self.file.passed_on.insert(name, path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Module =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note_whole(&mut written.clone());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.note_tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        self.visit_path(attribute.path());
        if let syn::Meta::List(list) = &attribute.meta {
            self.note_tokens(list.tokens.clone());
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        self.of = match &*item.self_ty {
            Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        visit::visit_item_impl(self, item);
        self.of = None;
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.of = Some(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.of = None;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.note_function(&item.sig.ident, &item.block, item.sig.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_tests(&item.attrs) {
            self.note_function(&item.sig.ident, &item.block, item.sig.span());
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        let of = self.of.clone();
        let lines = item.span().end().line + 1 - item.span().start().line;
        self.file.functions.push(Function { of, name: item.sig.ident.to_string(), lines });
        visit::visit_trait_item_fn(self, item);
    }
}

/// Each path of a `use`, and the name that it has from there on.
fn leaves(tree: &UseTree) -> Vec<(Module, String)> {
    let mut found = Vec::new();
    let mut rest = vec![(Module::new(), tree)];
    while let Some((mut path, tree)) = rest.pop() {
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                rest.push((path, &step.tree));
            }
            UseTree::Name(leaf) => {
                path.push(leaf.ident.to_string());
                found.push((path, leaf.ident.to_string()));
            }
            UseTree::Rename(leaf) => {
                path.push(leaf.ident.to_string());
                found.push((path, leaf.rename.to_string()));
            }
            UseTree::Glob(_) => found.push((path, "*".to_owned())),
            UseTree::Group(group) => {
                rest.extend(group.items.iter().map(|tree| (path.clone(), tree)));
            }
        }
    }
    found
}

fn is_tests(attributes: &[Attribute]) -> bool {
    let has_test = |tokens: &TokenStream| {
        tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
    };
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && has_test(&list.tokens),
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
