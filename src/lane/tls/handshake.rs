//! The handshake, which rustls runs, and what a lane takes over from it.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustls::crypto::SupportedKxGroup;
use rustls::{AlertDescription, CipherSuite, Connection, NamedGroup, Side};
use zeroize::Zeroizing;

use super::error::{bad_record, invalid, truncated};
use super::keys::TrafficSecrets;
use super::record::{Opener, RecordBuffer, Sealer, directions};
use super::transport::Transport;
use crate::trust::{ALPN, LANE_EXPORTER_LABEL, PeerIdentity, SESSION_EXPORTER_LABEL};

/// Shakes hands over a connected socket. `secrets` is the connection's key log; `heard` becomes
/// true with the first byte that the peer sends. Unbounded in time.
pub(super) async fn shake_hands<T: Transport>(
    socket: T,
    tls: Connection,
    secrets: Arc<TrafficSecrets>,
    heard: &AtomicBool,
) -> io::Result<Agreed<T>> {
    let mut handshake = Handshake { socket, tls, secrets, heard, received: RecordBuffer::new() };
    poll_fn(|cx| handshake.poll(cx)).await?;
    handshake.finish()
}

/// What a finished handshake leaves behind: everything a lane starts from.
pub(super) struct Agreed<T> {
    pub(super) socket: T,
    /// Holds whatever arrived behind the handshake.
    pub(super) received: RecordBuffer,
    pub(super) opener: Opener,
    pub(super) sealer: Sealer,
    pub(super) peer: Option<PeerIdentity>,
    pub(super) exported: [(&'static str, Zeroizing<[u8; 32]>); 2],
    pub(super) group: Option<NamedGroup>,
    pub(super) suite: CipherSuite,
}

struct Handshake<'a, T> {
    socket: T,
    tls: Connection,
    secrets: Arc<TrafficSecrets>,
    heard: &'a AtomicBool,
    received: RecordBuffer,
}

impl<T: Transport> Handshake<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            // Not one record further: what follows may already be data, which rustls must not
            // consume.
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match self.received.next_record()? {
                Some(record) => {
                    if let Err(error) = feed(&mut self.tls, self.received.get(record)) {
                        // Tell the peer why, if the socket takes it right now.
                        let _ = self.poll_send(cx);
                        return Poll::Ready(Err(error));
                    }
                }
                None if ready!(self.received.poll_fill(&mut self.socket, cx))? == 0 => {
                    return Poll::Ready(Err(truncated()));
                }
                None => self.heard.store(true, Ordering::Relaxed),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = SocketWriter { socket: &mut self.socket, cx };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(self) -> io::Result<Agreed<T>> {
        let Self { mut socket, tls, secrets, mut received, .. } = self;
        let agreed = tls.alpn_protocol() == Some(ALPN);
        let peer = match tls.peer_certificates() {
            Some([certificate, ..]) => {
                Some(PeerIdentity::from_certificate(certificate).map_err(invalid)?)
            }
            _ => None,
        };
        let export = |label: &'static str| {
            let value = tls.export_keying_material(Zeroizing::new([0; 32]), label.as_bytes(), None);
            value.map(|value| (label, value)).map_err(invalid)
        };
        let exported = [export(SESSION_EXPORTER_LABEL)?, export(LANE_EXPORTER_LABEL)?];
        let group = tls.negotiated_key_exchange_group().map(SupportedKxGroup::name);
        let suite = tls.negotiated_cipher_suite().ok_or_else(|| bad_record("no cipher suite"))?;
        let side = match &tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        let first = tls.dangerous_extract_secrets().map_err(invalid)?;
        let (mut sealer, opener) = directions(suite, &secrets, first, side)?;
        if !agreed {
            // Close cleanly, so that a benign stranger (a scanner, say) knows that it did nothing
            // wrong.
            let mut farewell = Vec::new();
            sealer.seal_alert(AlertDescription::CloseNotify, &mut farewell)?;
            let mut now = Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut socket).poll_write(&mut now, &farewell);
            return Err(bad_record("the peer speaks TLS but not imux (ALPN)"));
        }
        received.may_grow();
        let suite = suite.suite();
        Ok(Agreed { socket, received, opener, sealer, peer, exported, group, suite })
    }
}

/// Gives rustls one record.
fn feed(tls: &mut Connection, mut record: &[u8]) -> io::Result<()> {
    while !record.is_empty() {
        if tls.read_tls(&mut record)? == 0 {
            return Err(bad_record("data after the end of data"));
        }
    }
    tls.process_new_packets().map(drop).map_err(invalid)
}

/// Lets rustls write to the socket.
struct SocketWriter<'a, 'b, T> {
    socket: &'a mut T,
    cx: &'a mut Context<'b>,
}

impl<T: Transport> Write for SocketWriter<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
