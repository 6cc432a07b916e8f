//! A chat of two over one session: a stream of lines each way, over as many lanes as there are.
//!
//! ```sh
//! cargo run --example chat -- listen 127.0.0.1:4434
//! cargo run --example chat -- 127.0.0.1:4434 SHA256:…
//! ```
//!
//! Each says what it likes until its input ends (Ctrl-D); it is over when both have ended.

use std::sync::Arc;
use std::time::Duration;

use imux::lane::{BindSource, TcpOptions, TlsDialer, TlsListener};
use imux::trust::{Identity, PinnedKeys, client_config, server_config};
use imux::{Client, ClientConfig, Code, Link, Server, ServerConfig, Stream, StreamKind};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Listens at `address`, and tells at which, and by which key it is known.
pub(crate) fn listen(address: &str) -> Result<(Server, String)> {
    let identity = Identity::generate()?;
    let tls = server_config(&identity)?;
    let listener = TlsListener::bind(address.parse()?, tls, TcpOptions::default())?;
    let server = Server::start(listener, ServerConfig::default());
    Ok((server, identity.fingerprint().to_string()))
}

/// Waits for the other to come. Its lanes may come and go as long as there is the server.
pub(crate) async fn wait(server: &mut Server) -> Result<Stream> {
    let (session, _from) = server.accept().await.ok_or("the listener has failed")?;
    Ok(session.accept().await?.stream)
}

/// Goes to the other, over two lanes.
pub(crate) async fn connect(address: &str, key: &str) -> Result<(Client, Stream)> {
    let tls = client_config(&Identity::generate()?)?;
    let anywhere = BindSource::Addr([0, 0, 0, 0].into());
    let dialer = TlsDialer::new(address, anywhere, tls, TcpOptions::default())?;
    let trust = Arc::new(PinnedKeys::new([key.parse()?]));
    let links = vec![Link::new(Arc::new(dialer), 2)];
    let client = Client::connect(links, ClientConfig::new(trust)).await?;
    let stream = client.open(StreamKind::Raw).await?;
    Ok((client, stream))
}

/// Says what `input` says, and gives each line of the other's to `heard`, until both have come to
/// their end.
pub(crate) async fn chat(
    stream: Stream,
    input: impl AsyncBufRead + Unpin,
    mut heard: impl FnMut(String),
) -> Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let listening = async {
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            heard(line);
        }
        std::io::Result::Ok(())
    };
    let speaking = async {
        let mut lines = input.lines();
        while let Some(line) = lines.next_line().await? {
            write.write_all((line + "\n").as_bytes()).await?;
        }
        write.shutdown().await
    };
    tokio::try_join!(listening, speaking)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let input = BufReader::new(tokio::io::stdin());
    let print = |line| println!("> {line}");
    let patience = Duration::from_secs(10);
    match arguments.as_slice() {
        [listening, address] if listening == "listen" => {
            let (mut server, key) = listen(address)?;
            println!("{} {key}", server.local_addr()?);
            chat(wait(&mut server).await?, input, print).await?;
            server.close(Code::NONE, patience).await?;
        }
        [address, key] => {
            let (client, stream) = connect(address, key).await?;
            chat(stream, input, print).await?;
            client.close(Code::NONE, patience).await?;
        }
        _ => return Err("usage: chat listen HOST:PORT | chat HOST:PORT KEY".into()),
    }
    Ok(())
}
