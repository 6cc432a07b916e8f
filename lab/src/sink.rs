//! The load's far end: answers every connection as its first bytes ask, and reports.
//!
//! It talks over its own stdin and stdout, so that it needs no network but the one under test: it
//! prints `ready PORT`, answers a line `report` with one line of JSON, and ends with its input.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock::{NS_PER_MS, now_ns};
use super::flow::Flow;
use super::stream::Pattern;
use super::wire::{Kind, Receipt, Request};

/// Size of reads and writes: large enough that the load itself costs little.
pub const BUFFER: usize = 256 * 1024;
/// A connection silent for this long is given up.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// All connections since the start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SinkReport {
    /// Uploads (as received) and downloads (as sent).
    pub flows: Vec<Flow>,
    /// Connections that failed before announcing their purpose.
    pub strays: Vec<String>,
}

type Shared<T> = Arc<Mutex<T>>;

#[derive(Debug, Default)]
struct Book {
    flows: Vec<Shared<Flow>>,
    strays: Vec<String>,
}

/// A receiver's lock is never held across anything that can panic halfway through an update.
pub(crate) fn locked<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until standard input ends.
pub fn run(listen: SocketAddr, mptcp: bool) -> io::Result<()> {
    let listener = listen_on(listen, mptcp)?;
    writeln!(io::stdout(), "ready {}", listener.local_addr()?.port())?;
    let book = Shared::<Book>::default();
    let accepting = Arc::clone(&book);
    std::thread::spawn(move || accept_loop(&listener, &accepting));
    for line in io::stdin().lock().lines() {
        if line?.trim() == "report" {
            let report = report(&book);
            writeln!(
                io::stdout(),
                "{}",
                serde_json::to_string(&report).map_err(io::Error::other)?
            )?;
        }
    }
    Ok(())
}

fn listen_on(addr: SocketAddr, mptcp: bool) -> io::Result<TcpListener> {
    let protocol = if mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(protocol))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn report(book: &Mutex<Book>) -> SinkReport {
    let book = locked(book);
    SinkReport {
        flows: book.flows.iter().map(|f| locked(f).clone()).collect(),
        strays: book.strays.clone(),
    }
}

fn accept_loop(listener: &TcpListener, book: &Shared<Book>) {
    for conn in listener.incoming() {
        let Ok(conn) = conn else {
            // Probably out of descriptors: give others time to close.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let book = Arc::clone(book);
        std::thread::spawn(move || {
            if let Err(e) = serve(conn, &book) {
                locked(&book).strays.push(e.to_string());
            }
        });
    }
}

fn serve(mut conn: TcpStream, book: &Mutex<Book>) -> io::Result<()> {
    conn.set_nodelay(true)?;
    conn.set_read_timeout(Some(IDLE_LIMIT))?;
    conn.set_write_timeout(Some(IDLE_LIMIT))?;
    let request = Request::read(&mut conn)?;
    let register = || {
        let flow = Arc::new(Mutex::new(Flow::new(request.tag, now_ns())));
        locked(book).flows.push(Arc::clone(&flow));
        flow
    };
    match request.kind {
        Kind::Up => {
            let flow = register();
            let intact = receive(&mut conn, &request, &flow);
            let (bytes, done_ns) = {
                let flow = locked(&flow);
                (flow.bytes, flow.last_ns)
            };
            // The client may be gone; the report has it all anyway.
            let _ = conn.write_all(&Receipt { bytes, done_ns, intact }.encode());
        }
        Kind::Down => {
            let flow = register();
            let deadline = now_ns().saturating_add(request.duration_ms.saturating_mul(NS_PER_MS));
            send(&mut conn, &request, deadline, &flow);
            // Wait for the client to close, so that what is still queued is not cut off.
            while conn.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        }
        Kind::Echo => echo(conn),
        Kind::Ping => {
            let _ = conn.write_all(&[1]);
            while conn.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        }
    }
    Ok(())
}

/// Reads and checks a stream up to its limit or its end; false if a byte was wrong.
pub(crate) fn receive(conn: &mut TcpStream, request: &Request, flow: &Mutex<Flow>) -> bool {
    let pattern = Pattern::new(request.seed);
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    while offset < request.limit {
        match conn.read(&mut buffer) {
            Ok(0) => {
                locked(flow).ended = true;
                return true;
            }
            Ok(n) => {
                let now = now_ns();
                if let Err(at) = pattern.verify(offset, &buffer[..n]) {
                    locked(flow).fault = Some(format!("wrong byte at or after offset {at}"));
                    return false;
                }
                offset += n as u64;
                locked(flow).arrived(now, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                locked(flow).fault = Some(format!("after {offset} bytes: {e}"));
                return true;
            }
        }
    }
    locked(flow).ended = true;
    true
}

/// Sends the stream until its limit or `deadline_ns`, then ends this side.
pub(crate) fn send(conn: &mut TcpStream, request: &Request, deadline_ns: u64, flow: &Mutex<Flow>) {
    let pattern = Pattern::new(request.seed);
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    while offset < request.limit && now_ns() < deadline_ns {
        let want = (request.limit - offset).min(BUFFER as u64) as usize;
        pattern.fill(offset, &mut buffer[..want]);
        let mut written = 0;
        while written < want && now_ns() < deadline_ns {
            match conn.write(&buffer[written..want]) {
                Ok(n) => {
                    written += n;
                    locked(flow).sent = offset + written as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    locked(flow).fault = Some(format!("sending: {e}"));
                    return;
                }
            }
        }
        offset += written as u64;
    }
    let _ = conn.shutdown(Shutdown::Write);
}

fn echo(mut conn: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(n @ 1..) = conn.read(&mut buffer) {
        if conn.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = conn.shutdown(Shutdown::Write);
}
