//! What the emulator reads of a packet: its TCP connection and its flags.

use std::net::Ipv4Addr;

/// No more data will come.
pub const FIN: u8 = 0x01;
/// A connection begins.
pub const SYN: u8 = 0x02;
/// The connection is aborted.
pub const RST: u8 = 0x04;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// Which end of the path a packet comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client's namespace.
    Client,
    /// The server's namespace.
    Server,
}

/// One end's address and port.
pub type Host = (Ipv4Addr, u16);

/// A TCP connection by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The client's end.
    pub client: Host,
    /// The server's end.
    pub server: Host,
}

/// What the emulator needs to know of a TCP segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sent it.
    pub source: Host,
    /// Who receives it.
    pub target: Host,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its flags: [`FIN`], [`SYN`], [`RST`], [`ACK`] and others.
    pub flags: u8,
}

impl Segment {
    /// `None` for anything but an unfragmented TCP segment in IPv4.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        if first >> 4 != 4 || *packet.get(9)? != 6 {
            return None;
        }
        let tcp = packet.get(usize::from(first & 15) * 4..)?;
        let addr = |at: usize| -> Option<Ipv4Addr> {
            let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(bytes.into())
        };
        let port = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?))
        };
        Some(Self {
            source: (addr(12)?, port(0)?),
            target: (addr(16)?, port(2)?),
            ack: u32::from_be_bytes(tcp.get(8..12)?.try_into().ok()?),
            flags: *tcp.get(13)?,
        })
    }

    /// The connection it belongs to, if sent from this end of the path.
    #[must_use]
    pub fn connection(&self, from: End) -> Connection {
        let (client, server) = match from {
            End::Client => (self.source, self.target),
            End::Server => (self.target, self.source),
        };
        Connection { client, server }
    }
}
