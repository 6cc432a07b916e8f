//! The options, as clap knows them, and the way from `argv` to an [`Invocation`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::config::{self, Invocation};
use super::exit::Exit;
use super::go_style::{self, Grammar};
use super::logging;
use super::text::escape;

mod client;
mod gateway;
mod help;
mod key_exchange;
mod keys;
mod server;
mod session;
mod sockets;
mod values;
mod ways;

use self::client::{CLIENT_EXAMPLES, CLIENT_EXAMPLES_SHORT, ClientArgs};
use self::gateway::GATEWAY_EXAMPLES;
use self::help::long_help;
use self::server::{SERVER_EXAMPLES, ServerArgs};
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
    #[command(flatten)]
    Keys(keys::KeysArgs),
    /// Have a running client take what this machine, or hosts behind it, connect to
    #[command(after_help = GATEWAY_EXAMPLES, after_long_help = long_help(GATEWAY_EXAMPLES))]
    Gateway(gateway::GatewayArgs),
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

/// Why there is nothing to run: help or version was asked for, or the arguments are wrong.
#[derive(Debug)]
pub struct Early(clap::Error);

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
        Exit::Usage
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
        Self(error)
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
    to_invocation(cli, home, form.go_style).map_err(|problem| {
        let sub = command.find_subcommand_mut(&name);
        // What was parsed has a sub-command of that name; any command would do to print an error.
        let error = match sub {
            Some(sub) => sub.error(ErrorKind::ValueValidation, problem),
            None => clap::Error::raw(ErrorKind::ValueValidation, problem),
        };
        Early(error)
    })
}

fn to_invocation(cli: Cli, home: Option<PathBuf>, go_style: bool) -> Result<Invocation, String> {
    let mut notices = Vec::new();
    let audit = match &cli.command {
        Command::Server(args) => args.audit().map(Path::to_owned),
        _ => None,
    };
    let task = match cli.command {
        Command::Server(args) => {
            config::Task::Server(args.into_config(home, go_style, &mut notices)?)
        }
        Command::Client(args) => {
            config::Task::Client(args.into_config(home, go_style, &mut notices)?)
        }
        Command::Keys(args) => config::Task::Keys(args.into_config(home)?),
        Command::Gateway(args) => config::Task::Gateway(args.into_config(home)?),
        Command::Demo(args) => {
            let quiet = cli.output.quiet;
            config::Task::Demo(config::DemoConfig { bytes: args.size, json: args.json, quiet })
        }
    };
    let logging = logging::Options {
        level: match (cli.output.debug, cli.output.quiet) {
            (true, _) => logging::Level::Debug,
            (_, true) => logging::Level::Quiet,
            // Its progress says what happens.
            _ if matches!(task, config::Task::Demo(_)) => logging::Level::Quiet,
            // It is a part of another program's connection.
            _ if matches!(&task, config::Task::Client(it) if it.stdio.is_some()) => {
                logging::Level::Quiet
            }
            _ => logging::Level::Normal,
        },
        json: cli.output.log_format == LogFormat::Json,
        audit,
    };
    Ok(Invocation { task, logging, notices })
}

#[cfg(test)]
mod tests;
