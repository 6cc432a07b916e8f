use std::time::Duration;

use imux::SessionLimits;
use imux::lane::{BindSource, Congestion};
use imux::trust::HostKeyPolicy;

use super::super::config::{ClientConfig, KeysCommand, ServerConfig, Task, Trust};
use super::keys::{
    ACCEPT_EXAMPLES, AUTHORIZE_EXAMPLES, IDENTITY_EXAMPLES, INVITE_EXAMPLES, REVOKE_EXAMPLES,
    ROTATE_KEY_EXAMPLES,
};
use super::*;
use crate::cli::forward::{Forward, Leads};

fn parse_argv(argv: &[&str]) -> Result<Invocation, Early> {
    let argv = std::iter::once("imux").chain(argv.iter().copied()).map(OsString::from).collect();
    parse_with(argv, Some(PathBuf::from("/home/u/.imux")))
}

fn client(argv: &[&str]) -> ClientConfig {
    match parse_argv(argv).unwrap_or_else(|early| panic!("{argv:?}: {}", early.0)).task {
        Task::Client(config) => config,
        other => panic!("{other:?}"),
    }
}

fn server(argv: &[&str]) -> ServerConfig {
    match parse_argv(argv).unwrap_or_else(|early| panic!("{argv:?}: {}", early.0)).task {
        Task::Server(config) => config,
        other => panic!("{other:?}"),
    }
}

/// The message of a usage error.
fn refused(argv: &[&str]) -> String {
    let early = parse_argv(argv).expect_err(&format!("{argv:?} was accepted"));
    assert!(early.0.use_stderr(), "{argv:?} is no error: {}", early.0);
    early.0.to_string()
}

fn sources(config: &ClientConfig) -> Vec<(String, u16)> {
    let binds = config.binds.links.iter().map(|plan| &plan.bind);
    binds.map(|bind| (bind.source.to_string(), bind.lanes)).collect()
}

/// Where the client listens, and where that leads.
fn listens(config: &ClientConfig) -> Vec<String> {
    let shown = |forward: &Forward| match &forward.to {
        Leads::To(to) => format!("{} -> {to}", forward.listen),
        Leads::ServersDestination => forward.listen.to_string(),
        Leads::Anywhere => format!("{} -> *", forward.listen),
        Leads::WhereMeant => format!("{} -> as meant", forward.listen),
    };
    config.forwards.iter().map(shown).collect()
}

#[test]
fn where_a_client_listens_and_where_that_leads() {
    for (argv, expected) in [
        (&["-client", "--dial=s:1"][..], &["0.0.0.0:443"][..]),
        (&["--client=true", "--dial=s:1", "--to=db:5"], &["0.0.0.0:443 -> db:5"]),
        (&["client", "--dial=s:1", "--listen=:9", "--to=db:5"], &[":9 -> db:5"]),
        (&["client", "--dial=s:1", "-L", "9:db:5"], &["localhost:9 -> db:5"]),
        (&["client", "--dial=s:1", "--listen=:8", "-L", "9:db:5", "--forward", "::1:9:db:5"], &[]),
        (&["client", "--dial=s:1", "-D", "1080"], &["localhost:1080 -> *"]),
        (
            &["client", "--dial=s:1", "--listen=:8", "-L", "9:db:5", "--forward=[::1]:9:db:6"],
            &[":8", "localhost:9 -> db:5", "[::1]:9 -> db:6"],
        ),
        (&["-client", "-dial=s:1", "-forward", "9:db:5"], &["localhost:9 -> db:5"]),
        (&["-client", "-dial=s:1", "-to", "db:5"], &["0.0.0.0:443 -> db:5"]),
    ] {
        if expected.is_empty() {
            assert!(refused(argv).contains("--forward"), "{argv:?}");
        } else {
            assert_eq!(listens(&client(argv)), expected, "{argv:?}");
        }
    }
    assert!(refused(&["client", "--dial=s:1", "--to=db"]).contains("has no port"));
    // Only the original's form has a port that is open to the world where none was asked for.
    for (argv, words) in [
        (&["client", "--dial=s:1"][..], "Give --listen HOST:PORT"),
        (&["client", "--dial=s:1", "--bind=127.0.0.1=2"], "-L PORT:HOST:PORT"),
        (&["client", "--dial=s:1", "--to=db:5"], "-L 5432:db:5"),
        (&["client", "--dial=s:1", "-L", "9:db:5", "--to=db:6"], "-L 5432:db:6"),
    ] {
        let error = refused(argv);
        assert!(
            error.contains("nothing that takes connections") && error.contains(words),
            "{error}"
        );
    }
    assert!(refused(&["client", "--dial=localhost:9", "-L", "9:db:5"]).contains("to itself"));
}

