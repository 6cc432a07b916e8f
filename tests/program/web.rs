//! `--metrics`: what is shown over HTTP, to whom, and that nothing changes by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::net::Destination;
use crate::support::pair::Pair;
use crate::support::process::{Imux, field, run};
use crate::support::{bounded, eventually};

/// What is answered to these bytes.
#[track_caller]
fn say(at: SocketAddr, words: &str) -> String {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(words.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn get(at: SocketAddr, path: &str, more: &str) -> String {
    say(at, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"))
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn shown(of: &Imux) -> SocketAddr {
    field(&of.line("metrics and page ready"), "address").parse().unwrap()
}

/// A server and a client, both of which show what they do, and the client's port.
async fn pair(to: &str) -> (Pair, Imux, String) {
    let pair = Pair::server_with(to, None, &["--metrics=127.0.0.1:0", "--allow-anyone"]);
    let client = pair.client(&["--listen=127.0.0.1:0", "--metrics=localhost:0"]);
    let at = field(&client.line("client ready"), "address").to_owned();
    client.nth_line("lane up", 2);
    (pair, client, at)
}

/// The samples of a text in OpenMetrics' form, which is checked on the way: each family has a type
/// and a help before its samples, units end names, labels are quoted, and the end is marked.
#[track_caller]
fn parse(text: &str) -> BTreeMap<String, f64> {
    let text = text.strip_suffix("# EOF\n").expect("an end that is marked");
    let (mut helped, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let [what, name, value] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            match what {
                "HELP" => assert!(helped.insert(name) && value.ends_with('.'), "{line}"),
                "TYPE" => assert!(types.insert(name, value).is_none(), "{line}"),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let family = types.keys().find(|family| {
            let behind = name.strip_prefix(**family);
            match types[**family] {
                "counter" => behind == Some("_total"),
                "info" => behind == Some("_info"),
                kind => kind == "gauge" && behind == Some(""),
            }
        });
        let family = family.unwrap_or_else(|| panic!("{line} is of no family"));
        assert!(helped.contains(family), "{family} has no help");
        let labels = labels.strip_suffix('}').unwrap();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap();
            assert!(["link", "role", "version"].contains(&name), "{line}");
            assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
    }
    assert_eq!(helped, types.keys().copied().collect());
    samples
}

#[test]
fn metrics_are_openmetrics_and_count_what_is_carried() {
    bounded(90, async {
        let echo = Destination::echo().await;
        let (pair, client, at) = pair(&echo.addr.to_string()).await;
        let (near, far) = (shown(&client), shown(&pair.server));
        let mut socket = tokio::net::TcpStream::connect(&at).await.unwrap();
        let (sent, mut back) = (vec![7; 1_000_000], vec![0; 1_000_000]);
        let (mut read, mut write) = socket.split();
        let (_, _) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        for (at, link) in [(near, "any"), (far, "primary")] {
            let answer = get(at, "/metrics", "");
            assert_eq!(status(&answer), "200", "{answer}");
            assert!(answer.contains("application/openmetrics-text; version=1.0.0"), "{answer}");
            let text = body(&answer);
            let samples = parse(text);
            let of = |name: &str| samples[&format!("imux_{name}{{link=\"{link}\"}}")];
            assert!(of("sent_bytes_total") >= 1e6 && of("received_bytes_total") >= 1e6, "{text}");
            assert_eq!((of("lanes"), of("lanes_made_total")), (2.0, 2.0), "{text}");
            assert!(of("round_trip_seconds") > 0.0 && of("round_trip_seconds") < 10.0, "{text}");
            assert_eq!((samples["imux_sessions"], samples["imux_connections"]), (1.0, 1.0));
            // Neither where it goes, nor whose it is.
            for secret in [echo.addr.to_string(), pair.key.clone(), "SHA256".into()] {
                assert!(!text.contains(&secret), "{text}");
            }
        }
        // What was counted stays counted when lanes have gone.
        let before = parse(body(&get(near, "/metrics", "")));
        let (code, _, told) = run(pair.folder.path(), &["lanes", "pause", "any"]);
        assert_eq!(code, 0, "{told}");
        eventually(20, "its lanes are lost", || {
            parse(body(&get(near, "/metrics", "")))["imux_lanes_lost_total{link=\"any\"}"] == 2.0
        })
        .await;
        let after = parse(body(&get(near, "/metrics", "")));
        for (series, value) in before.iter().filter(|(series, _)| series.contains("_total")) {
            assert!(after[series] >= *value, "{series}");
        }
        assert_eq!(after["imux_link_paused{link=\"any\"}"], 1.0);
        assert_eq!(status(&get(near, "/livez", "")), "200");
        assert_eq!(status(&get(near, "/readyz", "")), "503");
        assert_eq!(status(&get(far, "/readyz", "")), "200");
    });
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    bounded(60, async {
        let (pair, client, _) = pair("127.0.0.1:9").await;
        let samples = parse(body(&get(shown(&client), "/metrics", "")));
        drop(pair);
        let exported: BTreeSet<_> =
            samples.keys().map(|series| series.split('{').next().unwrap()).collect();
        let dashboard = include_str!("../../docs/grafana.json");
        let whole: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        let mut shown = BTreeSet::new();
        for panel in whole["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let names = query.split(|c| !is_part(c)).filter(|word| word.starts_with("imux_"));
                let before = shown.len();
                shown.extend(names);
                assert!(shown.len() > before || query.contains("imux_"), "{query}");
            }
        }
        let unknown: Vec<_> = shown.difference(&exported).collect();
        assert!(unknown.is_empty(), "{unknown:?} are not exported");
        assert!(shown.len() >= 10, "{shown:?}");
    });
}

#[test]
fn only_who_asks_for_this_machine_is_answered_and_nothing_is_changed() {
    bounded(60, async {
        let (pair, client, _) = pair("127.0.0.1:9").await;
        let at = shown(&client);
        for (host, code) in [
            ("localhost", "200"),
            ("127.0.0.1:1234", "200"),
            ("[::1]:80", "200"),
            ("evil.example", "421"),
            ("localhost.evil.example", "421"),
            ("127.0.0.1.nip.io", "421"),
            ("", "421"),
        ] {
            for path in ["/", "/metrics", "/page.json", "/livez", "/readyz"] {
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let answer = say(at, &request);
                assert_eq!(status(&answer), code, "{host} {path}: {answer}");
            }
        }
        assert_eq!(status(&say(at, "GET / HTTP/1.0\r\n\r\n")), "421");
        let two =
            "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        assert_ne!(status(&say(at, two)), "200");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let words =
                format!("{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            assert_eq!(status(&say(at, &words)), "405", "{method}");
        }
        let answer = get(at, "/", "Origin: http://evil.example\r\n");
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
        assert!(!head.contains("access-control"), "{head}");
        for line in [
            "content-security-policy: default-src 'none'; script-src 'sha256-",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(line), "{head}");
        }
        assert!(!head.contains("unsafe"), "{head}");
        // Nothing is asked for from elsewhere.
        let page = body(&answer);
        assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("url("));
        let json = get(at, "/page.json", "");
        assert!(json.contains("\"links\"") && !json.contains("SHA256"), "{json}");
        assert_eq!(status(&get(at, "/nothing", "")), "404");
        // However many say nothing, others are answered once those are given up.
        let idle: Vec<_> = (0..100).filter_map(|_| TcpStream::connect(at).ok()).collect();
        eventually(40, "those that say nothing are given up", || {
            status(&get(at, "/livez", "")) == "200"
        })
        .await;
        drop((idle, pair));
    });
}

#[test]
fn elsewhere_than_on_this_machine_a_token_is_asked_for() {
    bounded(60, async {
        let pair = Pair::server("127.0.0.1:9", None);
        let file = pair.path("token");
        let token = file.to_str().unwrap();
        fs::write(&file, "a-token-of-twenty-five\n").unwrap();
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let home = pair.folder.path();
        let client = ["client", "--dial", &pair.at, "--pin", &pair.key, "-D", "127.0.0.1:0"];
        for (args, code, why) in [
            (&["--metrics", "0.0.0.0:0"][..], 2, "--metrics-token"),
            (&["--metrics", ":0"], 2, "--metrics-token"),
            (&["--metrics", "monitor.example:0"], 2, "--metrics-token"),
            (&["--metrics-token", token], 2, "--metrics"),
            (&["--metrics", "0.0.0.0:0", "--metrics-token", token], 3, "chmod 600"),
        ] {
            let (ended, _, told) = run(home, &[&client[..], args].concat());
            assert!(ended == code && told.contains(why), "{args:?}: {ended} {told}");
        }
        mode(0o600);
        let client =
            pair.client(&["-D", "127.0.0.1:0", "--metrics=0.0.0.0:0", "--metrics-token", token]);
        let at = SocketAddr::from(([127, 0, 0, 1], shown(&client).port()));
        for path in ["/", "/metrics", "/page.json", "/livez"] {
            let answer = get(at, path, "");
            assert!(status(&answer) == "401" && answer.contains("Basic realm"), "{answer}");
            let wrong = get(at, path, "Authorization: Bearer a-token-of-twenty-fiv\r\n");
            assert_eq!(status(&wrong), "401", "{wrong}");
            let right = get(at, path, "Authorization: Bearer a-token-of-twenty-five\r\n");
            assert_eq!(status(&right), "200", "{right}");
        }
        // As a browser does: anyone:a-token-of-twenty-five.
        let basic = "Authorization: Basic YW55b25lOmEtdG9rZW4tb2YtdHdlbnR5LWZpdmU=\r\n";
        assert_eq!(status(&get(at, "/metrics", basic)), "200");
    });
}
