//! Lanes that do not belong to the session they want to join.

use imux::trust::Identity;

use super::honest::Scene;
use super::peer::{Keys, Out, Peer, client_tls};
use super::wire::{self, codes, frame, types};

/// What every JOIN gets that does not prove its right: one answer for all.
fn not_granted() -> Out {
    Out::Refused { code: codes::JOIN_REFUSED, reason: String::new() }
}

/// Sends a JOIN with this proof; what becomes of the lane.
fn answer(peer: &mut Peer, session: &[u8; 16], lane: u64, mac: &[u8]) -> Out {
    peer.send(&wire::join(session, lane, mac));
    let out = peer.thrown_out();
    assert_eq!(peer.frame(), None, "and nothing after it");
    out
}

#[test]
fn a_forged_join_is_refused() {
    let scene = Scene::start();
    let keys = scene.dial().create();
    assert_eq!(answer(&mut scene.dial(), &keys.session, 1, &[7; 32]), not_granted());
    // Right but for one bit, wherever it is.
    for bit in [0, 100, 255] {
        let mut lane = scene.dial();
        let mut mac = lane.proof(&keys, b'c', 1);
        mac[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(answer(&mut lane, &keys.session, 1, &mac), not_granted(), "bit {bit}");
    }
    scene.end();
}

#[test]
fn a_proof_for_another_lane_number_is_refused() {
    let scene = Scene::start();
    let keys = scene.dial().create();
    let mut lane = scene.dial();
    let mac = lane.proof(&keys, b'c', 1);
    assert_eq!(answer(&mut lane, &keys.session, 2, &mac), not_granted());
    scene.end();
}

#[test]
fn a_replayed_join_is_refused() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    let mut lane = scene.dial();
    // Seen on one lane, said on another: before and after the first was granted.
    let mac = lane.proof(&keys, b'c', 1);
    assert_eq!(answer(&mut scene.dial(), &keys.session, 1, &mac), not_granted());
    assert_eq!(lane.join(&keys, 1), Ok(()));
    assert_eq!(answer(&mut scene.dial(), &keys.session, 1, &mac), not_granted());
    lane.expect_alive();
    first.expect_alive();
    scene.end();
}

#[test]
fn a_join_for_another_session_is_refused() {
    let scene = Scene::start();
    let (mut ours, mut victim) = (scene.dial(), scene.dial());
    let (own, theirs) = (ours.create(), victim.create());
    assert_ne!(own.session, theirs.session);
    // With everything a client of the same server has, but the victim's secret.
    for keys in [
        Keys { session: theirs.session, secret: own.secret },
        Keys { session: own.session, secret: theirs.secret },
    ] {
        let mut lane = scene.dial();
        let mac = lane.proof(&keys, b'c', 1);
        assert_eq!(answer(&mut lane, &keys.session, 1, &mac), not_granted());
    }
    victim.expect_alive();
    scene.end_with(2, 4);
}

#[test]
fn a_reflected_proof_is_refused() {
    let scene = Scene::start();
    let keys = scene.dial().create();
    let mut lane = scene.dial();
    // What a server would say in JOINED.
    let mac = lane.proof(&keys, b's', 1);
    assert_eq!(answer(&mut lane, &keys.session, 1, &mac), not_granted());
    scene.end();
}

#[test]
fn a_truncated_join_costs_its_lane_only() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    for keep in [0, 1, 31] {
        let mut lane = scene.dial();
        let mac = lane.proof(&keys, b'c', 1);
        // A shorter proof in a frame of its length ...
        assert_eq!(answer(&mut lane, &keys.session, 1, &mac[..keep]), Out::LaneEnded);
        // ... and a frame that is cut off.
        let mut lane = scene.dial();
        let whole = wire::join(&keys.session, 1, &lane.proof(&keys, b'c', 1));
        lane.send(&whole[..whole.len() - 32 + keep]);
        lane.cut();
    }
    // The number is still free: nothing was kept of all that.
    assert_eq!(scene.dial().join(&keys, 1), Ok(()));
    first.expect_alive();
    scene.end();
}

#[test]
fn the_right_proof_from_another_client_is_refused() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    let stranger = client_tls(&Identity::generate().unwrap());
    let mut nobody = (*stranger).clone();
    nobody.client_auth_cert_resolver = std::sync::Arc::new(NoKey);
    for config in [stranger, nobody.into()] {
        let mut lane = Peer::dial(scene.server, config).unwrap();
        let mac = lane.proof(&keys, b'c', 1);
        assert_eq!(answer(&mut lane, &keys.session, 1, &mac), not_granted());
    }
    first.expect_alive();
    scene.end();
}

#[derive(Debug)]
struct NoKey;

impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn unknown_sessions_and_wrong_proofs_are_answered_alike() {
    let scene = Scene::start();
    let keys = scene.dial().create();
    let known = answer(&mut scene.dial(), &keys.session, 1, &[0; 32]);
    for guess in 0..50u8 {
        let mut session = keys.session;
        session[usize::from(guess % 16)] ^= guess + 1;
        assert_eq!(answer(&mut scene.dial(), &session, 1, &[0; 32]), known);
    }
    assert_eq!(known, not_granted());
    scene.end();
}

#[test]
fn a_lane_number_in_use_is_refused() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    let mut second = scene.dial();
    assert_eq!(second.join(&keys, 1), Ok(()));
    for number in [0, 1] {
        let again = scene.dial().join(&keys, number).unwrap_err();
        assert!(matches!(again, Out::Refused { code: codes::EXCESSIVE_LOAD, .. }), "{again:?}");
    }
    first.expect_alive();
    second.expect_alive();
    scene.end();
}

/// A client may break its own session by it, and nothing else: its positions are counted from zero
/// again.
#[test]
fn a_lane_number_used_again_harms_nobody() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    for _ in 0..20 {
        let mut lane = scene.dial();
        if lane.join(&keys, 1).is_err() {
            // Still known: the notice of its end is on its way.
            std::thread::sleep(std::time::Duration::from_millis(10));
            continue;
        }
        lane.expect_alive();
        lane.cut();
        // Forgotten on both sides at once, so that the number is free.
        first.send(&frame(types::LANE_CLOSED, &[1, 0, 0], &[]));
        first.expect_alive();
    }
    first.expect_alive();
    scene.end_with(1, 4);
}

#[test]
fn lanes_of_one_session_are_bounded() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    let mut lanes = Vec::new();
    let refused = loop {
        let mut lane = scene.dial();
        match lane.join(&keys, lanes.len() as u64 + 1) {
            Ok(()) => lanes.push(lane),
            Err(out) => break out,
        }
        assert!(lanes.len() < 600, "there is no bound");
    };
    assert!(matches!(refused, Out::Refused { code: codes::EXCESSIVE_LOAD, .. }), "{refused:?}");
    assert_eq!(lanes.len(), 511);
    first.expect_alive();
    lanes[510].expect_alive();
    scene.end_with(1, 512);
}
