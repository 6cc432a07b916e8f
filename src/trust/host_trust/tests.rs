use std::fs;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;

const HOST: &str = "server:443";
const PEER: PeerIdentity = PeerIdentity {
    fingerprint: Fingerprint::from_bytes([1; 32]),
    certificate_signature: Some([2; 32]),
};
const OTHER: Fingerprint = Fingerprint::from_bytes([9; 32]);

/// Gives its answer and remembers the questions.
struct Person {
    answer: io::Result<Answer>,
    asked: Mutex<Vec<String>>,
}

impl Person {
    fn new(answer: io::Result<Answer>) -> Arc<Self> {
        Arc::new(Self { answer, asked: Mutex::default() })
    }

    fn answer(&self, question: String) -> io::Result<Answer> {
        self.asked.lock().unwrap().push(question);
        match &self.answer {
            Ok(answer) => Ok(*answer),
            Err(error) => Err(error.kind().into()),
        }
    }
}

#[async_trait]
impl Prompter for Person {
    async fn unknown_host(&self, host: &str, peer: &PeerIdentity) -> io::Result<Answer> {
        self.answer(format!("unknown {host} {}", peer.fingerprint))
    }

    async fn changed_host(
        &self,
        host: &str,
        old: &KnownKey,
        peer: &PeerIdentity,
    ) -> io::Result<Answer> {
        self.answer(format!("changed {host} {old} {}", peer.fingerprint))
    }
}

/// Trust in HOST, with a file of these contents; and the file.
fn trust(
    contents: &str,
    policy: HostKeyPolicy,
    person: Option<Arc<Person>>,
) -> (TempDir, KnownHosts, KnownHostsTrust) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known_hosts");
    fs::write(&path, contents).unwrap();
    let hosts = KnownHosts::new(path);
    let prompter = person.map(|person| person as Arc<dyn Prompter>);
    let trust = KnownHostsTrust::new(hosts.clone(), HOST, policy, prompter);
    (dir, hosts, trust)
}

fn known(fingerprint: Fingerprint) -> String {
    format!("{HOST} {fingerprint}\n")
}

const POLICIES: [HostKeyPolicy; 3] =
    [HostKeyPolicy::Ask, HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew];

