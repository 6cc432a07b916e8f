//! Files that must be whole or absent, and private: written aside, synced, and renamed into place
//! under a lock.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::TrustError;

/// Permissions of files written here: owner only.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// A [`TrustError::File`] about `path`.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrustError {
    move |source| TrustError::File { action, path: path.to_owned(), source }
}

/// Makes a private directory and its parents, unless it exists.
pub(super) fn create_dir(path: &Path) -> Result<(), TrustError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)
        .map_err(failed("create the directory", path))
}

/// A lock on `path`, held until dropped: an advisory lock on a separate file beside it, since the
/// file itself gets replaced. It ends with its process, so a crash leaves nothing locked.
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

/// Replaces `path` by a private file with these contents, or leaves it as it was. Hold its
/// [`Lock`].
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
        // Half a key, on a full disk: useless, and nobody else would remove it.
        let _ = fs::remove_file(&temporary);
    }
    replaced?;
    // The rename reaches the disk with its directory. Some file systems cannot sync one; the file
    // is whole anyway.
    if let Some(Ok(dir)) = target.parent().map(File::open) {
        let _ = dir.sync_all();
    }
    Ok(())
}

/// Refuses a file that somebody else may have written or put there: it and its directories, up to
/// the user's home or else the root, must belong to the user or root and be writable by nobody
/// else. In a sticky directory (such as /tmp) the user's own files are safe.
///
/// A missing file passes.
pub(super) fn check_owned(path: &Path) -> Result<(), TrustError> {
    let real = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        real => real.map_err(failed("find", path))?,
    };
    let user = nix::unistd::geteuid().as_raw();
    let home = std::env::home_dir().and_then(|home| fs::canonicalize(home).ok());
    for (depth, place) in real.ancestors().enumerate() {
        let metadata = fs::metadata(place).map_err(failed("look at", place))?;
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let place = || place.to_owned();
        if owner != user && owner != 0 {
            return Err(TrustError::AnothersFile { path: place(), owner });
        }
        let is_sticky_dir = depth > 0 && mode & 0o1000 != 0;
        if mode & 0o022 != 0 && !is_sticky_dir {
            return Err(TrustError::WritableByOthers { path: place(), mode });
        }
        if home.as_deref() == Some(&place()) {
            break;
        }
    }
    Ok(())
}

fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    // Left by a crashed writer: nobody else is writing, because we hold the lock.
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
    fn what_others_may_have_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let (deep, file) = (dir.path().join("a/b"), dir.path().join("a/b/list"));
        check_owned(&file).unwrap();
        fs::create_dir_all(&deep).unwrap();
        fs::write(&file, "").unwrap();
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        for (place, bad) in
            [(&file, 0o620), (&file, 0o602), (&deep, 0o770), (&dir.path().join("a"), 0o757)]
        {
            check_owned(&file).unwrap();
            let before = fs::metadata(place).unwrap().permissions().mode();
            mode(place, bad);
            // The check looks at the file, not at the link to it.
            for path in [&file, &link] {
                let error = check_owned(path).unwrap_err();
                let TrustError::WritableByOthers { path, mode } = &error else { panic!("{error}") };
                assert_eq!((path, *mode), (place, bad));
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
            mode(place, before);
        }
        mode(&deep, 0o1777);
        check_owned(&file).unwrap();
        if nix::unistd::geteuid().is_root() {
            let other = Some(nix::unistd::Uid::from_raw(12_345));
            nix::unistd::chown(&deep, other, None).unwrap();
            let error = check_owned(&file).unwrap_err();
            assert!(matches!(error, TrustError::AnothersFile { owner: 12_345, .. }), "{error}");
        }
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
