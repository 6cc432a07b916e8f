//! The bytes of the demo: pseudo-random, the same at both ends, each one compared.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes made, sent and compared at once.
const BLOCK: usize = 64 * 1024;

/// Sends the first `length` bytes of the sequence.
pub(super) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    length: u64,
) -> io::Result<()> {
    let mut sequence = Sequence::new(seed);
    let mut left = length;
    while left > 0 {
        let block = sequence.next_block();
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        to.write_all(&block[..part]).await?;
        left -= part as u64;
    }
    Ok(())
}

/// Receives to the end; returns how many bytes matched before the first wrong one. `counter` keeps
/// up.
pub(super) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    seed: u64,
    counter: &AtomicU64,
) -> io::Result<u64> {
    let mut sequence = Sequence::new(seed);
    let mut buffer = vec![0; BLOCK];
    loop {
        // Block by block, so that each read is compared with one piece.
        let expected = sequence.rest();
        let got = from.read(&mut buffer[..expected.len()]).await?;
        let right = buffer[..got].iter().zip(expected).take_while(|(got, due)| got == due).count();
        let all = counter.fetch_add(right as u64, Ordering::Relaxed) + right as u64;
        if got == 0 || right < got {
            return Ok(all);
        }
        sequence.advance(got);
    }
}

/// xorshift64* by Marsaglia and Vigna: fast, and without patterns that two mistakes could hide in.
struct Sequence {
    state: u64,
    block: Vec<u8>,
    /// Bytes of the block already taken. 0 <= taken < BLOCK
    taken: usize,
}

impl Sequence {
    fn new(seed: u64) -> Self {
        // The state must not be zero, whatever the seed.
        let state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut sequence = Self { state, block: vec![0; BLOCK], taken: 0 };
        sequence.refill();
        sequence
    }

    fn refill(&mut self) {
        for word in self.block.chunks_exact_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let random = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D);
            word.copy_from_slice(&random.to_le_bytes());
        }
        self.taken = 0;
    }

    /// What follows, as far as it is generated: at least one byte.
    fn rest(&self) -> &[u8] {
        &self.block[self.taken..]
    }

    fn advance(&mut self, amount: usize) {
        self.taken += amount;
        debug_assert!(self.taken <= BLOCK);
        if self.taken == BLOCK {
            self.refill();
        }
    }

    fn next_block(&mut self) -> Vec<u8> {
        let block = self.block.clone();
        self.refill();
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 3 * BLOCK as u64 + 17;

    async fn sent(seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        send(&mut bytes, seed, LENGTH).await.unwrap();
        assert_eq!(bytes.len() as u64, LENGTH);
        bytes
    }

    #[tokio::test]
    async fn what_was_sent_is_recognised() {
        let (bytes, counter) = (sent(1).await, AtomicU64::new(0));
        assert_eq!(receive(&mut bytes.as_slice(), 1, &counter).await.unwrap(), LENGTH);
        assert_eq!(counter.into_inner(), LENGTH);
        assert_ne!(sent(2).await, bytes);
    }

    #[tokio::test]
    async fn one_wrong_byte_is_found() {
        for wrong in [0, 1, BLOCK - 1, BLOCK, LENGTH as usize - 1] {
            let mut bytes = sent(1).await;
            bytes[wrong] ^= 1;
            let right = receive(&mut bytes.as_slice(), 1, &AtomicU64::new(0)).await.unwrap();
            assert_eq!(right, wrong as u64);
        }
    }

    #[tokio::test]
    async fn a_missing_byte_is_found() {
        let mut bytes = sent(1).await;
        bytes.remove(BLOCK + 5);
        let right = receive(&mut bytes.as_slice(), 1, &AtomicU64::new(0)).await.unwrap();
        assert!(right < LENGTH - 1, "{right}");
    }
}
