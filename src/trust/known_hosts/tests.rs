use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::trust::fingerprint::hex_encode;

const HOST: &str = "server:443";

fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

/// The holder of key 1, with an old certificate of signature 2.
const PEER: PeerIdentity = PeerIdentity {
    fingerprint: Fingerprint::from_bytes([1; 32]),
    certificate_signature: Some([2; 32]),
};

fn hosts(contents: &[u8]) -> (TempDir, KnownHosts) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known_hosts");
    fs::write(&path, contents).unwrap();
    (dir, KnownHosts::new(path))
}

#[test]
fn what_a_file_says_of_a_host() {
    let key = fingerprint(1).to_string();
    let other = fingerprint(9).to_string();
    let old = hex_encode(&[2; 32]);
    let old_other = hex_encode(&[9; 32]);
    let changed = |old| Verdict::Changed { old };
    let changed_key = changed(KnownKey::Fingerprint(fingerprint(9)));
    let changed_old = changed(KnownKey::LegacySignature([9; 32]));
    let cases: Vec<(String, Verdict)> = vec![
        (String::new(), Verdict::Unknown),
        ("\n\n# server:443 SHA256:x\n".into(), Verdict::Unknown),
        (format!("{HOST} {key}\n"), Verdict::Known),
        (format!("{HOST} {key}"), Verdict::Known),
        (format!("{HOST} {key}\r\n"), Verdict::Known),
        (format!("  {HOST}\t {key} \n"), Verdict::Known),
        (format!("{HOST} {old}\n"), Verdict::KnownByLegacySignature),
        (format!("{HOST} {}\r\n", old.to_uppercase()), Verdict::KnownByLegacySignature),
        (format!("{HOST} {other}\n"), changed_key),
        (format!("{HOST} {old_other}\n"), changed_old),
        // The last line counts.
        (format!("{HOST} {other}\n{HOST} {key}\n"), Verdict::Known),
        (format!("{HOST} {key}\n{HOST} {other}\n"), changed_key),
        (format!("{HOST} {old_other}\n{HOST} {old}\n"), Verdict::KnownByLegacySignature),
        (format!("{HOST} {key}\n{HOST} {old_other}\n"), changed_old),
        // A bare hash is a signature's, never a key's: they must not be mixed up.
        (format!("{HOST} {}\n", hex_encode(&[1; 32])), changed(KnownKey::LegacySignature([1; 32]))),
        // Other hosts, and names that merely look alike.
        (format!("server:4430 {key}\nserver.example {key}\nserver:44 {key}\n"), Verdict::Unknown),
        // Other spellings of the name, also behind a byte order mark.
        (format!("SERVER.:443 {key}\n"), Verdict::Known),
        (format!("Server {other}\n"), changed_key),
        (format!("{HOST} {key}\nserver.:0443 {other}\n"), changed_key),
        (format!("\u{feff}{HOST} {other}\n"), changed_key),
        (format!("\u{feff}# mine\n{HOST} {key}\n"), Verdict::Known),
        (format!("#{HOST} {key}\n"), Verdict::Unknown),
        // A malformed line of another host harms nobody else.
        (format!("other\nother x y z\n{HOST} {key}\n"), Verdict::Known),
        (format!("{HOST} rubbish\n{HOST} {key}\n"), Verdict::Known),
    ];
    for (contents, verdict) in cases {
        let (_dir, hosts) = hosts(contents.as_bytes());
        assert_eq!(hosts.check(HOST, &PEER).unwrap(), verdict, "{contents:?}");
    }
}

#[test]
fn a_line_that_counts_and_cannot_be_read_is_an_error() {
    let key = fingerprint(1);
    for bad in ["", " ", "rubbish", "SHA256:short", &format!("{key} more"), &"0".repeat(63)] {
        let (_dir, hosts) = hosts(format!("# comment\n{HOST} {key}\n{HOST} {bad}\n").as_bytes());
        let error = hosts.check(HOST, &PEER).unwrap_err();
        assert!(matches!(error, TrustError::MalformedKnownHost { line: 3, .. }), "{error}");
        assert!(error.to_string().contains("line 3"), "{error}");
        let malformed = Malformed { line: 3, host: HOST.to_owned() };
        assert_eq!(hosts.malformed().unwrap(), vec![malformed]);
    }
}

#[test]
fn bytes_that_are_not_text_spoil_their_line_only() {
    let key = fingerprint(1);
    let mut contents = b"bad\xff\xfe \xff\n".to_vec();
    contents.extend_from_slice(format!("{HOST} {key}\n").as_bytes());
    let (_dir, hosts) = hosts(&contents);
    assert_eq!(hosts.check(HOST, &PEER).unwrap(), Verdict::Known);
    assert_eq!(hosts.malformed().unwrap().len(), 1);
    hosts.record("new:1", key).unwrap();
    assert!(fs::read(hosts.path()).unwrap().starts_with(&contents), "kept to the byte");
}

