//! The example of a lane of one's own does what it says.

#[allow(dead_code)] // its `main`
#[path = "../examples/custom_lane.rs"]
mod custom_lane;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_carried_by_lanes_of_ones_own() {
    let home = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(40_503) >> 8) as u8).collect();
    let door = home.path().join("door");
    let echo = custom_lane::echo(&door, &data);
    let limit = std::time::Duration::from_secs(30);
    let (back, lanes) = tokio::time::timeout(limit, echo).await.unwrap().unwrap();
    assert!(back == data, "every byte came back, in order");
    assert!((1..=4).contains(&lanes), "{lanes}");
}
