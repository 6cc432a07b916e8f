//! Files that are written all or none, and never over others.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};

/// Permissions of files for their owner alone.
pub(super) const PRIVATE: u32 = 0o600;
/// Permissions of files that others read, such as systemd for another user.
pub(super) const PUBLIC: u32 = 0o644;

struct New {
    path: PathBuf,
    text: String,
    mode: u32,
}

/// What is to be written.
pub(super) struct Files {
    files: Vec<New>,
    /// They replace those that are there.
    force: bool,
}

/// Files beside their places. Gone when dropped.
pub(super) struct Staged {
    files: Vec<(PathBuf, PathBuf)>,
    force: bool,
}

impl Files {
    pub(super) fn new(force: bool) -> Self {
        Self { files: Vec::new(), force }
    }

    pub(super) fn add(&mut self, path: PathBuf, text: String, mode: u32) {
        self.files.push(New { path, text, mode });
    }

    /// All of them, each behind a comment with its place.
    pub(super) fn shown(&self) -> String {
        let shown = self.files.iter().map(|it| format!("# {}\n{}", it.path.display(), it.text));
        shown.collect::<Vec<_>>().join("\n")
    }

    /// # Errors
    /// One is there already and is not to be replaced.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let there = self.files.iter().find(|it| it.path.symlink_metadata().is_ok());
        match there.filter(|_| !self.force) {
            Some(there) => Err(is_there(&there.path)),
            None => Ok(()),
        }
    }

    /// Writes them beside their places.
    pub(super) fn stage(self) -> Result<Staged, Failure> {
        let mut staged = Staged { files: Vec::new(), force: self.force };
        for New { path, text, mode } in self.files {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.tmp", std::process::id()));
            let beside = PathBuf::from(name);
            let written = write(&beside, text.as_bytes(), mode);
            staged.files.push((beside, path.clone()));
            written.map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(staged)
    }
}

/// A failure that is this machine's, by which nothing has changed.
pub(super) fn failure(why: &str) -> Failure {
    Failure::message(Exit::Config, format!("{why}; nothing was written"))
}

fn is_there(path: &Path) -> Failure {
    let path = path.display();
    failure(&format!(
        "{path} is there already: --force replaces it, or set IMUX_HOME to another directory"
    ))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    failure(&format!("cannot write {}: {error}", path.display()))
}

fn write(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        // Of keys, if it is not there yet; systemd's folders for users belong to them as well.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

impl Staged {
    /// Puts them in their places, and says which those are.
    pub(super) fn put(mut self) -> Result<Vec<PathBuf>, Failure> {
        let mut placed = Vec::new();
        for (beside, path) in &self.files {
            let put = if self.force {
                fs::rename(beside, path)
            } else {
                // Unlike a rename, a link never replaces what has come there meanwhile.
                fs::hard_link(beside, path)
            };
            if let Err(error) = put {
                if !self.force {
                    placed.iter().for_each(|path| drop(fs::remove_file(path)));
                }
                return Err(cannot_write(path, &error));
            }
            placed.push(path.clone());
        }
        self.clear();
        Ok(placed)
    }

    fn clear(&mut self) {
        for (beside, _) in self.files.drain(..) {
            let _ = fs::remove_file(beside);
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files(folder: &Path, force: bool) -> Files {
        let mut files = Files::new(force);
        files.add(folder.join("a"), "1\n".to_owned(), PRIVATE);
        files.add(folder.join("deep/b"), "2\n".to_owned(), PUBLIC);
        files
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn they_are_written_together_with_their_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path(), false);
        files.check().unwrap();
        let placed = files.stage().unwrap().put().unwrap();
        assert_eq!(placed, [folder.path().join("a"), folder.path().join("deep/b")]);
        for (path, mode) in placed.iter().zip([PRIVATE, PUBLIC]) {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_to_string(&placed[1]).unwrap(), "2\n");
        assert_eq!(names(folder.path()), ["a", "deep"]);
        assert_eq!(names(&folder.path().join("deep")), ["b"]);
    }

    #[test]
    fn what_is_there_stays_unless_it_is_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        let there = folder.path().join("deep/b");
        fs::write(&there, "mine").unwrap();
        let told = files(folder.path(), false).check().unwrap_err().to_string();
        assert!(told.contains("deep/b is there already") && told.contains("--force"), "{told}");
        // It has come there since.
        let staged = files(folder.path(), false).stage().unwrap();
        staged.put().unwrap_err();
        assert_eq!(names(folder.path()), ["deep"]);
        assert_eq!(names(&folder.path().join("deep")), ["b"]);
        assert_eq!(fs::read_to_string(&there).unwrap(), "mine");
        let forced = files(folder.path(), true);
        forced.check().unwrap();
        forced.stage().unwrap().put().unwrap();
        assert_eq!(fs::read_to_string(&there).unwrap(), "2\n");
    }

    #[test]
    fn nothing_stays_where_one_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("deep"), "no folder").unwrap();
        let told = files(folder.path(), false).stage().err().unwrap().to_string();
        assert!(told.contains("deep/b") && told.contains("nothing was written"), "{told}");
        assert_eq!(names(folder.path()), ["deep"]);
    }
}
