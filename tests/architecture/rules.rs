//! The rules, read from docs/ARCHITECTURE.md, and the check of a tree of files against them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::paths::{Mention, What, mentions};

/// A module's path from the root of its crate.
type Module = Vec<String>;

#[derive(Debug)]
pub(crate) struct Rules {
    /// Room -> what it may import.
    arrows: BTreeMap<String, Vec<String>>,
    /// Room -> the only crates it may name.
    crates: BTreeMap<String, Vec<String>>,
    /// All crates that exist for this package, as code spells them.
    known_crates: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

impl Rules {
    /// Reads the blocks `arrows` and `crates` of `document`, and the dependencies of `manifest`.
    pub(crate) fn read(document: &str, manifest: &str) -> Result<Self, String> {
        let arrows = block(document, "arrows")?;
        for (room, behind) in &arrows {
            for target in behind {
                let name = target.strip_suffix("::*").unwrap_or(target);
                if !arrows.contains_key(name) {
                    return Err(format!("{room} -> {target}: there is no room {name}"));
                }
            }
        }
        let std = ["std", "core", "alloc", "test"].map(str::to_owned);
        let known_crates = std.into_iter().chain(dependencies(manifest)).collect();
        Ok(Self { arrows, crates: block(document, "crates")?, known_crates })
    }

    /// Checks all files, given by their path below `src` and their text.
    pub(crate) fn check(&self, files: &[(String, String)]) -> Vec<Violation> {
        let parsed: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        let mut modules: BTreeSet<Module> = BTreeSet::new();
        let mut test_modules: BTreeSet<Module> = BTreeSet::new();
        for file in &parsed {
            for mention in &file.mentions {
                let What::Module(name) = &mention.what else { continue };
                let module =
                    [&file.module[..], &mention.inside, std::slice::from_ref(name)].concat();
                if mention.in_test {
                    test_modules.insert(module.clone());
                }
                modules.insert(module);
            }
        }
        let mut violations = Vec::new();
        for file in &parsed {
            let is_test =
                file.is_named_as_test() || test_modules.iter().any(|m| file.module.starts_with(m));
            let room = self.room_of(&file.module, file.is_binary);
            // Files of tests need no row of their own.
            if is_test || self.arrows.contains_key(&room) {
                Check { rules: self, file, room, is_test, modules: &modules }.run(&mut violations);
            } else {
                violations.push(file.violation(
                    1,
                    format!(
                        "room {room} is not in the arrows of docs/ARCHITECTURE.md; add it there"
                    ),
                ));
            }
        }
        violations.sort();
        violations.dedup();
        violations
    }

    /// The innermost room that holds `path`, a module or an item.
    fn room_of(&self, path: &[String], in_binary: bool) -> String {
        for len in (1..=path.len()).rev() {
            let name = path[..len].join("::");
            if self.arrows.contains_key(&name) {
                // A module of proto that the table does not know is a room of its own, to be added;
                // an item of proto's own belongs to proto.
                let inner = path.get(len).filter(|name| len == 1 && is_module_name(name));
                return match inner {
                    Some(inner) if name == "proto" => format!("proto::{inner}"),
                    _ => name,
                };
            }
        }
        match (in_binary, path.first().filter(|name| is_module_name(name))) {
            (true, _) => "main".to_owned(),
            (false, Some(unknown)) => unknown.clone(),
            (false, None) => "lib".to_owned(),
        }
    }

    fn may_import(&self, from: &str, to: &str) -> bool {
        let behind = |wanted: &str, room: &str| match wanted.strip_suffix("::*") {
            Some(parent) => is_within(room, parent) && room != parent,
            None => is_within(room, wanted),
        };
        let allowed = |room: &str| self.arrows.get(room).into_iter().flatten();
        is_within(to, from)
            || ancestors(from).any(|room| allowed(room).any(|wanted| behind(wanted, to)))
    }

    fn crates_of(&self, room: &str) -> Option<&Vec<String>> {
        ancestors(room).find_map(|room| self.crates.get(room))
    }
}

/// Functions and constants are not told apart from modules here; both are lower case or not.
fn is_module_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_lowercase())
}

