//! Futures that are dropped wherever they wait lose nothing: what is called cancel safe is.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures::StreamExt;
use imux::LaneEvent;

use super::*;

/// Polls it once.
async fn polled<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Runs what `make` makes until one is through; each is dropped at its `polls`-th wait.
async fn stubbornly<T, A>(what: &mut A, polls: usize, mut make: impl AsyncFnMut(&mut A) -> T) -> T {
    loop {
        let mut future = pin!(make(what));
        for _ in 0..polls {
            if let Poll::Ready(done) = polled(future.as_mut()).await {
                return done;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn reads_that_are_dropped_at_each_wait_lose_no_byte() {
    bounded(60, async {
        const LENGTH: usize = 400_000;
        for polls in 1..4 {
            let pair = pair(3).await;
            let (near, far) = pair.stream().await;
            let pattern = Pattern::new(polls as u64);
            let data = pattern.bytes(LENGTH);
            let writer = tokio::spawn(async move {
                let (_read, mut write) = near.into_split();
                for piece in data.chunks(7_001) {
                    write.write_all(Bytes::copy_from_slice(piece)).await.unwrap();
                    tokio::task::yield_now().await;
                }
                write.shutdown().await.unwrap();
            });
            let (mut read, _write) = far.into_split();
            let (mut offset, mut chunks) = (0, VecDeque::new());
            while stubbornly(&mut read, polls, async |read| {
                read.read_chunks(&mut chunks, 5_000).await
            })
            .await
            .unwrap()
            {
                for chunk in chunks.drain(..) {
                    pattern.check(offset, &chunk);
                    offset += chunk.len() as u64;
                }
            }
            assert_eq!(offset, LENGTH as u64);
            writer.await.unwrap();
        }
    });
}

#[test]
fn accepts_that_are_dropped_at_each_wait_lose_no_stream() {
    bounded(60, async {
        let mut pair = pair(3).await;
        let client = pair.client.session().unwrap();
        let opener = tokio::spawn(async move {
            for number in 0..40 {
                let mut stream = client.open(StreamKind::Named(number.to_string())).await.unwrap();
                stream.write_u8(number).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 40 {
            let accepted = stubbornly(&mut pair.session, 1, async |it| it.accept().await).await;
            let Incoming { mut stream, kind, .. } = accepted.unwrap();
            let number = stream.read_u8().await.unwrap();
            // To its end: dropped before, it would be stopped, and the opener told so.
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(kind, StreamKind::Named(number.to_string()));
            assert!(seen.insert(number), "{number} came twice");
        }
        opener.await.unwrap();
    });
}

#[test]
fn opens_that_are_dropped_at_each_wait_open_nothing() {
    bounded(60, async {
        let pair = pair_with(2, Config::default().with_streams_max(2).unwrap()).await;
        let mut session = pair.client.session().unwrap();
        let first = pair.client.open(StreamKind::Raw).await.unwrap();
        let second = pair.client.open(StreamKind::Raw).await.unwrap();
        assert_ne!(first.id(), second.id());
        for _ in 0..200 {
            assert!(polled(pin!(session.open(StreamKind::Raw))).await.is_pending());
        }
        assert_eq!(pair.client.stats().unwrap().streams, 2);
        first.reset(Code::RESET);
        drop(pair.session.accept().await.unwrap());
        let _third =
            stubbornly(&mut session, 2, async |it| it.open(StreamKind::Raw).await).await.unwrap();
        // The server had forgotten the first when it let the third in; the client may have to hear
        // its last acknowledgement.
        let streams = || pair.client.stats().unwrap().streams;
        eventually(10, "no more than the two are open", || streams() == 2).await;
    });
}

#[test]
fn waits_that_are_dropped_again_and_again_end_all_the_same() {
    bounded(60, async {
        let mut pair = pair(2).await;
        let (near, mut far) = pair.stream().await;
        let (read, mut write) = near.into_split();
        let pattern = Pattern::new(8);
        write.write_all(Bytes::from(pattern.bytes(200_000))).await.unwrap();
        stubbornly(&mut write, 1, async |it| it.acknowledged().await).await.unwrap();
        assert!(stubbornly(&mut write, 1, async |it| it.capacity().await).await.unwrap() > 0);
        stubbornly(&mut write, 1, async |it| it.shutdown().await).await.unwrap();
        assert_eq!(pattern.receive(&mut far).await.unwrap(), 200_000);
        drop((read, write, far));
        stubbornly(&mut pair.client, 1, async |it| it.session().unwrap().drained().await).await;
        stubbornly(&mut pair.server, 1, async |it| it.drained().await).await;
        let patience = Duration::from_secs(5);
        stubbornly(&mut pair.client, 1, async |it| it.close(Code::NONE, patience).await)
            .await
            .unwrap();
        stubbornly(&mut pair.session, 1, async |it| it.closed().await).await;
    });
}

#[test]
fn what_happens_to_lanes_is_told_until_the_session_is_over() {
    bounded(30, async {
        let pair = pair(2).await;
        let (mut near, _far) = pair.stream().await;
        eventually(5, "two lanes", || pair.lanes() == 2).await;
        let session = pair.client.session().unwrap();
        let mut events = pin!(session.lane_events());
        pair.dialer.refuse(true);
        // Whichever is given it says nothing.
        pair.dialer.lanes().iter().for_each(memory::KillSwitch::silence);
        let silent = loop {
            near.write_all(b"is anybody there?").await.unwrap();
            match tokio::time::timeout(Duration::from_millis(20), events.next()).await {
                Ok(Some(LaneEvent::Suspected(lane))) => break lane,
                Ok(event) => panic!("it answers: {event:?}"),
                Err(_) => {}
            }
        };
        while events.next().await.unwrap() != LaneEvent::Lost(silent) {}
        pair.dialer.refuse(false);
        while !matches!(events.next().await, Some(LaneEvent::Up(lane)) if lane != silent) {}
        session.close(Code::NONE);
        while events.next().await.is_some() {}
        assert_eq!(pin!(session.lane_events()).next().await, None);
    });
}

/// Settings of which one has been taken to what the setters would not take.
fn without(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

#[test]
fn settings_that_make_no_sense_are_refused_before_anything_is_dialled() {
    bounded(20, async {
        let (dialer, _listener) = memory::network(memory::DEFAULT_CAPACITY);
        let connect = |lanes: &[u16], session: Config| {
            let link = |lanes: &u16| Link::new(Arc::new(dialer.clone()), *lanes);
            let links = lanes.iter().map(link).collect();
            Client::connect(
                links,
                ClientConfig::new(Arc::new(PinnedKeys::new([]))).with_session(session),
            )
        };
        let error = connect(&[1], without(|it| it.session_window = 0)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Config(_)), "{error}");
        let error = connect(&[200, 57], Config::default()).await.unwrap_err();
        assert!(matches!(error, ConnectError::TooManyLanes { asked: 257, max: 256 }), "{error}");
        assert!(dialer.lanes().is_empty());
    });
}

#[test]
#[should_panic(expected = "streams_max is 0")]
fn a_server_does_not_start_with_settings_that_make_no_sense() {
    bounded(20, async {
        let (_dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
        let session = without(|it| it.streams_max = 0);
        Server::start(listener, ServerConfig::default().with_session(session));
    });
}
