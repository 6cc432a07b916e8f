//! Which key in the key directory is a server's.

use std::path::Path;

use super::address::HostPort;
use super::exit::{Exit, Failure};
use super::own_key::CLIENT;

/// The name of the server's key: one per directory, however `--listen` is written.
const SERVER: &str = "server";

/// Parses `--identity`.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    let begins = text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    if !begins || text.len() > 100 || !text.chars().all(valid) || text.ends_with(".next") {
        return Err(
            "a name is made of letters, digits, `-`, `_` and `.`, such as `office`".to_owned()
        );
    }
    if text == CLIENT {
        return Err(format!("`{CLIENT}` is the client's own key; choose another name"));
    }
    Ok(text.to_owned())
}

/// The name of the key for a server with this `--identity` and `--listen`, as far as they are
/// known.
///
/// Earlier versions, and the original, named a server's key after its `--listen` as written. If a
/// key with that name exists, it remains the server's; so does the only such key, until there is
/// one with the current name.
pub(super) fn server_name(
    home: &Path,
    chosen: Option<&str>,
    listen: Option<&HostPort>,
) -> Result<String, Failure> {
    if let Some(name) = chosen {
        return Ok(name.to_owned());
    }
    let is_there = |name: &str| {
        ["key", "crt"]
            .iter()
            .any(|kind| home.join(format!("{name}.{kind}")).symlink_metadata().is_ok())
    };
    if let Some(listen) = listen.map(HostPort::as_written).filter(|name| is_there(name)) {
        return Ok(listen.to_owned());
    }
    if is_there(SERVER) {
        return Ok(SERVER.to_owned());
    }
    let mut old = old_names(home)?;
    Ok(if old.len() == 1 { old.remove(0) } else { SERVER.to_owned() })
}

/// The keys named after a `--listen`.
fn old_names(home: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::message(
            Exit::Config,
            format!(
                "cannot read the directory {}: {error}; run as the user whose it is, or set IMUX_HOME to a directory of \
                 your own",
                home.display()
            ),
        )
    };
    let entries = match std::fs::read_dir(home) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".key"));
        let is_old = |name: &&str| name.contains(':') && HostPort::to_listen(name).is_ok();
        names.extend(name.filter(is_old).map(str::to_owned));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(home: &Path, listen: &str) -> String {
        server_name(home, None, Some(&HostPort::to_listen(listen).unwrap())).unwrap()
    }

    #[test]
    fn one_server_in_a_directory_and_old_names_stay() {
        let home = tempfile::tempdir().unwrap();
        let touch = |file: &str| std::fs::write(home.path().join(file), "").unwrap();
        assert_eq!(server_name(&home.path().join("nowhere"), None, None).unwrap(), "server");
        let spellings = ["127.0.0.1:443", "localhost:443", "0.0.0.0:443", ":443"];
        touch("client.key");
        spellings.iter().for_each(|listen| assert_eq!(name(home.path(), listen), "server"));
        // A key from an earlier version, and its next key: the only server.
        touch("0.0.0.0:443.key");
        touch("0.0.0.0:443.next.key");
        spellings.iter().for_each(|listen| assert_eq!(name(home.path(), listen), "0.0.0.0:443"));
        assert_eq!(server_name(home.path(), None, None).unwrap(), "0.0.0.0:443");
        // Two: each belongs to its own server, and a server without one gets the new name.
        touch("localhost:443.crt");
        touch("localhost:443.key");
        assert_eq!(name(home.path(), "localhost:443"), "localhost:443");
        assert_eq!(name(home.path(), "0.0.0.0:443"), "0.0.0.0:443");
        assert_eq!(name(home.path(), "127.0.0.1:443"), "server");
        touch("server.key");
        assert_eq!(name(home.path(), "0.0.0.0:443"), "0.0.0.0:443");
        assert_eq!(server_name(home.path(), None, None).unwrap(), "server");
        assert_eq!(server_name(home.path(), Some("office"), None).unwrap(), "office");
    }

    #[test]
    fn names_of_identities() {
        for good in ["office", "a", "web-1_x.example", "büro", "1"] {
            assert_eq!(parse_name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", "a/b", "/etc/x", "client", "a.next", "-x", "a b", "a\n", ".x"] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
    }
}
