//! Turns the original imux's option syntax into the modern one before clap sees it.
//!
//! The original is written in Go and takes `-server --listen=… -dial …`: one or two dashes for
//! every option, `=` or a space before the value, switches as `-debug`, `-debug=true`,
//! `-client=false`, the last of several winning, and the mode as a switch. All of it works here
//! too, even mixed with the modern sub-commands. Which options exist, and which take a value, comes
//! from the clap definition, so that the two cannot diverge.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::text::escape;

/// All long options, of all sub-commands together.
#[derive(Debug)]
pub struct Grammar {
    switches: BTreeSet<String>,
    valued: BTreeSet<String>,
    /// One-letter options.
    shorts: BTreeSet<char>,
}

impl Grammar {
    pub fn of(command: &clap::Command) -> Self {
        let mut grammar = Self {
            switches: ["help", "version"].map(str::to_owned).into(),
            valued: BTreeSet::new(),
            shorts: BTreeSet::from(['h', 'V']),
        };
        grammar.add_options(command);
        grammar
    }

    fn add_options(&mut self, command: &clap::Command) {
        for arg in command.get_arguments() {
            self.shorts.extend(arg.get_short());
            let Some(long) = arg.get_long() else { continue };
            let takes_value = arg.get_action().takes_values();
            let names = if takes_value { &mut self.valued } else { &mut self.switches };
            names.insert(long.to_owned());
        }
        for sub in command.get_subcommands() {
            self.add_options(sub);
        }
    }
}

/// The arguments in modern form.
#[derive(Debug, PartialEq, Eq)]
pub struct Normalised {
    pub argv: Vec<OsString>,
    /// The mode was given as a switch: the original's rules apply (the last of several wins).
    pub go_style: bool,
}

/// What is wrong with the form as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error(
        "both -client and -server are given, and one process is one of them\n\n\
         Start two: the server near the destination, the client near the programs that use it."
    )]
    BothModes,
    #[error(
        "neither client nor server is chosen\n\n\
         Put `client` or `server` first (`imux client --dial …`), or give -client or -server."
    )]
    NoMode,
    #[error("`{command}` is followed by -{flag}\n\nLeave one of the two out.")]
    TwoModes { command: String, flag: &'static str },
    #[error("`{value}` is neither true nor false, as -{name} needs it")]
    NoBool { name: String, value: String },
}

/// Rewrites `argv` (with the program's name first).
pub fn normalise(argv: Vec<OsString>, grammar: &Grammar) -> Result<Normalised, FormError> {
    let mut argv = argv.into_iter();
    let mut out: Vec<OsString> = vec![argv.next().unwrap_or_else(|| "imux".into())];
    let mut modes = Modes::default();
    let mut args = argv.peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.push(arg);
            out.extend(args);
            break;
        }
        let Some((name, value)) = long_option(&arg, grammar) else {
            let is_positional = arg.to_str().is_some_and(|text| !text.starts_with('-'));
            if is_positional && !modes.any_given() && modes.command.is_none() {
                modes.command = arg.to_str().map(str::to_owned);
            }
            out.push(mistyped(&arg, grammar).unwrap_or(arg));
            continue;
        };
        match name {
            "client" => modes.client = Some(parse_bool(name, value)?),
            "server" => modes.server = Some(parse_bool(name, value)?),
            _ if grammar.switches.contains(name) => {
                if parse_bool(name, value)? {
                    out.push(format!("--{name}").into());
                }
            }
            _ => {
                let mut joined = OsString::from(format!("--{name}"));
                // A forgotten value must not swallow the option that follows.
                let next =
                    args.next_if(|next| value.is_none() && long_option(next, grammar).is_none());
                if let Some(value) = value.map(OsString::from).or(next) {
                    joined.push("=");
                    joined.push(value);
                }
                out.push(joined);
            }
        }
    }
    let mode = modes.choose(&out)?;
    if let Some(mode) = mode {
        out.insert(1, mode.into());
    }
    Ok(Normalised { argv: out, go_style: mode.is_some() })
}

#[derive(Debug, Default)]
struct Modes {
    /// The sub-command of the modern form.
    command: Option<String>,
    client: Option<bool>,
    server: Option<bool>,
}

impl Modes {
    fn any_given(&self) -> bool {
        self.client.is_some() || self.server.is_some()
    }

    /// The sub-command to insert; None if the arguments stay as they are.
    fn choose(&self, out: &[OsString]) -> Result<Option<&'static str>, FormError> {
        let flags = (self.client.unwrap_or(false), self.server.unwrap_or(false));
        if let Some(command) = &self.command {
            let other = match flags {
                (true, _) if command != "client" => "client",
                (_, true) if command != "server" => "server",
                _ => return Ok(None),
            };
            return Err(FormError::TwoModes { command: escape(command), flag: other });
        }
        match flags {
            (true, true) => Err(FormError::BothModes),
            (true, false) => Ok(Some("client")),
            (false, true) => Ok(Some("server")),
            (false, false) => {
                let asks_for_help = |arg: &OsString| {
                    ["--help", "-h", "--version", "-V"].iter().any(|wanted| arg == wanted)
                };
                // Without any argument at all clap shows the help.
                let help = out.len() == 1 || out.iter().any(asks_for_help);
                if help && !self.any_given() { Ok(None) } else { Err(FormError::NoMode) }
            }
        }
    }
}

/// Name and value of a known long option, with one dash or two; None for everything else, which is
/// left to clap.
fn long_option<'a>(arg: &'a OsString, grammar: &Grammar) -> Option<(&'a str, Option<&'a str>)> {
    let text = arg.to_str()?;
    let body = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    let known = matches!(name, "client" | "server")
        || grammar.switches.contains(name)
        || grammar.valued.contains(name);
    known.then_some((name, value))
}

