//! Bugs to plant in a copy of the core: `mutants.diff`.
//!
//! The core knows nothing about them. All are planted together, each behind a switch, so that one
//! build has them all; an environment variable says which one is on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail, ensure};

/// Names the bug to switch on in a program built with all of them.
pub const VARIABLE: &str = "IMUX_PLANTED_BUG";

/// What a bug's lines write for the test whether it is on.
const SWITCH: &str = "PLANTED";

/// The copy's module that answers it.
const SWITCHES: &str = r#"//! Which of the planted bugs is on.

use std::sync::LazyLock;

static ON: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("IMUX_PLANTED_BUG").ok());

pub(crate) fn is_on(name: &str) -> bool {
    ON.as_deref() == Some(name)
}
"#;

#[derive(Debug)]
pub struct Bug {
    pub name: String,
    places: Vec<Place>,
}

/// Whole lines of the core, without indentation, and their replacement.
#[derive(Debug, Default)]
struct Place {
    right: Vec<String>,
    wrong: Vec<String>,
}

/// All bugs.
///
/// # Errors
/// `mutants.diff` has a meaningless line.
pub fn bugs() -> anyhow::Result<Vec<Bug>> {
    parse(include_str!("../mutants.diff"))
}

fn parse(text: &str) -> anyhow::Result<Vec<Bug>> {
    let mut bugs: Vec<Bug> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (kind, rest) = line.split_at_checked(1).with_context(|| line.to_owned())?;
        if !matches!(kind, "@" | " " | "-" | "+") {
            bugs.push(Bug { name: line.to_owned(), places: Vec::new() });
            continue;
        }
        let Some(bug) = bugs.last_mut() else { bail!("{line:?} belongs to no bug") };
        if kind == "@" {
            bug.places.push(Place::default());
            continue;
        }
        let Some(place) = bug.places.last_mut() else { bail!("{line:?} stands at no place") };
        if kind != "+" {
            place.right.push(rest.trim().to_owned());
        }
        if kind != "-" {
            place
                .wrong
                .push(rest.replace(SWITCH, &format!("crate::planted::is_on({:?})", bug.name)));
        }
    }
    Ok(bugs)
}

/// Plants all bugs in files, keyed by their paths.
///
/// # Errors
/// A bug's lines occur nowhere in these files, or more than once.
pub fn plant(bugs: &[Bug], files: &mut BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
    for bug in bugs {
        ensure!(!bug.places.is_empty(), "{} stands at no place", bug.name);
        for place in &bug.places {
            place.plant(files).with_context(|| format!("mutants.diff, {}", bug.name))?;
        }
    }
    Ok(())
}

impl Place {
    fn plant(&self, files: &mut BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
        ensure!(!self.right.is_empty(), "no line says where it stands");
        let mut found = Vec::new();
        for (path, text) in files.iter() {
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let starts = lines.windows(self.right.len()).enumerate();
            let starts = starts.filter(|(_, lines)| lines.iter().eq(&self.right));
            found.extend(starts.map(|(start, _)| (path.clone(), start)));
        }
        let [(path, start)] = found.as_slice() else {
            bail!("{:?} stands {} times in the core, not once", self.right.join("\n"), found.len());
        };
        let Some(text) = files.get_mut(path) else { return Ok(()) };
        let mut lines: Vec<&str> = text.lines().collect();
        let wrong = self.wrong.iter().map(String::as_str);
        lines.splice(*start..start + self.right.len(), wrong);
        *text = lines.join("\n") + "\n";
        Ok(())
    }
}

/// The files of the core, without its tests.
///
/// # Errors
/// One of them cannot be read.
pub fn core(repository: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let is_test = |part: &OsStr| {
        matches!(part.to_str(), Some("tests" | "tests.rs" | "testing" | "fuzz" | "fuzz.rs"))
    };
    let mut files = BTreeMap::new();
    for path in files_below(&repository.join("src/proto"))? {
        if !path.iter().any(is_test) {
            let text = fs::read_to_string(&path)?;
            files.insert(path, text);
        }
    }
    Ok(files)
}

fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.append(&mut files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// Makes `copy` a copy of the repository with all bugs planted. Everything beside the source is
/// linked.
///
/// # Errors
/// A bug has no place, or a file cannot be written.
pub fn make_copy(repository: &Path, copy: &Path) -> anyhow::Result<()> {
    let mut planted = core(repository)?;
    plant(&bugs()?, &mut planted)?;
    let lib = repository.join("src/lib.rs");
    let text = fs::read_to_string(&lib)?;
    planted.insert(lib, text + "\nmod planted;\n");

    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(repository)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_str(), Some("src" | "target" | ".git")) {
            symlink(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    for path in files_below(&repository.join("src"))? {
        let to = copy.join(path.strip_prefix(repository)?);
        fs::create_dir_all(to.parent().unwrap_or(copy))?;
        match planted.get(&path) {
            Some(text) => fs::write(&to, text)?,
            None => drop(fs::copy(&path, &to)?),
        }
    }
    Ok(fs::write(copy.join("src/planted.rs"), SWITCHES)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn planted(bugs: &str, text: &str) -> anyhow::Result<String> {
        let path = PathBuf::from("a.rs");
        let mut files = BTreeMap::from([(path.clone(), text.to_owned())]);
        plant(&parse(bugs)?, &mut files)?;
        Ok(files[&path].clone())
    }

    /// Fails for whoever changes a line with a bug beside it: update `mutants.diff`.
    #[test]
    fn every_bug_has_its_place_in_the_core() {
        let bugs = bugs().unwrap();
        assert!(bugs.len() > 30, "{}", bugs.len());
        let mut files = core(&repository()).unwrap();
        plant(&bugs, &mut files).unwrap();
        let all: String = files.into_values().collect();
        for bug in &bugs {
            assert!(all.contains(&format!("crate::planted::is_on({:?})", bug.name)), "{bug:?}");
        }
    }

    #[test]
    fn bugs_have_names_of_their_own() {
        let mut names: Vec<String> = bugs().unwrap().into_iter().map(|bug| bug.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_bug_is_planted_where_its_lines_stand_whatever_they_are_indented_by() {
        let bug = "off-by-one\n@@\n one();\n-two(2);\n+two(2 + u64::from(PLANTED));\n three();\n";
        let was = "    one();\n    two(2);\n    three();\n    two(2);\n";
        let is = "one();\ntwo(2 + u64::from(crate::planted::is_on(\"off-by-one\")));\nthree();\n";
        assert_eq!(planted(bug, was).unwrap(), format!("{is}    two(2);\n"));
    }

    #[test]
    fn a_bug_without_a_place_or_with_two_is_none() {
        let bug = "gone\n@@\n-two(2);\n+two(PLANTED);\n";
        let why = |text| format!("{:#}", planted(bug, text).unwrap_err());
        assert!(
            why("one();\n").contains("gone: \"two(2);\" stands 0 times"),
            "{}",
            why("one();\n")
        );
        assert!(why("two(2);\n\ntwo(2);\n").contains("stands 2 times"));
        planted("nowhere\n", "").unwrap_err();
        planted("nowhere\n@@\n+PLANTED\n", "").unwrap_err();
        planted("+PLANTED\n", "").unwrap_err();
    }

    #[test]
    fn a_copy_has_the_bugs_and_what_stands_beside_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        for _ in 0..2 {
            make_copy(&repository(), &copy).unwrap();
        }
        let lib = fs::read_to_string(copy.join("src/lib.rs")).unwrap();
        assert!(lib.ends_with("mod planted;\n"));
        let acks = fs::read_to_string(copy.join("src/proto/lane/inbound.rs")).unwrap();
        assert!(acks.contains("is_on(\"ack-counted-twice\")"));
        assert!(fs::read_to_string(copy.join("src/planted.rs")).unwrap().contains(VARIABLE));
        assert!(copy.join("sim/Cargo.toml").is_file() && !copy.join("target").exists());
    }
}
