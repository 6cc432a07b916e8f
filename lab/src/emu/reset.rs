//! Resets TCP connections in the middle of the path, as a firewall or an address change does.
//!
//! A reset must carry the exact sequence number its receiver expects next (RFC 9293 section
//! 3.10.7.4, RFC 5961), which is what that receiver last acknowledged. The first try uses the last
//! acknowledgement seen. If more has arrived since, the receiver's challenge ACK names the right
//! number and gets a reset in return, as does every later packet of a reset connection.

use std::collections::HashMap;

use super::segment::{ACK, Connection, End, FIN, Host, RST, SYN, Segment};

#[derive(Debug, Default)]
struct Seen {
    /// What each end last acknowledged: the sequence number it expects next.
    client_expects: u32,
    server_expects: u32,
    doomed: bool,
}

/// The connections of one path.
#[derive(Debug, Default)]
pub struct Resetter {
    // Looked up by key; iterated only to reset them all, where order does not matter.
    seen: HashMap<Connection, Seen>,
}

impl Resetter {
    /// Inspects a packet from `from`. `Some` if it must not pass: the reset that answers it.
    pub fn inspect(&mut self, from: End, packet: &[u8]) -> Option<Vec<u8>> {
        let segment = Segment::parse(packet)?;
        let connection = segment.connection(from);
        if segment.flags & SYN != 0 && segment.flags & ACK == 0 {
            self.seen.insert(connection, Seen::default());
            return None;
        }
        let seen = self.seen.get_mut(&connection)?;
        if seen.doomed {
            // The kernel does not answer resets, nor may we.
            let answer = segment.flags & ACK != 0 && segment.flags & RST == 0;
            let reset = answer.then(|| forge(segment.target, segment.source, segment.ack));
            return Some(reset.unwrap_or_default());
        }
        if segment.flags & ACK != 0 {
            match from {
                End::Client => seen.client_expects = segment.ack,
                End::Server => seen.server_expects = segment.ack,
            }
        }
        if segment.flags & (RST | FIN) == RST {
            self.seen.remove(&connection);
        }
        None
    }

    /// Resets every connection: returns the packets to write, and to which end.
    pub fn reset_all(&mut self) -> Vec<(End, Vec<u8>)> {
        let mut packets = Vec::new();
        for (connection, seen) in &mut self.seen {
            seen.doomed = true;
            let (client, server) = (connection.client, connection.server);
            packets.push((End::Client, forge(server, client, seen.client_expects)));
            packets.push((End::Server, forge(client, server, seen.server_expects)));
        }
        packets
    }
}

/// A reset from `source` to `target` with this sequence number.
fn forge(source: Host, target: Host, seq: u32) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.0.octets());
    packet[16..20].copy_from_slice(&target.0.octets());
    packet[20..22].copy_from_slice(&source.1.to_be_bytes());
    packet[22..24].copy_from_slice(&target.1.to_be_bytes());
    packet[24..28].copy_from_slice(&seq.to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = RST;
    let header = checksum(packet[..20].chunks_exact(2), 0);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    // RFC 9293 section 3.1: over addresses, protocol (6), length (20) and the segment.
    let segment = checksum(packet[12..].chunks_exact(2), 6 + 20);
    packet[36..38].copy_from_slice(&segment.to_be_bytes());
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum<'a>(words: impl Iterator<Item = &'a [u8]>, start: u32) -> u16 {
    let mut sum = start + words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: Host = (Ipv4Addr::new(10, 0, 0, 2), 1000);
    const SERVER: Host = (Ipv4Addr::new(10, 0, 1, 1), 443);

    fn segment(source: Host, target: Host, flags: u8, ack: u32) -> Vec<u8> {
        let mut packet = forge(source, target, 0);
        packet[33] = flags;
        packet[28..32].copy_from_slice(&ack.to_be_bytes());
        packet
    }

    fn seq(packet: &[u8]) -> u32 {
        u32::from_be_bytes(packet[24..28].try_into().unwrap())
    }

    #[test]
    fn checksum_of_rfc_1071() {
        let words = [0x00u8, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(words.chunks_exact(2), 0), !0xddf2);
    }

    #[test]
    fn both_ends_are_reset_with_what_they_expect() {
        let mut resetter = Resetter::default();
        assert_eq!(resetter.inspect(End::Client, &segment(CLIENT, SERVER, SYN, 0)), None);
        assert_eq!(resetter.inspect(End::Server, &segment(SERVER, CLIENT, SYN | ACK, 11)), None);
        assert_eq!(resetter.inspect(End::Client, &segment(CLIENT, SERVER, ACK, 77)), None);
        let packets = resetter.reset_all();
        assert_eq!(packets.len(), 2);
        assert_eq!((packets[0].0, seq(&packets[0].1)), (End::Client, 77));
        assert_eq!((packets[1].0, seq(&packets[1].1)), (End::Server, 11));
        // A challenge ACK names the right number.
        let again = resetter.inspect(End::Server, &segment(SERVER, CLIENT, ACK, 99)).unwrap();
        let parsed = Segment::parse(&again).unwrap();
        assert_eq!((parsed.source, parsed.target, seq(&again)), (CLIENT, SERVER, 99));
        // A reset is swallowed, and never answered.
        let end = resetter.inspect(End::Client, &segment(CLIENT, SERVER, RST | ACK, 1));
        assert_eq!(end, Some(Vec::new()));
        // A new connection on the same ports passes.
        assert_eq!(resetter.inspect(End::Client, &segment(CLIENT, SERVER, SYN, 0)), None);
        assert_eq!(resetter.inspect(End::Server, &segment(SERVER, CLIENT, ACK, 5)), None);
    }

    #[test]
    fn rubbish_passes() {
        let mut resetter = Resetter::default();
        for bytes in [&[][..], &[0x45], &[0x60; 60], &[0x45; 60], &[0x4f; 30]] {
            assert_eq!(resetter.inspect(End::Client, bytes), None);
        }
    }
}
