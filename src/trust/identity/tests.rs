use std::os::unix::fs::symlink;
use std::sync::Barrier;

use tempfile::TempDir;

use super::*;
use crate::trust::{client_config, server_config};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory with an identity of the original imux for a server at 0.0.0.0:443.
fn legacy_home() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let crt = include_str!("../../../tests/fixtures/legacy/legacy.crt");
    let key = include_str!("../../../tests/fixtures/legacy/legacy.key");
    fs::write(dir.path().join("0.0.0.0:443.crt"), crt).unwrap();
    let path = dir.path().join("0.0.0.0:443.key");
    fs::write(&path, key).unwrap();
    set_mode(&path, 0o600);
    dir
}

#[test]
fn is_made_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home/.imux");
    let first = Identity::load_or_create(&home, "client").unwrap();
    let second = Identity::load_or_create(&home, "client").unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    let other = Identity::load_or_create(&home, "other").unwrap();
    assert_ne!(first.fingerprint(), other.fingerprint());
    assert_eq!(mode(&home), 0o700);
    assert_eq!(mode(&home.join("client.key")), 0o600);
    assert_eq!(mode(&home.join("client.crt")), 0o600);
    client_config(&second).unwrap();
    server_config(&second).unwrap();
}

#[test]
fn is_made_once_by_many_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let barrier = Barrier::new(8);
    let all: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            Identity::load_or_create(dir.path(), "0.0.0.0:443").unwrap().fingerprint()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
}

#[test]
fn takes_what_the_original_wrote() {
    let home = legacy_home();
    let identity = Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap();
    let known = "SHA256:dwC5/gMXJXZ88XGNk1whj9PjktSkPcaOujFz80KAoQo";
    assert_eq!(identity.fingerprint().to_string(), known);
    server_config(&identity).unwrap();
    // A server's, not a client's.
    let refused = client_config(&identity).unwrap_err();
    assert!(matches!(refused, TrustError::ClientKey(key) if key.to_string() == known), "{refused}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let home = legacy_home();
    let key = home.path().join("0.0.0.0:443.key");
    for loose in [0o644, 0o640, 0o604, 0o620, 0o602, 0o666] {
        set_mode(&key, loose);
        let error = Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap_err();
        let TrustError::LoosePermissions { path, mode } = &error else { panic!("{error}") };
        assert_eq!((path, *mode), (&key, loose));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    for tight in [0o600, 0o400] {
        set_mode(&key, tight);
        Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap();
    }
    // Through a link, the file's permissions count.
    let link = home.path().join("linked.key");
    symlink(&key, &link).unwrap();
    fs::copy(home.path().join("0.0.0.0:443.crt"), home.path().join("linked.crt")).unwrap();
    Identity::load_or_create(home.path(), "linked").unwrap();
    set_mode(&key, 0o644);
    let error = Identity::load_or_create(home.path(), "linked").unwrap_err();
    assert!(matches!(error, TrustError::LoosePermissions { .. }), "{error}");
}

#[test]
fn a_missing_half_is_not_made_up() {
    for missing in ["0.0.0.0:443.crt", "0.0.0.0:443.key"] {
        let home = legacy_home();
        fs::remove_file(home.path().join(missing)).unwrap();
        let error = Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap_err();
        assert!(matches!(error, TrustError::HalfIdentity { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
        assert!(!home.path().join(missing).exists());
    }
}

#[test]
fn a_crash_between_the_two_files_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let first = Identity::load_or_create(dir.path(), "server").unwrap();
    fs::remove_file(dir.path().join("server.crt")).unwrap();
    fs::write(dir.path().join("server.crt.tmp"), "-----BEGIN CERTI").unwrap();
    let again = Identity::load_or_create(dir.path(), "server").unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert!(!dir.path().join("server.crt.tmp").exists());

    // And before the first file was complete.
    fs::write(dir.path().join("new.key.tmp"), "-----BEGIN PRIV").unwrap();
    Identity::load_or_create(dir.path(), "new").unwrap();
    assert!(!dir.path().join("new.key.tmp").exists());
}

#[test]
fn files_that_hold_something_else_are_told() {
    let cases: [(&str, &[u8], &str); 6] = [
        ("crt", b"", "certificate"),
        ("crt", b"not PEM at all", "certificate"),
        ("crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate"),
        ("key", b"", "private key"),
        ("key", b"\xff\xfe\x00", "private key"),
        ("key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "private key"),
    ];
    for (extension, contents, what) in cases {
        let home = legacy_home();
        let path = home.path().join(format!("0.0.0.0:443.{extension}"));
        fs::write(&path, contents).unwrap();
        let error = Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TrustError::InvalidIdentity { .. }), "{text}");
        assert!(text.contains(what) && text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(fs::read(&path).unwrap(), contents, "left as it was");
    }
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let home = legacy_home();
    Identity::load_or_create(home.path(), "other").unwrap();
    fs::copy(home.path().join("other.key"), home.path().join("0.0.0.0:443.key")).unwrap();
    let error = Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap_err();
    assert!(matches!(error, TrustError::InvalidIdentity { what: "private key", .. }), "{error}");
}

#[test]
fn what_cannot_be_read_or_made_is_told() {
    let home = legacy_home();
    // A directory in the file's place: unreadable whoever runs the test.
    let key = home.path().join("0.0.0.0:443.key");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    let error = Identity::load_or_create(home.path(), "0.0.0.0:443").unwrap_err();
    assert!(matches!(error, TrustError::File { action: "read", .. }), "{error}");
    // A file in the directory's place.
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Identity::load_or_create(&file, "client").unwrap_err();
    assert!(matches!(error, TrustError::File { .. }), "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn a_name_stays_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "a/b", "../x", "/etc/x", "nul\0"] {
        let error = Identity::load_or_create(dir.path(), bad).unwrap_err();
        assert!(matches!(error, TrustError::InvalidName(_)), "{bad:?}: {error}");
    }
    Identity::load_or_create(dir.path(), "[::]:443").unwrap();
}

#[test]
fn debug_shows_no_key() {
    let identity = Identity::generate().unwrap();
    let text = format!("{identity:?}");
    assert_eq!(text, format!("Identity {{ fingerprint: {}, .. }}", identity.fingerprint()));
}

#[test]
fn the_next_key_takes_the_place_of_the_other() {
    let home = tempfile::tempdir().unwrap();
    let (home, name) = (home.path(), "server:443");
    let old = Identity::load_or_create(home, name).unwrap().fingerprint();
    assert!(Identity::load_next(home, name).unwrap().is_none());
    assert!(Identity::change_to_next(home, name).unwrap().is_none());
    assert_eq!(Identity::load_or_create(home, name).unwrap().fingerprint(), old);
    let next = Identity::prepare_next(home, name).unwrap().fingerprint();
    assert_ne!(next, old);
    assert_eq!(Identity::prepare_next(home, name).unwrap().fingerprint(), next);
    assert_eq!(Identity::load_next(home, name).unwrap().unwrap().fingerprint(), next);
    assert_eq!(Identity::load_or_create(home, name).unwrap().fingerprint(), old);
    // Interrupted after it removed the certificates.
    fs::remove_file(home.join("server:443.crt")).unwrap();
    fs::remove_file(home.join("server:443.next.crt")).unwrap();
    assert_eq!(Identity::load_or_create(home, name).unwrap().fingerprint(), old);
    let now = Identity::change_to_next(home, name).unwrap().unwrap();
    assert_eq!(now.fingerprint(), next);
    assert_eq!(Identity::load_or_create(home, name).unwrap().fingerprint(), next);
    assert!(Identity::load_next(home, name).unwrap().is_none());
}
