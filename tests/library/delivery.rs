//! Nothing is lost without a word: what has arrived, what has not, and who is told.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use imux::{SessionError, Undelivered};
use tracing::field::{Field, Visit};
use tracing::span;

use super::*;

/// Long enough that the writer does not wait, and no longer than may arrive unread.
const MUCH: usize = 900_000;

#[test]
fn a_shutdown_waits_for_the_acknowledgement_of_all_bytes_and_the_end() {
    bounded(30, async {
        let pair = pair(2).await;
        let (mut near, mut far) = pair.stream().await;
        let pattern = Pattern::new(3);
        near.write_all(&pattern.bytes(MUCH)).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(pair.client.stats().unwrap().held_bytes, 0);
        // And again, which changes nothing.
        near.shutdown().await.unwrap();
        // Whatever happens now: it is all at the other end.
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::reset);
        assert_eq!(pattern.receive(&mut far).await.unwrap(), MUCH as u64);
    });
}

#[test]
fn flush_and_finish_wait_for_nothing_and_acknowledged_does() {
    bounded(30, async {
        let pair = pair(2).await;
        let (near, _far) = pair.stream().await;
        let (_read, mut write) = near.into_split();
        write.acknowledged().await.unwrap();
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::silence);
        write.write_all(Bytes::from(vec![1; MUCH / 2])).await.unwrap();
        write.flush().await.unwrap();
        not_soon(write.acknowledged()).await;
        pair.dialer.lanes().iter().for_each(KillSwitch::restore);
        pair.dialer.refuse(false);
        write.acknowledged().await.unwrap();
        assert_eq!(pair.client.stats().unwrap().held_bytes, 0);

        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::silence);
        write.finish().unwrap();
        not_soon(write.acknowledged()).await;
        pair.dialer.refuse(false);
        write.acknowledged().await.unwrap();
    });
}

async fn not_soon(what: impl Future) {
    let soon = tokio::time::timeout(Duration::from_millis(200), what).await;
    assert!(soon.is_err(), "it did not wait");
}

#[test]
fn a_dropped_shutdown_has_marked_the_end() {
    bounded(30, async {
        let pair = pair(2).await;
        let (mut near, mut far) = pair.stream().await;
        pair.dialer.lanes().iter().for_each(KillSwitch::silence);
        near.write_all(&Pattern::new(1).bytes(1000)).await.unwrap();
        not_soon(near.shutdown()).await;
        assert_eq!(kind(near.write(b"more").await), ErrorKind::BrokenPipe);
        drop(near);
        pair.dialer.lanes().iter().for_each(KillSwitch::restore);
        assert_eq!(Pattern::new(1).receive(&mut far).await.unwrap(), 1000);
    });
}

#[test]
fn a_stop_is_the_error_of_a_shutdown_that_waits_and_of_those_after_it() {
    bounded(30, async {
        for finished_first in [false, true] {
            let pair = pair(2).await;
            let (near, far) = pair.stream().await;
            let (_read, mut write) = near.into_split();
            // So that the end stays on its way: there is no lane.
            pair.dialer.refuse(true);
            pair.dialer.lanes().iter().for_each(KillSwitch::reset);
            eventually(5, "no lane", || pair.lanes() == 0).await;
            write.write_all(Bytes::from_static(b"nobody reads this")).await.unwrap();
            let (read, _kept) = far.into_split();
            read.stop(Code::application(9));
            if finished_first {
                write.finish().unwrap();
            } else {
                not_soon(write.shutdown()).await;
            }
            pair.dialer.refuse(false);
            // Either the bytes or the STOP is first; both tell the truth.
            let outcome = write.acknowledged().await;
            let again = write.acknowledged().await;
            assert_eq!(outcome, again);
            match outcome {
                Ok(()) => assert_eq!(pair.client.session().unwrap().delivered().await, Ok(())),
                Err(error) => assert_eq!(error, StreamError::Reset(Code::application(9))),
            }
        }
    });
}

#[test]
fn a_stopped_writer_cannot_shut_down() {
    bounded(30, async {
        let pair = pair(2).await;
        let (near, far) = pair.stream().await;
        let (read, _kept) = far.into_split();
        read.stop(Code::application(9));
        let (_read, mut write) = near.into_split();
        let told = StreamError::Reset(Code::application(9));
        assert_eq!(write.stopped().await, told);
        assert_eq!(kind(write.shutdown().await), ErrorKind::ConnectionReset);
        assert_eq!(kind(write.shutdown().await), ErrorKind::ConnectionReset);
        assert_eq!(write.acknowledged().await, Err(told.clone()));
        assert_eq!(write.stopped().await, told);
    });
}

#[test]
fn a_shutdown_without_lanes_ends_with_the_grace_time() {
    bounded(30, async {
        let grace = Duration::from_millis(700);
        let pair = pair_with(2, Config::default().with_grace(grace).unwrap()).await;
        let (mut near, _far) = pair.stream().await;
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::silence);
        near.write_all(b"lost").await.unwrap();
        assert_eq!(kind(near.shutdown().await), ErrorKind::ConnectionAborted);
        assert_eq!(kind(near.shutdown().await), ErrorKind::ConnectionAborted);
    });
}

#[test]
fn what_had_arrived_before_the_session_ended_is_not_called_lost() {
    bounded(60, async {
        for _ in 0..20 {
            let pair = pair(3).await;
            let (mut near, mut far) = pair.stream().await;
            let session = pair.session.clone();
            let reader = tokio::spawn(async move {
                let got = Pattern::new(2).receive(&mut far).await.unwrap();
                // In the same breath as the acknowledgement.
                session.close(Code::NONE);
                got
            });
            near.write_all(&Pattern::new(2).bytes(70_000)).await.unwrap();
            near.shutdown().await.unwrap();
            assert_eq!(reader.await.unwrap(), 70_000);
            assert!(matches!(
                pair.client.session().map(|it| it.stats().held_bytes),
                None | Some(0)
            ));
        }
    });
}