#[test]
fn no_certificate_signature_matches_no_old_line() {
    let (_dir, hosts) = hosts(format!("{HOST} {}\n", hex_encode(&[2; 32])).as_bytes());
    let peer = PeerIdentity { certificate_signature: None, ..PEER };
    assert!(matches!(hosts.check(HOST, &peer).unwrap(), Verdict::Changed { .. }));
}

#[test]
fn recording_replaces_the_hosts_lines_and_no_others() {
    let (one, nine) = (fingerprint(1), fingerprint(9));
    let old = hex_encode(&[2; 32]);
    let before = format!(
        "# mine\r\n\r\n{HOST} {old}\r\nother:1 {nine}\n  {HOST} {nine}\n{HOST}\nodd line here\nlast:1 {old}"
    );
    let (_dir, hosts) = hosts(before.as_bytes());
    hosts.record(HOST, one).unwrap();
    let after = fs::read_to_string(hosts.path()).unwrap();
    let want = format!("# mine\r\n\r\nother:1 {nine}\nodd line here\nlast:1 {old}\n{HOST} {one}\n");
    assert_eq!(after, want);
    assert_eq!(hosts.check(HOST, &PEER).unwrap(), Verdict::Known);
    hosts.record(HOST, one).unwrap();
    assert_eq!(fs::read_to_string(hosts.path()).unwrap(), want);
}

#[test]
fn recording_replaces_every_spelling_of_the_host() {
    let (one, nine) = (fingerprint(1), fingerprint(9));
    for (said, line) in [
        ("Server.:0443", "server:443"),
        ("MÜNCHEN.example:9", "xn--mnchen-3ya.example:9"),
        ("[2001:DB8:0::1]:9", "[2001:db8::1]:9"),
        ("[::ffff:192.0.2.1]:9", "192.0.2.1:9"),
    ] {
        let before = format!("\u{feff}{line} {nine}\nother:1 {nine}\n{said} {nine}\n");
        let (_dir, hosts) = hosts(before.as_bytes());
        hosts.record(said, one).unwrap();
        let after = fs::read_to_string(hosts.path()).unwrap();
        assert_eq!(after, format!("other:1 {nine}\n{line} {one}\n"));
    }
}

#[test]
fn a_key_that_was_recorded_meanwhile_is_not_replaced() {
    let (one, two, nine) = (fingerprint(1), fingerprint(2), fingerprint(9));
    let seen = Some(KnownKey::Fingerprint(nine));
    for (now, seen, replaced) in [
        ("", None, true),
        // The line was removed meanwhile: nothing is lost.
        ("", seen, true),
        (&*format!("{HOST} {nine}\n"), seen, true),
        (&*format!("{HOST} {nine},{one}\n"), None, true),
        (&*format!("SERVER:443 {two}\n"), None, false),
        (&*format!("{HOST} {two}\n"), seen, false),
    ] {
        let (_dir, hosts) = hosts(now.as_bytes());
        let recorded = hosts.record_over(HOST, seen, one);
        assert_eq!(recorded.is_ok(), replaced, "{now:?} {seen:?}: {recorded:?}");
        let after = fs::read_to_string(hosts.path()).unwrap();
        assert_eq!(after, if replaced { format!("{HOST} {one}\n") } else { now.to_owned() });
    }
    // Another process has recorded the same: what else it knows stays.
    let both = format!("{HOST} {one},{two}\n");
    let (_dir, hosts) = hosts(both.as_bytes());
    hosts.record_over(HOST, None, one).unwrap();
    assert_eq!(fs::read_to_string(hosts.path()).unwrap(), both);
}

#[test]
fn the_first_record_makes_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = KnownHosts::new(dir.path().join("new/known_hosts"));
    assert_eq!(hosts.check(HOST, &PEER).unwrap(), Verdict::Unknown);
    assert!(!hosts.path().exists(), "asking makes nothing");
    hosts.record(HOST, fingerprint(1)).unwrap();
    let mode = fs::metadata(hosts.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(hosts.check(HOST, &PEER).unwrap(), Verdict::Known);
}

#[test]
fn a_host_that_would_forge_lines_is_refused() {
    let (_dir, hosts) = hosts(b"");
    for bad in ["", "a b", "a\nb:1", "a\r", "\tx", "#a", "a\u{85}b", "\u{feff}", "\u{feff}a:1"] {
        let error = hosts.record(bad, fingerprint(1)).unwrap_err();
        assert!(matches!(error, TrustError::InvalidHost(_)), "{bad:?}: {error}");
    }
    assert_eq!(fs::read(hosts.path()).unwrap(), b"");
}

