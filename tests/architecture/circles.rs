//! Circles between files: one that imports another that imports the first, be it by way of others.
//!
//! Whoever reads a file of a circle has to read them all. `mod` lines and `pub use` are no imports:
//! they say where something is. What is imported by way of a `pub use` is imported from where that
//! leads. Test code may import what it likes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::paths::{What, mentions};
use super::rules::Violation;

/// A module's path from the root of its crate.
type Module = Vec<String>;

struct File {
    path: String,
    module: Module,
    /// What the file names: paths, the modules within the file that they stand in, their lines.
    named: Vec<(Module, Module, usize)>,
    /// What it hands on: a name (`*`: all there is), and the path it stands for.
    handed_on: Vec<(String, Module)>,
    /// Modules in files of their own and within this one, by their whole paths.
    modules: Vec<Module>,
}

/// All circles in `files`, given by their path below the folder `src` and their text.
pub(crate) fn circles(src: &str, files: &[(String, String)]) -> Vec<Violation> {
    let files = read(files);
    let tree = Tree::new(&files);
    let imports: Vec<_> = (0..files.len()).map(|file| tree.imports_of(file)).collect();
    let mut told = BTreeSet::new();
    let mut violations = Vec::new();
    for start in 0..files.len() {
        let Some(circle) = shortest_circle(&imports, start) else { continue };
        // The same circle begins at each of its files.
        if !told.insert(circle.iter().copied().collect::<BTreeSet<_>>()) {
            continue;
        }
        let shown = circle.iter().zip(circle.iter().cycle().skip(1)).map(|(from, to)| {
            let (line, path) = &imports[*from][to];
            format!("{}:{line} imports {} (`{path}`)", files[*from].path, files[*to].path)
        });
        let problem = format!("a circle of files: {}", shown.collect::<Vec<_>>().join(", "));
        let file = format!("{src}/{}", files[start].path);
        violations.push(Violation { file, line: 1, problem });
    }
    violations
}

/// The files that are no tests.
fn read(files: &[(String, String)]) -> Vec<File> {
    let mut tests: BTreeSet<Module> = BTreeSet::new();
    let mut all = Vec::new();
    for (path, text) in files {
        let module = module_of(path);
        let mut file = File {
            path: path.clone(),
            module: module.clone(),
            named: Vec::new(),
            handed_on: Vec::new(),
            modules: Vec::new(),
        };
        for mention in mentions(text) {
            match (mention.what, mention.exported) {
                (What::Module(name), _) => {
                    let inner = [&module[..], &mention.inside, &[name]].concat();
                    if mention.in_test {
                        tests.insert(inner);
                    } else {
                        file.modules.push(inner);
                    }
                }
                (What::Path(_), _) if mention.in_test => {}
                (What::Path(path), Some(name)) => file.handed_on.push((name, path)),
                (What::Path(path), None) => file.named.push((path, mention.inside, mention.line)),
                _ => {}
            }
        }
        all.push(file);
    }
    // The program's modules are besides in the library where it is fuzzed.
    let known: BTreeSet<Module> = all.iter().flat_map(|file| file.modules.clone()).collect();
    tests.retain(|test| !known.contains(test));
    let is_test = |file: &File| {
        let named_so = file.module.last().is_some_and(|n| n == "tests" || n.ends_with("_tests"));
        named_so || tests.iter().any(|test| file.module.starts_with(test))
    };
    all.retain(|file| !is_test(file));
    all
}

fn module_of(path: &str) -> Module {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Module = stem.split('/').map(str::to_owned).collect();
    module.pop_if(|name| matches!(name.as_str(), "mod" | "lib" | "main"));
    module
}

struct Tree<'a> {
    files: &'a [File],
    by_module: BTreeMap<&'a [String], usize>,
    modules: BTreeSet<&'a [String]>,
}

/// File -> the first line that imports it, and the path that stands there.
type Imports = BTreeMap<usize, (usize, String)>;

impl<'a> Tree<'a> {
    fn new(files: &'a [File]) -> Self {
        let by_module = files.iter().enumerate().map(|(at, file)| (&file.module[..], at)).collect();
        let modules = files.iter().flat_map(|file| file.modules.iter().map(|m| &m[..])).collect();
        Self { files, by_module, modules }
    }

    fn imports_of(&self, from: usize) -> Imports {
        let mut imports = Imports::new();
        for (path, inside, line) in &self.files[from].named {
            let here = [&self.files[from].module[..], inside].concat();
            let Some(whole) = self.whole_path(&here, path) else { continue };
            let to = self.file_of(&whole, 0);
            if let Some(to) = to.filter(|to| *to != from) {
                imports.entry(to).or_insert_with(|| (*line, path.join("::")));
            }
        }
        imports
    }

