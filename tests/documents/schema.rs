//! The schema of `imux status --json` only grows, and says what every field is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

const SCHEMA: &str = "docs/status.schema.json";

/// What the schema has promised so far, a line a field or word.
const RECORD: &str = "tests/public-api/status.txt";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Each field with its type, each word of an enumeration, and what is required.
fn promises(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let objects = schema["$defs"].as_object().unwrap();
    let root = [("status".to_owned(), schema)].into_iter();
    for (name, object) in root.chain(objects.iter().map(|(name, it)| (name.clone(), it))) {
        for (field, is) in object["properties"].as_object().unwrap() {
            let mut add = |what: &str| found.insert(format!("{name}.{field} {what}"));
            match (&is["type"], &is["items"]["$ref"], is["enum"].as_array()) {
                (Value::String(kind), Value::String(of), _) => add(&format!("{kind} of {of}")),
                (Value::String(kind), _, _) => add(kind),
                (Value::Array(kinds), _, _) => {
                    let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str().unwrap()).collect();
                    add(&kinds.join(" or "))
                }
                (_, _, Some(words)) => {
                    words.iter().all(|word| add(&format!("may be {}", word.as_str().unwrap())))
                }
                _ if is["anyOf"].is_array() => {
                    let of =
                        |it: &Value| it["$ref"].as_str().or(it["type"].as_str()).map(str::to_owned);
                    let any: Vec<_> =
                        is["anyOf"].as_array().unwrap().iter().filter_map(of).collect();
                    add(&any.join(" or "))
                }
                _ => add(&format!("is {}", is["const"])),
            };
        }
        for field in object["required"].as_array().unwrap() {
            found.insert(format!("{name}.{} is always there", field.as_str().unwrap()));
        }
    }
    found
}

#[test]
fn the_schema_of_the_status_only_grows() {
    let now = promises(&serde_json::from_str(&read(SCHEMA)).unwrap());
    let record = read(RECORD);
    let before: BTreeSet<_> = record.lines().map(str::to_owned).collect();
    let broken: Vec<_> = before.difference(&now).collect();
    assert!(broken.is_empty(), "{SCHEMA} keeps no longer what it promised: {broken:#?}");
    let new: Vec<_> = now.difference(&before).cloned().collect();
    if !new.is_empty() && std::env::var_os("IMUX_RECORD_STATUS").is_some() {
        let all: Vec<_> = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD), all.concat()).unwrap();
        return;
    }
    assert!(
        new.is_empty(),
        "new promises; record them with `IMUX_RECORD_STATUS=1 cargo test --test documents schema`: {new:#?}"
    );
}
