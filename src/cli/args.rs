//! The options, as clap knows them, and the way from `argv` to an [`Invocation`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::config::{self, FileConfig, Invocation, Task};
use super::exit::Exit;
use super::go_style::{self, Grammar};
use super::logging;
use super::text::escape;

mod client;
mod file;
mod gateway;
mod help;
mod init;
mod key_exchange;
mod keys;
mod run;
mod server;
mod session;
mod sockets;
mod status;
mod values;
mod ways;
mod web;

use self::client::{CLIENT_EXAMPLES, CLIENT_EXAMPLES_SHORT, ClientArgs};
use self::gateway::GATEWAY_EXAMPLES;
use self::help::long_help;
use self::init::INIT_EXAMPLES;
use self::run::{CHECK_EXAMPLES, CheckArgs, RUN_EXAMPLES, RunArgs, together};
use self::server::{SERVER_EXAMPLES, ServerArgs};
use self::status::{LANES_EXAMPLES, SESSIONS_EXAMPLES, STATUS_EXAMPLES, TOP_EXAMPLES};
use self::values::demo_size;

const EXAMPLES: &str = "\
Examples:
  Near the destination, take lanes on port 443 and hand what they carry to an SSH server:
    imux server --listen 0.0.0.0:443 --dial localhost:22
  At home, offer that SSH server on port 2222, over two links:
    imux client --listen localhost:2222 --dial server.example:443 \\
        --bind dev:eth0 --bind dev:wwan0
  See it work without any network:
    imux demo
  The form of earlier versions works unchanged:
    imux -server --listen=0.0.0.0:443 --dial=localhost:22
    imux -client --binds='{\"0.0.0.0\": 10}' --listen=localhost:22 --dial=server:443";

const DEMO_EXAMPLES: &str = "\
Examples:
  imux demo
  imux demo --size 256MiB
  imux demo --json --quiet";

/// One TCP connection over many TLS lanes, each on a link of your choice.
#[derive(Debug, Parser)]
#[command(name = "imux", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES, after_long_help = long_help(EXAMPLES))]
#[command(max_term_width = 100, disable_help_subcommand = false)]
struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take lanes and hand the connections they carry to one destination
    #[command(after_help = SERVER_EXAMPLES, after_long_help = long_help(SERVER_EXAMPLES))]
    Server(ServerArgs),
    /// Take local connections and carry them to a server over many lanes
    #[command(after_help = CLIENT_EXAMPLES_SHORT, after_long_help = long_help(CLIENT_EXAMPLES))]
    Client(ClientArgs),
    /// Set up a server or a client that runs by a file: four questions, or as many options
    #[command(after_help = INIT_EXAMPLES, after_long_help = long_help(INIT_EXAMPLES))]
    Init(init::InitArgs),
    /// Be the servers and clients that a file asks for
    #[command(after_help = RUN_EXAMPLES, after_long_help = long_help(RUN_EXAMPLES))]
    Run(RunArgs),
    /// Say whether a file is right, and what is wrong with it
    #[command(after_help = CHECK_EXAMPLES, after_long_help = long_help(CHECK_EXAMPLES))]
    Check(CheckArgs),
    /// Have what runs by a file (imux run) read it again
    Reload,
    #[command(flatten)]
    Keys(keys::KeysArgs),
    /// Have a running client take what this machine, or hosts behind it, connect to
    #[command(after_help = GATEWAY_EXAMPLES, after_long_help = long_help(GATEWAY_EXAMPLES))]
    Gateway(gateway::GatewayArgs),
    /// Show what running clients and servers do: sessions, links, lanes, connections
    #[command(after_help = STATUS_EXAMPLES, after_long_help = long_help(STATUS_EXAMPLES))]
    Status(status::StatusArgs),
    /// Show it live in the terminal, with keys to pause a link or to change its tier
    #[command(after_help = TOP_EXAMPLES, after_long_help = long_help(TOP_EXAMPLES))]
    Top(status::TopArgs),
    /// End a session of a running client or server
    #[command(after_help = SESSIONS_EXAMPLES, after_long_help = long_help(SESSIONS_EXAMPLES))]
    Sessions(status::SessionsArgs),
    /// Pause or resume a link of a running client, or change its tier
    #[command(after_help = LANES_EXAMPLES, after_long_help = long_help(LANES_EXAMPLES))]
    Lanes(status::LanesArgs),
    /// Show it working: server, client and destination in one process, over lanes of unlike speed
    #[command(after_help = DEMO_EXAMPLES, after_long_help = long_help(DEMO_EXAMPLES))]
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct Output {
    /// Log what happens to each connection and lane
    #[arg(long, global = true, display_order = 100, conflicts_with = "quiet")]
    debug: bool,
    /// Log only warnings and errors
    #[arg(long, short, global = true, display_order = 101)]
    quiet: bool,
    /// Form of the log
    ///
    /// It goes to standard error.
    #[arg(long, global = true, display_order = 102)]
    #[arg(value_enum, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people: one line an event
    Text,
    /// For machines: one JSON object a line
    Json,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How much to send each way
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = demo_size)]
    size: u64,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to run, and the exit code if that is an error: help or version was asked
