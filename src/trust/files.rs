//! Files that must be whole or absent, and private: written aside, synced, and renamed into place under a lock.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::TrustError;

/// Permissions of what is written here: for the owner only.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// A [`TrustError::File`] about `path`.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrustError {
    move |source| TrustError::File { action, path: path.to_owned(), source }
}

/// Makes a private directory, with its parents, unless it is there.
pub(super) fn create_dir(path: &Path) -> Result<(), TrustError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)
        .map_err(failed("create the directory", path))
}

/// A lock on `path`, held until dropped: an advisory lock on a file of its own beside it, since the file itself gets
/// replaced. It goes with its process, so a crash leaves nothing locked.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Waits for the lock.
    pub(super) fn take(path: &Path) -> Result<Self, TrustError> {
        let path = beside(path, ".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(failed("open the lock", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(Self(file))
    }
}

/// Replaces `path` by a private file with these contents, or leaves it as it was. Hold its [`Lock`].
///
/// A symbolic link is followed: people keep such files elsewhere and link them.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), TrustError> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed("find", path)(error)),
    };
    let temporary = beside(&target, ".tmp");
    let replaced = write_whole(&temporary, contents)
        .map_err(failed("write", &temporary))
        .and_then(|()| fs::rename(&temporary, &target).map_err(failed("replace", &target)));
    if replaced.is_err() {
        // Half a key, on a disk that is full: of use to nobody, and nobody else would remove it.
        let _ = fs::remove_file(&temporary);
    }
    replaced?;
    // The rename itself reaches the disk with its directory. Some file systems cannot sync one; the file is whole anyway.
    if let Some(Ok(dir)) = target.parent().map(File::open) {
        let _ = dir.sync_all();
    }
    Ok(())
}

fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    // What a crashed writer has left: nobody else is writing, because we hold the lock.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn replaces_over_a_crashed_writers_leavings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        fs::write(dir.path().join("file.tmp"), "half of a").unwrap();
        let _lock = Lock::take(&path).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(!dir.path().join("file.tmp").exists());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        let link = dir.path().join("link");
        fs::write(&real, "old").unwrap();
        symlink(&real, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_temporary_file_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, dir.path().join("file.tmp")).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn directories_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        create_dir(&home).unwrap();
        create_dir(&home).unwrap();
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
