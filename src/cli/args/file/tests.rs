use std::collections::BTreeSet;
use std::fs;

use clap::CommandFactory;

use super::super::{Cli, Early, parse_with, read_file};
use super::keys::keys_of;
use super::*;
use crate::cli::config::{FileConfig, Invocation, Task};
use crate::cli::exit::Exit;

const DOCUMENT: &str = include_str!("../../../../docs/CONFIG.md");

fn home() -> Option<std::path::PathBuf> {
    Some("/home/u/.imux".into())
}

fn by_words(argv: &[&str]) -> Invocation {
    let words = std::iter::once("imux").chain(argv.iter().copied()).map(OsString::from).collect();
    parse_with(words, home()).unwrap_or_else(|early| panic!("{argv:?}: {}", early.text()))
}

fn by_file(text: &str) -> Result<Invocation, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    fs::write(&file, text).unwrap();
    let read = read_file(&file, &[], home().as_deref());
    read.map_err(|told| told.replace(&file.display().to_string(), "F"))
}

/// All that is run, whichever form asked for it.
fn asked(invocation: Invocation) -> String {
    let (logging, notices) = (invocation.logging, invocation.notices);
    let task = match invocation.task {
        Task::File(FileConfig { mut servers, mut clients, .. }) => {
            assert_eq!(servers.len() + clients.len(), 1);
            let client = clients.pop().map(Task::Client);
            client.unwrap_or_else(|| Task::Server(servers.pop().unwrap()))
        }
        task => task,
    };
    format!("{logging:?} {notices:?} {task:#?}")
}

fn printed(argv: &[&str]) -> String {
    match by_words(&[argv, &["--print-config"]].concat()).task {
        Task::Print(text) => text,
        task => panic!("{task:?}"),
    }
}

#[test]
fn what_is_printed_for_a_command_line_asks_for_the_same() {
    let pin = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";
    let lines: &[&[&str]] = &[
        &["server", "--dial", "localhost:22"],
        &["server", "--dial=/run/a.sock", "--listen=[::]:443", "--proxy-protocol", "--grace=10m"],
        &["server", "--dial=a:1", "--proxy-protocol=v1", "--from=192.0.2.1", "--from=2001:db8::1"],
        &["server", "--dial=a:1", "--identity=b", "--authorized-clients=/etc/c", "--audit=/d e"],
        &["server", "--dial=a:1", "--allow-anyone", "--allow-listen=0.0.0.0:80", "--memory=64MiB"],
        &["server", "--dial=a:1", "--max-sessions=3", "--max-sessions-per-key=2", "--debug"],
        &["server", "--dial=a:1", "--max-sessions-per-source=1", "--keepalive=5,6,7", "-q"],
        &["-server", "-dial=a:1", "-chunk-size=9"],
        &["-server", "-listen=:9"],
        &["-server", "-listen=:9", "-listen=:8", "-dial=a:1"],
        &["-client", "-listen=:9"],
        &["-client", "-dial=s:1", "-listen=:9", "-debug=true"],
        &["-client", "-dial=s:1", "-to=db:5"],
        &["-client", "-dial=s:1", "-forward=9:db:5"],
        &[
            "--client",
            "--dial=s:1",
            "--binds={\"0.0.0.0\": 10, \"dev:x\": {\"lanes\": 2, \"tier\": \"backup\"}}",
        ],
        &["client", "--dial=s:1", "--listen=localhost:0", "--to=db:5", "--pin", pin, "--pin", pin],
        &["client", "--dial=s:1", "-L", "1:a:2", "-L", "/r/s:b:3,redundant,proxy-protocol"],
        &["client", "--dial=s:1", "-D1080", "-D", ":1081,fast", "--open"],
        &["client", "--dial=s:1", "-D1080", "--proxy-auth=/etc/\"quoted\"\\users\u{7f}"],
        &["client", "--dial=s:1", "-R", "8080:localhost:80", "-R", "0:/run/x,proxy-protocol=v1"],
        &["client", "--dial=s:1", "--transparent", "7070", "--redundant", "--log-format=json"],
        &["client", "--dial=s:1", "-W", "h:22", "--host-key=strict", "--connect-timeout=2.5"],
        &["client", "--dial=s:1", "-D1", "--bind=dev:a=3", "--bind=[2001:db8::1],rate=1mbit"],
        &["client", "--dial=s:1", "-D1", "--bind=any,tier=metered", "--binds={\"dev:b\": 1}"],
        &["client", "--dial=s:1", "-D1", "--keep-trying", "--classical-key-exchange"],
        &["client", "--dial=s:1", "-D1", "--window=1MiB", "--session-window=2MiB", "--grace=0"],
        &["client", "--dial=s:1", "-D1", "--congestion=default", "--scheduler=imux"],
        &["client", "--dial=s:1", "-D1", "--keepalive=off", "--idle-timeout=5", "--quiet"],
    ];
    for argv in lines {
        let text = printed(argv);
        let read = by_file(&text).unwrap_or_else(|told| panic!("{argv:?}: {told}\n{text}"));
        assert_eq!(asked(read), asked(by_words(argv)), "{argv:?}\n{text}");
    }
}

