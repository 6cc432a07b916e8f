//! Holds the source to docs/ARCHITECTURE.md: who imports whom, that the core is pure, and that no
//! files import each other in a circle.
//!
//! The document's blocks `arrows` and `crates` are the rules; there is no second list here that
//! could differ. It is a reading of the text, not of what the compiler makes of it: paths are
//! resolved by the names of files and modules. What it cannot see (a macro that expands to a path
//! of another crate) has to be looked for by people.

mod circles;
mod lexer;
mod paths;
mod rules;
mod width;

use std::fs;
use std::path::{Path, PathBuf};

use rules::Rules;

#[test]
fn the_source_keeps_to_its_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = sources(&root.join("src"));
    assert!(files.iter().any(|(path, _)| path == "lib.rs"), "found no source");
    assert!(files.iter().any(|(path, _)| path.starts_with("proto/")), "found no core");
    let violations = rules().check(&files);
    let shown: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "docs/ARCHITECTURE.md forbids:\n  {}", shown.join("\n  "));
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut violations = Vec::new();
    for src in ["src", "lab/src", "sim/src"] {
        let files = sources(&root.join(src));
        assert!(files.iter().any(|(path, _)| path == "lib.rs"), "found no source in {src}");
        violations.extend(circles::circles(src, &files));
    }
    let shown: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "files import each other:\n  {}", shown.join("\n  "));
}

/// The rules as they are documented.
fn rules() -> Rules {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    Rules::read(&read("docs/ARCHITECTURE.md"), &read("Cargo.toml")).unwrap()
}

/// All Rust files below `src`, by their path below it; not what was built there.
fn sources(src: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(src.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if entry.file_name() != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                let path: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
                files.push((path.join("/"), text));
            }
        }
    }
    files.sort();
    files
}

/// What the rules say about made-up files.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let owned: Vec<_> = files.iter().map(|&(p, t)| (p.to_owned(), t.to_owned())).collect();
    rules().check(&owned).into_iter().map(|violation| violation.problem).collect()
}

#[track_caller]
fn caught(path: &str, source: &str, expected: &str) {
    let found = problems(&[(path, source)]);
    assert!(found.iter().any(|problem| problem.contains(expected)), "{path} {source:?}: {found:?}");
}

#[track_caller]
fn fine(path: &str, source: &str) {
    assert_eq!(problems(&[(path, source)]), [""; 0], "{path} {source:?}");
}

#[test]
fn arrows_between_rooms() {
    for (path, source, from_to) in [
        ("lane/tcp.rs", "use crate::proto::ids::LaneId;", "lane must not import proto::ids"),
        ("lane/tcp.rs", "fn f(x: crate::driver::Session) {}", "lane must not import driver"),
        (
            "lane/mod.rs",
            "use crate::{trust::Identity, tunnel::Forward};",
            "lane must not import tunnel",
        ),
        ("lane/mod.rs", "use super::proto;", "lane must not import proto"),
        ("trust/mod.rs", "use crate::lane::Lane;", "trust must not import lane"),
        ("tunnel/mod.rs", "use crate::cli::run;", "tunnel must not import cli"),
        ("tunnel/mod.rs", "use crate::proto::error::Code;", "tunnel must not import proto::error"),
        ("driver/session.rs", "use super::super::tunnel;", "driver must not import tunnel"),
        ("driver/mod.rs", "use crate::Client;", "driver must not import lib"),
        ("driver/mod.rs", "mod a { use super::super::super::tunnel; }", "must not import"),
        ("main.rs", "use imux::driver::Client;", "main must not import driver"),
        ("cli/run.rs", "use crate::Thing;", "cli must not import main"),
        ("lib.rs", "use crate::cli::run;", "lib must not import cli"),
        ("proto/session/mod.rs", "use crate::driver::Client;", "must not import driver"),
        ("trust/mod.rs", "#[cfg(test)] mod t { use crate::driver::X; }", "must not import driver"),
    ] {
        caught(path, source, from_to);
    }
    for (path, source) in [
        ("main.rs", "mod cli; fn main() { cli::run() }"),
        (
            "cli/run.rs",
            "use imux::{Client, driver::Session, trust::Prompter, lane::Bind}; use super::x;",
        ),
        ("cli/mod.rs", "mod run; pub(crate) use run::run; use crate::cli::args;"),
        (
            "lib.rs",
            "pub mod driver; mod tunnel; pub use driver::Client; pub use crate::proto::ids;",
        ),
        ("tunnel/mod.rs", "use crate::driver::Stream; use tokio::net::TcpStream;"),
        (
            "driver/mod.rs",
            "use crate::proto::session::Session; use crate::{lane, trust::Fingerprint};",
        ),
        ("lane/tls.rs", "use crate::trust::PeerIdentity; use super::bind::Bind; use std::io;"),
        ("lane/tls.rs", "// use crate::proto;\nconst A: &str = \"crate::proto::ids\";"),
        ("lane/tls.rs", "pub(in crate::lane) fn f() {}"),
    ] {
        fine(path, source);
    }
}

