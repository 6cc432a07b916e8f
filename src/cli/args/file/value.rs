//! A key and its value, as words of a command line.

use std::ffi::OsString;
use std::ops::Range;

use clap::ArgAction;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, in_order, keys_of};
use super::source::Problem;
use crate::cli::text::{escape, meant};

/// Options whose value may also be a table: what comes first in their value, with colons between,
/// as an option has it. The table's other keys are the options after commas.
const PARTS: [(&str, &[&str]); 5] = [
    ("bind", &["link"]),
    ("forward", &["listen", "to"]),
    ("reverse", &["listen", "to"]),
    ("dynamic", &["listen"]),
    ("transparent", &["listen"]),
];

/// A key that stands in the file.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) key: String,
    pub(super) at: Range<usize>,
    values: Vec<Value>,
}

/// One value of a key.
#[derive(Debug)]
struct Value {
    /// `None` for a switch that is on.
    text: Option<String>,
    at: Range<usize>,
    /// Keys of the table that it was.
    inner: Vec<(String, Range<usize>)>,
}

impl Value {
    fn new(text: impl Into<Option<String>>, at: Range<usize>) -> Self {
        Self { text: text.into(), at, inner: Vec::new() }
    }
}

impl Given {
    /// Its options; none if the command line, whose options are `over`, says otherwise.
    pub(super) fn words(&self, over: &[String]) -> Vec<OsString> {
        let level = |key: &str| ["debug", "quiet"].contains(&key);
        let is_over = |word: &String| {
            let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
            name == self.key || level(name) && level(&self.key)
        };
        if over.iter().any(is_over) {
            return Vec::new();
        }
        let word = |value: &Value| match &value.text {
            None => format!("--{}", self.key),
            Some(text) => format!("--{}={text}", self.key),
        };
        self.values.iter().map(|value| word(value).into()).collect()
    }

    /// Where a value stands, or the key in it that `what` names.
    pub(super) fn place_of(&self, value: &str, what: &str) -> Range<usize> {
        let Some(found) = self.values.iter().find(|it| it.text.as_deref() == Some(value)) else {
            return self.at.clone();
        };
        let names = |name: &str| {
            let quoted = [format!("`{name}`"), format!("`{name}="), format!(" {name} ")];
            quoted.iter().any(|it| what.contains(it.as_str()))
        };
        let inner = found.inner.iter().find(|(name, _)| names(name));
        inner.map_or_else(|| found.at.clone(), |(_, at)| at.clone())
    }
}

/// A key of `command`, with its value. `others` are names that are right besides.
pub(super) fn given(
    command: &clap::Command,
    of: &str,
    key: &Key<'_>,
    value: &Spanned<DeValue<'_>>,
    others: &[&str],
) -> Result<Given, Vec<Problem>> {
    let name = key.get_ref().as_ref();
    let Some((name, arg)) = keys_of(command).find(|(known, _)| *known == name) else {
        let shown: Vec<_> = keys_of(command).filter(|(_, arg)| !arg.is_hide_set()).collect();
        let known: Vec<_> =
            shown.iter().map(|(key, _)| *key).chain(others.iter().copied()).collect();
        let near = meant(&name.replace('_', "-"), &known);
        let what = format!("there is no key `{}` {of}{near}", escape(name));
        return Err(vec![Problem::new(key.span(), what)]);
    };
    let values = values(name, arg, value)?;
    Ok(Given { key: name.to_owned(), at: key.span(), values })
}

