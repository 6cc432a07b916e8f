//! The program understands each of its command lines in the documents, and has each option they
//! name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::markdown::{Block, FIGURES, GUIDE, README, blocks, code_spans, read, root, table};
use crate::support::process;

const DOCUMENTS: [&str; 3] = [README, GUIDE, "CONTRIBUTING.md"];

/// The words of a command as the shell divides it, quotes taken off. Of what else a shell knows,
/// documents use what joins two commands, as words of their own.
pub(crate) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in command.chars() {
        match quote {
            Some(open) if open == letter => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if letter == '\'' || letter == '"' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            None => {
                assert!(!"$`\\;<>(){}".contains(letter), "{command}: too much of a shell");
                word.get_or_insert_default().push(letter);
            }
        }
    }
    assert!(quote.is_none(), "{command}: a quote has no end");
    words.extend(word);
    words
}

/// Each of the commands that a line joins.
fn joined(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let commands = words.split(|word| word == "|" || word == "&&");
    commands.map(<[String]>::to_vec).filter(|words| !words.is_empty()).collect()
}

/// The commands in a line that are imux: their words behind the program's name.
fn imux_commands(line: &str) -> Vec<Vec<String>> {
    let imux = joined(line).into_iter().filter_map(|mut words| {
        let name = words.iter().position(|word| word == "imux" || word.ends_with("/imux"))?;
        let assignments = words[..name].iter().all(|word| word.contains('='));
        assignments.then(|| words.split_off(name + 1))
    });
    imux.collect()
}

/// Every command line of the program in the documents, with its place.
fn command_lines() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for block in DOCUMENTS.iter().flat_map(|document| blocks(document)) {
        let lines = match block.language.as_str() {
            "sh" => block.commands(),
            "ini" => {
                let starts = block.text.lines().filter_map(|line| line.strip_prefix("ExecStart="));
                starts.map(str::to_owned).collect()
            }
            _ => continue,
        };
        for line in lines {
            found.extend(imux_commands(&line).into_iter().map(|args| (block.place.clone(), args)));
        }
    }
    found
}

