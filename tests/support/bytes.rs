//! Bytes that reveal their place: what belongs at an offset is known, and no two places within
//! reach of a mistake look alike.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Prime, so that it is no multiple of the powers of two that data is cut by.
const PERIOD: usize = 1_048_573;

/// An endless sequence of bytes, a different one for each seed.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    block: Vec<u8>,
    seed: u64,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        // xorshift64*: any sequence without structure will do.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut block = Vec::with_capacity(PERIOD + 8);
        while block.len() < PERIOD {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            block.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        block.truncate(PERIOD);
        Self { block, seed }
    }

    /// The longest piece from `offset` on that lies in one place. Each period begins elsewhere, so
    /// that a mistake of a whole period is seen, too.
    fn piece(&self, offset: u64) -> &[u8] {
        let period = PERIOD as u64;
        let turn = (offset / period).wrapping_mul(7_919) + self.seed.wrapping_mul(104_729);
        let at = (offset % period + turn % period) % period;
        let left_of_turn = period - offset % period;
        let length = left_of_turn.min(period - at);
        &self.block[at as usize..(at + length) as usize]
    }

    pub(crate) fn fill(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let piece = self.piece(offset);
            let length = piece.len().min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&piece[..length]);
            offset += length as u64;
            out = later;
        }
    }

    pub(crate) fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(0, &mut bytes);
        bytes
    }

    /// Panics at the first byte that does not belong at its place.
    #[track_caller]
    pub(crate) fn check(&self, mut offset: u64, mut got: &[u8]) {
        while !got.is_empty() {
            let piece = self.piece(offset);
            let length = piece.len().min(got.len());
            if got[..length] != piece[..length] {
                let wrong = got.iter().zip(piece).take_while(|(a, b)| a == b).count();
                panic!("seed {}: wrong byte at offset {}", self.seed, offset + wrong as u64);
            }
            offset += length as u64;
            got = &got[length..];
        }
    }

    /// Writes the first `length` bytes; does not end the stream.
    pub(crate) async fn send(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        length: u64,
    ) -> io::Result<()> {
        let mut offset = 0;
        while offset < length {
            let piece = self.piece(offset);
            let piece = &piece[..(piece.len() as u64).min(length - offset).min(256 << 10) as usize];
            to.write_all(piece).await?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads and checks to the end; returns how much it was.
    pub(crate) async fn receive(&self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
        self.receive_some(from, u64::MAX).await
    }

    /// Reads and checks `length` bytes, or up to the end.
    pub(crate) async fn receive_some(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        length: u64,
    ) -> io::Result<u64> {
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0;
        while offset < length {
            let room = (buffer.len() as u64).min(length - offset) as usize;
            let got = from.read(&mut buffer[..room]).await?;
            if got == 0 {
                break;
            }
            self.check(offset, &buffer[..got]);
            offset += got as u64;
        }
        Ok(offset)
    }
}

/// Sends `length` bytes of `ours`, ends the sending direction, and reads `theirs` to its end, both
/// at once; fails unless exactly `expected` bytes came.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite,
    (ours, length): (&Pattern, u64),
    (theirs, expected): (&Pattern, u64),
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        ours.send(&mut write, length).await?;
        write.shutdown().await
    };
    let (got, ()) = tokio::try_join!(theirs.receive(&mut read), sending)?;
    assert_eq!(got, expected, "the other end sent another number of bytes");
    Ok(())
}