/// The rows of the document below this heading: key, default and example.
fn rows(heading: &str) -> Vec<[String; 3]> {
    let (_, below) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(cell);
        std::array::from_fn(|_| cells.next().unwrap())
    })
    .collect()
}

/// Sections of the document, and the commands whose keys they are.
const SECTIONS: [(&str, &[&str]); 4] = [
    ("At the top", &[""]),
    ("Servers", &["server"]),
    ("Clients", &["client"]),
    ("Servers and clients", &["server", "client"]),
];

/// The program's commands by name; the whole program has none.
fn command(role: &str) -> clap::Command {
    let mut whole = Cli::command();
    whole.build();
    if role.is_empty() { whole } else { whole.find_subcommand(role).unwrap().clone() }
}

#[test]
fn every_option_is_a_key_that_is_documented_with_its_default() {
    for role in ["", "server", "client"] {
        let command = command(role);
        let mut documented = BTreeSet::new();
        for (heading, _) in SECTIONS.iter().filter(|(_, roles)| roles.contains(&role)) {
            for [key, default, example] in rows(heading) {
                let (_, arg) = keys_of(&command)
                    .find(|(known, _)| *known == key)
                    .unwrap_or_else(|| panic!("{role}: there is no key {key}"));
                assert!(example.starts_with(&format!("{key} = ")), "{role}: {key}: {example}");
                let real = arg.get_default_values().first().map(|it| it.to_str().unwrap());
                match real {
                    Some(real) if arg.get_action().takes_values() => {
                        assert_eq!(default, real, "{role}: {key}");
                    }
                    _ if !arg.get_action().takes_values() => assert_eq!(default, "false", "{key}"),
                    _ => assert!(!default.is_empty(), "{role}: {key}"),
                }
                assert!(documented.insert(key.clone()), "{role}: {key} has two rows");
            }
        }
        for (key, arg) in keys_of(&command).filter(|(_, arg)| !arg.is_hide_set()) {
            assert!(documented.contains(key), "{role}: {key} is not in docs/CONFIG.md");
            assert!(arg.get_long().is_some_and(|long| long == key));
        }
    }
}

#[test]
fn every_example_is_understood_and_printed_again_asks_for_the_same() {
    let bases = [
        ("server", "dial = \"localhost:22\"\n"),
        ("server", ""),
        ("client", "dial = \"server.example:443\"\nlisten = \"localhost:2222\"\n"),
        ("server", "dial = \"localhost:22\"\nmetrics = \"127.0.0.1:9100\"\n"),
        (
            "client",
            "dial = \"server.example:443\"\nlisten = \"localhost:2222\"\nmetrics = \"127.0.0.1:9100\"\n",
        ),
        ("client", "dial = \"server.example:443\"\ndynamic = 1080\n"),
        ("client", "dial = \"server.example:443\"\n"),
        ("client", "listen = \"localhost:2222\"\n"),
    ];
    for (heading, roles) in SECTIONS {
        for [key, _, example] in rows(heading) {
            for role in roles {
                let texts = bases.iter().filter(|(of, _)| role.is_empty() || of == role);
                let texts = texts.map(|(of, base)| match role.is_empty() {
                    true => format!("{example}\n[[{of}]]\n{base}"),
                    false => format!("[[{role}]]\n{base}{example}\n"),
                });
                let read: Vec<_> = texts.map(|text| (by_file(&text), text)).collect();
                let Some((Ok(read), text)) = read.iter().find(|(read, _)| read.is_ok()) else {
                    panic!("{role}: {key}: {read:?}");
                };
                assert_ne!(format!("{read:?}"), "", "{key}");
                let again = words_again(text);
                assert_eq!(asked(again), asked(by_file(text).unwrap()), "{text}");
            }
        }
    }
}