#[test]
fn keys_commands() {
    let key = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";
    let command = |argv: &[&str]| match parse_argv(argv) {
        Ok(Invocation { task: Task::Keys(config), .. }) => config.command,
        other => panic!("{argv:?}: {other:?}"),
    };
    let KeysCommand::Authorize { file, client } = command(&[
        "authorize",
        key,
        "--dial=db:1",
        "--dial=10.0.0.0/8:*",
        "--max-streams=3",
        "--authorized-clients=/x",
        "--comment",
        "Anna",
    ]) else {
        panic!()
    };
    assert_eq!((file, client.key.to_string()), (Some("/x".into()), key.to_owned()));
    assert_eq!((client.grant.destinations.len(), client.grant.streams_max), (2, Some(3)));
    assert_eq!((client.grant.expires, client.comment.as_str()), (None, "Anna"));
    let limited = command(&["authorize", key, "--expires", "30d"]);
    assert!(
        matches!(limited, KeysCommand::Authorize { client, .. } if client.grant.expires.is_some())
    );
    assert!(matches!(command(&["identity"]), KeysCommand::Identity { server: None }));
    assert!(matches!(command(&["revoke", key]), KeysCommand::Revoke { .. }));
    let invite = command(&["invite", "s:1"]);
    assert!(
        matches!(&invite, KeysCommand::Invite { server, key, expires, .. }
            if server.as_written() == "s:1" && key.identity.is_none() && key.listen.is_none()
                && *expires == Duration::from_secs(3600)),
        "{invite:?}"
    );
    assert!(matches!(command(&["accept", "-"]), KeysCommand::Accept { invitation: None, .. }));
    for (argv, expected) in [
        (&["authorize"][..], "SHA256:HASH"),
        (&["authorize", "SHA256:x"], "43 characters"),
        (&["authorize", key, "--dial=db"], "has no port"),
        (&["authorize", key, "--max-streams=0"], "max-streams"),
        (&["invite", "s:1", "--expires=0"], "at least 1s"),
        (&["invite", "s"], "the port is missing"),
        (&["accept", "imux://s:1/a"], "three parts"),
        (&["revoke"], "SHA256:HASH"),
    ] {
        assert!(refused(argv).contains(expected), "{argv:?}: {}", refused(argv));
    }
}

#[test]
fn definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_originals_commands_as_written() {
    let config = server(&["-server", "--listen=0.0.0.0:443", "--dial=localhost:22"]);
    assert_eq!(config.listen.as_written(), "0.0.0.0:443");
    assert_eq!(config.dial.to_string(), "localhost:22");

    let config = client(&[
        "-client",
        "--binds={\"192.168.1.2\": 20, \"10.0.0.2\": 20}",
        "--listen=localhost:22",
        "--dial=server:443",
    ]);
    assert_eq!(sources(&config), [("192.168.1.2".to_owned(), 20), ("10.0.0.2".to_owned(), 20)]);
    assert_eq!(listens(&config), ["localhost:22"]);
    assert_eq!(config.dial.as_written(), "server:443");

    let config =
        client(&["-client", "-binds", "{\"0.0.0.0\": 3}", "-dial", "s:1", "-listen", "l:2"]);
    assert_eq!(sources(&config), [("0.0.0.0".to_owned(), 3)]);
}

