//! A client that sends lines to the server of examples/server.rs over four lanes, and prints what
//! comes back.
//!
//! ```sh
//! cargo run --example client -- 127.0.0.1:4433 SHA256:… hello
//! ```

use std::sync::Arc;
use std::time::Duration;

use imux::lane::{BindSource, TcpOptions, TlsDialer};
use imux::trust::{Identity, PinnedKeys, client_config};
use imux::{Client, ClientConfig, Code, Link, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Connects to the server at `address` whose key is `key`.
pub(crate) async fn connect(address: &str, key: &str) -> Result<Client> {
    let tls = client_config(&Identity::generate()?)?;
    // Wherever the routing table sends it: one of a real client's links is
    // `BindSource::Device("wwan0".to_owned())`.
    let anywhere = BindSource::Addr([0, 0, 0, 0].into());
    let dialer = TlsDialer::new(address, anywhere, tls, TcpOptions::default())?;
    let config = ClientConfig::new(Arc::new(PinnedKeys::new([key.parse()?])));
    Ok(Client::connect(vec![Link::new(Arc::new(dialer), 4)], config).await?)
}

/// Sends `text` and its end; returns all that comes back.
pub(crate) async fn ask(client: &Client, text: &str) -> Result<String> {
    let mut stream = client.open(StreamKind::Raw).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, key, words @ ..] = arguments.as_slice() else {
        return Err("usage: client HOST:PORT KEY WORD…".into());
    };
    let client = connect(address, key).await?;
    print!("{}", ask(&client, &(words.join(" ") + "\n")).await?);
    client.close(Code::NONE, Duration::from_secs(10)).await?;
    Ok(())
}
