//! Flows of datagrams, over lanes in memory and over TLS.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imux::lane::{BindSource, TcpOptions, TlsDialer, TlsListener};
use imux::trust::{Identity, PinnedKeys, client_config, server_config};
use imux::{
    Client, ClientConfig, Code, Flow, FlowError, FlowOptions, Link, OpenError, OpenOptions, Server,
    ServerConfig, Session, StreamError, StreamKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{bounded, eventually};
use super::{Pair, pair};

/// Long enough for a machine that does other things.
fn patient(kind: StreamKind) -> FlowOptions {
    // Ten seconds are the most.
    FlowOptions { deadline: Duration::from_secs(60), ..kind.into() }
}

impl Pair {
    /// A flow's two ends, the client's first.
    async fn flow(&self) -> (Flow, Flow) {
        flow(&self.client, &self.session).await
    }
}

async fn flow(client: &Client, session: &Session) -> (Flow, Flow) {
    let mut near = client.open_flow(patient(StreamKind::Raw)).await.unwrap();
    let (mut far, kind) = session.accept().await.unwrap().into_flow().unwrap();
    assert_eq!(kind, StreamKind::Raw);
    assert_eq!((near.id(), near.deadline()), (far.id(), far.deadline()));
    assert_eq!(near.deadline(), Duration::from_secs(10));
    far.answer().await.unwrap();
    near.connected().await.unwrap();
    (near, far)
}

fn datagram(number: usize, len: usize) -> Bytes {
    let mut bytes = vec![number as u8; len];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.into()
}

/// Sends `count` datagrams and gets them back, none lost, in order, whatever their length.
async fn echo(near: Flow, far: Flow, count: usize) {
    let len = |number: usize| (number * 7_919) % 9_000;
    let back = async {
        for _ in 0..count {
            far.send(far.recv().await.unwrap()).unwrap();
        }
        far
    };
    let there = async {
        for number in 0..count {
            near.send(datagram(number, len(number))).unwrap();
            assert_eq!(near.recv().await.unwrap(), datagram(number, len(number)));
        }
        near
    };
    let (near, far) = tokio::join!(there, back);
    for stats in [near.stats(), far.stats()] {
        assert_eq!((stats.sent, stats.received), (count as u64, count as u64), "{stats:?}");
        assert_eq!((stats.dropped(), stats.missing), (0, 0), "{stats:?}");
    }
}

#[test]
fn datagrams_go_both_ways_over_lanes_in_memory() {
    bounded(60, async {
        let pair = pair(4).await;
        let (near, far) = pair.flow().await;
        near.send(Bytes::from(vec![7; Flow::DATAGRAM_BYTES_MAX])).unwrap();
        assert_eq!(far.recv().await.unwrap(), vec![7; Flow::DATAGRAM_BYTES_MAX]);
        let large = near.send(vec![0; Flow::DATAGRAM_BYTES_MAX + 1].into());
        assert_eq!(large, Err(FlowError::TooLarge(Flow::DATAGRAM_BYTES_MAX + 1)));
        near.send(Bytes::new()).unwrap();
        assert_eq!(far.recv().await.unwrap(), "");
        drop((near, far));
        let (near, far) = pair.flow().await;
        echo(near, far, 500).await;
        eventually(5, "the flows are forgotten", || {
            let flows = [pair.client.stats().unwrap(), pair.session.stats()];
            flows.iter().all(|stats| (stats.flows, stats.streams) == (0, 0))
        })
        .await;
    });
}

#[test]
fn datagrams_go_both_ways_over_tls_beside_a_stream() {
    bounded(60, async {
        let identity = Identity::generate().unwrap();
        let tls = server_config(&identity).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = TlsListener::bind(any, tls, TcpOptions::default()).unwrap();
        let mut server = Server::start(listener, ServerConfig::default());
        let to = server.local_addr().unwrap().to_string();
        let tls = client_config(&Identity::generate().unwrap()).unwrap();
        let source = BindSource::Addr([127, 0, 0, 1].into());
        let dialer = TlsDialer::new(&*to, source, tls, TcpOptions::default()).unwrap();
        let trust = Arc::new(PinnedKeys::new([identity.fingerprint()]));
        let links = vec![Link::new(Arc::new(dialer), 3)];
        let client = Client::connect(links, ClientConfig::new(trust)).await.unwrap();
        let (session, _) = server.accept().await.unwrap();
        let (near, far) = flow(&client, &session).await;
        let mut up = client.open(StreamKind::Raw).await.unwrap();
        let mut down = session.accept().await.unwrap().stream;
        let bulk = async {
            up.write_all(&vec![1; 32 << 20]).await.unwrap();
            up.shutdown().await.unwrap();
        };
        let sink = async {
            let mut sum = 0;
            let mut space = vec![0; 1 << 16];
            while let Some(read) = Some(down.read(&mut space).await.unwrap()).filter(|n| *n > 0) {
                sum += read;
            }
            assert_eq!(sum, 32 << 20);
        };
        tokio::join!(bulk, sink, echo(near, far, 300));
    });
}

#[test]
fn what_is_dropped_while_it_waits_takes_no_datagram_with_it() {
    bounded(20, async {
        let pair = pair(2).await;
        let (near, far) = pair.flow().await;
        for number in 0..50 {
            {
                let mut waiting = pin!(far.recv());
                let polled = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())
                });
                assert!(polled.await);
            }
            near.send(datagram(number, 10)).unwrap();
            // Cancelled while it comes, or not.
            let soon = tokio::time::timeout(Duration::from_micros(number as u64 * 20), far.recv());
            let came = match soon.await {
                Ok(came) => came,
                Err(_) => far.recv().await,
            };
            assert_eq!(came.unwrap(), datagram(number, 10));
        }
        near.send_all((0..10).map(|number| datagram(number, 10))).unwrap();
        let mut all = Vec::new();
        while all.len() < 10 {
            far.recv_all(&mut all).await.unwrap();
        }
        assert_eq!(all, (0..10).map(|number| datagram(number, 10)).collect::<Vec<_>>());
        assert_eq!(far.try_recv(), Ok(None));
    });
}

