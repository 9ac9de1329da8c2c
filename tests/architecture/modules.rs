//! Which file of `src/` uses which: the paths of every file, followed through modules, imports and re-exports to the file
//! that has the item.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::reader::is_part_of_name;

/// A path in the crate, from its root.
type ModulePath = Vec<String>;

/// One file without comments, strings and test items.
pub(crate) struct Module {
    file: PathBuf,
    path: ModulePath,
    /// Modules declared in it.
    children: BTreeSet<String>,
    /// What each `use` brings in, and under which name.
    imports: BTreeMap<String, ModulePath>,
    /// Paths elsewhere in its code, and single names, since those may be imported.
    uses: Vec<ModulePath>,
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are the module `a::b`; `src/lib.rs` and `src/main.rs` the root.
fn module_path(file: &Path) -> ModulePath {
    let below = file.strip_prefix("src").expect("below src").with_extension("");
    let mut path: ModulePath = below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        path.pop();
    }
    path
}

impl Module {
    pub(crate) fn new(file: &Path, code: &str) -> Self {
        let mut module = Self {
            file: file.to_owned(),
            path: module_path(file),
            children: BTreeSet::new(),
            imports: BTreeMap::new(),
            uses: Vec::new(),
        };
        let tokens = tokens(code);
        let mut rest = tokens.as_slice();
        while let Some((first, after)) = rest.split_first() {
            rest = match *first {
                "mod" => {
                    if let [name, ";", ..] = after {
                        module.children.insert((*name).to_owned());
                    }
                    after
                }
                "use" => module.read_use(after, &mut Vec::new()),
                _ => module.read_path(rest),
            };
        }
        module
    }

    /// A tree of imports after `use` or after a `{` or `,` in it. Returns what follows it.
    fn read_use<'a, 'b>(&mut self, tokens: &'b [&'a str], before: &mut ModulePath) -> &'b [&'a str] {
        let mut rest = tokens;
        let common = before.len();
        loop {
            match rest {
                ["{", after @ ..] => {
                    rest = after;
                    while !matches!(rest, [] | ["}", ..]) {
                        rest = self.read_use(rest, before);
                        rest = rest.strip_prefix(&[","]).unwrap_or(rest);
                    }
                    before.truncate(common);
                    return rest.get(1..).unwrap_or_default();
                }
                [name, "::", after @ ..] => {
                    before.push((*name).to_owned());
                    rest = after;
                }
                ["::", after @ ..] => rest = after,
                [name, "as", alias, after @ ..] => {
                    self.import(alias, before, name);
                    before.truncate(common);
                    return after;
                }
                [name, after @ ..] => {
                    if name.chars().all(is_part_of_name) {
                        self.import(name, before, name);
                    }
                    before.truncate(common);
                    return after;
                }
                [] => return &[],
            }
        }
    }

    fn import(&mut self, alias: &str, before: &[String], name: &str) {
        // `use a::b::{self}` is `use a::b`.
        let own = name == "self" && !before.is_empty();
        let alias = if alias == "self" { before.last().map_or(alias, |last| last) } else { alias };
        let mut path = before.to_vec();
        if !own {
            path.push(name.to_owned());
        }
        self.imports.insert(alias.to_owned(), path);
    }

    /// A path in code, or a single token. Returns what follows it.
    fn read_path<'a, 'b>(&mut self, tokens: &'b [&'a str]) -> &'b [&'a str] {
        let mut path: ModulePath = Vec::new();
        let mut rest = tokens;
        while let [name, after @ ..] = rest {
            if !name.starts_with(|char: char| char.is_alphabetic() || char == '_') {
                break;
            }
            path.push((*name).to_owned());
            rest = after;
            let Some(after) = rest.strip_prefix(&["::"]) else { break };
            rest = after;
        }
        if path.is_empty() {
            // A token that is no name; of `.name` and `'name` the name is none of ours.
            let skip = if matches!(tokens, ["." | "'", _, ..]) { 2 } else { 1 };
            return tokens.get(skip..).unwrap_or_default();
        }
        self.uses.push(path);
        rest
    }

    /// A path as it is written here, from the crate's root; `None` = it leads into another crate, or to an item of this file.
    fn absolute(&self, written: &[String]) -> Option<ModulePath> {
        let (first, mut rest) = written.split_first()?;
        let mut base = self.path.clone();
        match first.as_str() {
            "crate" | "homing" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
                while let Some((next, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
                    let _ = next;
                    base.pop();
                    rest = after;
                }
            }
            name if self.children.contains(name) => base.push(name.to_owned()),
            _ => return None,
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

/// Names, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if is_part_of_name(first) {
            rest.find(|char| !is_part_of_name(char)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !token.trim().is_empty() {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// How many re-exports a path may lead through.
const MOST_STEPS: usize = 16;

pub(crate) struct Modules(BTreeMap<ModulePath, Module>);

impl Modules {
    pub(crate) fn new(modules: impl IntoIterator<Item = Module>) -> Self {
        Self(modules.into_iter().map(|module| (module.path.clone(), module)).collect())
    }

    /// The file that has the item of this path. `None` = the path ends at a module, which is no use of what is in it.
    fn file_of(&self, path: &[String], steps: usize) -> Option<&Path> {
        let known = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let module = self.0.get(&path[..known])?;
        let (item, rest) = path[known..].split_first()?;
        let Some(imported) = module.imports.get(item).filter(|_| steps > 0) else { return Some(&module.file) };
        match module.absolute(imported) {
            Some(mut path) => {
                path.extend_from_slice(rest);
                self.file_of(&path, steps - 1)
            }
            // Another crate's item, which does not matter.
            None => None,
        }
    }

    /// Which file uses which others.
    pub(crate) fn uses(&self) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
        let mut all: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for module in self.0.values() {
            let used = all.entry(module.file.clone()).or_default();
            for written in &module.uses {
                let (first, rest) = written.split_first().expect("a path has a name");
                let imported = module.imports.get(first).and_then(|imported| module.absolute(imported));
                let path = match imported {
                    Some(mut path) => {
                        path.extend_from_slice(rest);
                        path
                    }
                    None => match module.absolute(written) {
                        Some(path) => path,
                        None => continue,
                    },
                };
                used.extend(self.file_of(&path, MOST_STEPS).filter(|file| **file != module.file).map(Path::to_owned));
            }
        }
        all
    }

    /// Sets of files of which each uses, by way of others, each.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<PathBuf>> {
        let uses = self.uses();
        let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
            uses.keys().map(|file| (file, reached(&uses, file))).collect();
        let mut circles: Vec<BTreeSet<PathBuf>> = Vec::new();
        for (file, others) in &reached {
            if others.contains(file) && !circles.iter().any(|circle| circle.contains(*file)) {
                let back = others.iter().filter(|other| reached[*other].contains(file));
                circles.push(back.map(|other| (*other).clone()).collect());
            }
        }
        circles
    }
}

fn reached<'a>(uses: &'a BTreeMap<PathBuf, BTreeSet<PathBuf>>, from: &PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&PathBuf> = uses[from].iter().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(uses.get(file).into_iter().flatten());
        }
    }
    reached
}