/// What the words of the file's one table print as a file, read again.
fn words_again(text: &str) -> Invocation {
    let source = Source { name: "F".to_owned(), text: text.to_owned() };
    let tables = tables(&source, &command(""), &[]).unwrap();
    let words = tables[0].words[1..].iter().map(|word| word.to_str().unwrap());
    by_file(&printed(&words.collect::<Vec<_>>())).unwrap()
}

#[test]
fn the_document_s_files_are_right() {
    let mut count = 0;
    for block in DOCUMENT.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        by_file(text).unwrap_or_else(|told| panic!("{told}"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_nearest_right_name() {
    for (text, expected) in [
        ("", "F:1:1: there is neither [[server]] nor [[client]]"),
        ("a = \n", "F:1:5: "),
        ("[[client]]\ndial = \"s:1\"\ndial = \"s:2\"\n", "F:3:1: duplicate key"),
        ("[[clint]]\n", "F:1:3: there is no key `clint` at the top (did you mean `client`?)"),
        (
            "log_format = 1\n",
            "F:1:1: there is no key `log_format` at the top (did you mean `log-format`?)",
        ),
        ("listen = 1\n", "F:1:1: there is no key `listen` at the top"),
        ("client = 5\n", "F:1:10: `client` has to be a table"),
        ("client = [5]\n", "F:1:11: `client` has to be a table"),
        (
            "[client]\nbnid = 1\n",
            "F:2:1: there is no key `bnid` in [client] (did you mean `bind`?)",
        ),
        ("[client]\nhelp = true\n", "F:2:1: there is no key `help` in [client]"),
        ("[client]\nprint-config = true\n", "F:2:1: there is no key `print-config`"),
        ("[server]\nquiet = true\n", "F:2:1: there is no key `quiet` in [server]"),
        ("[server]\nbind = 1\n", "F:2:1: there is no key `bind` in [server]"),
        (
            "[server]\ndial = 1979-05-27\n",
            "F:2:8: `dial` has to be text in quotation marks, or a number",
        ),
        ("[server]\ndial = [\"a:1\"]\n", "F:2:8: `dial` has to be one value, not several"),
        ("[server]\nallow-anyone = 1\n", "F:2:16: `allow-anyone` has to be true or false"),
        ("[server]\nlisten = true\n", "F:2:10: `listen` has to be text"),
        ("[server]\n", "F:1:2: there is nowhere to hand connections to"),
        ("[server]\ndial = \"a\"\n", "F:2:8: `a` will not do for `dial`: the port is missing"),
    ] {
        let told = by_file(text).expect_err(text);
        assert!(told.starts_with(expected), "{text}: {told}");
    }
}

#[test]
fn a_value_that_will_not_do_is_told_where_it_stands_in_a_list_or_a_table() {
    let client = "[[client]]\ndial = \"s:1\"\nlisten = \"localhost:2\"\n";
    for (more, expected) in [
        ("bind = [\"dev:a\", \"dev:b,rate=x\"]", "F:4:18: `dev:b,rate=x` will not do for `bind`: "),
        (
            "bind = [{ link = \"dev:a\", teir = \"backup\" }]",
            "F:4:27: `dev:a,teir=backup` will not do for `bind`: `teir` is no option of a bind (did you mean `tier`?)",
        ),
        ("bind = [{ tier = \"backup\" }]", "F:4:9: there is no `link` in this `bind`"),
        ("bind = [{ link = [] }]", "F:4:18: `link` of `bind` has to be text"),
        ("bind = [[]]", "F:4:9: `bind` has to be text or a table"),
        ("bind = [\"dev:a\", \"dev:a\"]", "F:1:1: dev:a is bound twice"),
        (
            "forward = [{ listen = 5, to = \"a:1\", fats = true }]",
            "F:4:38: `5:a:1,fats` will not do for `forward`: there is no option `fats` here",
        ),
        ("forward = [5]", "F:4:12: `5` will not do for `forward`: "),
        ("forward = \"2:a:1\"", "F:1:1: connections at localhost:2 are to be taken twice"),
        (
            "host-key = \"aks\"",
            "F:4:12: `aks` will not do for `host-key` (did you mean `ask`?); there are ask, strict, accept-new",
        ),
        ("window = \"1GiB\"", "F:4:1: window (1.0 GiB) is larger than session-window"),
        ("open = true", "F:1:1: "),
        ("binds = { \"dev:a\" = 0 }", "F:4:9: `{\"dev:a\": 0}` will not do for `binds`: "),
        ("grace = -1", "F:4:9: `-1` will not do for `grace`: "),
    ] {
        let told = by_file(&format!("{client}{more}\n")).expect_err(more);
        assert!(told.starts_with(expected), "{more}: {told}");
    }
    // All at once, in order.
    let told = by_file("[client]\nbnid = 1\n[server]\ndail = 2\nlisten = 0x1F\n").unwrap_err();
    let places: Vec<_> = told.lines().filter(|line| line.starts_with("F:")).collect();
    assert!(
        places.len() == 2 && places[1].contains("`dail` in [server] (did you mean `dial`?)"),
        "{told}"
    );
}

#[test]
fn tables_of_one_process_agree() {
    let client = "[[client]]\ndial = \"s:1\"\nlisten = \"localhost:2\"\n";
    let other = "[[client]]\ndial = \"s:1\"\n";
    let server = "[[server]]\ndial = \"a:1\"\n";
    for (text, expected) in [
        (format!("{client}{client}"), "F:4:1: another table of this file listens at localhost:2"),
        (format!("{server}{server}"), "F:3:1: another table of this file listens at 0.0.0.0:443"),
        (format!("{client}{other}stdio = \"a:1\"\n"), "F:4:1: `stdio` goes with no other table"),
        (
            format!("{server}audit = \"/a\"\n{server}listen = \":1\"\naudit = \"/b\"\n"),
            "F:4:1: one process has one audit trail",
        ),
        (
            format!("{server}memory = \"64MiB\"\n{client}memory = \"65MiB\"\n"),
            "F:4:1: `memory` is for the whole process",
        ),
    ] {
        let told = by_file(&text).expect_err(&text);
        assert!(told.starts_with(expected), "{text}: {told}");
    }
    let text =
        format!("{server}memory = \"64MiB\"\n{client}memory = \"64MiB\"\n{other}dynamic = 3\n");
    let Task::File(all) = by_file(&text).unwrap().task else { panic!() };
    assert_eq!((all.servers.len(), all.clients.len()), (1, 2));
}

#[test]
fn the_log_s_options_of_the_command_line_count_instead_of_the_file_s() {
    let text = "debug = true\nlog-format = \"json\"\n[server]\ndial = \"a:1\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    fs::write(&file, text).unwrap();
    let shown = |more: &[&str]| {
        let all = [&["run", "-c", file.to_str().unwrap()], more].concat();
        let logging = by_words(&all).logging;
        (logging.level, logging.json)
    };
    use crate::cli::logging::Level;
    assert_eq!(shown(&[]), (Level::Debug, true));
    assert_eq!(shown(&["-q"]), (Level::Quiet, true));
    assert_eq!(shown(&["--debug", "--log-format=text"]), (Level::Debug, false));
}

#[test]
fn a_file_that_cannot_be_read_is_a_matter_of_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("large"), " ".repeat((1 << 20) + 1)).unwrap();
    fs::write(path("binary"), b"\xff\xfe").unwrap();
    for (name, expected) in
        [("nowhere", "No such file"), ("large", "larger than 1 MiB"), ("binary", "UTF-8")]
    {
        let words = ["imux", "run", "-c", &path(name)].map(OsString::from).to_vec();
        let early: Early = parse_with(words, home()).unwrap_err();
        assert!(early.text().contains(expected), "{}", early.text());
        assert_eq!(early.1, Exit::Config);
    }
}
