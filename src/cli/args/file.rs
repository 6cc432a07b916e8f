//! Servers and clients in a file: each table is a command line, and each of its keys an option.
//!
//! What options exist, what they may say and what holds where they are left out comes from clap's
//! definition and from what comes after it: a file has no defaults and no checks of its own.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::text::{escape, meant};

mod keys;
mod print;
mod source;
mod value;

use keys::in_order;
pub(super) use print::print;
pub(super) use source::{Problem, Source};
use value::{Given, given};

/// What a process can be several of.
pub(super) const ROLES: [&str; 2] = ["server", "client"];

/// Largest file that is read: any larger one is something else.
const BYTES_MAX: u64 = 1 << 20;

/// A table of the file, as the words of a command line.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) words: Vec<OsString>,
    /// Its heading.
    pub(super) at: Range<usize>,
    given: Vec<Given>,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Source, String> {
    let name = path.display().to_string();
    let read = || {
        let file = std::fs::File::open(path)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, BYTES_MAX + 1), &mut text)?;
        Ok(text)
    };
    let shown = escape(&name);
    match read() {
        Ok(text) if text.len() as u64 > BYTES_MAX => {
            Err(format!("{shown} is larger than 1 MiB, and no configuration"))
        }
        Ok(text) => Ok(Source { name, text }),
        Err(error) => {
            let error: std::io::Error = error;
            Err(format!("cannot read {shown}: {error}"))
        }
    }
}

/// The tables of the file. `over` are options from the command line, which count instead of the
/// file's.
pub(super) fn tables(
    source: &Source,
    command: &clap::Command,
    over: &[String],
) -> Result<Vec<Table>, Vec<Problem>> {
    let root = DeTable::parse(&source.text).map_err(|error| {
        let at = error.span().unwrap_or_default();
        vec![Problem::new(at, error.message().trim().replace('\n', ", "))]
    })?;
    let mut problems = Vec::new();
    let (mut shared, mut roles) = (Vec::new(), Vec::new());
    for (key, value) in in_order(root.get_ref()) {
        let name = key.get_ref().as_ref();
        if ROLES.contains(&name) {
            roles.push((name.to_owned(), key.span(), value));
            continue;
        }
        match given(command, "at the top", key, value, &ROLES) {
            Ok(given) => shared.push(given),
            Err(wrong) => problems.extend(wrong),
        }
    }
    let mut shared: Vec<_> = shared.iter().flat_map(|it| it.words(over)).collect();
    shared.extend(over.iter().map(OsString::from));
    let mut tables = Vec::new();
    for (role, at, value) in roles {
        let Some(sub) = command.find_subcommand(&role) else { continue };
        match of_role(sub, &role, at, value) {
            Ok(found) => tables.extend(found),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if tables.is_empty() && problems.is_empty() {
        let what = "there is neither [[server]] nor [[client]] in it";
        problems.push(Problem::new(0..0, what));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for table in &mut tables {
        table.words.extend(shared.iter().cloned());
    }
    Ok(tables)
}

/// `[client]` is one, `[[client]]` one of several.
fn of_role(
    command: &clap::Command,
    role: &str,
    at: Range<usize>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<Table>, Vec<Problem>> {
    let not_tables = |at| {
        let what = format!("`{role}` has to be a table: write [[{role}]], and its keys below");
        vec![Problem::new(at, what)]
    };
    let items: Vec<_> = match value.get_ref() {
        DeValue::Table(table) => vec![(at, table)],
        DeValue::Array(items) => {
            let table = |it: &'_ Spanned<DeValue<'_>>| it.span();
            let mut found = Vec::new();
            for item in items {
                let DeValue::Table(inner) = item.get_ref() else {
                    return Err(not_tables(table(item)));
                };
                found.push((table(item), inner));
            }
            found
        }
        _ => return Err(not_tables(value.span())),
    };
    let (mut tables, mut problems) = (Vec::new(), Vec::new());
    for (at, table) in items {
        let (mut words, mut all) = (vec!["imux".into(), role.into()], Vec::new());
        for (key, value) in in_order(table) {
            match given(command, &format!("in [{role}]"), key, value, &[]) {
                Ok(given) => {
                    words.extend(given.words(&[]));
                    all.push(given);
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        tables.push(Table { words, at, given: all });
    }
    if problems.is_empty() { Ok(tables) } else { Err(problems) }
}

impl Table {
    /// What clap says about its words, at the place it is about.
    pub(super) fn explain(&self, error: &clap::Error) -> Problem {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            Some(ContextValue::Strings(all)) => all.first().map(String::as_str),
            _ => None,
        };
        let value = text(ContextKind::InvalidValue);
        let named = text(ContextKind::InvalidArg).and_then(option_in);
        let given = named.and_then(|name| self.given.iter().find(|it| it.key == name));
        let why = std::error::Error::source(error).map(ToString::to_string);
        let (Some(given), Some(value)) = (given, value) else {
            let rendered = error.render().to_string();
            let what = rendered.split("\n\n").next().unwrap_or_default();
            let what = what.strip_prefix("error: ").unwrap_or(what);
            let at = given.map_or_else(|| self.at.clone(), |it| it.at.clone());
            return Problem::new(at, in_keys(what));
        };
        let shown = escape(value);
        let what = match (why, error.get(ContextKind::ValidValue)) {
            (Some(why), _) => format!("`{shown}` will not do for `{}`: {why}", given.key),
            (None, Some(ContextValue::Strings(valid))) => {
                let words: Vec<_> = valid.iter().map(String::as_str).collect();
                let near = meant(value, &words);
                let valid = valid.join(", ");
                format!("`{shown}` will not do for `{}`{near}; there are {valid}", given.key)
            }
            (None, _) => format!("`{shown}` will not do for `{}`", given.key),
        };
        Problem::new(given.place_of(value, &what), in_keys(&what))
    }

    /// What is wrong with its keys together, at the first one that is named.
    pub(super) fn explain_all(&self, what: &str) -> Problem {
        let named = words_of(what).filter_map(option_in);
        let given = named.filter_map(|name| self.given.iter().find(|it| it.key == name)).next();
        let at = given.map_or_else(|| self.at.clone(), |it| it.at.clone());
        Problem::new(at, in_keys(what))
    }
}

/// In one line, with options as a file has them, and without commands as examples.
fn in_keys(text: &str) -> String {
    let is_command = |line: &&str| line.starts_with("    ") && line.contains("imux ");
    let lines: Vec<_> = text.lines().filter(|line| !is_command(line)).collect();
    let text = lines.join("\n").replace("\n\n", "; ");
    let text = text.split(" The shortest command").next().unwrap_or_default();
    let words = text.split_whitespace().map(|word| match word.find("--") {
        Some(at) if word[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()) => {
            word.replacen("--", "", 1)
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '`' | '(' | ')' | ','))
}

/// The name in `--name <VALUE>`.
fn option_in(text: &str) -> Option<&str> {
    let name = text.strip_prefix("--")?;
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(name.len());
    Some(&name[..end])
}

#[cfg(test)]
mod tests;
