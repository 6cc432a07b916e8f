//! The examples do what they say. `.ci/run` runs them as programs; here they run in one process.

use std::time::Duration;

#[allow(dead_code)] // its `main`
#[path = "../examples/chat.rs"]
mod chat;
#[allow(dead_code)] // its `main`
#[path = "../examples/client.rs"]
mod client;
#[allow(dead_code)] // its `main`
#[path = "../examples/custom_lane.rs"]
mod custom_lane;
#[allow(dead_code)] // its `main`
#[path = "../examples/server.rs"]
mod server;
mod support;

use support::bounded;

#[test]
fn a_session_is_carried_by_lanes_of_ones_own() {
    bounded(30, async {
        let home = tempfile::tempdir().unwrap();
        let data: Vec<u8> =
            (0..3_000_000u32).map(|n| (n.wrapping_mul(40_503) >> 8) as u8).collect();
        let (back, lanes) = custom_lane::echo(&home.path().join("door"), &data).await.unwrap();
        assert!(back == data, "every byte came back, in order");
        assert!((1..=4).contains(&lanes), "{lanes}");
    });
}

#[test]
fn the_client_hears_from_the_server_in_capitals() {
    bounded(30, async {
        let (server, key) = server::listen("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        tokio::spawn(server::serve(server));
        let client = client::connect(&address, &key).await.unwrap();
        assert_eq!(client::ask(&client, "one\ntwo\n").await.unwrap(), "ONE\nTWO\n");
        let long = "ab\n".repeat(100_000);
        assert_eq!(client::ask(&client, &long).await.unwrap(), long.to_uppercase());
        client.close(imux::Code::NONE, Duration::from_secs(10)).await.unwrap();
    });
}

#[test]
fn a_client_with_another_key_in_mind_says_no_word() {
    bounded(30, async {
        let (server, key) = server::listen("127.0.0.1:0").unwrap();
        let (_other, others_key) = server::listen("127.0.0.1:0").unwrap();
        assert_ne!(key, others_key);
        let address = server.local_addr().unwrap().to_string();
        assert!(client::connect(&address, &others_key).await.is_err());
    });
}

#[test]
fn each_hears_all_the_other_says_in_a_chat() {
    bounded(30, async {
        let (mut server, key) = chat::listen("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            let mut heard = Vec::new();
            let stream = chat::wait(&mut server).await.unwrap();
            chat::chat(stream, &b"hello\nstill there?\n"[..], |line| heard.push(line))
                .await
                .unwrap();
            heard
        });
        let (client, stream) = chat::connect(&address, &key).await.unwrap();
        let lines: Vec<_> = (0..2_000).map(|n| format!("line {n}")).collect();
        let mut heard = Vec::new();
        let said = lines.join("\n");
        chat::chat(stream, said.as_bytes(), |line| heard.push(line)).await.unwrap();
        client.close(imux::Code::NONE, Duration::from_secs(10)).await.unwrap();
        assert_eq!(serving.await.unwrap(), lines);
        assert_eq!(heard, ["hello", "still there?"]);
    });
}