#[test]
fn defaults_are_the_originals() {
    let config = client(&["-client", "--dial", "server:443"]);
    assert_eq!(listens(&config), ["0.0.0.0:443"]);
    assert_eq!(sources(&config), [("any".to_owned(), 10)]);
    assert_eq!(config.trust, Trust::KnownHosts(HostKeyPolicy::Ask));
    assert_eq!(config.session.grace, Duration::from_secs(120));
    assert_eq!(config.session.congestion, Congestion::Prefer("bbr".to_owned()));
    assert_eq!(config.session.scheduler, imux::SchedulerKind::Imux);
    let config = server(&["-server", "--listen", "127.0.0.1:0"]);
    assert_eq!(config.dial.to_string(), "127.0.0.1:443");
}

#[test]
fn last_one_wins_only_in_the_originals_form() {
    let config = server(&["-server", "-listen=a:1", "-listen=b:2", "-dial=c:3"]);
    assert_eq!(config.listen.as_written(), "b:2");
    let error = refused(&["server", "--listen=a:1", "--listen=b:2"]);
    assert!(error.contains("cannot be used multiple times"), "{error}");
}

#[test]
fn chunk_size_is_accepted_and_noted() {
    for argv in [
        &["-client", "-chunk-size", "16384", "-dial=s:1"][..],
        &["-client", "--chunk-size=16384", "-dial=s:1"],
        &["server", "--chunk-size", "16384", "--dial=s:1"],
    ] {
        let invocation = parse_argv(argv).unwrap();
        assert_eq!(invocation.notices.len(), 1);
        assert!(invocation.notices[0].contains("no effect"));
    }
    assert!(refused(&["-client", "-chunk-size=big"]).contains("--chunk-size"));
    assert!(parse_argv(&["-client", "-dial=s:1"]).unwrap().notices.is_empty());
}

#[test]
fn binds_of_both_kinds_add_up() {
    let config = client(&[
        "client",
        "--listen=:9",
        "--dial=s:1",
        "--bind=[2001:db8::1]=4",
        "--bind",
        "dev:eth1=2",
        "--binds={\"10.0.0.1\": 1}",
        "--bind=10.0.0.3",
    ]);
    let expected = [("10.0.0.1", 1), ("2001:db8::1", 4), ("dev:eth1", 2), ("10.0.0.3", 10)];
    assert_eq!(sources(&config), expected.map(|(source, lanes)| (source.to_owned(), lanes)));
    assert_eq!(config.binds.links[2].bind.source, BindSource::Device("eth1".to_owned()));
}

#[test]
fn options_of_the_session() {
    let config = client(&[
        "client",
        "--listen=:9",
        "--dial=s:1",
        "--grace=1m",
        "--congestion",
        "cubic",
        "--connect-timeout=2.5",
        "--scheduler=minrtt",
        "--window=16MiB",
        "--session-window=64MiB",
        "--memory=100MiB",
        "--host-key=accept-new",
    ]);
    assert_eq!(config.session.grace, Duration::from_secs(60));
    assert_eq!(config.session.congestion, Congestion::Require("cubic".to_owned()));
    assert_eq!(config.connect_timeout, Duration::from_millis(2500));
    assert_eq!(config.session.scheduler, imux::SchedulerKind::MinRtt);
    assert_eq!(config.session.window, Some(16 << 20));
    assert_eq!(config.session.session_window, Some(64 << 20));
    assert_eq!(config.session.memory, Some(100 << 20));
    assert_eq!(config.trust, Trust::KnownHosts(HostKeyPolicy::AcceptNew));
    let config = server(&["server", "--congestion=default", "--dial=s:1"]);
    assert_eq!(config.session.congestion, Congestion::System);
}

#[test]
fn how_many_sessions_there_may_be() {
    assert_eq!(server(&["server", "--dial=s:1"]).sessions, SessionLimits::default());
    let config = server(&[
        "server",
        "--dial=s:1",
        "--max-sessions=30",
        "--max-sessions-per-source=20",
        "--max-sessions-per-key=10",
    ]);
    assert_eq!(config.sessions, SessionLimits { all: 30, per_source: 20, per_client: 10 });
    assert!(refused(&["server", "--dial=s:1", "--max-sessions=0"]).contains("max-sessions"));
    assert!(refused(&["client", "--dial=s:1", "--max-sessions=9"]).contains("unexpected argument"));
}