fn is_within(room: &str, parent: &str) -> bool {
    room == parent || room.strip_prefix(parent).is_some_and(|rest| rest.starts_with("::"))
}

/// `a::b::c`, `a::b`, `a`.
fn ancestors(room: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(room), |room| room.rsplit_once("::").map(|(parent, _)| parent))
}

struct File {
    path: String,
    module: Module,
    /// Belongs to the program, not to the library.
    is_binary: bool,
    mentions: Vec<Mention>,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let mut module: Module = stem.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|name| matches!(name.as_str(), "mod" | "lib" | "main")) {
            module.pop();
        }
        let is_binary = path == "main.rs" || module.first().is_some_and(|name| name == "cli");
        Self { path: path.to_owned(), module, is_binary, mentions: mentions(text) }
    }

    fn is_named_as_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || self.path.contains("/tests/")
    }

    fn violation(&self, line: usize, problem: String) -> Violation {
        Violation { file: format!("src/{}", self.path), line, problem }
    }
}

/// One file under check.
struct Check<'a> {
    rules: &'a Rules,
    file: &'a File,
    room: String,
    is_test: bool,
    modules: &'a BTreeSet<Module>,
}

/// What a path leads to.
enum Target {
    /// A room of this package.
    Room(String),
    /// A crate from outside.
    Crate(String),
}

impl Check<'_> {
    fn run(&self, violations: &mut Vec<Violation>) {
        for mention in &self.file.mentions {
            let in_test = self.is_test || mention.in_test;
            let mut problem = None;
            if let What::Path(path) = &mention.what {
                problem = self.import_problem(path, &mention.inside, in_test);
            }
            if is_within(&self.room, "proto") {
                problem = problem.or_else(|| impurity(&mention.what, in_test));
            }
            violations.extend(problem.map(|problem| self.file.violation(mention.line, problem)));
        }
    }

    fn import_problem(&self, path: &[String], inside: &[String], in_test: bool) -> Option<String> {
        let room = &self.room;
        let shown = path.join("::");
        match self.resolve(path, inside)? {
            Target::Room(to) => {
                // Tests of a room may use all of the house that the room is in.
                let house = ancestors(room).last().unwrap_or(room);
                let at_home = in_test && is_within(&to, house);
                let allowed = at_home || self.rules.may_import(room, &to);
                (!allowed).then(|| format!("{room} must not import {to} (`{shown}`)"))
            }
            Target::Crate(name) => {
                let allowed = self.rules.crates_of(room)?;
                let for_tests = in_test && TEST_CRATES.contains(&name.as_str());
                let allowed = for_tests || allowed.contains(&name);
                (!allowed).then(|| format!("{room} must not use the crate {name} (`{shown}`)"))
            }
        }
    }

    /// Where `path`, written in `inside` of this file, leads; None for what is neither a room's nor
    /// a crate's: local names, generics, names imported by a `use` that is checked by itself.
    fn resolve(&self, path: &[String], inside: &[String]) -> Option<Target> {
        let here = [&self.file.module[..], inside].concat();
        let (first, rest) = path.split_first()?;
        let room = |path: &[String], binary| Some(Target::Room(self.rules.room_of(path, binary)));
        let binary = self.file.is_binary;
        match first.as_str() {
            "crate" => room(rest, binary),
            "imux" => room(rest, false),
            "self" => room(&[&here[..], rest].concat(), binary),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                let base = &here[..here.len().saturating_sub(ups)];
                room(&[base, &path[ups..]].concat(), binary)
            }
            name if self.modules.contains(&[&here[..], std::slice::from_ref(first)].concat()) => {
                debug_assert!(!name.is_empty());
                room(&[&here[..], path].concat(), binary)
            }
            name => self.rules.known_crates.contains(name).then(|| Target::Crate(name.to_owned())),
        }
    }
}

/// Crates for tests, wherever tests are.
const TEST_CRATES: [&str; 2] = ["arbitrary", "proptest"];

