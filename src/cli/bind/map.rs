//! `--binds`: all links of a client as one JSON object, as in the original.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{
    LANES_DEFAULT, LinkPlan, OPTION_NAMES, OPTIONS, check_lanes, no_option, parse_source,
    set_option,
};
use crate::cli::text::escape;

/// The value of `--binds`: a JSON object that maps addresses to a number of lanes or an object of
/// options, in the order written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMap(pub Vec<LinkPlan>);

impl FromStr for BindMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed =
            json.deserialize_map(BindsVisitor).and_then(|binds| json.end().map(|()| binds));
        parsed.map(BindMap).map_err(|error| explain_json(text, &error))
    }
}

struct BindsVisitor;

impl<'de> Visitor<'de> for BindsVisitor {
    type Value = Vec<LinkPlan>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of address to number of lanes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<LinkPlan>, A::Error> {
        let mut binds: Vec<LinkPlan> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let source = parse_source(&key).map_err(de::Error::custom)?;
            let value = map.next_value::<serde_json::Value>()?;
            let mut plan = LinkPlan::new(source, LANES_DEFAULT);
            set_json(&mut plan, &value)
                .map_err(|problem| de::Error::custom(format!("{}: {problem}", plan.bind.source)))?;
            binds.push(plan);
        }
        if binds.is_empty() {
            return Err(de::Error::custom("there is no bind in it, so there would be no lane"));
        }
        Ok(binds)
    }
}

/// `4`, or `{"lanes": 4, "tier": "backup", "rate": "20mbit"}`.
fn set_json(plan: &mut LinkPlan, value: &serde_json::Value) -> Result<(), String> {
    let lanes = |value: &serde_json::Value| check_lanes(value.as_u64(), &value.to_string());
    let Some(options) = value.as_object() else {
        plan.bind.lanes = lanes(value)?;
        return Ok(());
    };
    for (name, value) in options {
        match value.as_str() {
            _ if !OPTION_NAMES.contains(&name.as_str()) => {
                return Err(no_option(name));
            }
            _ if name == "lanes" => plan.bind.lanes = lanes(value)?,
            _ if name == "express" && value.is_boolean() => plan.express = value.as_bool(),
            Some(text) => set_option(plan, name, text)?,
            None => {
                let wanted = match name.as_str() {
                    "express" => "true, false, or \"yes\" or \"no\" in quotes",
                    _ => "text in quotes",
                };
                return Err(format!(
                    "the value of `{}` has to be {wanted}, not {}; {OPTIONS}",
                    escape(name),
                    escape(&value.to_string())
                ));
            }
        }
    }
    plan.check()
}

/// The JSON error, with its place marked under the text.
fn explain_json(text: &str, error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let problem = whole.strip_suffix(&place).unwrap_or(&whole);
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    // serde_json counts bytes; the column is the last byte read. Show some 60 characters of the
    // line.
    let before = line.bytes().take(error.column().saturating_sub(1)).collect::<Vec<_>>();
    let before = String::from_utf8_lossy(&before).chars().count();
    let start = before.saturating_sub(40);
    let excerpt: String = line.chars().skip(start).take(60).collect();
    let mark = " ".repeat(before - start);
    format!(
        "{problem} (line {}, column {})\n    {excerpt}\n    {mark}^\n\
         Expected a JSON object of address to number of lanes, quoted for the shell, such as\n    \
         --binds='{{\"192.168.1.2\": 20, \"dev:eth1\": {{\"lanes\": 4, \"tier\": \"backup\"}}}}'",
        error.line(),
        error.column(),
    )
}