#[test]
fn pins() {
    let pin = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let hex = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    let config = client(&["client", "--listen=:9", "--dial=s:1", "--pin", pin, "--pin", hex]);
    let Trust::Pinned(pins) = config.trust else { panic!("{:?}", config.trust) };
    assert_eq!(pins.len(), 2);
    assert_eq!(pins[0], pins[1]);
    let error =
        refused(&["client", "--listen=:9", "--dial=s:1", "--pin", pin, "--host-key=strict"]);
    assert!(error.contains("cannot be used with"), "{error}");
    assert!(refused(&["client", "--pin=SHA256:abc"]).contains("43 characters"));
}

#[test]
fn output_options() {
    let logging = |argv: &[&str]| parse_argv(argv).unwrap().logging;
    assert_eq!(logging(&["server", "--dial=d:1"]).level, logging::Level::Normal);
    // The demo shows progress instead.
    assert_eq!(logging(&["demo"]).level, logging::Level::Quiet);
    assert_eq!(logging(&["demo", "--debug"]).level, logging::Level::Debug);
    assert_eq!(logging(&["--debug", "demo"]).level, logging::Level::Debug);
    assert_eq!(logging(&["-q", "demo"]).level, logging::Level::Quiet);
    assert_eq!(logging(&["-client", "-dial=s:1", "-debug"]).level, logging::Level::Debug);
    assert_eq!(logging(&["-client", "-dial=s:1", "-debug=false"]).level, logging::Level::Normal);
    assert!(logging(&["demo", "--log-format=json"]).json);
    assert!(refused(&["demo", "-q", "--debug"]).contains("cannot be used with"));
}