/// for, or the arguments or the file are wrong.
#[derive(Debug)]
pub struct Early(clap::Error, Exit);

impl Early {
    /// Prints it where it belongs and says how the program shall end.
    pub fn report(&self) -> Exit {
        // Nothing can be done about a closed standard output.
        let _ = self.0.print();
        if !self.0.use_stderr() {
            return Exit::Ok;
        }
        if self.0.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let _ = writeln!(io::stderr(), "Nothing was started.");
        }
        self.1
    }

    /// What is wrong with a file.
    fn of_file(told: &str) -> Self {
        Self(clap::Error::raw(ErrorKind::ValueValidation, format!("{told}\n")), Exit::Config)
    }

    /// What would be printed.
    #[cfg(any(test, fuzzing))]
    pub(super) fn text(&self) -> String {
        self.0.render().to_string()
    }
}

impl From<clap::Error> for Early {
    fn from(mut error: clap::Error) -> Self {
        for kind in
            [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
        {
            if let Some(ContextValue::String(text)) = error.get(kind) {
                let shown = ContextValue::String(escape(text));
                error.insert(kind, shown);
            }
        }
        Self(error, Exit::Usage)
    }
}

/// Reads the command line and the environment, and checks everything that can be checked before
/// anything is started.
pub fn parse(argv: impl Iterator<Item = OsString>) -> Result<Invocation, Early> {
    let home = config::home(std::env::var_os("IMUX_HOME"), std::env::home_dir());
    parse_with(argv.collect(), home)
}

pub(super) fn parse_with(argv: Vec<OsString>, home: Option<PathBuf>) -> Result<Invocation, Early> {
    let mut command = Cli::command();
    command.build();
    let form = go_style::normalise(argv, &Grammar::of(&command))
        .map_err(|error| command.error(ErrorKind::MissingSubcommand, error))?;
    // The last of several wins in the original; in the modern form a repetition is a mistake.
    let mut command = Cli::command().args_override_self(form.go_style);
    let matches = command.try_get_matches_from_mut(form.argv)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let name = matches.subcommand_name().unwrap_or_default().to_owned();
    let over = given_output(&cli.output, &matches);
    let file = match &cli.command {
        Command::Run(args) => Some((args.config.as_path(), false)),
        Command::Check(args) => Some((args.file.as_path(), true)),
        _ => None,
    };
    if let Some((path, only_check)) = file {
        let found =
            read_file(path, &over, home.as_deref()).map_err(|told| Early::of_file(&told))?;
        return Ok(if only_check { checked(found) } else { found });
    }
    let wants_file = cli.command.wants_file();
    let wrong = |command: &mut clap::Command, problem| {
        // What was parsed has a sub-command of that name; any command would do to print an error.
        let error = match command.find_subcommand_mut(&name) {
            Some(sub) => sub.error(ErrorKind::ValueValidation, problem),
            None => clap::Error::raw(ErrorKind::ValueValidation, problem),
        };
        Early(error, Exit::Usage)
    };
    let invocation = match to_invocation(cli, home, form.go_style) {
        Ok(invocation) if !wants_file => return Ok(invocation),
        Ok(invocation) => invocation,
        Err(problem) => return Err(wrong(&mut command, problem)),
    };
    let implied = if form.go_style { implied(&invocation.task) } else { Vec::new() };
    let matches = matches.subcommand_matches(&name).unwrap_or(&matches);
    match file::print(&command, &name, matches, &implied) {
        Ok(text) => Ok(Invocation { task: Task::Print(text), ..invocation }),
        Err(problem) => Err(wrong(&mut command, problem)),
    }
}

/// The file that equals this command line of a server or a client, and what it asks for. `words`
/// are what stands behind `imux`.
///
/// # Errors
/// What is wrong with them.
pub fn file_of(words: &[String], home: &Path) -> Result<(String, Task), String> {
    let mut command = Cli::command();
    command.build();
    let argv = std::iter::once("imux").chain(words.iter().map(String::as_str));
    let matches = Cli::command().try_get_matches_from(argv);
    let matches = matches.map_err(|error| what_is_wrong(&error.into()))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| what_is_wrong(&error.into()))?;
    let task = to_invocation(cli, Some(home.to_owned()), false)?.task;
    let (role, matches) = matches.subcommand().unwrap_or(("", &matches));
    Ok((file::print(&command, role, matches, &[])?, task))
}

/// Its first paragraph.
fn what_is_wrong(error: &Early) -> String {
    let text = error.0.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    what.strip_prefix("error: ").unwrap_or(what).to_owned()
}