    /// `path`, written in the module `here`, from the root of the crate; `None` for what is not of
    /// this crate, and for names imported by a `use` that is looked at by itself.
    fn whole_path(&self, here: &[String], path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([here, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                let base = here.get(..here.len().checked_sub(ups)?)?;
                Some([base, &path[ups..]].concat())
            }
            _ => {
                let child = [here, std::slice::from_ref(first)].concat();
                self.modules.contains(&child[..]).then(|| [here, path].concat())
            }
        }
    }

    /// The file that what `path` leads to stands in.
    fn file_of(&self, path: &[String], detours: usize) -> Option<usize> {
        let at = (0..=path.len()).rev().find_map(|len| self.by_module.get(&path[..len]))?;
        let file = &self.files[*at];
        // A circle of `pub use` would have no end.
        let Some(name) = path.get(file.module.len()).filter(|_| detours < 8) else {
            return Some(*at);
        };
        let mut named = file.handed_on.iter().filter(|(handed_on, _)| handed_on == name);
        let origin = named.find_map(|(_, origin)| {
            let origin = self.whole_path(&file.module, origin)?;
            let rest = &path[file.module.len() + 1..];
            self.file_of(&[&origin[..], rest].concat(), detours + 1)
        });
        origin.or(Some(*at))
    }
}

/// The shortest way from `start` back to it.
fn shortest_circle(imports: &[Imports], start: usize) -> Option<Vec<usize>> {
    let mut came_from = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(at) = next.pop_front() {
        for &to in imports[at].keys() {
            if to == start {
                let back = std::iter::successors(Some(at), |at| came_from.get(at).copied());
                let mut circle: Vec<_> = back.collect();
                circle.reverse();
                return Some(circle);
            }
            if let Entry::Vacant(unseen) = came_from.entry(to) {
                unseen.insert(at);
                next.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let owned: Vec<_> = files.iter().map(|&(p, t)| (p.to_owned(), t.to_owned())).collect();
        circles("src", &owned).into_iter().map(|violation| violation.problem).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let circle = found(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { super::a::A }"),
        ]);
        let expected = "a circle of files: a.rs:1 imports b.rs (`crate::b::B`), \
                        b.rs:1 imports a.rs (`super::a::A`)";
        assert_eq!(circle, [expected]);
    }

    #[test]
    fn a_circle_may_be_long_and_is_told_once() {
        let circle = found(&[
            ("room/mod.rs", "mod a; mod b; mod c; mod d;"),
            ("room/a.rs", "use super::b;"),
            ("room/b.rs", "use super::{c::C, d};"),
            ("room/c.rs", "use crate::room::a::A;"),
            ("room/d.rs", ""),
        ]);
        assert_eq!(circle.len(), 1, "{circle:?}");
        assert!(circle[0].contains("room/c.rs:1 imports room/a.rs"), "{circle:?}");
    }

    #[test]
    fn a_child_that_imports_from_its_parent_is_a_circle() {
        for (parent, child) in [
            ("mod b; use b::B; struct A;", "use super::A; pub struct B;"),
            ("mod b; struct A; fn f() { b::f() }", "use super::*;"),
            ("mod b; struct A; use self::b::B;", "use crate::a::A;"),
        ] {
            let circle = found(&[("a.rs", parent), ("a/b.rs", child)]);
            assert_eq!(circle.len(), 1, "{parent} {child}: {circle:?}");
        }
    }

    #[test]
    fn a_name_that_is_handed_on_is_imported_from_where_it_stands() {
        let circle = found(&[
            ("room/mod.rs", "mod a; mod b; pub use b::{B as C}; pub(crate) use a::A;"),
            ("room/a.rs", "use super::C;"),
            ("room/b.rs", "use crate::room::A;"),
        ]);
        assert_eq!(circle.len(), 1, "{circle:?}");
        let none = found(&[
            ("room/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("room/a.rs", "use super::B;"),
            ("room/b.rs", "use std::io; fn f() { tokio::spawn() }"),
        ]);
        assert_eq!(none, [""; 0]);
    }

    #[test]
    fn tests_make_no_circle() {
        for b in [
            "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
            "pub struct B; #[cfg(test)] mod tests;",
            "pub struct B; #[test] fn f() { crate::a::f() }",
        ] {
            let files = [
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b::B;"),
                ("b.rs", b),
                ("b/tests.rs", "use super::*; use crate::a::A;"),
            ];
            assert_eq!(found(&files), [""; 0], "{b}");
        }
    }
}