#[test]
fn arrows_within_the_core() {
    for (path, source, from_to) in [
        ("proto/stream/send.rs", "use crate::proto::lane::Ledger;", "must not import proto::lane"),
        ("proto/lane/ledger.rs", "use super::super::stream::Id;", "must not import proto::stream"),
        ("proto/scheduler/mod.rs", "use super::lane::Lane;", "must not import proto::lane"),
        ("proto/scheduler/mod.rs", "use super::stream::Stream;", "must not import proto::stream"),
        ("proto/ids.rs", "use super::wire::Frame;", "proto::ids must not import proto::wire"),
        ("proto/range_set.rs", "use super::ids::LaneId;", "must not import proto::ids"),
        ("proto/wire/encode.rs", "use crate::proto::session::X;", "must not import proto::session"),
        // A detour by way of a re-export is none.
        ("proto/lane/mod.rs", "use super::SendStream;", "proto::lane must not import proto (`"),
        ("proto/lane/mod.rs", "use super::*;", "proto::lane must not import proto (`"),
        ("proto/novelty.rs", "", "room proto::novelty is not in the arrows"),
        ("novelty/mod.rs", "", "room novelty is not in the arrows"),
    ] {
        caught(path, source, from_to);
    }
    for (path, source) in [
        ("proto/mod.rs", "pub mod session; pub use session::Session;"),
        ("proto/session/mod.rs", "use super::{lane::Lane, stream::Stream, scheduler, wire};"),
        (
            "proto/stream/send.rs",
            "use super::send_buffer::X; use crate::proto::range_set::RangeSet;",
        ),
        ("proto/wire/encode.rs", "use crate::proto::{error::Code, ids::{self, StreamId}};"),
        ("proto/scheduler/fair.rs", "pub(in crate::proto) struct A(super::super::ids::LaneId);"),
        ("proto/ids.rs", "#[cfg(test)] mod tests { use super::*; use crate::proto::wire::Frame; }"),
    ] {
        fine(path, source);
    }
}

#[test]
fn purity_of_the_core() {
    for (source, expected) in [
        ("use tokio::sync::mpsc;", "must not use the crate tokio"),
        ("use rustls::pki_types;", "must not use the crate rustls"),
        ("fn f() { socket2::Socket::new(); }", "must not use the crate socket2"),
        ("use std::net::IpAddr;", "std::net"),
        ("use std::{fmt, io::{self, Read}};", "std::io"),
        ("fn f() -> std::io::Result<()> {}", "std::io"),
        ("use core::net::IpAddr;", "std::net"),
        ("use std::fs;", "std::fs"),
        ("fn f() { std::thread::sleep(x) }", "std::thread"),
        ("async fn f() {}", "`async`"),
        ("fn f() { x.await }", "`await`"),
        ("fn f() { let now = Instant::now(); }", "Instant::now"),
        ("fn f() { let now = std::time::Instant::now(); }", "Instant::now"),
        ("fn f() { map.unwrap_or_else(Instant::now) }", "Instant::now"),
        ("fn f() { start.elapsed() }", "elapsed"),
        ("use std::time::SystemTime;", "SystemTime"),
        ("use std::collections::HashMap;", "HashMap"),
        ("use std::collections::{BTreeMap, HashSet as Set};", "HashSet"),
        ("type A = Arc<Mutex<u8>>;", "Mutex"),
        ("use std::sync::atomic::AtomicU64;", "std::sync"),
        ("fn f() { println!(\"x\") }", "println!"),
        ("fn f() { let x = rand::random(); }", "rand"),
        ("#[cfg(not(test))] use std::fs;", "std::fs"),
        ("#[cfg(test)] mod t { use tokio::time; }", "must not use the crate tokio"),
        ("#[cfg(test)] mod t { use std::net::IpAddr; }", "std::net"),
        ("#[cfg(test)] fn t() {} fn f() { Instant::now(); }", "Instant::now"),
    ] {
        caught("proto/session/mod.rs", source, expected);
    }
    for source in [
        "use std::time::{Duration, Instant}; use std::sync::Arc; use bytes::Bytes;",
        "use quinn_proto::coding::Codec; use thiserror::Error; use tracing::debug;",
        "fn f(now: Instant) -> Instant { let elapsed = 3; now }",
        "//! No tokio, no Instant::now.\n/* HashMap */ const A: &str = \"println!\";",
        "#[cfg(test)] mod t { use proptest::prelude::*; fn f() { Instant::now(); println!(); } }",
        "#[test] fn f() { let map = HashMap::new(); }",
    ] {
        fine("proto/session/mod.rs", source);
    }
    // Outside of the core all of it is fine.
    fine("driver/clock.rs", "use std::net::IpAddr; async fn f() { Instant::now(); println!(); }");
}

#[test]
fn test_files_are_known() {
    let source = "fn f() { Instant::now(); }";
    fine("proto/wire/tests.rs", source);
    let declared = [("proto/mod.rs", "#[cfg(test)] mod testing;"), ("proto/testing.rs", source)];
    assert_eq!(problems(&declared), [""; 0]);
    let found = problems(&[("proto/mod.rs", "mod timer;"), ("proto/timer.rs", source)]);
    assert_eq!(found, ["`Instant::now`: time is an argument"]);
}

#[test]
fn a_document_that_cannot_be_right_is_refused() {
    let document =
        |arrows: &str| format!("```arrows\n{arrows}\n```\n\n```crates\nproto -> std\n```\n");
    assert!(Rules::read(&document("a -> b\nb ->"), "").is_ok());
    for (arrows, expected) in
        [("a -> b", "no room b"), ("a ->\na ->", "twice"), ("a b", "no arrow"), ("", "is empty")]
    {
        let error = Rules::read(&document(arrows), "").unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Rules::read("no block", "").unwrap_err().contains("has no block"));
}
