//! Fuzz target of the file of authorised clients (see `crate::fuzz`).

use std::time::{Duration, SystemTime};

use super::*;

/// Any list: it is written back the same; adding or removing a client changes that client and
/// expired invitations, and nobody else.
pub(crate) fn authorized_clients(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = match parse(&text) {
        Ok(lines) => lines,
        Err((line, why)) => {
            assert!((1..=text.lines().count()).contains(&line));
            // It is printed for the file's owner, who need not have written the line.
            assert!(!why.contains(char::is_control), "{why:?}");
            return;
        }
    };
    for entry in lines.iter().filter_map(|(_, entry)| entry.as_ref()) {
        let said = entry.to_string();
        assert_eq!(said.lines().count(), 1, "{said:?}");
        assert!(Entry::parse(&said).is_ok_and(|again| says(again.as_ref()) == says(Some(entry))));
    }

    // The first one in the file, or one that is not there.
    let there = lines.iter().find_map(|(_, entry)| entry.clone()?.into_client());
    let key = there.as_ref().map_or(Fingerprint::from_bytes([7; 32]), |client| client.key);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let stays = |entry: &Entry| !entry.is_client(key) && !entry.is_invitation_over(now);
    let others: Vec<_> =
        lines.iter().filter_map(|(_, entry)| says(entry.as_ref().filter(|it| stays(it)))).collect();

    let Ok(new) = Entry::new(Key::Client(key), Grant::default(), "Anna, laptop") else {
        panic!("a comment as it should be");
    };
    let drop = |entry: &Entry| entry.is_client(key);
    let (with, replaced) = edited(lines, drop, Some(&new), now);
    assert_eq!(replaced, there.is_some());
    let mut expected = others.clone();
    expected.extend(says(Some(&new)));
    assert_eq!(all(&with), expected);

    let Ok(lines) = parse(&with) else { panic!("{with:?}") };
    let (without, dropped) = edited(lines, drop, None, now);
    assert!(dropped);
    assert_eq!(all(&without), others);
}

/// What a line means: its subject, what the subject may do, and the comment.
fn says(entry: Option<&Entry>) -> Option<(String, Grant, String)> {
    let entry = entry?;
    let key = Entry { grant: Grant::default(), comment: String::new(), ..entry.clone() };
    Some((key.to_string(), entry.grant.clone(), entry.comment.clone()))
}

fn all(text: &str) -> Vec<(String, Grant, String)> {
    let lines = parse(text).unwrap_or_else(|(line, why)| panic!("line {line}: {why}: {text:?}"));
    lines.iter().filter_map(|(_, entry)| says(entry.as_ref())).collect()
}