#[test]
fn what_cannot_be_read_is_not_taken_for_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known_hosts");
    fs::create_dir(&path).unwrap();
    let hosts = KnownHosts::new(&path);
    for error in
        [hosts.check(HOST, &PEER).unwrap_err(), hosts.record(HOST, fingerprint(1)).unwrap_err()]
    {
        assert!(matches!(error, TrustError::File { action: "read", .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_linked_file_stays_linked() {
    let (dir, real) = hosts(b"# kept elsewhere\n");
    let link = dir.path().join("link");
    symlink(real.path(), &link).unwrap();
    let linked = KnownHosts::new(&link);
    linked.record(HOST, fingerprint(1)).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(real.check(HOST, &PEER).unwrap(), Verdict::Known);
}

#[test]
fn writers_at_once_lose_nothing() {
    let (_dir, hosts) = hosts(b"# many\n");
    write_at_once(&hosts);
}

fn write_at_once(hosts: &KnownHosts) {
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for host in 0..10 {
                    hosts.record(&format!("{thread}-{host}:1"), fingerprint(thread)).unwrap();
                }
            });
        }
        // A reader meanwhile sees whole files only.
        for _ in 0..50 {
            assert_eq!(hosts.malformed().unwrap(), vec![]);
        }
    });
    for thread in 0..4 {
        for host in 0..10 {
            let known = hosts.lookup(&format!("{thread}-{host}:1")).unwrap();
            assert_eq!(known, Some(KnownKey::Fingerprint(fingerprint(thread))));
        }
    }
}

const SHARED_FILE: &str = "IMUX_TEST_KNOWN_HOSTS";

/// The other process of [`processes_at_once_lose_nothing`]; on its own it does nothing.
#[test]
fn another_process() {
    let Some(path) = std::env::var_os(SHARED_FILE) else { return };
    let hosts = KnownHosts::new(PathBuf::from(path));
    for host in 0..40 {
        hosts.record(&format!("process-{}-{host}:1", std::process::id()), fingerprint(7)).unwrap();
    }
}

#[test]
fn processes_at_once_lose_nothing() {
    let (_dir, hosts) = hosts(b"# shared\n");
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "trust::known_hosts::tests::another_process"])
                .env(SHARED_FILE, hosts.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    write_at_once(&hosts);
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let text = fs::read_to_string(hosts.path()).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("process-")).count(), 2 * 40);
    assert_eq!(text.lines().count(), 1 + 40 + 2 * 40);
}

/// Writers are killed mid-work again and again: the file is always whole, keeps its contents, and
/// is never left locked.
#[test]
fn a_killed_writer_leaves_the_known_hosts_whole() {
    let (_dir, hosts) = hosts(format!("{HOST} {}\n", fingerprint(1)).as_bytes());
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "trust::known_hosts::tests::another_process"])
            .env(SHARED_FILE, hosts.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let before = fs::metadata(hosts.path()).unwrap().len();
        // Killed once it is at work, at a different moment each time.
        while fs::metadata(hosts.path()).unwrap().len() == before
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        std::thread::sleep(std::time::Duration::from_micros(311 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(hosts.malformed().unwrap(), vec![]);
        assert_eq!(hosts.check(HOST, &PEER).unwrap(), Verdict::Known);
        hosts.record(&format!("after-{round}:1"), fingerprint(2)).unwrap();
    }
}

#[test]
fn a_next_key_is_known_beside_the_other_until_it_is_shown() {
    let (_dir, hosts) =
        hosts(format!("{HOST} {}\nother {}\n", fingerprint(1), fingerprint(1)).as_bytes());
    let peer = |byte| PeerIdentity { fingerprint: fingerprint(byte), certificate_signature: None };
    assert!(!hosts.record_next(HOST, fingerprint(9), fingerprint(2)).unwrap(), "not its key");
    assert!(!hosts.record_next("nobody", fingerprint(1), fingerprint(2)).unwrap());
    assert_eq!(
        hosts.check(HOST, &peer(2)).unwrap(),
        Verdict::Changed { old: KnownKey::Fingerprint(fingerprint(1)) }
    );
    assert!(hosts.record_next(HOST, fingerprint(1), fingerprint(2)).unwrap());
    assert_eq!(hosts.malformed().unwrap(), vec![]);
    assert_eq!(hosts.check(HOST, &peer(1)).unwrap(), Verdict::Known);
    assert_eq!(hosts.check(HOST, &peer(2)).unwrap(), Verdict::KnownAsNext);
    assert_eq!(
        hosts.check(HOST, &peer(3)).unwrap(),
        Verdict::Changed { old: KnownKey::Fingerprint(fingerprint(1)) }
    );
    assert_eq!(
        hosts.check("other", &peer(2)).unwrap(),
        Verdict::Changed { old: KnownKey::Fingerprint(fingerprint(1)) }
    );
    hosts.record(HOST, fingerprint(2)).unwrap();
    assert_eq!(
        hosts.check(HOST, &peer(1)).unwrap(),
        Verdict::Changed { old: KnownKey::Fingerprint(fingerprint(2)) }
    );
    for line in [
        format!("{},", fingerprint(1)),
        format!(",{}", fingerprint(1)),
        format!("{0},{0},{0}", fingerprint(1)),
        format!("{},{}", fingerprint(1), hex_encode(&[2; 32])),
    ] {
        fs::write(hosts.path(), format!("{HOST} {line}\n")).unwrap();
        assert!(hosts.check(HOST, &peer(1)).is_err(), "{line}");
    }
}
