//! The page that `--metrics` shows, in a browser.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::browser::shows;
use crate::support::pair::Pair;
use crate::support::process::field;
use crate::{bounded, installed};

/// What a peer is called who would like to run a script.
const MARKUP: &str = "<img src=x onerror=document.title='owned'><b>Anna</b>";

#[test]
fn the_page_shows_what_there_is_and_what_others_are_called_as_text() {
    if !installed(&["chromium"]) {
        return;
    }
    bounded(async {
        let pair = Pair::server_with("127.0.0.1:9", Some(""), &["--metrics=127.0.0.1:0"]);
        let list = pair.path("authorized_clients");
        let line = fs::read_to_string(&list).unwrap();
        fs::write(&list, format!("{} {MARKUP}\n", line.trim())).unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
        let client = pair.client(&["--listen=127.0.0.1:0", "--metrics=127.0.0.1:0"]);
        client.nth_line("lane up", 2);
        let ready = |log: String| field(&log, "address").to_owned();
        let server = ready(pair.server.line("metrics and page ready"));
        let near = ready(client.line("metrics and page ready"));
        let profile = tempfile::tempdir().unwrap();
        let how = ["--virtual-time-budget=5000"];
        let at_server = shows(&profile.path().join("server"), &how, &format!("http://{server}/"));
        assert!(at_server.contains("&lt;img src=x onerror="), "{at_server}");
        assert!(at_server.contains(&format!("<title>imux: {}</title>", pair.at)), "{at_server}");
        assert!(!at_server.contains("<img") && !at_server.contains("<b>"), "{at_server}");
        // A path for each way of each link, and of their sum.
        let at_client = shows(&profile.path().join("client"), &how, &format!("http://{near}/"));
        assert!(at_client.contains("<h3>any</h3>"), "{at_client}");
        for (name, count) in [("up", 2), ("down", 2)] {
            let drawn = format!("<path class=\"{name}\" d=\"M");
            assert_eq!(at_client.matches(&drawn).count(), count, "{name}: {at_client}");
        }
        assert!(at_client.contains("live") && at_client.contains("2 of 2 lanes"), "{at_client}");
        // A site that has its own name lead here sees nothing.
        let port = near.rsplit_once(':').unwrap().1;
        let rules = "--host-resolver-rules=MAP evil.example 127.0.0.1";
        let elsewhere = shows(
            &profile.path().join("evil"),
            &[rules, how[0]],
            &format!("http://evil.example:{port}/"),
        );
        assert!(elsewhere.contains("ask for this by an address"), "{elsewhere}");
        assert!(!elsewhere.contains("page.json") && !elsewhere.contains(&pair.at), "{elsewhere}");
    });
}
