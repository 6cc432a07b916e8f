use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::trust::AuthorizedClient;

fn key(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn empty() -> (TempDir, AuthorizedClients) {
    let dir = tempfile::tempdir().unwrap();
    let file = AuthorizedClients::new(dir.path().join("authorized_clients"));
    (dir, file)
}

fn write(file: &AuthorizedClients, text: &str) {
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
}

async fn admits(trust: &AuthorizedClientsTrust, client: Option<Fingerprint>) -> bool {
    trust.admit(client, None).await.is_some()
}

#[tokio::test]
async fn without_a_file_anybody_and_with_it_those_who_are_listed() {
    let (_dir, file) = empty();
    let trust = AuthorizedClientsTrust::open(file.clone()).unwrap();
    assert!(!trust.is_restricted());
    assert!(admits(&trust, None).await && admits(&trust, Some(key(1))).await);
    assert!(trust.permit(None).unwrap().destinations().is_none());

    // The change is noticed when the next client arrives.
    write(&file, &format!("dial=db:1 {}\n", key(1)));
    assert!(!admits(&trust, None).await && !admits(&trust, Some(key(2))).await);
    assert!(trust.is_restricted());
    assert!(admits(&trust, Some(key(1))).await);
    assert_eq!(trust.permit(Some(key(1))).unwrap().destinations().unwrap().rules().len(), 1);
    assert!(trust.permit(Some(key(2))).is_none() && trust.permit(None).is_none());

    // A client that is added need not wait.
    file.authorize(&AuthorizedClient {
        key: key(2),
        grant: Grant::default(),
        comment: String::new(),
    })
    .unwrap();
    assert!(trust.permit(Some(key(2))).is_none());
    assert!(admits(&trust, Some(key(2))).await);
    // A client that is removed is gone at the next look, for new and existing sessions alike.
    file.revoke(key(1)).unwrap();
    assert!(!admits(&trust, Some(key(1))).await && trust.permit(Some(key(1))).is_none());
    file.revoke(key(2)).unwrap();
    assert!(trust.permit(Some(key(2))).is_some(), "nobody has looked");
    trust.notice_changes().await;
    assert!(trust.permit(Some(key(2))).is_none());
}

/// Same length, same second, in place or renamed over.
#[tokio::test]
async fn every_change_of_the_file_is_noticed() {
    let (dir, file) = empty();
    write(&file, &format!("{}\n", key(1)));
    let trust = AuthorizedClientsTrust::open(file.clone()).unwrap();
    for round in 0..40_u8 {
        let (now, before) = (key(2 + round % 2), key(2 + (round + 1) % 2));
        if round % 4 < 2 {
            write(&file, &format!("{now}\n"));
        } else {
            let aside = AuthorizedClients::new(dir.path().join("aside"));
            write(&aside, &format!("{now}\n"));
            fs::rename(aside.path(), file.path()).unwrap();
        }
        assert!(admits(&trust, Some(now)).await, "{round}");
        assert!(!admits(&trust, Some(before)).await, "{round}");
    }
    // The modification time was set back afterwards.
    let old = fs::metadata(file.path()).unwrap().modified().unwrap();
    write(&file, &format!("{}\n", key(9)));
    fs::File::open(file.path()).unwrap().set_modified(old).unwrap();
    assert!(admits(&trust, Some(key(9))).await);
}

#[tokio::test]
async fn a_list_that_was_there_is_remembered() {
    let (dir, file) = empty();
    let mark = dir.path().join("mark");
    let open = |anyone| AuthorizedClientsTrust::open_marked(file.clone(), &mark, anyone);
    let gone = |opened: Result<_, TrustError>| matches!(opened, Err(TrustError::AuthorizedClientsGone(path)) if path == file.path());
    let trust = open(false).unwrap();
    assert!(admits(&trust, None).await && !mark.exists());
    // The list appears while the server runs.
    write(&file, "");
    trust.notice_changes().await;
    assert!(!admits(&trust, None).await && mark.exists());
    fs::remove_file(file.path()).unwrap();
    trust.notice_changes().await;
    assert!(!admits(&trust, None).await);
    assert!(gone(open(false)) && admits(&open(true).unwrap(), None).await);
    assert!(gone(open(false)), "the word was good for more than once");
    // A dangling link was meant to lead to a list, also for a server that never had one.
    std::os::unix::fs::symlink(dir.path().join("nowhere"), file.path()).unwrap();
    assert!(open(true).is_err() && open(false).is_err());
    fs::remove_file(&mark).unwrap();
    assert!(open(false).is_err());
    write(&AuthorizedClients::new(dir.path().join("nowhere")), "");
    assert!(!admits(&open(true).unwrap(), None).await);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_changes_nothing() {
    let (_dir, file) = empty();
    write(&file, "rubbish");
    assert!(AuthorizedClientsTrust::open(file.clone()).is_err(), "half a list was used");
    write(&file, &key(1).to_string());
    let trust = AuthorizedClientsTrust::open(file.clone()).unwrap();
    let same = async || {
        assert!(admits(&trust, Some(key(1))).await, "the known client was lost");
        assert!(!admits(&trust, Some(key(2))).await && !admits(&trust, None).await);
    };
    write(&file, &format!("{}\nrubbish", key(2)));
    assert!(trust.reload().is_err());
    same().await;
    write(&file, &format!("{}\n", key(2)));
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(trust.reload().is_err());
    same().await;
    fs::remove_file(file.path()).unwrap();
    let error = trust.reload().unwrap_err();
    assert!(matches!(error, TrustError::AuthorizedClientsGone(_)), "{error}");
    same().await;
    // An empty file is a list of nobody.
    write(&file, "");
    assert_eq!(trust.reload().unwrap(), Some(0));
    assert!(!admits(&trust, Some(key(1))).await);
}

#[tokio::test]
async fn an_invitation_lets_its_first_bearer_in() {
    let (_dir, file) = empty();
    write(&file, "");
    let trust = AuthorizedClientsTrust::open(file.clone()).unwrap();
    let hour = authorized_clients::now() + Duration::from_secs(3600);
    let grant = Grant { streams_max: Some(1), ..Grant::default() };
    let secret = file.invite(grant, hour, "").unwrap();
    let wrong = InvitationSecret::from_bytes([0; 32]);
    assert!(trust.admit(Some(key(1)), Some(&wrong)).await.is_none());
    // Without a key there is nobody to authorise, and the invitation stays valid.
    assert!(trust.admit(None, Some(&secret)).await.is_none());
    let permit = trust.admit(Some(key(1)), Some(&secret)).await.unwrap();
    let _place = permit.enter().unwrap();
    assert!(permit.enter().is_none());
    assert!(trust.admit(Some(key(2)), Some(&secret)).await.is_none(), "it was good twice");
    // If the answer was lost on its way, asking again gives yes again.
    assert!(trust.admit(Some(key(1)), Some(&secret)).await.is_some());
}

#[tokio::test]
async fn time_ends_a_permit() {
    let (_dir, file) = empty();
    write(&file, &format!("expires=\"2001-01-01T00:00:00Z\" {}", key(1)));
    let trust = AuthorizedClientsTrust::open(file).unwrap();
    assert!(!admits(&trust, Some(key(1))).await && trust.permit(Some(key(1))).is_none());
}

#[test]
fn streams_are_counted_over_all_clones_and_readings() {
    let (_dir, file) = empty();
    write(&file, &format!("max-streams=2 {}", key(1)));
    let trust = AuthorizedClientsTrust::open(file.clone()).unwrap();
    let permit = || trust.permit(Some(key(1))).unwrap();
    let (first, second) = (permit().enter().unwrap(), permit().enter().unwrap());
    assert!(permit().enter().is_none());
    trust.reload().unwrap();
    assert!(permit().enter().is_none(), "reading the file again has forgotten them");
    drop(first);
    let third = permit().enter().unwrap();
    assert!(permit().enter().is_none());
    write(&file, &format!("max-streams=3 {}", key(1)));
    trust.reload().unwrap();
    let fourth = permit().enter().unwrap();
    assert!(permit().enter().is_none());
    drop((second, third, fourth));
    assert!(Permit::fixed_destination().enter().is_some());
}
