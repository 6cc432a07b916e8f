use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

fn key(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn client(byte: u8) -> AuthorizedClient {
    AuthorizedClient { key: key(byte), grant: Grant::default(), comment: String::new() }
}

fn file(text: &[u8]) -> (TempDir, AuthorizedClients) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorized_clients");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (dir, AuthorizedClients::new(path))
}

fn text(file: &AuthorizedClients) -> String {
    fs::read_to_string(file.path()).unwrap()
}

fn hour() -> SystemTime {
    now() + Duration::from_secs(3600)
}

#[test]
fn lines_and_what_they_grant() {
    let (one, two, three) = (key(1), key(2), key(3));
    let (_dir, file) = file(
        format!(
            "# who may connect\n\n{one}\n\
             dial=\"db.example:5432\",dial=*:443,max-streams=4 {two} anna's laptop, blue\r\n  \
             expires=\"2999-01-02T03:04:05Z\"\t{three}\n"
        )
        .as_bytes(),
    );
    let clients = file.clients().unwrap().unwrap();
    assert_eq!(clients.iter().map(|client| client.key).collect::<Vec<_>>(), [one, two, three]);
    assert_eq!(clients[0].grant, Grant::default());
    let rules: Vec<_> = clients[1].grant.destinations.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["db.example:5432", "*:443"]);
    assert_eq!(clients[1].grant.streams_max, Some(4));
    assert_eq!(clients[1].comment, "anna's laptop, blue");
    assert!(!clients[2].grant.is_over(now()));
    assert!(clients[2].grant.is_over(SystemTime::UNIX_EPOCH + Duration::from_secs(32_474_743_446)));
}

#[test]
fn a_line_that_cannot_be_read_spoils_the_file_and_is_named() {
    let (one, two) = (key(1), key(2));
    for (line, reason) in [
        ("rubbish".to_owned(), "neither a key nor an option"),
        (one.to_string()[7..].to_owned(), "neither a key nor an option"),
        ("SHA256:short".to_owned(), "neither a key nor an option"),
        (format!("ssh-ed25519 {one}"), "neither a key nor an option"),
        (format!("dial=\"a:1\" {}", "00".repeat(32)), "where a key SHA256:"),
        (format!("dial=\"a:1\", {one}"), "neither a key nor an option"),
        (format!("dial=\"a:1\"{one}"), "no key follows"),
        (format!("dial=\"a:1 {one}"), "a quote is not closed"),
        ("dial=\"a:1\"".to_owned(), "no key follows"),
        (format!("dial= {one}"), "dial: \"\" has no port"),
        (format!("dial=a {one}"), "dial: \"a\" has no port"),
        (format!("Dial=a:1 {one}"), "there is no option \"Dial\""),
        (format!("no-pty {one}"), "neither a key nor an option"),
        (format!("command=\"x\" {one}"), "there is no option"),
        (format!("listen=8080 {one}"), "listen: \"8080\" has no port"),
        (format!("listen=db.example:80 {one}"), "listen: \"db.example:80\" names a host"),
        (format!("trust-source=yes {one}"), "stands without a value"),
        (format!("trust-source,trust-source {one}"), "twice"),
        (format!("max-streams=0 {one}"), "max-streams"),
        (format!("max-streams=+1 {one}"), "max-streams"),
        (format!("max-streams=4294967296 {one}"), "max-streams"),
        (format!("max-streams=1,max-streams=2 {one}"), "twice"),
        (format!("expires=tomorrow {one}"), "expires"),
        (format!("expires=\"1969-01-01T00:00:00Z\" {one}"), "expires"),
        (format!("INVITATION:{}", &one.to_string()[7..]), "an invitation needs"),
        ("INVITATION:short".to_owned(), "neither a key nor an option"),
        (format!("{two} again"), "line 1 is about the same key"),
        ("\u{1b}[2J".to_owned(), "\\u{1b}"),
    ] {
        let (_dir, file) = file(format!("{two}\n{line}\n").as_bytes());
        let error = file.clients().unwrap_err().to_string();
        let place = format!("{}, line 2: ", file.path().display());
        assert!(error.starts_with(&place) && error.contains(reason), "{line:?}: {error}");
        assert!(!error.contains('\u{1b}') && error.len() < 500, "{error}");
        // And nothing makes it worse.
        let before = text(&file);
        assert!(file.authorize(&client(3)).is_err());
        assert!(file.revoke(two).is_err());
        assert!(file.invite(Grant::default(), hour(), "").is_err());
        assert_eq!(text(&file), before);
    }
    let (_dir, file) = file(b"SHA256:\xff\xfe\n");
    assert!(file.clients().is_err(), "bytes that are no text were taken");
}

