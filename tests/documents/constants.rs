//! The table of constants in docs/SCHEDULING.md is that of the source: names, values and files.

use std::collections::BTreeMap;
use std::fs;

use crate::markdown::{read, root, table};

const SCHEDULING: &str = "docs/SCHEDULING.md";

/// The rooms and files whose constants the table has, below src/proto.
const ROOMS: [&str; 6] = ["link", "scheduler", "lanes", "session", "copies", "lane"];

/// The allowance for frames that make work: its constants are products of limits, which
/// PROTOCOL.md's table has.
const LEFT_OUT: [&str; 1] = ["session/busy.rs"];

/// Constants by file and name, each as it is written.
type Constants = BTreeMap<(String, String), String>;

/// What a file declares as constants, tests left out. Those of a type of the room's own are named
/// values, no settings.
fn declared(text: &str) -> Vec<(String, String)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let constants = lines.iter().enumerate().filter_map(|(number, line)| {
        let (visibility, declared) = line.split_once("const ")?;
        let (name, _) = declared.split_once(':')?;
        let is_name = name.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '_'));
        if !is_name || !(visibility.is_empty() || visibility.starts_with("pub")) {
            return None;
        }
        let from_here = lines[number..].join(" ");
        let (head, value) = from_here.split(';').next()?.split_once(" = ")?;
        let (_, kind) = head.rsplit_once(": ")?;
        let is_setting = matches!(kind, "Duration" | "f64") || kind.starts_with(['u', 'i']);
        assert!(is_setting || kind.contains("Self"), "{head}: of a type that is not known here");
        is_setting.then(|| (name.to_owned(), value.trim().to_owned()))
    });
    constants.collect()
}

/// All constants of a folder's files, or of one file, below src/proto.
fn constants(below: &str) -> Constants {
    let mut found = Constants::new();
    let mut waiting = vec![below.to_owned()];
    while let Some(name) = waiting.pop() {
        let path = root().join("src/proto").join(&name);
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
            waiting.extend(entries.map(|entry| format!("{name}/{}", entry.to_str().unwrap())));
            continue;
        }
        let of_tests = name.ends_with("/tests.rs") || name.ends_with("/testing.rs");
        if of_tests || LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        for (constant, value) in declared(&fs::read_to_string(path).unwrap()) {
            let twice = found.insert((name.clone(), constant), value);
            assert!(twice.is_none(), "{name}: a name stands twice: {twice:?}");
        }
    }
    found
}

/// The value of a constant's expression in seconds, bytes, or by itself: products and quotients of
/// numbers, durations and other constants.
fn value(known: &Constants, file: &str, expression: &str) -> f64 {
    let expression = expression.trim();
    for (operator, apply) in [('*', (|a, b| a * b) as fn(f64, f64) -> f64), ('/', |a, b| a / b)] {
        if let Some((left, right)) = expression.rsplit_once(&format!(" {operator} ")) {
            return apply(value(known, file, left), value(known, file, right));
        }
    }
    if let Some((inner, _)) = expression.rsplit_once(" as ") {
        return value(known, file, inner);
    }
    if let Some(call) = expression.strip_prefix("Duration::from_") {
        let (unit, inner) = call.split_once('(').unwrap();
        let unit = match unit {
            "secs" => 1.0,
            "millis" => 1e-3,
            "micros" => 1e-6,
            _ => panic!("{file}: {expression}"),
        };
        return unit * value(known, file, inner.trim_end_matches(')'));
    }
    if let Ok(number) = expression.replace('_', "").parse() {
        return number;
    }
    let here = known.get_key_value(&(file.to_owned(), expression.to_owned()));
    let named = here.or_else(|| known.iter().find(|((_, name), _)| name == expression));
    let ((file, _), expression) =
        named.unwrap_or_else(|| panic!("{file}: {expression} is not understood"));
    value(known, file, expression)
}

/// A value as people write it: `1,500`, `1/16`, `5 ms`, `128 KiB`.
fn written(cell: &str) -> f64 {
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    let unit = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => panic!("{cell}: unit"),
    };
    let (number, divisor) = number.split_once('/').unwrap_or((number, "1"));
    let [number, divisor] = [number, divisor].map(|text| text.replace(',', "").parse::<f64>());
    unit * number.unwrap() / divisor.unwrap()
}

#[test]
fn the_table_of_constants_is_that_of_the_source() {
    let told = table(SCHEDULING, "| constant | value | file | why | measured |");
    let bare = |cell: &str| cell.trim_matches('`').to_owned();
    let rows: BTreeMap<_, _> =
        told.iter().map(|row| ((bare(&row[2]), bare(&row[0])), row[1].as_str())).collect();
    assert_eq!(rows.len(), told.len(), "a row stands twice");
    let source: Constants = ROOMS.into_iter().flat_map(constants).collect();
    assert!(source.len() > 80, "{source:?}");
    let missing: Vec<_> = source.keys().filter(|key| !rows.contains_key(*key)).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    let gone: Vec<_> = rows.keys().filter(|key| !source.contains_key(*key)).collect();
    assert!(gone.is_empty(), "not in the source: {gone:?}");
    let mut known = constants("limits.rs");
    known.extend(source.clone());
    for (key @ (file, name), expression) in &source {
        let (is, told) = (value(&known, file, expression), written(rows[key]));
        assert!(
            (is - told).abs() <= 1e-9 * is.abs(),
            "{file}: {name} is {expression}, not {}",
            rows[key]
        );
    }
    for row in &told {
        assert!(row[3].len() >= 5 && !row[4].is_empty(), "{row:?}: why, and what was measured");
    }
}

#[test]
fn each_file_that_decides_has_its_section() {
    let text = read(SCHEDULING);
    let headings: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
    for room in ["link", "scheduler", "copies"] {
        let files = fs::read_dir(root().join("src/proto").join(room)).unwrap();
        for name in files.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let of_tests = matches!(name.as_str(), "tests.rs" | "testing.rs");
            let told = headings.iter().any(|heading| heading.contains(&format!("`{name}`")));
            assert!(told || of_tests, "{room}/{name} has no section");
        }
    }
}

#[test]
fn constants_are_read_as_they_are_declared() {
    let source = "const ONE: Duration = Duration::from_millis(500);\n\
                  pub(in crate::proto) const TWO: f64 =\n    3.0 * SIX as f64 / 2.0;\n\
                  pub const fn no(of: usize) -> usize { 1 }\n\
                  impl X {\n    pub(super) const NONE: Self = Self { a: 1 };\n}\n\
                  pub const SIX: u64 = 6_000;\n\
                  #[cfg(test)]\nmod tests {\n    const SEVEN: u32 = 7;\n}\n";
    let found = declared(source);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ONE", "TWO", "SIX"]);
    let file = "a.rs".to_owned();
    let known: Constants =
        found.into_iter().map(|(name, text)| ((file.clone(), name), text)).collect();
    let of = |name: &str| value(&known, &file, name);
    assert_eq!(["ONE", "TWO", "SIX"].map(of), [0.5, 9_000.0, 6_000.0]);
    let cells = ["500 ms", "9,000", "1/16", "4 KiB", "0.75"];
    assert_eq!(cells.map(written), [0.5, 9_000.0, 0.0625, 4096.0, 0.75]);
}