#[test]
fn a_refused_flow_says_why_and_one_that_ends_is_over_at_both_ends() {
    bounded(20, async {
        let pair = pair(2).await;
        let named = StreamKind::Named("192.0.2.1:53".to_owned());
        let mut near = pair.client.open_flow(patient(named.clone())).await.unwrap();
        near.send("hello".into()).unwrap();
        let (far, kind) = pair.session.accept().await.unwrap().into_flow().unwrap();
        assert_eq!(kind, named);
        far.reset(Code::DIAL_FORBIDDEN);
        assert_eq!(near.connected().await, Err(StreamError::Reset(Code::DIAL_FORBIDDEN)));
        let over = FlowError::Ended(StreamError::Reset(Code::DIAL_FORBIDDEN));
        assert_eq!(near.recv().await, Err(over));
        let mut near = pair.client.open_flow(patient(named)).await.unwrap();
        drop(pair.session.accept().await.unwrap().stream);
        assert!(near.connected().await.is_err());

        let (near, far) = pair.flow().await;
        near.send("last".into()).unwrap();
        assert_eq!(far.recv().await.unwrap(), "last");
        drop(near);
        let over = FlowError::Ended(StreamError::Reset(Code::NONE));
        assert_eq!(far.recv().await, Err(over.clone()));
        assert_eq!(far.send(Bytes::new()), Err(over));

        let (near, far) = pair.flow().await;
        near.set_idle_timeout(Duration::from_millis(50));
        let idle = FlowError::Ended(StreamError::Reset(Code::FLOW_IDLE));
        assert_eq!((near.recv().await, far.recv().await), (Err(idle.clone()), Err(idle)));

        let (near, _far) = pair.flow().await;
        pair.session.close(Code::SHUTDOWN);
        let ended = near.recv().await;
        assert!(matches!(ended, Err(FlowError::Ended(StreamError::Session(_)))), "{ended:?}");
    });
}

#[test]
fn a_flow_is_no_stream_and_a_stream_no_flow() {
    bounded(20, async {
        let pair = pair(1).await;
        let flow = StreamKind::Flow { deadline_ms: 200, kind: Box::new(StreamKind::Raw) };
        let opened = pair.session.open(OpenOptions::from(flow.clone())).await;
        assert_eq!(opened.unwrap_err(), OpenError::WrongKind);
        for kind in [flow, StreamKind::Listening { number: 1, place: "localhost:1".to_owned() }] {
            let opened = pair.session.open_flow(kind).await;
            assert_eq!(opened.unwrap_err(), OpenError::WrongKind);
        }
        let (_near, far) = pair.stream().await;
        drop(far);
        let mut near = pair.client.open(StreamKind::Raw).await.unwrap();
        near.write_all(b"x").await.unwrap();
        let incoming = pair.session.accept().await.unwrap().into_flow().unwrap_err();
        assert_eq!(incoming.kind, StreamKind::Raw);
    });
}

#[test]
fn an_end_opens_no_more_flows_than_its_peer_allows() {
    bounded(60, async {
        let pair = pair(1).await;
        let granted = pair.session.flows_granted();
        let mut flows = Vec::new();
        let sink = tokio::spawn({
            let session = pair.session.clone();
            async move {
                let mut taken = Vec::new();
                while let Ok(incoming) = session.accept().await {
                    taken.push(incoming.into_flow().unwrap());
                }
            }
        });
        for _ in 0..granted {
            flows.push(pair.client.open_flow(StreamKind::Raw).await.unwrap());
        }
        let more = pair.client.open_flow(StreamKind::Raw).await;
        assert_eq!(more.unwrap_err(), OpenError::TooManyFlows);
        flows.pop();
        pair.client.open_flow(StreamKind::Raw).await.unwrap();
        sink.abort();
    });
}