/// What the command line says about the log: it counts instead of what a file says.
fn given_output(output: &Output, matches: &clap::ArgMatches) -> Vec<String> {
    let form = matches.value_source("log_format") == Some(ValueSource::CommandLine);
    let form = form.then_some(match output.log_format {
        LogFormat::Text => "--log-format=text",
        LogFormat::Json => "--log-format=json",
    });
    let debug = output.debug.then_some("--debug");
    let quiet = output.quiet.then_some("--quiet");
    [debug, quiet, form].into_iter().flatten().map(str::to_owned).collect()
}

/// What the original's form says without an option.
fn implied(task: &Task) -> Vec<(&'static str, &'static str)> {
    let mut implied = vec![("dial", "127.0.0.1:443")];
    if let Task::Client(config) = task {
        let listens =
            config.forwards.first().is_some_and(|it| it.listen.to_string() == "0.0.0.0:443");
        implied.extend(listens.then_some(("listen", "0.0.0.0:443")));
    }
    implied
}

/// What the file at `path` asks for; `over` are options that count instead of the file's.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_file(path: &Path, over: &[String], home: Option<&Path>) -> Result<Invocation, String> {
    let source = file::read(path)?;
    let mut command = Cli::command();
    command.build();
    let tables = file::tables(&source, &command, over);
    let tables = tables.map_err(|problems| source.tell_all(problems))?;
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for table in &tables {
        let understood = Cli::command()
            .try_get_matches_from(&table.words)
            .and_then(|matches| Cli::from_arg_matches(&matches))
            .map_err(|error| table.explain(&error))
            .and_then(|cli| {
                let asked = to_invocation(cli, home.map(Path::to_owned), false);
                asked.map_err(|problem| table.explain_all(&problem))
            });
        match understood {
            Ok(invocation) => found.push((invocation, table.at.clone())),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        let origin = config::Origin {
            file: path.to_owned(),
            over: over.to_vec(),
            home: home.map(Path::to_owned),
        };
        return together(origin, found).map_err(|problem| source.tell(&problem));
    }
    Err(source.tell_all(problems))
}

/// A file in which nothing is wrong.
fn checked(found: Invocation) -> Invocation {
    let Task::File(FileConfig { origin, servers, clients, .. }) = &found.task else { return found };
    let count = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{number} {what}s")),
    };
    let both = [count(servers.len(), "server"), count(clients.len(), "client")];
    let both: Vec<_> = both.into_iter().flatten().collect();
    let told = format!(
        "{}: {}, nothing wrong\n",
        escape(&origin.file.display().to_string()),
        both.join(", ")
    );
    Invocation { task: Task::Print(told), ..found }
}

impl Command {
    /// Whether it is only to print what a file would say.
    fn wants_file(&self) -> bool {
        match self {
            Command::Server(args) => args.session.print_config,
            Command::Client(args) => args.session.print_config,
            _ => false,
        }
    }
}

fn to_invocation(cli: Cli, home: Option<PathBuf>, go_style: bool) -> Result<Invocation, String> {
    let mut notices = Vec::new();
    let audit = match &cli.command {
        Command::Server(args) => args.audit().map(Path::to_owned),
        _ => None,
    };
    let task = match cli.command {
        Command::Server(args) => Task::Server(args.into_config(home, go_style, &mut notices)?),
        Command::Client(args) => Task::Client(args.into_config(home, go_style, &mut notices)?),
        Command::Reload => Task::Reload(home),
        Command::Keys(args) => Task::Keys(args.into_config(home)?),
        Command::Init(args) => Task::Init(args.into_config(home)?),
        Command::Gateway(args) => args.into_task(home)?,
        Command::Status(args) => Task::Status(args.into_config(home)),
        Command::Top(args) => Task::Top(args.into_config(home)),
        Command::Sessions(args) => Task::Status(args.into_config(home)),
        Command::Lanes(args) => Task::Status(args.into_config(home)),
        Command::Demo(args) => {
            let quiet = cli.output.quiet;
            Task::Demo(config::DemoConfig { bytes: args.size, json: args.json, quiet })
        }
        // A file is read before, and its tables are none of these.
        Command::Run(_) | Command::Check(_) => return Err("a file asks for no file".to_owned()),
    };
    let logging = logging::Options {
        level: match (cli.output.debug, cli.output.quiet) {
            (true, _) => logging::Level::Debug,
            (_, true) => logging::Level::Quiet,
            // Its progress says what happens.
            _ if matches!(task, Task::Demo(_)) => logging::Level::Quiet,
            // It is a part of another program's connection.
            _ if matches!(&task, Task::Client(it) if it.stdio.is_some()) => logging::Level::Quiet,
            _ => logging::Level::Normal,
        },
        json: cli.output.log_format == LogFormat::Json,
        audit,
    };
    Ok(Invocation { task, logging, notices })
}

#[cfg(test)]
mod tests;