/// What must not be named in the core, and why.
const IMPURE_PATHS: [(&str, &str); 9] = [
    ("std::net", "the core has no sockets"),
    ("std::io", "the core has no IO"),
    ("std::fs", "the core has no files"),
    ("std::thread", "the core has no threads"),
    ("std::env", "the core's configuration is an argument"),
    ("std::process", "the core is no process"),
    ("std::os", "the core knows no operating system"),
    ("std::sync", "the core has one owner and no locks"),
    ("std::hash::RandomState", "the core's randomness comes from its seed"),
];
/// The exceptions: shared and unchangeable.
const PURE_PATHS: [&str; 1] = ["std::sync::Arc"];

const IMPURE_WORDS: [(&str, &str); 9] = [
    ("async", "the core has no tasks"),
    ("await", "the core has no tasks"),
    ("tokio", "the core has no tasks"),
    ("Mutex", "the core has one owner and no locks"),
    ("RwLock", "the core has one owner and no locks"),
    ("RefCell", "the core has one owner"),
    ("SystemTime", "time is an argument"),
    ("rand", "the core's randomness comes from its seed"),
    ("unsafe", "the core is safe code"),
];
/// The same, but no harm in tests.
const IMPURE_WORDS_BUT_IN_TESTS: [(&str, &str); 2] = [
    ("HashMap", "its order is random: BTreeMap, slab or a sorted vector"),
    ("HashSet", "its order is random: BTreeSet or a sorted vector"),
];
const IMPURE_MACROS: [&str; 5] = ["println", "eprintln", "print", "eprint", "dbg"];

fn impurity(what: &What, in_test: bool) -> Option<String> {
    let listed = |list: &[(&str, &str)], word: &str| {
        list.iter().find(|entry| entry.0 == word).map(|entry| format!("`{word}`: {}", entry.1))
    };
    match what {
        What::Path(path) => {
            let path = path.join("::").replacen("core::", "std::", 1);
            if path.ends_with("Instant::now") && !in_test {
                return Some("`Instant::now`: time is an argument".to_owned());
            }
            let pure = PURE_PATHS.iter().any(|pure| is_within(&path, pure));
            let found = IMPURE_PATHS.iter().find(|(impure, _)| is_within(&path, impure));
            found.filter(|_| !pure).map(|(_, why)| format!("`{path}`: {why}"))
        }
        What::Word(word) => listed(&IMPURE_WORDS, word)
            .or_else(|| listed(&IMPURE_WORDS_BUT_IN_TESTS, word).filter(|_| !in_test)),
        What::Macro(name) => (!in_test && IMPURE_MACROS.contains(&name.as_str()))
            .then(|| format!("`{name}!`: the core does not print; use tracing")),
        What::Method(name) => (!in_test && name == "elapsed")
            .then(|| "`.elapsed()` reads the clock: time is an argument".to_owned()),
        What::Module(_) => None,
    }
}

/// The lines `left -> right right …` of the fenced block with that name.
fn block(document: &str, name: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let fence = format!("```{name}");
    let mut lines = document.lines().skip_while(|line| line.trim() != fence).skip(1).peekable();
    if lines.peek().is_none() {
        return Err(format!("docs/ARCHITECTURE.md has no block {fence}"));
    }
    let mut entries = BTreeMap::new();
    for line in lines.take_while(|line| line.trim() != "```").filter(|line| !line.trim().is_empty())
    {
        let (left, right) = line.split_once("->").ok_or(format!("`{line}` has no arrow"))?;
        let right = right.split_whitespace().map(str::to_owned).collect();
        if entries.insert(left.trim().to_owned(), right).is_some() {
            return Err(format!("`{}` stands twice in {fence}", left.trim()));
        }
    }
    if entries.is_empty() { Err(format!("the block {fence} is empty")) } else { Ok(entries) }
}

/// The names of all dependencies of a Cargo.toml, as code spells them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut listing = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            listing = section.ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| listing) {
            names.push(name.trim().trim_matches('"').replace('-', "_"));
        }
    }
    names
}
