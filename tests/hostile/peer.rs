//! The hostile end of one lane: rustls, blocking, and whatever bytes a script wants to send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imux::trust::{Identity, LANE_EXPORTER_LABEL, SESSION_EXPORTER_LABEL};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::wire::{self, frame, take_varint, types};

/// Nothing that a script waits for takes longer, the ten seconds of a handshake included.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session that was created in order, to be abused.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) session: [u8; 16],
    pub(crate) secret: [u8; 32],
}

/// How the honest end let go of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// CLOSE: the session is over.
    Closed { code: u64, reason: String },
    /// REFUSED: CREATE or JOIN was not granted.
    Refused { code: u64, reason: String },
    /// Only this lane has ended.
    LaneEnded,
}

pub(crate) struct Peer {
    tls: Connection,
    socket: TcpStream,
    received: Vec<u8>,
    /// Bytes of frames that came after the handshake's.
    position: u64,
    /// How many streams the other end has said there may be, since the handshake.
    pub(crate) streams_max: u64,
}

/// The program's own settings of TLS: the stack is the real one, what is said over it is not.
pub(crate) fn client_tls(identity: &Identity) -> Arc<ClientConfig> {
    imux::trust::client_config(identity).unwrap()
}

impl Peer {
    /// A lane to the server, keys exchanged, nothing said.
    pub(crate) fn dial(server: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        Self::over(connect(server), config)
    }

    /// As [`dial`](Self::dial), over a connection of one's own.
    pub(crate) fn over(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        patient(&socket);
        let tls = ClientConnection::new(config, "imux".try_into().unwrap()).unwrap();
        Self::shake_hands(socket, tls.into())
    }

    /// The next lane of an honest client.
    pub(crate) fn accept(listener: &TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let (socket, _) = listener.accept()?;
        patient(&socket);
        Self::shake_hands(socket, ServerConnection::new(config).unwrap().into())
    }

    fn shake_hands(mut socket: TcpStream, mut tls: Connection) -> io::Result<Self> {
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
        Ok(Self { tls, socket, received: Vec::new(), position: 0, streams_max: 0 })
    }

    fn export(&self, label: &str) -> [u8; 32] {
        self.tls.export_keying_material([0; 32], label.as_bytes(), None).unwrap()
    }

    /// Creates a session, with credit without end for the server.
    pub(crate) fn create(&mut self) -> Keys {
        self.send(&create(&[1]));
        let (kind, body) = self.frame().expect("an answer to CREATE");
        assert_eq!(kind, types::CREATED, "{body:x?}");
        // version (one byte), session, parameters
        Keys {
            session: body[1..17].try_into().unwrap(),
            secret: self.export(SESSION_EXPORTER_LABEL),
        }
    }

    /// Answers an honest client's CREATE.
    pub(crate) fn created(&mut self) -> Keys {
        let (kind, _) = self.required().expect("CREATE");
        assert_eq!(kind, types::CREATE);
        let session = [0x5e; 16];
        self.send(&created(1, &session));
        Keys { session, secret: self.export(SESSION_EXPORTER_LABEL) }
    }

    /// This lane's proof, for a session of which everything is known.
    pub(crate) fn proof(&self, keys: &Keys, role: u8, lane: u64) -> [u8; 32] {
        wire::proof(&keys.secret, &keys.session, role, lane, &self.export(LANE_EXPORTER_LABEL))
    }

    /// Joins a session in order; what the server answered.
    pub(crate) fn join(&mut self, keys: &Keys, lane: u64) -> Result<(), Out> {
        let mac = self.proof(keys, b'c', lane);
        self.send(&wire::join(&keys.session, lane, &mac));
        match self.frame() {
            Some((types::JOINED, mac)) => {
                assert_eq!(mac, self.proof(keys, b's', lane));
                Ok(())
            }
            Some((types::REFUSED, body)) => Err(refused(&body)),
            Some(other) => panic!("an answer to JOIN: {other:x?}"),
            None => Err(Out::LaneEnded),
        }
    }

    /// Sends as far as the other end takes it.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes);
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Sends the frames again and again, until the other end takes no more or it was `most` times.
    pub(crate) fn flood(&mut self, most: usize, mut frames: impl FnMut(u64) -> Vec<u8>) {
        let mut flight = Vec::new();
        for number in 0..most as u64 {
            flight.extend(frames(number));
            if flight.len() > 60_000 {
                if self.try_send(&flight).is_err() {
                    return;
                }
                flight.clear();
            }
        }
        self.send(&flight);
    }