#[test]
fn a_client_that_closes_waits_for_what_was_written() {
    bounded(30, async {
        for code in [Code::NONE, Code::SHUTDOWN, Code::application(1)] {
            let pair = pair(3).await;
            let (near, mut far) = pair.stream().await;
            let (read, mut write) = near.into_split();
            write.write_all(Bytes::from(Pattern::new(5).bytes(MUCH))).await.unwrap();
            write.finish().unwrap();
            drop((read, write));
            pair.client.close(code, Duration::from_secs(20)).await.unwrap();
            drop(pair.client);
            // It is read after the session has ended.
            let why = pair.session.closed().await;
            assert!(matches!(why, SessionError::ClosedByPeer { code: told, .. } if told == code));
            assert_eq!(Pattern::new(5).receive(&mut far).await.unwrap(), MUCH as u64);
        }
    });
}

#[test]
fn a_client_that_cannot_deliver_says_how_much_is_lost() {
    bounded(30, async {
        let pair = pair(2).await;
        let (near, _far) = pair.stream().await;
        let (_read, mut write) = near.into_split();
        // What opened the stream has arrived and is none of it.
        write.acknowledged().await.unwrap();
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::silence);
        write.write_all(Bytes::from(vec![1; 12_345])).await.unwrap();
        let closed = pair.client.close(Code::NONE, Duration::from_millis(300)).await;
        let lost = closed.unwrap_err();
        assert_eq!((lost.bytes, lost.streams), (12_345, 1));
        assert!(lost.to_string().contains("12345 bytes"), "{lost}");
        assert_eq!(pair.client.open(StreamKind::Raw).await.unwrap_err(), OpenError::Draining);
        // It stays said.
        let again = pair.client.close(Code::NONE, Duration::ZERO).await;
        assert!(again.is_err() || pair.client.session().is_none());
    });
}

#[test]
fn a_server_that_closes_waits_for_what_was_written_in_all_its_sessions() {
    bounded(30, async {
        let mut pair = pair(2).await;
        let trust = Arc::new(PinnedKeys::new([key(1).fingerprint]));
        let config = ClientConfig::new(trust);
        let links = vec![Link::new(Arc::new(pair.dialer.clone()), 2)];
        let other = Client::connect(links, config).await.unwrap();
        let (session, _) = pair.server.accept().await.unwrap();
        let mut readers = Vec::new();
        for (client, session) in [(&pair.client, &pair.session), (&other, &session)] {
            let (_read, mut write) = session.open(StreamKind::Raw).await.unwrap().into_split();
            write.write_all(Bytes::from(Pattern::new(6).bytes(MUCH))).await.unwrap();
            write.finish().unwrap();
            readers.push(client.session().unwrap());
        }
        pair.server.close(Code::SHUTDOWN, Duration::from_secs(20)).await.unwrap();
        for session in readers {
            let mut stream = session.accept().await.unwrap().stream;
            assert_eq!(Pattern::new(6).receive(&mut stream).await.unwrap(), MUCH as u64);
        }
    });
}

/// What was logged at WARN or above, of the whole process: tests look for numbers of their own.
static LOG: Mutex<String> = Mutex::new(String::new());

struct Recorder;

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line<'a>(&'a mut String);
        impl Visit for Line<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        event.record(&mut Line(&mut log));
        log.push('\n');
    }
}

fn logged(what: &str) -> bool {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).contains(what)
}

#[test]
fn what_is_lost_with_the_last_handle_is_logged_in_bytes() {
    let _ = tracing::subscriber::set_global_default(Recorder);
    // A runtime that ends before the session has, as a program's does.
    let written_then_gone = |bytes: usize, finish: bool| {
        bounded(20, async move {
            let pair = pair(2).await;
            let (near, _far) = pair.stream().await;
            let (_read, mut write) = near.into_split();
            // What opened the stream has arrived and is none of it.
            write.acknowledged().await.unwrap();
            pair.dialer.refuse(true);
            pair.dialer.lanes().iter().for_each(KillSwitch::silence);
            write.write_all(Bytes::from(vec![1; bytes])).await.unwrap();
            if finish {
                write.finish().unwrap();
            }
        });
    };
    written_then_gone(23_457, true);
    wait_for_log("bytes=23457 streams=1");
    written_then_gone(34_567, false);
    wait_for_log("bytes=34567 streams=1");
}

/// Tasks of a runtime that was shut down in the background end a little later.
fn wait_for_log(what: &str) {
    for _ in 0..500 {
        if logged(what) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} was not logged: {}", LOG.lock().unwrap_or_else(PoisonError::into_inner));
}

#[test]
fn nothing_is_logged_as_lost_that_has_arrived() {
    let _ = tracing::subscriber::set_global_default(Recorder);
    bounded(20, async {
        let pair = pair(2).await;
        let (mut near, mut far) = pair.stream().await;
        near.write_all(&Pattern::new(1).bytes(45_678)).await.unwrap();
        near.shutdown().await.unwrap();
        drop((near, pair.client));
        assert_eq!(Pattern::new(1).receive(&mut far).await.unwrap(), 45_678);
        drop((far, pair.session, pair.server));
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(!logged("bytes=45678"));
}

#[test]
fn nothing_undelivered_is_no_error() {
    assert_eq!(Undelivered::default().into_result(), Ok(()));
    assert!(Undelivered::default().is_none());
}
