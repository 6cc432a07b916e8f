//! Programs that write, shut down and are gone: what the README's example does, over TLS on
//! loopback, again and again.

use imux::lane::{BindSource, TcpOptions, TlsDialer, TlsListener};
use imux::trust::{client_config, server_config};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::*;

const RUNS: usize = 1000;

/// From what one frame holds to what is on its way for long.
const SIZES: [usize; 5] = [0, 16, 2_000, 70_000, 1 << 20];

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// One stream a session is read to its end; `arrived` is told how many bytes that were, none of
/// them another than the pattern's.
async fn read_all(mut server: Server, arrived: mpsc::UnboundedSender<std::io::Result<u64>>) {
    while let Some((session, _from)) = server.accept().await {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let mut stream = session.accept().await.unwrap().stream;
            arrived.send(Pattern::new(9).receive(&mut stream).await).unwrap();
        });
    }
}

/// The whole life of a program whose `main` returns as soon as `shutdown` has.
fn write_and_exit(to: &str, identity: &Identity, server: Fingerprint, size: usize) {
    let main = runtime();
    main.block_on(async {
        let tls = client_config(identity).unwrap();
        let source = BindSource::Addr([127, 0, 0, 1].into());
        let dialer = TlsDialer::new(to, source, tls, TcpOptions::default()).unwrap();
        let trust = Arc::new(PinnedKeys::new([server]));
        let links = vec![Link::new(Arc::new(dialer), 2)];
        let client = Client::connect(links, ClientConfig::new(trust)).await.unwrap();
        let mut stream = client.open(StreamKind::Default).await.unwrap();
        stream.write_all(&Pattern::new(9).bytes(size)).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    main.shutdown_background();
}

#[test]
fn what_a_thousand_programs_wrote_before_they_ended_has_all_arrived() {
    let identity = Identity::generate().unwrap();
    let (key, tls) = (identity.fingerprint(), server_config(&identity).unwrap());
    let servers = runtime();
    let (told, mut arrived) = mpsc::unbounded_channel();
    let address = servers.block_on(async {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = TlsListener::bind(any, tls, TcpOptions::default()).unwrap();
        let server = Server::start(listener, ServerConfig::default());
        let address = server.local_addr().unwrap().to_string();
        tokio::spawn(read_all(server, told));
        address
    });
    let client = Identity::generate().unwrap();
    for run in 0..RUNS {
        let size = SIZES[run % SIZES.len()];
        write_and_exit(&address, &client, key, size);
        let told = servers.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), arrived.recv()).await
        });
        assert_eq!(told.unwrap().unwrap().unwrap(), size as u64, "run {run}");
    }
}
