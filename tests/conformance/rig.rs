//! The destination of all scripts at once, and the way to it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::end::{Seen, follow};
use crate::script::{Script, Step};

/// A script of the destination's, and whom to tell what it saw.
type Waiting = (Vec<Step>, oneshot::Sender<Seen>);

/// Each connection begins with a number, by which the destination knows its script.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) destination: SocketAddr,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
    next: Arc<AtomicU64>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let destination = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let rig = Self { destination, waiting: Arc::default(), next: Arc::default() };
        let waiting = rig.waiting.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let waiting = waiting.clone();
                tokio::spawn(async move {
                    prepare(&socket);
                    let Ok(number) = socket.read_u64().await else { return };
                    let (steps, told) = waiting.lock().unwrap().remove(&number).unwrap();
                    let _ = told.send(follow(socket, 1, &steps).await);
                });
            }
        });
        rig
    }

    /// Runs a script over a connection to `way`: what the program and the destination see.
    pub(crate) async fn run(&self, script: &Script, way: Way) -> [Seen; 2] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap().insert(number, (script.steps[1].clone(), tell));
        let mut socket = TcpStream::connect(way.addr).await.unwrap();
        prepare(&socket);
        if way.by_socks {
            self.ask(&mut socket).await;
        }
        // If it is reset as soon as this the script will tell.
        let _ = socket.write_u64(number).await;
        let program = follow(socket, 0, &script.steps[0]).await;
        let destination = timeout(Duration::from_secs(60), told).await;
        let destination = destination.ok().and_then(Result::ok);
        [program, destination.unwrap_or(Seen::NOTHING)]
    }

    /// Tells a proxy where the destination is.
    async fn ask(&self, socket: &mut TcpStream) {
        let port = self.destination.port().to_be_bytes();
        let request = [&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1], &port[..]].concat();
        socket.write_all(&request).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [5, 0, 5, 0]);
    }
}

/// Where connections are taken that lead to the destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) by_socks: bool,
}

fn prepare(socket: &TcpStream) {
    socket.set_nodelay(true).unwrap();
    SockRef::from(socket).set_out_of_band_inline(true).unwrap();
}
