//! Sockets at the two far ends: destinations, and connections through the tunnel.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A connection to a port of this machine. It counts as made even if it has been reset since: a
/// non-blocking connect may see only that.
#[track_caller]
pub(crate) fn connect(addr: impl std::net::ToSocketAddrs) -> TcpStream {
    let socket = std::net::TcpStream::connect(addr).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket).unwrap()
}

/// A server at a port of its own that handles each connection in a task; ends when dropped.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) addr: SocketAddr,
    task: AbortHandle,
}

impl Destination {
    pub(crate) async fn start<F, H>(handle: H) -> Self
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0", handle).await
    }

    pub(crate) async fn start_at<F, H>(place: &str, handle: H) -> Self
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = tokio::net::lookup_host(place).await.unwrap().next().unwrap();
        let kind = if socket.is_ipv4() {
            tokio::net::TcpSocket::new_v4()
        } else {
            tokio::net::TcpSocket::new_v6()
        };
        let kind = kind.unwrap();
        kind.bind(socket).unwrap();
        let listener = kind.listen(1024).unwrap();
        Self::on(listener, handle)
    }

    pub(crate) fn on<F, H>(listener: TcpListener, handle: H) -> Self
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let accepting = async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(handle(socket));
            }
        };
        Self { addr, task: tokio::spawn(accepting).abort_handle() }
    }

    /// Sends back what it gets, and ends when that ends.
    pub(crate) async fn echo() -> Self {
        Self::start(echo).await
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn echo(mut socket: TcpStream) {
    send_back(&mut socket).await;
}

/// Sends back what comes, and its end; the socket stays open.
pub(crate) async fn send_back(socket: &mut TcpStream) {
    let (mut read, mut write) = socket.split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        use tokio::io::AsyncWriteExt;
        let _ = write.shutdown().await;
    }
}

/// A port at which nobody listens (any more).
pub(crate) async fn unused_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Makes dropping the socket a reset.
pub(crate) fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}
