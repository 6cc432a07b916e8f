//! Scanners that others have written, against the listener: TLS 1.3 and nothing else, and nothing
//! to find but that the certificate is one of our own making.
//!
//! The test of a scanner that is not installed is skipped, and listed at the end of the README's
//! command. `IMUX_REQUIRE_PROGRAMS=1` demands both, as it does other programs.

#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::process::Imux;

mod support;

/// Whether the program is there; if it must be and is not, the test fails.
fn installed(program: &str, from: &str) -> bool {
    let asked = Command::new("which").arg(program).stdout(Stdio::null()).status();
    let found = asked.is_ok_and(|status| status.success());
    !support::skipped::because((!found).then(|| format!("not installed: {program} ({from})")))
}

fn server(home: &Path) -> Imux {
    Imux::start(home, &["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"])
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn testssl_finds_tls_1_3_and_nothing_wrong() {
    if !installed("testssl", "Debian: testssl.sh") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut server = server(home.path());
    let report = home.path().join("report.json");
    let mut testssl = Command::new("testssl");
    // Protocols, categories of ciphers, forward secrecy, what the server says of itself,
    // vulnerabilities.
    testssl.args(["--quiet", "--warnings", "off", "--color", "0", "-p", "-s", "-f", "-S", "-U"]);
    testssl.arg("--jsonfile").arg(&report).arg(server.ready().to_string());
    let status = testssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.is_ok());

    let report = json(&report);
    let findings = report.as_array().unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let of = |id: &str| {
        let found = findings.iter().find(|finding| text(finding, "id") == id);
        text(found.unwrap_or_else(|| panic!("nothing said of {id}: {report}")), "finding")
    };
    for old in ["SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"] {
        assert!(of(old).starts_with("not offered"), "{old}: {}", of(old));
    }
    assert!(of("TLS1_3").starts_with("offered"), "{}", of("TLS1_3"));
    for finding in findings {
        let (id, severity) = (text(finding, "id"), text(finding, "severity"));
        let wrong = matches!(severity.as_str(), "LOW" | "MEDIUM" | "HIGH" | "CRITICAL");
        assert!(!wrong || id.starts_with("cert"), "{finding}");
    }
    assert!(server.is_running());
}

#[test]
fn sslyze_finds_tls_1_3_and_nothing_wrong() {
    if !installed("sslyze", "PyPI: sslyze") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut server = server(home.path());
    let report = home.path().join("report.json");
    let mut sslyze = Command::new("sslyze");
    sslyze.arg(format!("--json_out={}", report.display())).arg(server.ready().to_string());
    let output = sslyze.output().unwrap();
    let report = json(&report);
    let result = &report["server_scan_results"][0];
    assert_eq!(result["scan_status"], "COMPLETED", "{}", String::from_utf8_lossy(&output.stdout));
    let scan = &result["scan_result"];
    let accepted = |version: &str| {
        let list = &scan[version]["result"]["accepted_cipher_suites"];
        list.as_array().unwrap_or_else(|| panic!("nothing said of {version}: {scan}")).len()
    };
    let old = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2"];
    let old = old.map(|version| format!("{version}_cipher_suites"));
    assert!(old.iter().all(|version| accepted(version) == 0), "{scan}");
    assert_eq!(accepted("tls_1_3_cipher_suites"), 3);
    assert!(server.is_running());
}
