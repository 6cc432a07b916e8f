//! A server whose one client may do what a line says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::process::{Imux, field, run};

/// A server, and clients of it, with one home for all keys. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) folder: TempDir,
    pub(crate) server: Imux,
    pub(crate) at: String,
    pub(crate) key: String,
}

impl Pair {
    /// A server with this destination, and this list of clients.
    pub(crate) fn server(dial: &str, clients: Option<&str>) -> Self {
        Self::server_with(dial, clients, &[])
    }

    pub(crate) fn server_with(dial: &str, clients: Option<&str>, how: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(line) = clients {
            let (code, own, _) = run(folder.path(), &["identity"]);
            assert_eq!(code, 0);
            let key = own.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
            let list = folder.path().join("authorized_clients");
            fs::write(&list, format!("{line} {key}\n")).unwrap();
            fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let args = ["server", "--listen=127.0.0.1:0", "--dial", dial];
        let server = Imux::start(folder.path(), &[&args, how].concat());
        let line = server.line("server ready");
        let (at, key) = (field(&line, "address").to_owned(), field(&line, "key").to_owned());
        Self { folder, server, at, key }
    }

    pub(crate) fn client(&self, how: &[&str]) -> Imux {
        let to = ["client", "--dial", &self.at, "--pin", &self.key, "--bind=any=2"];
        Imux::start(self.folder.path(), &[&to, how].concat())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
