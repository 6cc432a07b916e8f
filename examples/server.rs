//! A server that sends back, in capitals, each line it gets.
//!
//! ```sh
//! cargo run --example server -- 127.0.0.1:4433
//! ```
//!
//! It says its key, which clients have to be told:
//! `cargo run --example client -- 127.0.0.1:4433 SHA256:… hello`.

use std::io;

use imux::lane::{TcpOptions, TlsListener};
use imux::trust::{Identity, server_config};
use imux::{Server, ServerConfig, Session, Stream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Takes lanes at `address`; returns the server, and the key its clients have to know.
pub(crate) fn listen(address: &str) -> Result<(Server, String)> {
    // A real one has the same key each time: `Identity::load_or_create`.
    let identity = Identity::generate()?;
    let tls = server_config(&identity)?;
    let listener = TlsListener::bind(address.parse()?, tls, TcpOptions::default())?;
    let server = Server::start(listener, ServerConfig::default());
    Ok((server, identity.fingerprint().to_string()))
}

/// Serves sessions until the listener fails.
pub(crate) async fn serve(mut server: Server) {
    while let Some((session, _from)) = server.accept().await {
        tokio::spawn(serve_session(session));
    }
}

async fn serve_session(session: Session) {
    while let Ok(incoming) = session.accept().await {
        tokio::spawn(async move {
            if let Err(error) = shout(incoming.stream).await {
                eprintln!("a stream broke off: {error}");
            }
        });
    }
}

async fn shout(stream: Stream) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all((line.to_uppercase() + "\n").as_bytes()).await?;
    }
    // The end, and until it has arrived: dropping the stream before would cut it off.
    write.shutdown().await
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4433".to_owned());
    let (server, key) = listen(&address)?;
    println!("{} {key}", server.local_addr()?);
    serve(server).await;
    Ok(())
}