/// A directory of keys that no command can use, so that each ends once it has understood its
/// options.
fn unusable_home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for name in ["client.key", "client.crt", "server.key", "server.crt", "authorized_clients"] {
        let file = home.path().join(name);
        fs::write(&file, "nothing of use\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    }
    let folder = home.path().join("control");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    home
}

/// Whether the program understands these words, and otherwise what it says.
fn understands(home: &Path, args: &[String]) -> Result<(), String> {
    let mut args: Vec<_> = args.iter().map(String::as_str).collect();
    // An invitation is checked before a key is looked for.
    const INVITATION: &str = "imux://server.example:443/3q31nlWUjlR6wHNZpepWPn89pt3DcPn_VNIg9ElsmTk/\
                              CCIgm4vjv58xOQTl5KiKrLvGiOt1bd4sY7gp_r9UqG4";
    if args == ["accept"] || args.starts_with(&["init", "client"]) {
        args.push(INVITATION);
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, _, told) = process::run_in(folder.path(), home, &args);
    (code == 3).then_some(()).ok_or_else(|| format!("{args:?}: exit code {code}: {told}"))
}

#[test]
fn each_command_line_of_the_program_is_understood() {
    let home = unusable_home();
    let lines = command_lines();
    assert!(lines.len() >= 20, "{lines:?}");
    for (place, args) in &lines {
        if let Err(told) = understands(home.path(), args) {
            panic!("{place}: {told}");
        }
    }
    // And nothing is taken for understood that is not.
    let commands: BTreeMap<_, _> = lines.iter().map(|line| (line.1[0].clone(), line)).collect();
    for (place, args) in commands.values() {
        let mut args = args.clone();
        args.push("--not-there".into());
        let told = understands(home.path(), &args).expect_err(place);
        assert!(told.contains("exit code 2") && told.contains("--not-there"), "{place}: {told}");
    }
}

/// The help of the program and all its commands.
fn help() -> String {
    let home = tempfile::tempdir().unwrap();
    let commands = [
        "server",
        "client",
        "identity",
        "rotate-key",
        "authorize",
        "revoke",
        "invite",
        "accept",
        "gateway",
        "status",
        "demo",
    ];
    let of = |args: &[&str]| process::run(home.path(), args).1;
    let all = commands.iter().map(|command| of(&[command, "--help"]));
    let deeper = [["gateway", "up"], ["init", "server"], ["init", "client"]];
    let deeper = deeper.iter().map(|[command, sub]| of(&[command, sub, "--help"]));
    of(&["--help"]) + &deeper.chain(all).collect::<String>()
}

#[test]
fn each_option_that_is_named_exists() {
    let help = help();
    let options: BTreeSet<_> = help
        .split_whitespace()
        .map(|word| word.split('[').next().unwrap_or(word))
        .map(|word| word.trim_end_matches([',', ';', '.', ')', '`']))
        .filter(|word| word.starts_with("--"))
        .collect();
    // Of the original's form, of which help says nothing.
    let old = BTreeSet::from(["--chunk-size"]);
    for document in [README, GUIDE] {
        let mut named = 0;
        for span in code_spans(document) {
            if !span.starts_with("--") && !span.starts_with("imux ") {
                continue;
            }
            for word in span.split_whitespace().filter(|word| word.starts_with("--")) {
                let option = word.split('=').next().unwrap();
                assert!(options.contains(option) || old.contains(option), "{document}: {span}");
                named += 1;
            }
        }
        assert!(named > 0, "{document}");
    }
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let help = help();
    for row in table(GUIDE, "| code | |") {
        for code in row[0].split(", ") {
            let line = format!(" {code}  ");
            assert!(help.contains(&line), "{code} is no exit code of the program");
            let meaning = format!(" {code}  {}\n", row[1]);
            assert!(row[0].contains(',') || help.contains(&meaning), "{code}: {}", row[1]);
        }
    }
    let told: usize = table(GUIDE, "| code | |").iter().map(|row| row[0].split(", ").count()).sum();
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    assert_eq!(codes.lines().take_while(|line| line.starts_with(' ')).count(), told);
}

#[test]
fn the_tests_that_commands_name_exist() {
    let mut source = String::new();
    let mut folders = vec![root().join("tests"), root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension() {
                None if path.is_dir() => folders.push(path),
                Some(ending) if ending == "rs" => source += &fs::read_to_string(path).unwrap(),
                _ => {}
            }
        }
    }
    let mut named = 0;
    for document in ["CONTRIBUTING.md", FIGURES, "docs/SECURITY.md"] {
        for command in blocks(document).iter().flat_map(Block::commands) {
            let mut words = words(&command).into_iter().filter(|word| !word.contains('='));
            if words.next().as_deref() != Some("cargo") {
                continue;
            }
            let between = |word: &str| command.split(word).skip(1).map(inside).collect::<Vec<_>>();
            for program in between("binary(").into_iter().chain(between("--test ")) {
                let file = root().join(format!("tests/{program}"));
                let there = file.join("main.rs").exists() || file.with_extension("rs").exists();
                assert!(there || program == "skipped", "{document}: {command}");
                named += 1;
            }
            for test in between("test(") {
                assert!(source.contains(&test), "{document}: {command}");
                named += 1;
            }
        }
    }
    assert!(named >= 8, "{named}");
}

/// What comes before the next bracket or blank.
fn inside(rest: &str) -> String {
    rest.split([')', ' ', '\'']).next().unwrap().to_owned()
}

/// One recommendation of how many lanes a link needs: to say nothing.
#[test]
fn no_example_of_a_bind_says_how_many_lanes() {
    for (name, text) in [("help", help()), (README, read(README)), (GUIDE, read(GUIDE))] {
        let mut binds = 0;
        for bind in text.split("--bind ").skip(1) {
            let bind = bind.split([' ', '\n', ',', '`']).next().unwrap();
            binds += 1;
            // The form itself, and the one that says when to.
            let form = bind.contains("[=COUNT]") || bind == "dev:eth0=2";
            assert!(form || !bind.contains('='), "{name}: {bind}");
        }
        assert!(binds >= 2, "{name}");
    }
}

#[test]
fn words_are_divided_as_a_shell_does() {
    let told = words("imux invite a:1  --comment 'Anna, laptop' \"\" --a='{\"b\": 1}' && c | d");
    let expected = [
        "imux",
        "invite",
        "a:1",
        "--comment",
        "Anna, laptop",
        "",
        "--a={\"b\": 1}",
        "&&",
        "c",
        "|",
        "d",
    ];
    assert_eq!(told, expected);
}
