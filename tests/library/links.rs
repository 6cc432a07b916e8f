//! Links that come and go while a client runs.

use crate::*;
use imux::LinkId;

/// How many lanes of each link carry the session now.
fn of(pair: &Pair, link: LinkId) -> usize {
    let lanes = pair.client.stats().map(|stats| stats.lanes).unwrap_or_default();
    lanes.iter().filter(|lane| lane.link == link).count()
}

fn link(pair: &Pair, lanes: u16) -> Link {
    Link::new(Arc::new(pair.dialer.clone()), lanes).with_express(false)
}

#[test]
fn links_come_and_go_under_a_transfer() {
    bounded(60, async {
        let pair = pair(2).await;
        let (near, far) = pair.stream().await;
        let length = 64 * MIB;
        let (ours, theirs) = (Pattern::new(1), Pattern::new(2));
        let transfer = async {
            tokio::try_join!(
                exchange(near, (&ours, length), (&theirs, length)),
                exchange(far, (&theirs, length), (&ours, length))
            )
            .unwrap();
        };
        let changes = async {
            let mut last = LinkId::new(0);
            for round in 1..=5 {
                let next = pair.client.add_link(&link(&pair, 3)).unwrap();
                assert_eq!(next, LinkId::new(round), "a number is not used again");
                eventually(10, "its lanes are up", || of(&pair, next) == 3).await;
                assert!(pair.client.remove_link(last) && !pair.client.remove_link(last));
                eventually(10, "the others have ended", || of(&pair, last) == 0).await;
                last = next;
            }
            assert_eq!(pair.lanes(), 3);
        };
        tokio::join!(transfer, changes);
    });
}

#[test]
fn without_any_link_a_session_waits_for_the_next() {
    bounded(60, async {
        let pair = pair(1).await;
        let (mut near, mut far) = pair.stream().await;
        assert!(pair.client.remove_link(LinkId::new(0)));
        eventually(10, "no lane is left", || pair.lanes() == 0).await;
        near.write_all(b"later").await.unwrap();
        pair.client.add_link(&link(&pair, 1)).unwrap();
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"later");
    });
}

#[test]
fn lanes_of_a_changed_network_are_dialled_anew_at_once() {
    bounded(60, async {
        let pair = pair(2).await;
        let lanes = || {
            let lanes = pair.client.stats().map(|stats| stats.lanes).unwrap_or_default();
            lanes.iter().map(|lane| lane.id).collect::<Vec<_>>()
        };
        eventually(10, "both lanes are up", || lanes().len() == 2).await;
        let before = lanes();
        pair.client.redial_link(LinkId::new(0));
        let others = || lanes().len() == 2 && lanes().iter().all(|lane| !before.contains(lane));
        eventually(10, "two others are up", others).await;
        let (mut near, mut far) = pair.stream().await;
        near.write_all(b"goes on").await.unwrap();
        let mut got = [0; 7];
        far.read_exact(&mut got).await.unwrap();
        // To a link that is not there, nothing happens.
        pair.client.redial_link(LinkId::new(7));
        pair.client.wake_link(LinkId::new(7));
    });
}

#[test]
fn the_lanes_of_all_links_are_bounded() {
    bounded(30, async {
        let pair = pair(1).await;
        let refused = pair.client.add_link(&link(&pair, 256)).unwrap_err();
        assert!(matches!(refused, ConnectError::TooManyLanes { asked: 257, max: 256 }));
        // A link that was refused has taken nothing.
        pair.client.add_link(&link(&pair, 255)).unwrap();
    });
}