#[test]
fn usage_errors_say_what_is_wrong() {
    for (argv, expected) in [
        (&["-client", "-server"][..], "both -client and -server"),
        (&["-listen=a:1"], "neither client nor server"),
        (&["-client=yes"], "`yes` is neither true nor false"),
        (&["client", "-server"], "`client` is followed by -server"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["client", "--lisen=a:1"], "'--listen'"),
        (&["client", "--listen"], "a value is required for '--listen <HOST:PORT>'"),
        (&["client", "--listen", "--dial=s:1"], "a value is required for '--listen <HOST:PORT>'"),
        (&["client", "--listen=localhost"], "the port is missing; write HOST:PORT"),
        (&["client", "--dial=s:0"], "port 0 cannot be connected to"),
        (&["client", "--listen=:9", "--dial=s:1", "--binds={\"0.0.0.0\" 10}"], "line 1, column 12"),
        (&["client", "--listen=:9", "--dial=s:1", "--bind=eth1"], "write dev:eth1"),
        (&["client", "--listen=:9", "--dial=s:1", "--bind=::1=0"], "0 lanes"),
        (
            &["client", "--listen=:9", "--dial=s:1", "--bind=::1", "--bind=[::1]=2"],
            "::1 is bound twice",
        ),
        (&["-client", "-dial=s:1", "-binds={\"::1\":1,\"::1\":2}"], "::1 is bound twice"),
        (&["client", "--listen=:9", "--dial=s:1", "--bind=::1=200", "--bind=::2=200"], "400 lanes"),
        (&["client", "--listen=:9", "--dial=s:1", "--connect-timeout=0"], "at least 100ms"),
        (&["client", "--listen=:9", "--dial=s:1", "--connect-timeout=1h"], "at most 300"),
        (&["server", "--grace=1000h"], "at most 168h"),
        (&["server", "--grace=soon"], "write a time such as"),
        (&["server", "--window=1"], "write 64KiB to 64GiB"),
        (&["server", "--dial=s:1", "--window=2GiB", "--session-window=1GiB"], "is larger than"),
        (&["server", "--dial=s:1", "--window=129MiB"], "larger than --session-window (128.0 MiB)"),
        (&["server", "--memory=1MiB"], "write 16MiB to 1024GiB"),
        (&["server", "--congestion=BBR; rm"], "not a name of a congestion control"),
        (&["server", "--host-key=ask"], "unexpected argument"),
        (&["client", "--host-key=never"], "[possible values: ask, strict, accept-new]"),
        (&["demo", "--size=1"], "write 1MiB to 16GiB"),
        (&["server"], "imux server --dial localhost:22"),
        (&["server", "--listen=:1"], "imux server --dial localhost:22"),
        (&["client"], "imux client --listen localhost:2222 --dial server.example:443"),
        (&["client", "-L", "9:a:1"], "imux client --listen localhost:2222 --dial"),
        (&["client", "--dial=s:1", "-L", "9:a:1", "-L", "localhost:9:b:2"], "taken twice"),
        (&["-server"], "imux server --dial localhost:22"),
        (&["-client"], "imux client --listen localhost:2222 --dial server.example:443"),
        (&["-server", "--dial=localhost:443"], "forward to itself"),
        (&["client", "--listen=localhost:22", "--dial=127.0.0.1:22"], "forward to itself"),
    ] {
        let message = refused(argv);
        assert!(message.contains(expected), "{argv:?}: {message}");
        assert!(message.starts_with("error: "), "{argv:?}: {message}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for argv in [
        &["--help"][..],
        &["-h"],
        &["-help"],
        &["help"],
        &["help", "client"],
        &["client", "--help"],
        &["-server", "-help"],
        &["demo", "-h"],
        &["--version"],
        &["-V"],
    ] {
        let early = parse_argv(argv).expect_err("help is not run");
        assert!(!early.0.use_stderr(), "{argv:?}: {}", early.0);
    }
    // Nothing at all shows the help too, but is not what a script wants to take for success.
    assert!(refused(&[]).contains("Usage:"));
}

#[test]
fn every_help_has_examples_and_exit_codes() {
    for command in [
        "",
        "client",
        "server",
        "demo",
        "identity",
        "authorize",
        "revoke",
        "invite",
        "accept",
        "rotate-key",
    ] {
        let argv: Vec<_> =
            [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let help = parse_argv(&argv).expect_err("help is not run").0.to_string();
        for expected in ["Examples:", "Exit codes:", "IMUX_HOME", "imux "] {
            assert!(help.contains(expected), "{argv:?} lacks {expected}: {help}");
        }
        assert!(!help.contains("--scheduler") && !help.contains("--chunk-size"), "{help}");
    }
}

#[test]
fn the_short_help_of_the_most_important_commands_fits_on_a_page() {
    for command in ["client", "server"] {
        let help = |how| parse_argv(&[command, how]).expect_err("help is not run").0.to_string();
        let (short, long) = (help("-h"), help("--help"));
        assert!(short.lines().count() <= 60, "{}", short);
        let options = |text: &str| -> Vec<String> {
            // What is further in is no option's own line.
            let own = text.lines().filter(|line| !line.starts_with("       "));
            let word = |line: &str| {
                let mut words = line.split_whitespace();
                words.find(|word| word.starts_with("--")).map(str::to_owned)
            };
            own.filter(|line| line.trim_start().starts_with('-')).filter_map(word).collect()
        };
        assert!(options(&long).len() >= 20, "{long}");
        assert_eq!(options(&short), options(&long), "{short}");
    }
}

#[test]
fn every_example_of_the_help_is_accepted() {
    let mut checked = 0;
    let keys = [
        IDENTITY_EXAMPLES,
        AUTHORIZE_EXAMPLES,
        REVOKE_EXAMPLES,
        INVITE_EXAMPLES,
        ACCEPT_EXAMPLES,
        ROTATE_KEY_EXAMPLES,
    ];
    let all = [EXAMPLES, SERVER_EXAMPLES, CLIENT_EXAMPLES, CLIENT_EXAMPLES_SHORT, DEMO_EXAMPLES];
    for text in all.into_iter().chain(keys) {
        // What is left out of an invitation is its secret; the shell's part is no argument.
        let text = text.replace("\\\n", " ").replace('…', &"A".repeat(43));
        let text = text.replace(" < invitation.txt", "");
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("imux ")) {
            let argv = shell_words(line);
            let argv: Vec<&str> = argv[1..].iter().map(String::as_str).collect();
            parse_argv(&argv).unwrap_or_else(|early| panic!("{line}: {}", early.0));
            checked += 1;
        }
    }
    assert!(checked >= 24, "only {checked} examples were found");
}

/// Splits like a shell that knows single quotes only.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
