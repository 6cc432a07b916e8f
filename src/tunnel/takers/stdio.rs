//! One connection that is there already: this process's standard input and output.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Pair;
use std::thread;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::driver::{Stream, StreamError};
use crate::tunnel::copy::{Ends, copy};
use crate::tunnel::socket::{Socket, SocketOptions};

/// Most bytes read at once.
const PIECE: usize = 64 << 10;

/// Carries standard input into `stream`, and what comes back to standard output, until both have
/// ended. An end on either side is passed on as a half-close.
///
/// Both may be terminals or files whose descriptors others share: they stay as they are, and
/// separate threads wait for them. A thread that still waits for input does not keep the process
/// alive.
///
/// # Errors
/// The stream was reset, or its session is over.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn carry_stdio(stream: Stream, to: &str) -> io::Result<()> {
    let (ours, theirs) = Pair::pair()?;
    ours.set_nonblocking(true)?;
    let all_written = attach(theirs, Bytes::new())?;
    let socket = Socket::Unix(UnixStream::from_std(ours)?);
    let ends = Ends { from: "standard input".to_owned(), to: to.to_owned() };
    let broken = copy(socket, Bytes::new(), stream, &SocketOptions::default(), &ends).await;
    // Everything received must be out before the process ends.
    all_written.await;
    match broken {
        Some(StreamError::Reset(code)) => Err(io::Error::other(StreamError::Reset(code))),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Connects standard input and output to a socket; `first` was read from it before. The result
/// waits until everything received was written, and the end as well.
///
/// # Errors
/// What the system says.
pub fn attach_stdio(
    socket: UnixStream,
    first: Bytes,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    attach(socket, first)
}

fn attach(theirs: Pair, first: Bytes) -> io::Result<impl Future<Output = ()> + use<>> {
    let input = theirs.try_clone()?;
    // A read that waits for a person cannot be cancelled: nobody waits for this thread.
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = pump(io::stdin().lock(), &input);
        let _ = input.shutdown(Shutdown::Write);
    })?;
    let (written, all_written) = oneshot::channel();
    thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        match pump(Read::chain(&*first, &theirs), io::stdout().lock()) {
            // Whoever reads it sees an end, and may go on writing.
            Ok(()) => drop(end_stdout()),
            // A reader that stops breaks the connection off, as with a socket.
            Err(_) => drop(theirs.shutdown(Shutdown::Both)),
        }
        let _ = written.send(());
    })?;
    Ok(async {
        let _ = all_written.await;
    })
}

fn end_stdout() -> io::Result<()> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(nowhere)?)
}

fn pump(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(piece.get(..read).unwrap_or_default())?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
