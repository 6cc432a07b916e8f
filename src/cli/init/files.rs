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
    files: Vec<StagedFile>,
    force: bool,
}

struct StagedFile {
    path: PathBuf,
    beside: PathBuf,
    /// What was there before, under another name.
    old: Option<PathBuf>,
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
            let beside = beside(&path, "tmp");
            let written =
                write(&beside, text.as_bytes(), mode).map_err(|error| cannot_write(&path, &error));
            staged.files.push(StagedFile { path, beside, old: None });
            written?;
        }
        Ok(staged)
    }
}

/// A name in the same folder, of this process.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{what}", std::process::id()));
    name.into()
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

impl StagedFile {
    fn put(&mut self, force: bool) -> io::Result<()> {
        if !force {
            // Unlike a rename, a link never replaces what has come there meanwhile.
            return fs::hard_link(&self.beside, &self.path);
        }
        let old = beside(&self.path, "old");
        match fs::hard_link(&self.path, &old) {
            Ok(()) => self.old = Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(&self.beside, &self.path)
    }

    fn take_back(&mut self) {
        let _ = match self.old.take() {
            Some(old) => fs::rename(old, &self.path),
            None => fs::remove_file(&self.path),
        };
    }
}

impl Staged {
    /// Puts them in their places, and says which those are.
    ///
    /// # Errors
    /// One cannot be put there; then all is as it was.
    pub(super) fn put(mut self) -> Result<Vec<PathBuf>, Failure> {
        for index in 0..self.files.len() {
            let file = &mut self.files[index];
            if let Err(error) = file.put(self.force) {
                let told = cannot_write(&file.path, &error);
                self.files[..index].iter_mut().for_each(StagedFile::take_back);
                return Err(told);
            }
        }
        Ok(self.files.iter().map(|file| file.path.clone()).collect())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for StagedFile { beside, old, .. } in &self.files {
            let _ = fs::remove_file(beside);
            let _ = old.as_ref().map(fs::remove_file);
        }
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
        assert_eq!(names(folder.path()), ["a", "deep"]);
        assert_eq!(names(&folder.path().join("deep")), ["b"]);
    }

    #[test]
    fn what_was_replaced_is_as_it_was_if_another_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("a");
        for before in [None, Some("mine")] {
            if let Some(text) = before {
                fs::write(&first, text).unwrap();
            }
            let staged = files(folder.path(), true).stage().unwrap();
            // No file takes a folder's place.
            fs::create_dir(folder.path().join("deep/b")).unwrap();
            let told = staged.put().unwrap_err().to_string();
            assert!(told.contains("deep/b") && told.contains("nothing was written"), "{told}");
            assert_eq!(fs::read_to_string(&first).ok().as_deref(), before);
            assert_eq!(names(&folder.path().join("deep")), ["b"]);
            fs::remove_dir(folder.path().join("deep/b")).unwrap();
        }
        assert_eq!(names(folder.path()), ["a", "deep"]);
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
