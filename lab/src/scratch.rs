//! A directory for a run's files, removed at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::proc::{find_program, left_behind};

const PREFIX: &str = "imux-lab-";

/// Removes the directories of runs whose process is gone.
pub fn sweep() {
    let temporary = std::env::temp_dir();
    for name in left_behind(&temporary, PREFIX) {
        let _ = std::fs::remove_dir_all(temporary.join(name));
    }
}

/// A fresh directory of this process, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `imux-lab-PID-NAME` in the system's temporary directory.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|e| LabError::setup(format!("make {}", path.display()), e))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path within it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file within it.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.file(name);
        std::fs::write(&path, text)
            .map_err(|e| LabError::setup(format!("write {}", path.display()), e))?;
        Ok(path)
    }

    /// A self-signed certificate and its key in one PEM file, as haproxy and stunnel take them.
    pub fn certificate(&self) -> Result<PathBuf, LabError> {
        let openssl = find_program("openssl").ok_or_else(|| LabError::MissingProgram {
            program: "openssl".to_owned(),
            fix: "install it: the TLS pairs need a certificate".to_owned(),
        })?;
        let (key, cert) = (self.file("key.pem"), self.file("cert.pem"));
        let made = Command::new(openssl)
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '))
            .args(["-subj", "/CN=imux-lab", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .map_err(|e| LabError::setup("run openssl", e))?;
        let read = |path: &Path| std::fs::read_to_string(path);
        match (made.status.success(), read(&cert), read(&key)) {
            (true, Ok(cert), Ok(key)) => self.write("both.pem", &format!("{cert}{key}")),
            _ => Err(LabError::setup(
                "make a certificate with openssl",
                String::from_utf8_lossy(&made.stderr),
            )),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