#[test]
fn a_file_that_others_may_write_is_not_used() {
    let (_dir, file) = file(key(1).to_string().as_bytes());
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = file.clients().unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
    }
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(file.clients().unwrap().unwrap().len(), 1);
}

#[test]
fn to_authorize_replaces_and_to_revoke_removes_and_other_lines_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = AuthorizedClients::new(dir.path().join("home/authorized_clients"));
    assert_eq!(file.clients().unwrap(), None);
    assert!(!file.revoke(key(1)).unwrap());
    assert!(!file.path().exists(), "a file that lists nobody keeps everybody out");
    assert!(!file.authorize(&client(1)).unwrap());
    assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(file.path(), format!("# mine\n  {}   Anna   \n", key(1))).unwrap();
    let grant = Grant {
        destinations: vec!["db:1".parse().unwrap(), "[::1]:*".parse().unwrap()],
        listen: vec!["0.0.0.0:8080".parse().unwrap(), "localhost:*".parse().unwrap()],
        streams_max: Some(7),
        expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_680_000)),
        tell_source: Some(crate::trust::ProxyHeader::V1),
        trust_source: true,
    };
    let second = AuthorizedClient { key: key(2), grant, comment: " Bert's  ".to_owned() };
    assert!(!file.authorize(&second).unwrap());
    assert_eq!(
        text(&file),
        format!(
            "# mine\n  {}   Anna   \ndial=\"db:1\",dial=\"[::1]:*\",listen=\"0.0.0.0:8080\",\
             listen=\"localhost:*\",max-streams=7,expires=\"3000-01-01T00:00:00Z\",proxy-protocol=v1,trust-source {} Bert's\n",
            key(1),
            key(2)
        )
    );
    let read = file.clients().unwrap().unwrap();
    assert_eq!(read[1], AuthorizedClient { comment: "Bert's".to_owned(), ..second });
    assert!(file.authorize(&client(2)).unwrap());
    assert_eq!(text(&file), format!("# mine\n  {}   Anna   \n{}\n", key(1), key(2)));
    assert!(file.revoke(key(1)).unwrap());
    assert!(!file.revoke(key(1)).unwrap());
    assert!(file.revoke(key(2)).unwrap());
    assert_eq!(text(&file), "# mine\n");
    assert_eq!(file.clients().unwrap(), Some(Vec::new()));
}

#[test]
fn a_comment_cannot_become_a_line() {
    let (_dir, file) = file(b"");
    for comment in [format!("x\n{}", key(9)), "x\r".repeat(2), "a\u{1b}b".into(), "x".repeat(201)] {
        let guest = AuthorizedClient { comment: comment.clone(), ..client(1) };
        assert!(file.authorize(&guest).is_err(), "{comment:?}");
        assert!(file.invite(Grant::default(), hour(), &comment).is_err(), "{comment:?}");
    }
    assert_eq!(text(&file), "");
}

#[test]
fn an_invitation_is_good_once() {
    let (_dir, file) = file(format!("{} old\n", key(1)).as_bytes());
    let grant = Grant { streams_max: Some(3), ..Grant::default() };
    let secret = file.invite(grant.clone(), hour(), "Anna").unwrap();
    let other = file.invite(Grant::default(), hour(), "Bert").unwrap();
    assert_eq!(file.clients().unwrap().unwrap().len(), 1, "an invitation is no client");
    assert!(!file.redeem(&InvitationSecret::from_bytes([7; 32]), key(2)).unwrap());
    assert!(file.redeem(&secret, key(2)).unwrap());
    assert!(!file.redeem(&secret, key(3)).unwrap(), "it was accepted twice");
    let clients = file.clients().unwrap().unwrap();
    let anna = AuthorizedClient { key: key(2), grant, comment: "Anna".to_owned() };
    assert_eq!(clients[1..], [anna]);
    // A client already listed gets what the invitation grants, and one line.
    assert!(file.redeem(&other, key(1)).unwrap());
    let clients = file.clients().unwrap().unwrap();
    assert_eq!(clients.len(), 2);
    assert_eq!((clients[1].key, clients[1].comment.as_str()), (key(1), "Bert"));
}