#[tokio::test]
async fn pins_take_their_keys_only() {
    let pins = PinnedKeys::new([OTHER, PEER.fingerprint]);
    pins.decide(&PEER).await.unwrap();
    for pins in [PinnedKeys::new([OTHER]), PinnedKeys::new([])] {
        let error = pins.decide(&PEER).await.unwrap_err();
        assert!(matches!(error, TrustError::PinMismatch { .. }), "{error}");
        assert!(error.to_string().contains(&PEER.fingerprint.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_known_host_is_trusted_without_a_word() {
    for policy in POLICIES {
        let person = Person::new(Ok(Answer::Abort));
        let (_dir, _, trust) = trust(&known(PEER.fingerprint), policy, Some(person.clone()));
        trust.decide(&PEER).await.unwrap();
        assert!(person.asked.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_host_known_the_old_way_is_recorded_the_new_way() {
    let old = format!("# mine\n{HOST} {}\n", "02".repeat(32));
    let (_dir, hosts, trust) = trust(&old, HostKeyPolicy::Strict, None);
    trust.decide(&PEER).await.unwrap();
    let text = fs::read_to_string(hosts.path()).unwrap();
    assert_eq!(text, format!("# mine\n{}", known(PEER.fingerprint)));
}

#[tokio::test]
async fn an_unknown_host_is_refused_where_nobody_can_be_asked() {
    for policy in [HostKeyPolicy::Ask, HostKeyPolicy::Strict] {
        let (_dir, hosts, trust) = trust("", policy, None);
        let error = trust.decide(&PEER).await.unwrap_err();
        assert!(matches!(error, TrustError::UnknownHost { .. }), "{error}");
        assert!(error.to_string().contains(HOST), "{error}");
        assert_eq!(hosts.lookup(HOST).unwrap(), None);
    }
}

#[tokio::test]
async fn strict_never_asks() {
    let person = Person::new(Ok(Answer::Save));
    for contents in [String::new(), known(OTHER)] {
        let (_dir, _, trust) = trust(&contents, HostKeyPolicy::Strict, Some(person.clone()));
        trust.decide(&PEER).await.unwrap_err();
    }
    assert!(person.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn accept_new_records_and_does_not_ask() {
    let person = Person::new(Ok(Answer::Abort));
    let (_dir, hosts, trust) = trust("", HostKeyPolicy::AcceptNew, Some(person.clone()));
    trust.decide(&PEER).await.unwrap();
    assert_eq!(hosts.lookup(HOST).unwrap(), Some(KnownKey::Fingerprint(PEER.fingerprint)));
    assert!(person.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_key_is_refused_outside_the_prompt() {
    for policy in POLICIES {
        for contents in [known(OTHER), format!("{HOST} {}\n", "07".repeat(32))] {
            let (_dir, hosts, trust) = trust(&contents, policy, None);
            let error = trust.decide(&PEER).await.unwrap_err();
            assert!(matches!(error, TrustError::Changed { .. }), "{policy:?}: {error}");
            assert_eq!(fs::read_to_string(hosts.path()).unwrap(), contents);
        }
    }
}

#[tokio::test]
async fn the_persons_answer_is_followed() {
    let cases = [
        ("", Answer::Abort, "unknown", false, None),
        ("", Answer::Continue, "unknown", true, None),
        ("", Answer::Save, "unknown", true, Some(PEER.fingerprint)),
        ("changed", Answer::Abort, "changed", false, Some(OTHER)),
        ("changed", Answer::Continue, "changed", true, Some(OTHER)),
        ("changed", Answer::Save, "changed", true, Some(PEER.fingerprint)),
    ];
    for (before, answer, question, trusted, after) in cases {
        let person = Person::new(Ok(answer));
        let contents = if before.is_empty() { String::new() } else { known(OTHER) };
        let (_dir, hosts, trust) = trust(&contents, HostKeyPolicy::Ask, Some(person.clone()));
        let result = trust.decide(&PEER).await;
        assert_eq!(result.is_ok(), trusted, "{before} {answer:?}: {result:?}");
        match (result, question) {
            (Ok(()), _)
            | (Err(TrustError::Refused { .. }), "unknown")
            | (Err(TrustError::Changed { .. }), "changed") => {}
            (Err(error), _) => panic!("{before} {answer:?}: {error}"),
        }
        assert_eq!(hosts.lookup(HOST).unwrap(), after.map(KnownKey::Fingerprint));
        let asked = person.asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].starts_with(&format!("{question} {HOST}")), "{asked:?}");
    }
}

#[tokio::test]
async fn a_person_who_went_away_trusts_nobody() {
    for contents in [String::new(), known(OTHER)] {
        let person = Person::new(Err(io::ErrorKind::UnexpectedEof.into()));
        let (_dir, _, trust) = trust(&contents, HostKeyPolicy::Ask, Some(person));
        let error = trust.decide(&PEER).await.unwrap_err();
        assert!(matches!(error, TrustError::Prompt { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_line_of_the_host_that_cannot_be_read_is_no_unknown_host() {
    for policy in POLICIES {
        let person = Person::new(Ok(Answer::Save));
        let (_dir, _, trust) = trust(&format!("{HOST} ???\n"), policy, Some(person));
        let error = trust.decide(&PEER).await.unwrap_err();
        assert!(matches!(error, TrustError::MalformedKnownHost { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_recorded_is_not_trusted_as_saved() {
    let (dir, _, _) = trust("", HostKeyPolicy::AcceptNew, None);
    // Its directory is a file.
    let hosts = KnownHosts::new(dir.path().join("known_hosts/known_hosts"));
    let trust = KnownHostsTrust::new(hosts, HOST, HostKeyPolicy::AcceptNew, None);
    let error = trust.decide(&PEER).await.unwrap_err();
    assert!(matches!(error, TrustError::File { .. }), "{error}");
}
