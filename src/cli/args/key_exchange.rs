//! The option about key exchanges, which several commands have.

use clap::Args;

use crate::cli::config::KeyExchange;

/// What is agreed on with the server.
#[derive(Debug, Args)]
pub(super) struct KeyExchangeArgs {
    /// Agree on keys with X25519 alone, where networks stop more
    ///
    /// For networks that stop the larger messages of X25519MLKEM768. What is recorded of it could
    /// be decrypted by a quantum computer some day.
    #[arg(long)]
    classical_key_exchange: bool,
}

impl KeyExchangeArgs {
    pub(super) fn get(&self) -> KeyExchange {
        if self.classical_key_exchange { KeyExchange::Classical } else { KeyExchange::PostQuantum }
    }
}
