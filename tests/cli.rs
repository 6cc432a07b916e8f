//! The compiled program from outside: its words and its exit codes, where nothing is started.

#![cfg(feature = "cli")]

use std::process::{Command, Output, Stdio};

/// Runs the program without a terminal, with a home of its own, and waits for its end.
fn imux(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_imux"))
        .args(args)
        .env("IMUX_HOME", home.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let output = imux(args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
    for word in words {
        assert!(told.contains(word), "{args:?} lacks {word:?}: {told}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["help"], &["client", "--help"], &["-server", "-help"]] {
        let output = imux(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:") && help.contains("--listen"), "{args:?}: {help}");
    }
    let version = imux(&["--version"]).stdout;
    assert_eq!(version, format!("imux {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

#[test]
fn no_arguments_is_a_usage_error_that_shows_the_help() {
    refused(&[], &["Usage: imux", "client", "server", "demo"]);
}

#[test]
fn neither_or_both_modes() {
    refused(&["-client", "-server"], &["both -client and -server"]);
    refused(&["--listen=localhost:2222"], &["neither client nor server"]);
}

#[test]
fn bad_binds_show_the_place() {
    refused(
        &["-client", "--dial=localhost:1", "--binds={\"0.0.0.0\" 10}"],
        &["line 1, column 12", "\n    {\"0.0.0.0\" 10}\n               ^\n", "--binds='{"],
    );
    refused(&["client", "--dial=localhost:1", "--bind=eth7"], &["dev:eth7"]);
    for (option, expected) in [
        ("tier=gold", "`gold` is no tier; there are primary, express, backup and metered"),
        ("rate=20", "`20` has no unit; write a rate such as 500kbit, 20mbit"),
        ("rate=1kbit", "write at least 64kbit"),
        (
            "speed=1",
            "known: lanes=COUNT, tier=primary|express|backup|metered, express=yes|no, rate=RATE",
        ),
    ] {
        let bind = format!("--bind=127.0.0.1=4,{option}");
        refused(&["client", "--dial=localhost:1", &bind], &[expected, "--bind"]);
    }
    let json = "--binds={\"0.0.0.0\": {\"rate\": 20}}";
    refused(&["client", "--dial=localhost:1", json], &["`rate` has to be text in quotes"]);
}

#[test]
fn a_bad_rust_log_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_imux"))
        .args(["demo", "--size=1MiB"])
        .env("RUST_LOG", "imux=loud")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("RUST_LOG=imux=loud is not understood"), "{told}");
}

/// What can be mistyped: the arguments, and what is said to it besides where it is and that nothing
/// was started.
const MISTYPED: &[(&[&str], &[&str])] = &[
    // Neither form, or both.
    (&["clinet", "--dial=s:1"], &["'clinet'", "similar", "'client'"]),
    (&["authorise", "SHA256:x"], &["'authorise'", "'authorize'"]),
    (&["client", "-server"], &["`client` is followed by -server", "Leave one of the two out"]),
    (&["-client=maybe"], &["`maybe` is neither true nor false", "-client"]),
    (&["--debug"], &["neither client nor server", "imux client --dial"]),
    // Options.
    (&["client", "--lisen=:1"], &["'--lisen'", "'--listen'"]),
    (&["-client", "-bidns={}"], &["'--bidns'", "'--bind"]),
    (&["-server", "-dail", "s:1"], &["'--dail'", "'--dial'"]),
    (&["demo", "--sise=1"], &["'--sise'", "'--size'"]),
    (&["rotate-key", "--swich"], &["'--swich'", "'--switch'"]),
    (&["server", "--dial=s:1", "--pin=SHA256:x"], &["'--pin'"]),
    (&["client", "--listen"], &["a value is required for '--listen <HOST:PORT>'"]),
    (&["client", "--debug", "--quiet"], &["'--debug' cannot be used with '--quiet'"]),
    (&["server", "--listen=:1", "--listen=:2"], &["'--listen <HOST:PORT>'", "multiple times"]),
    (&["demo", "more"], &["'more'", "Usage: imux demo"]),
    // Nothing that would do anything; the original's form too, where its defaults are one place.
    (&["server"], &["nowhere to hand connections to", "imux server --dial localhost:22"]),
    (&["client"], &["no server", "imux client --listen localhost:2222 --dial server.example:443"]),
    (&["-server"], &["nowhere to hand connections to", "imux server --dial localhost:22"]),
    (&["-client"], &["no server", "imux client --listen localhost:2222"]),
    (&["client", "--dial=s:1"], &["nothing that takes connections", "--listen localhost:2222"]),
    (&["authorize"], &["<SHA256:HASH>"]),
    (&["invite"], &["<HOST:PORT>"]),
    // Addresses.
    (&["client", "--dial="], &["--dial", "the address is missing", "server.example:443"]),
    (&["client", "--dial", ""], &["--dial", "the address is missing"]),
    (&["client", "--dial=s"], &["--dial", "the port is missing", "server.example:443"]),
    (&["client", "--dial=s:0"], &["--dial", "port 0", "1 to 65535"]),
    (&["client", "--dial=s:65536"], &["--dial", "`65536` is no port"]),
    (&["client", "--dial=s:https"], &["--dial", "`https` is no port"]),
    (&["client", "--dial=https://s"], &["--dial", "this is a URL", "HOST:PORT"]),
    (&["client", "--dial=10.0.0.300:1"], &["--dial", "neither an IP address nor a host name"]),
    (&["client", "--dial=::1:443"], &["--dial", "needs brackets", "[::1]:443"]),
    (&["client", "--dial=[::1:443"], &["--dial", "not closed"]),
    (&["-client", "-dial=a b:1"], &["--dial", "`a b` is not a host name"]),
    (&["server", "--dial=s:1", "--listen=443"], &["--listen", "the port is missing"]),
    (&["server", "--listen=:1", "--dial=:1"], &["the same place", "Give --dial"]),
    (&["client", "--dial=s:1", "--to=db"], &["--to", "has no port", "db.example:5432"]),
    (&["client", "--dial=s:1", "-L", "1"], &["--forward", "5432:db.example:5432"]),
    (&["client", "--dial=s:1", "-L", "9:a:1", "-L", "9:b:1"], &["taken twice", "port of its own"]),
    (&["invite", "s"], &["the port is missing"]),
    (&["authorize", KEY, "--dial=db"], &["--dial", "has no port", "10.1.0.0/16:22"]),
    // Binds, of both kinds.
    (&["client", "--bind=eth1"], &["--bind", "write dev:eth1"]),
    (&["client", "--bind=dev:"], &["--bind", "the interface's name is missing"]),
    (&["client", "--bind=dev:a/b"], &["--bind", "`a/b` is no interface name"]),
    (&["client", "--bind=any=0"], &["--bind", "0 lanes", "at least 1"]),
    (&["client", "--bind=any=many"], &["--bind", "`many`", "from 1 to 256"]),
    (&["client", "--bind=any=99999999999999999999"], &["--bind", "too many", "at most 256"]),
    (&["client", "--bind=any,tire=backup"], &["--bind", "`tire`", "did you mean `tier`"]),
    (&["client", "--bind=any,tier=bakcup"], &["--bind", "`bakcup`", "did you mean `backup`"]),
    (&["client", "--bind=any,express=maybe"], &["--bind", "`maybe` is neither yes nor no"]),
    (&["client", "--bind=any,rate=20"], &["--bind", "`20` has no unit", "20mbit"]),
    (&["client", "--bind=any,rate=20mb"], &["--bind", "`mb` is no unit of rate"]),
    (&["client", "--bind=fe80::1"], &["--bind", "fe80::1%eth1"]),
    (
        &["client", "--binds={\"127.0.0.1\":{\"lane\":2}}"],
        &["--binds", "127.0.0.1: `lane` is no option of a bind", "did you mean `lanes`", "^"],
    ),
    (&["-client", "-binds={\"::1\":\"2\"}"], &["--binds", "a whole number", "not \"2\"", "^"]),
    (&["-client", "-binds={}"], &["--binds", "no bind in it"]),
    (&["-client", "-binds={'::1':2}"], &["--binds", "line 1", "quoted for the shell"]),
    // Times, sizes, numbers, words.
    (&["server", "--grace=-5"], &["--grace", "`-5` is less than nothing", "250ms"]),
    (&["server", "--grace", "-5"], &["--grace", "`-5` is less than nothing"]),
    (&["server", "--grace=99999999999999999999"], &["--grace", "is too large", "2m"]),
    (&["server", "--grace=5 parsec"], &["--grace", "`parsec` is no unit of time", "2m"]),
    (&["server", "--grace=soon"], &["--grace", "does not begin with a number"]),
    (&["server", "--grace="], &["--grace", "the value is missing"]),
    (&["server", "--drain-timeout=9999h"], &["--drain-timeout", "too long", "at most 168h"]),
    (&["client", "--connect-timeout=0"], &["--connect-timeout", "at least 100ms"]),
    (&["client", "--keepalive=0"], &["--keepalive", "whole seconds", "`off`"]),
    (&["client", "--idle-timeout=0"], &["--idle-timeout", "at least 1"]),
    (&["demo", "--size=99999TiB"], &["--size", "out of range", "1MiB to 16GiB"]),
    (&["demo", "--size=big"], &["--size", "does not begin with a number", "16MiB"]),
    (&["demo", "--size=5MiBs"], &["--size", "`MiBs` is no unit of size"]),
    (&["server", "--window=1"], &["--window", "64KiB to 64GiB"]),
    (&["server", "--max-sessions=x"], &["--max-sessions", "`x` is no whole number"]),
    (&["server", "--max-sessions=-1"], &["--max-sessions", "`-1` is no whole number"]),
    (&["authorize", KEY, "--max-streams=0"], &["--max-streams", "`0` is no whole number"]),
    (&["authorize", KEY, "--expires=0"], &["--expires", "at least 1s"]),
    (&["-client", "-chunk-size=big"], &["--chunk-size", "`big` is no whole number"]),
    (&["client", "--host-key=stict"], &["--host-key", "strict", "accept-new"]),
    (&["demo", "--log-format=xml"], &["--log-format", "text, json"]),
    (&["server", "--congestion=BBR"], &["--congestion", "tcp_available_congestion_control"]),
    (&["server", "--identity=../x"], &["--identity", "letters, digits", "`office`"]),
    // Keys and invitations; what is secret is not repeated.
    (&["client", "--pin=SHA256:abc"], &["--pin", "43 characters", "imux identity --of-server"]),
    (&["authorize", "SHA256:abc"], &["43 characters", "`imux identity`"]),
    (&["revoke", "abc"], &["43 characters", "`imux identity`"]),
    (&["accept", "http://s"], &["no invitation", "`imux invite`"]),
    (&["accept", "imux://s:1/a"], &["three parts"]),
];

const KEY: &str = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";

#[test]
fn whatever_is_mistyped_is_told_with_its_place_and_what_to_write() {
    for (args, words) in MISTYPED {
        refused(args, words);
        let told = String::from_utf8(imux(args).stderr).unwrap();
        assert!(told.starts_with("error: "), "{args:?}: {told}");
        assert!(told.ends_with("Nothing was started.\n"), "{args:?}: {told}");
        assert_eq!(told.matches("error: ").count(), 1, "{args:?}: {told}");
    }
}

#[test]
fn a_very_long_argument_is_not_repeated_as_a_whole() {
    let long = "x".repeat(100_000);
    for args in [
        vec!["client".to_owned(), format!("--listen={long}")],
        vec!["client".to_owned(), format!("--listen={long}:1")],
        vec!["client".to_owned(), format!("--bind={long}")],
        vec!["client".to_owned(), format!("--bind=any,{long}=1")],
        vec!["client".to_owned(), format!("--binds={{\"{long}\":1}}")],
        vec!["client".to_owned(), format!("--to={long}")],
        vec!["client".to_owned(), format!("--pin={long}")],
        vec!["client".to_owned(), format!("--host-key={long}")],
        vec!["client".to_owned(), format!("--{long}")],
        vec!["-client".to_owned(), format!("-{long}")],
        vec!["server".to_owned(), format!("--max-sessions={long}")],
        vec!["server".to_owned(), format!("--scheduler={long}")],
        vec!["authorize".to_owned(), long.clone()],
        vec!["authorize".to_owned(), KEY.to_owned(), format!("--dial={long}")],
        vec!["accept".to_owned(), long.clone()],
        vec![long.clone()],
    ] {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let output = imux(&args);
        let told = String::from_utf8(output.stderr).unwrap();
        let shown = &args.last().unwrap()[..20];
        assert_eq!(output.status.code(), Some(2), "{shown}: {told:.500}");
        assert!(told.len() < 2_000, "{shown}: {} bytes", told.len());
    }
}

/// What is found out only when it starts: the arguments behind those that would do, the exit code,
/// and what is said.
#[test]
fn what_cannot_be_used_is_told_with_its_place_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (server, client) = (["server", "--dial=127.0.0.1:9"], ["client", "--dial=127.0.0.1:9"]);
    let here = "--listen=127.0.0.1:0";
    type Case<'a> = (&'a [&'a str], &'a [&'a str], i32, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&server, &["--listen", &taken], 4, &[&taken, "another program listens there", "--listen"]),
        (&client, &["--listen", &taken], 4, &[&taken, "another program listens there"]),
        (&server, &["--listen=192.0.2.77:0"], 4, &["192.0.2.77:0", "`ip address`"]),
        (&server, &["--listen=no.invalid:0"], 4, &["no.invalid", "an address of this machine"]),
        (&server, &[here, "--authorized-clients=/no/x"], 3, &["/no/x", "correct the name"]),
        (&server, &[here, "--audit=/no/x"], 3, &["/no/x", "--audit"]),
        (&client, &[here], 5, &["127.0.0.1:9", "refused", "no firewall"]),
        (&client, &[here, "--bind=dev:none0"], 3, &["dev:none0", "no such interface", "`ip link`"]),
        (&client, &[here, "--bind=192.0.2.77"], 3, &["192.0.2.77", "`ip address`"]),
        (&client, &[here, "--bind=::1"], 5, &["::1", "the same IP version"]),
        (&client, &[here, "--congestion=none"], 3, &["none", "leave out --congestion"]),
        (
            &["client", "--dial=no.invalid:1"],
            &[here],
            5,
            &["no.invalid", "check the name in --dial"],
        ),
        (&["revoke", KEY], &[], 3, &[KEY, "not listed", "nothing was changed"]),
        (&["identity", "--of-server"], &[], 3, &["no key of the server", "start the server first"]),
        (&["rotate-key"], &[], 3, &["no key of the server", "start the server first"]),
    ];
    for (args, more, code, words) in cases {
        let args = [*args, *more].concat();
        let output = imux(&args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {told}");
        let last = told.lines().last().unwrap();
        assert!(last.starts_with("imux: error: "), "{args:?}: {told}");
        for word in *words {
            assert!(last.contains(word), "{args:?} lacks {word:?}: {told}");
        }
        // What is the end of it is not told twice.
        assert_eq!(told.matches("trying again").count(), 0, "{args:?}: {told}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_told_with_what_mends_it() {
    let run = |home: &std::path::Path, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imux"));
        let command = command.args(args).env("IMUX_HOME", home).env_remove("RUST_LOG");
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let server = ["server", "--listen=127.0.0.1:0", "--dial=127.0.0.1:9"];
    let client = ["client", "--listen=127.0.0.1:0", "--dial=127.0.0.1:9"];
    for (name, args) in [("server", &server[..]), ("client", &client), ("client", &["identity"])] {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(format!("{name}.key"));
        assert_eq!(run(home.path(), &["identity"]).0, Some(0));
        let certificate = home.path().join("client.crt");
        if name == "server" {
            std::fs::copy(&certificate, home.path().join("server.crt")).unwrap();
        }
        std::fs::write(&file, "no key\n").unwrap();
        for (mode, words) in [(0o644, "chmod 600"), (0o600, "put a copy of it back, or remove it")]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let (code, told) = run(home.path(), args);
            assert_eq!(code, Some(3), "{args:?}: {told}");
            let place = file.to_str().unwrap();
            assert!(told.contains(place) && told.contains(words), "{args:?}: {told}");
        }
    }
    let (code, told) = run(std::path::Path::new("/proc/none"), &server);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("/proc/none") && told.contains("IMUX_HOME"), "{told}");
}
