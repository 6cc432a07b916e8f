//! Unix sockets in the file system that accept connections.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// Connections waiting to be accepted: as many as std asks for.
const BACKLOG: i32 = 128;

/// A listening Unix socket that only its owner may connect to. Its file is removed on drop, unless
/// another has taken its place.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens at `path`, replacing a socket there that nobody listens on any more.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if somebody listens there, [`ErrorKind::AlreadyExists`] if
    /// something other than a socket is there, and what the system says.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        clear(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        // The file takes the socket's mode: there is no moment at which others may connect.
        let socket = File::from(OwnedFd::from(socket));
        socket.set_permissions(Permissions::from_mode(0o600))?;
        let socket = Socket::from(OwnedFd::from(socket));
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        let file = identity(path)?;
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Self { listener, path: path.to_owned(), file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// What the system says.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // Whoever starts next finds it stale if it stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "it is no socket"));
    }
    // A socket whose queue is full or that takes datagrams is not known to be stale.
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_stale_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let first = UnixSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(UnixSocket::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        UnixStream::connect(&path).await.unwrap();
        first.accept().await.unwrap();
        drop(first);
        assert!(!path.exists());

        // As a killed program leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = UnixSocket::bind(&path).unwrap();
        // Somebody has put another in its place: that is not ours to remove.
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(second);
        assert!(path.exists());

        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert_eq!(UnixSocket::bind(&file).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(UnixSocket::bind(&link).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
        UnixSocket::bind(&folder.path().join("nowhere/socket")).unwrap_err();
    }
}
