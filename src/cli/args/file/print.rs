//! The file that equals a command line.

use std::ffi::OsStr;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::keys::keys_of;

/// What a line of the file says.
type Line = (String, String);

/// The file that asks for what `matches` do: those of `role`, a sub-command of `command`. `implied`
/// is what the form of the command line says without an option.
///
/// # Errors
/// A value is no Unicode, which a file cannot hold.
pub(in crate::cli::args) fn print(
    command: &clap::Command,
    role: &str,
    matches: &ArgMatches,
    implied: &[(&str, &str)],
) -> Result<String, String> {
    let Some(sub) = command.find_subcommand(role) else { return Ok(String::new()) };
    let mut text = lines(command, matches)?;
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("[[{role}]]\n"));
    let missing = implied.iter().filter(|(key, _)| {
        let id = sub.get_arguments().find(|arg| arg.get_long() == Some(key));
        id.is_none_or(|arg| !is_given(matches, arg))
    });
    for (key, value) in missing {
        text.push_str(&format!("{key} = {}\n", quoted(value)));
    }
    text.push_str(&lines(sub, matches)?);
    Ok(text)
}

fn is_given(matches: &ArgMatches, arg: &clap::Arg) -> bool {
    matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// The keys that were given of this command's own.
fn lines(command: &clap::Command, matches: &ArgMatches) -> Result<String, String> {
    let given = keys_of(command).filter(|(_, arg)| is_given(matches, arg));
    let lines: Result<Vec<Line>, String> =
        given.map(|(key, arg)| Ok((key.to_owned(), value(key, arg, matches)?))).collect();
    Ok(lines?.iter().map(|(key, value)| format!("{key} = {value}\n")).collect())
}

fn value(key: &str, arg: &clap::Arg, matches: &ArgMatches) -> Result<String, String> {
    if !arg.get_action().takes_values() {
        return Ok("true".to_owned());
    }
    let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    let values: Result<Vec<_>, _> = raw.map(|value| scalar(key, value)).collect();
    let values = values?;
    Ok(match (arg.get_action(), values.as_slice()) {
        (clap::ArgAction::Append, [only]) => format!("[{only}]"),
        (clap::ArgAction::Append, all) => format!("[\n    {},\n]", all.join(",\n    ")),
        (_, all) => all.join(""),
    })
}

fn scalar(key: &str, value: &OsStr) -> Result<String, String> {
    let text = value
        .to_str()
        .ok_or_else(|| format!("the value of --{key} is no Unicode, as a file has to be"))?;
    let is_number = text.parse::<u32>().is_ok_and(|number| number.to_string() == text);
    Ok(if is_number { text.to_owned() } else { quoted(text) })
}

/// A basic string. What JSON escapes means the same here, and JSON leaves one control character
/// as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