/// An unknown option with one dash, rewritten with two, so that clap can suggest a similar one. If
/// it begins with a one-letter option, it may be that option with its value.
fn mistyped(arg: &OsString, grammar: &Grammar) -> Option<OsString> {
    let name = arg.to_str()?.strip_prefix('-')?;
    let mut letters = name.chars();
    let first = letters.next().filter(char::is_ascii_alphabetic)?;
    (letters.next().is_some() && !grammar.shorts.contains(&first))
        .then(|| format!("--{name}").into())
}

/// Go's idea of a boolean.
fn parse_bool(name: &str, value: Option<&str>) -> Result<bool, FormError> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(FormError::NoBool { name: name.to_owned(), value: escape(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grammar() -> Grammar {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Grammar {
            switches: names(&["debug", "quiet", "help", "version", "json"]),
            valued: names(&["listen", "dial", "binds", "bind", "chunk-size"]),
            shorts: BTreeSet::from(['q', 'h', 'V', 'L']),
        }
    }

    /// Splits at blanks; `'…'` is not needed here.
    fn run(line: &str) -> Result<(String, bool), FormError> {
        let argv = line.split_whitespace().map(OsString::from).collect();
        let done = normalise(argv, &grammar())?;
        let joined: Vec<_> = done.argv.iter().map(|arg| arg.to_str().unwrap()).collect();
        Ok((joined.join(" "), done.go_style))
    }

    #[test]
    fn the_originals_form() {
        for (line, expected) in [
            ("imux -server --listen=a:1 --dial=b:2", "imux server --listen=a:1 --dial=b:2"),
            ("imux --server -listen=a:1 -dial=b:2", "imux server --listen=a:1 --dial=b:2"),
            ("imux -client -listen a:1 --dial b:2", "imux client --listen=a:1 --dial=b:2"),
            ("imux -listen a:1 -client", "imux client --listen=a:1"),
            ("imux -client=true -server=false", "imux client"),
            ("imux -client=0 -server=T", "imux server"),
            ("imux -client -client=false -server", "imux server"),
            ("imux -client -debug", "imux client --debug"),
            ("imux -client -debug=true", "imux client --debug"),
            ("imux -client -debug=false", "imux client"),
            ("imux -client -chunk-size 16384", "imux client --chunk-size=16384"),
            ("imux -client -binds={\"0.0.0.0\":10}", "imux client --binds={\"0.0.0.0\":10}"),
            ("imux -dial client -client", "imux client --dial=client"),
            ("imux -client --help", "imux client --help"),
            ("imux -client extra", "imux client extra"),
            ("imux -client -unknown=1", "imux client --unknown=1"),
            ("imux -client -L9:a:1 -qh -5 -b -", "imux client -L9:a:1 -qh -5 -b -"),
            ("imux -client -dial -5", "imux client --dial=-5"),
            ("imux -client -dial", "imux client --dial"),
            ("imux -client -dial -listen a:1", "imux client --dial --listen=a:1"),
        ] {
            assert_eq!(run(line), Ok((expected.to_owned(), true)), "{line}");
        }
    }

    #[test]
    fn the_modern_form() {
        for (line, expected) in [
            ("imux", "imux"),
            ("imux client --listen a:1", "imux client --listen=a:1"),
            ("imux client -listen a:1", "imux client --listen=a:1"),
            ("imux client --bind dev:e=4 --bind ::1", "imux client --bind=dev:e=4 --bind=::1"),
            ("imux --debug server -dial=b:2", "imux --debug server --dial=b:2"),
            ("imux --listen a:1 server", "imux --listen=a:1 server"),
            ("imux demo -json -q", "imux demo --json -q"),
            ("imux help client", "imux help client"),
            ("imux --version", "imux --version"),
            ("imux -version", "imux --version"),
            ("imux -h", "imux -h"),
            ("imux -help", "imux --help"),
            ("imux nonsense", "imux nonsense"),
            ("imux client --client=true", "imux client"),
            ("imux client -server=false", "imux client"),
            ("imux client -- -listen", "imux client -- -listen"),
        ] {
            assert_eq!(run(line), Ok((expected.to_owned(), false)), "{line}");
        }
    }

    #[test]
    fn forms_that_cannot_be() {
        let two = |command: &str, flag| FormError::TwoModes { command: command.to_owned(), flag };
        for (line, expected) in [
            ("imux -client -server", FormError::BothModes),
            ("imux --server=true --client", FormError::BothModes),
            ("imux client -server", two("client", "server")),
            ("imux server -client", two("server", "client")),
            ("imux demo --client -q", two("demo", "client")),
            ("imux -listen a:1", FormError::NoMode),
            ("imux --debug", FormError::NoMode),
            ("imux -client=false", FormError::NoMode),
            ("imux -client=false -help", FormError::NoMode),
            (
                "imux -client=maybe",
                FormError::NoBool { name: "client".into(), value: "maybe".into() },
            ),
            ("imux client -debug=2", FormError::NoBool { name: "debug".into(), value: "2".into() }),
        ] {
            assert_eq!(run(line), Err(expected), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn arguments_that_are_not_unicode_pass_through() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'x', 0xff]);
        let argv = vec!["imux".into(), "client".into(), "-listen".into(), odd.clone(), odd.clone()];
        let done = normalise(argv, &grammar()).unwrap();
        let mut joined = OsString::from("--listen=");
        joined.push(&odd);
        assert_eq!(done.argv, vec!["imux".into(), "client".into(), joined, odd]);
    }
}