#[test]
fn an_invitation_ends_at_its_time_and_goes_with_the_next_change() {
    let (_dir, file) = file(b"");
    let secret = file.invite(Grant::default(), now() - Duration::from_secs(1), "").unwrap();
    assert!(text(&file).contains("INVITATION:"));
    assert!(!file.redeem(&secret, key(1)).unwrap());
    file.authorize(&client(1)).unwrap();
    assert_eq!(text(&file), format!("{}\n", key(1)));
}

#[test]
fn the_file_holds_no_secret() {
    let (_dir, file) = file(b"");
    let secret = file.invite(Grant::default(), hour(), "").unwrap();
    let server = crate::trust::Invitation::new("server:1", key(1), secret.clone()).unwrap();
    let shown = server.to_text();
    let shown = shown.rsplit('/').next().unwrap();
    let written = text(&file).replace('+', "-").replace('/', "_");
    assert_eq!(shown.len(), 43);
    assert!(!written.contains(shown));
    assert!(!format!("{:?}", file.parse(&file.read().unwrap().unwrap()).unwrap()).contains(shown));
}

/// Of many processes that accept one invitation at once, one succeeds.
#[test]
fn racing_clients_win_once() {
    if let Ok(path) = std::env::var("IMUX_TEST_REDEEM") {
        let (path, rest) = path.split_once('|').unwrap();
        let (secret, number) = rest.split_once('|').unwrap();
        let secret: crate::trust::Invitation = secret.parse().unwrap();
        let file = AuthorizedClients::new(path);
        let won = file.redeem(secret.secret(), key(number.parse().unwrap())).unwrap();
        assert_eq!(won, file.clients().unwrap().unwrap()[0].key == key(number.parse().unwrap()));
        return;
    }
    let (_dir, file) = file(b"");
    let secret = file.invite(Grant::default(), hour(), "").unwrap();
    let text = crate::trust::Invitation::new("server:1", key(0), secret).unwrap().to_text();
    let children: Vec<_> = (1..=8)
        .map(|number| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "trust::authorized_clients::tests::racing_clients_win_once"])
                .env("IMUX_TEST_REDEEM", format!("{}|{}|{number}", file.path().display(), *text))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(file.clients().unwrap().unwrap().len(), 1);
}

/// Writers are killed mid-work again and again: the file is always whole, and keeps its contents.
#[test]
fn a_killed_writer_leaves_a_whole_file() {
    const NAME: &str = "trust::authorized_clients::tests::a_killed_writer_leaves_a_whole_file";
    if let Ok(path) = std::env::var("IMUX_TEST_WRITER") {
        let file = AuthorizedClients::new(path);
        // It is killed long before this finishes, but it must end even if the test has failed.
        for byte in (1..=200).cycle().take(4000) {
            file.authorize(&client(byte)).unwrap();
            file.revoke(key(byte.saturating_sub(3).max(1))).unwrap();
        }
        return;
    }
    let first = format!("max-streams=9 {} the first\n", key(0));
    let (_dir, file) = file(first.as_bytes());
    for round in 0..12_u64 {
        // Two at a time, so that one may die holding the lock.
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", NAME]).env("IMUX_TEST_WRITER", file.path());
                command.stdout(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        for step in 0..10 {
            std::thread::sleep(Duration::from_millis(3 + (round * 7 + step * 3) % 11));
            let clients = file.clients().unwrap().unwrap();
            assert_eq!(clients[0].comment, "the first");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let clients = file.clients().unwrap().unwrap();
        assert_eq!((clients[0].key, clients[0].grant.streams_max), (key(0), Some(9)));
    }
    assert!(file.clients().unwrap().unwrap().len() > 1, "no writer got to its work");
    assert!(!file.authorize(&client(250)).unwrap(), "the lock or the temporary file is in the way");
}