fn values(
    key: &str,
    arg: &clap::Arg,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<Value>, Vec<Problem>> {
    let at = value.span();
    let wrong = |at, wanted: &str| vec![Problem::new(at, format!("`{key}` has to be {wanted}"))];
    let bare = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let is_switch = !arg.get_action().takes_values();
    match value.get_ref() {
        DeValue::Boolean(false) if is_switch || bare => Ok(Vec::new()),
        DeValue::Boolean(true) if is_switch || bare => Ok(vec![Value::new(None, at)]),
        _ if is_switch => Err(wrong(at, "true or false")),
        DeValue::Table(table) if key == "binds" => Ok(vec![Value::new(json(table), at)]),
        DeValue::Array(items) if matches!(arg.get_action(), ArgAction::Append) => {
            let (mut found, mut problems) = (Vec::new(), Vec::new());
            for item in items {
                match one(key, item) {
                    Ok(value) => found.push(value),
                    Err(problem) => problems.push(problem),
                }
            }
            if problems.is_empty() { Ok(found) } else { Err(problems) }
        }
        DeValue::Array(_) => Err(wrong(at, "one value, not several")),
        _ => one(key, value).map(|value| vec![value]).map_err(|problem| vec![problem]),
    }
}

/// One value, as an option has it.
fn one(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Value, Problem> {
    let at = value.span();
    if let Some(text) = scalar(value.get_ref()) {
        return Ok(Value::new(text, at));
    }
    let parts = PARTS.iter().find(|(option, _)| *option == key).map(|(_, parts)| *parts);
    match (value.get_ref(), parts) {
        (DeValue::Table(table), Some(parts)) => of_table(key, table, parts, at),
        (_, Some(_)) => Err(Problem::new(at, format!("`{key}` has to be text or a table"))),
        (_, None) => {
            let what = format!("`{key}` has to be text in quotation marks, or a number");
            Err(Problem::new(at, what))
        }
    }
}

/// Text, and numbers as text.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// `{ link = "dev:wwan0", tier = "metered" }` as `dev:wwan0,tier=metered`.
fn of_table(
    key: &str,
    table: &DeTable<'_>,
    parts: &[&str],
    at: Range<usize>,
) -> Result<Value, Problem> {
    let wrong = |at, name: &str, wanted: &str| {
        Err(Problem::new(at, format!("`{}` of `{key}` has to be {wanted}", escape(name))))
    };
    let mut first = Vec::new();
    for part in parts {
        match table.get(*part).map(|value| (value.span(), scalar(value.get_ref()))) {
            Some((_, Some(text))) => first.push(text),
            Some((at, None)) => return wrong(at, part, "text in quotation marks, or a number"),
            None => {
                let what = format!("there is no `{part}` in this `{key}`");
                return Err(Problem::new(at, what));
            }
        }
    }
    let mut text = first.join(":");
    let mut inner = Vec::new();
    for (name, value) in in_order(table) {
        let (name, place) = (name.get_ref().as_ref(), name.span());
        inner.push((name.to_owned(), place.clone()));
        if parts.contains(&name) {
            continue;
        }
        // A bind's options all have values; the others' are switches.
        match (value.get_ref(), scalar(value.get_ref())) {
            (DeValue::Boolean(is_on), _) if key == "bind" => {
                text.push_str(&format!(",{name}={}", if *is_on { "yes" } else { "no" }));
            }
            (DeValue::Boolean(true), _) => text.push_str(&format!(",{name}")),
            (DeValue::Boolean(false), _) => {}
            (_, Some(value)) => text.push_str(&format!(",{name}={value}")),
            _ => return wrong(value.span(), name, "text, a number, true or false"),
        }
    }
    Ok(Value { text: Some(text), at, inner })
}

/// As `--binds` has it.
fn json(table: &DeTable<'_>) -> String {
    let entries = in_order(table).into_iter().map(|(key, value)| {
        let key = serde_json::Value::from(key.get_ref().as_ref());
        format!("{key}: {}", json_value(value.get_ref()))
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

fn json_value(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Table(table) => json(table),
        DeValue::Boolean(is_on) => is_on.to_string(),
        DeValue::Integer(_) => scalar(value).unwrap_or_default(),
        _ => serde_json::Value::from(scalar(value).unwrap_or_default()).to_string(),
    }
}