    /// The next frame; `None` at the lane's end, however it ended.
    pub(crate) fn frame(&mut self) -> Option<(u64, Vec<u8>)> {
        let begun = Instant::now();
        loop {
            let mut rest = self.received.as_slice();
            if let (Some(kind), Some(length)) = (take_varint(&mut rest), take_varint(&mut rest))
                && let Some(body) = rest.get(..length as usize)
            {
                let (body, used) =
                    (body.to_vec(), self.received.len() - rest.len() + length as usize);
                self.received.drain(..used);
                let handshake =
                    [types::LANE_POLICY, types::CREATE, types::CREATED, types::JOIN, types::JOINED];
                if !handshake.contains(&kind) {
                    self.position += used as u64;
                }
                if kind == types::MAX_STREAMS {
                    self.streams_max = take_varint(&mut body.as_slice()).unwrap();
                }
                return Some((kind, body));
            }
            assert!(begun.elapsed() < PATIENCE, "the other end neither speaks nor goes");
            if self.receive()? == 0 {
                return None;
            }
        }
    }

    /// The next frame that may not be ignored: those of odd types may, and this peer does.
    pub(crate) fn required(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            match self.frame()? {
                (kind, _) if kind % 2 == 1 => {}
                frame => return Some(frame),
            }
        }
    }

    /// Takes in what comes next.
    fn receive(&mut self) -> Option<usize> {
        let before = self.received.len();
        while self.received.len() == before {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Some(0),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("no word in time")
                }
                Err(_) => return None,
            }
            let ended = self.tls.process_new_packets().is_err();
            // What came before the end counts, and the end shows in it as an error or as nothing.
            let _ = self.tls.reader().read_to_end(&mut self.received);
            if ended && self.received.len() == before {
                return None;
            }
        }
        Some(self.received.len() - before)
    }

    /// What the peer is thrown out with.
    pub(crate) fn thrown_out(&mut self) -> Out {
        while let Some((kind, body)) = self.frame() {
            match kind {
                types::CLOSE => {
                    let (code, reason) = code_and_reason(&body);
                    return Out::Closed { code, reason };
                }
                types::REFUSED => return refused(&body),
                _ => {}
            }
        }
        Out::LaneEnded
    }

    /// Asserts that the session was closed with this code.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u64) -> String {
        match self.thrown_out() {
            Out::Closed { code: told, reason } if told == code => reason,
            other => panic!("expected CLOSE with {code:#x}, got {other:?}"),
        }
    }

    /// Asserts that the other end still answers on this lane: a PING is acknowledged.
    #[track_caller]
    pub(crate) fn expect_alive(&mut self) {
        self.send(&frame(types::PING, &[], &[]));
        loop {
            match self.frame() {
                Some((types::ACK, _)) => return,
                Some((types::CLOSE, body)) => panic!("closed: {:?}", code_and_reason(&body)),
                Some(_) => {}
                None => panic!("the lane has ended"),
            }
        }
    }

    /// Says that all that was read on lane 0 has arrived, so that the other end does not give it
    /// up.
    pub(crate) fn acknowledge(&mut self) {
        let ack = frame(types::ACK, &[0, self.position], &[]);
        self.send(&ack);
    }

    /// Takes in whatever comes for a while, or until the lane is given up; how much it was.
    pub(crate) fn drain(&mut self, time: Duration) -> u64 {
        let begun = Instant::now();
        let mut got = 0;
        while begun.elapsed() < time {
            if !self.is_readable() {
                continue;
            }
            match self.receive() {
                Some(bytes @ 1..) => got += bytes as u64,
                _ => break,
            }
            self.received.clear();
        }
        got
    }

    /// Whether the other end says something within a few milliseconds.
    pub(crate) fn is_readable(&mut self) -> bool {
        // It may have come with the last of the handshake.
        let _ = self.tls.reader().read_to_end(&mut self.received);
        if !self.received.is_empty() {
            return true;
        }
        self.socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let said = self.socket.peek(&mut [0; 1]).is_ok();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        said
    }

    /// Resets the connection.
    #[cfg(feature = "cli")]
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Cuts the lane off, without a word.
    pub(crate) fn cut(self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).unwrap();
    patient(&socket);
    socket
}

fn patient(socket: &TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
}

pub(crate) fn create(versions: &[u64]) -> Vec<u8> {
    let mut numbers = vec![versions.len() as u64];
    numbers.extend(versions);
    frame(types::CREATE, &numbers, &wire::parameters(wire::MAX, wire::MAX, 10))
}

pub(crate) fn created(version: u64, session: &[u8; 16]) -> Vec<u8> {
    let mut body = session.to_vec();
    body.extend(wire::parameters(wire::MAX, wire::MAX, 10));
    frame(types::CREATED, &[version], &body)
}

fn refused(body: &[u8]) -> Out {
    let (code, reason) = code_and_reason(body);
    Out::Refused { code, reason }
}

fn code_and_reason(mut body: &[u8]) -> (u64, String) {
    let code = take_varint(&mut body).unwrap();
    (code, String::from_utf8_lossy(body).into_owned())
}
