//! Streams whose opener waits until the destination has taken the connection.

use futures::FutureExt;
use imux::{OpenOptions, Wants};

use super::*;

fn wanting(wants: Wants) -> OpenOptions {
    OpenOptions { wants, ..StreamKind::Named("db.example:5432".to_owned()).into() }
}

/// A stream's two ends, and what the far one was told is wanted.
async fn opened(pair: &Pair) -> (Stream, Stream) {
    let near = pair.client.open(wanting(Wants::ANSWER)).await.unwrap();
    let Incoming { stream: far, kind, wants, .. } = pair.session.accept().await.unwrap();
    assert_eq!(kind, StreamKind::Named("db.example:5432".to_owned()));
    assert_eq!(wants, Wants::ANSWER);
    (near, far)
}

#[test]
fn an_answer_comes_before_all_else_and_is_no_part_of_it() {
    bounded(20, async {
        let pair = pair(2).await;
        // Said in words of its own.
        let (mut near, far) = opened(&pair).await;
        near.write_all(b"early").await.unwrap();
        near.shutdown().now_or_never();
        assert_eq!(near.connected().now_or_never(), None);
        let (mut read, mut write) = far.into_split();
        write.answer().await.unwrap();
        write.answer().await.unwrap();
        near.connected().await.unwrap();
        near.connected().await.unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "early");
        write.write_all(Bytes::from_static(b"late")).await.unwrap();
        write.finish().unwrap();
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "late");

        // By the first byte, which whoever reads finds at once.
        let (mut near, mut far) = opened(&pair).await;
        far.write_all(b"at once").await.unwrap();
        far.shutdown().now_or_never();
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "at once");
        near.connected().await.unwrap();

        // By an end.
        let (mut near, mut far) = opened(&pair).await;
        far.shutdown().now_or_never();
        near.connected().await.unwrap();
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "");
    });
}

#[test]
fn whoever_waits_for_an_answer_is_told_why_none_comes() {
    bounded(20, async {
        let pair = pair(2).await;
        let (mut near, far) = opened(&pair).await;
        far.reset(Code::DIAL_REFUSED);
        let refused = Err(StreamError::Reset(Code::DIAL_REFUSED));
        assert_eq!(near.connected().await, refused);
        assert_eq!(near.connected().await, refused);
        assert_eq!(kind(near.read(&mut [0]).await), ErrorKind::ConnectionReset);
        let (mut near, _far) = opened(&pair).await;
        pair.session.close(Code::SHUTDOWN);
        assert!(matches!(near.connected().await, Err(StreamError::Session(_))));
    });
}

#[test]
fn who_asks_for_no_answer_waits_for_none() {
    bounded(20, async {
        let pair = pair(2).await;
        let mut near = pair.client.open(wanting(Wants::default())).await.unwrap();
        near.connected().await.unwrap();
        let mut near = pair.client.open(wanting(Wants::SOURCE)).await.unwrap();
        near.connected().await.unwrap();
        pair.session.accept().await.unwrap();
        assert_eq!(pair.session.accept().await.unwrap().wants, Wants::SOURCE);
    });
}
