//! Comments are no wider than code: rustfmt sees to code alone.

use std::path::Path;

/// As `max_width` in rustfmt.toml.
const COLUMNS: usize = 100;

/// The folders of the repository that hold Rust.
const FOLDERS: [&str; 7] = ["src", "tests", "sim", "lab", "fuzz", "examples", "benches"];

/// Whether it is a line of a comment that could be broken: a row of a table, a link and a picture
/// cannot.
fn is_too_wide(line: &str) -> bool {
    let text = line.trim_start();
    let Some(comment) = text.strip_prefix("//") else { return false };
    let comment = comment.trim_start_matches(['/', '!']).trim();
    let breakable = comment.contains(' ') && !comment.starts_with('|');
    breakable && line.chars().count() > COLUMNS
}

#[test]
fn no_comment_is_wider_than_a_hundred_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wide = Vec::new();
    let mut files = 0;
    for folder in FOLDERS.map(|folder| root.join(folder)).iter().filter(|folder| folder.is_dir()) {
        for (path, text) in crate::sources(folder) {
            files += 1;
            let lines = text.lines().enumerate().filter(|(_, line)| is_too_wide(line));
            wide.extend(lines.map(|(n, _)| format!("{}:{}", folder.join(&path).display(), n + 1)));
        }
    }
    assert!(files > 300, "looked at {files} files");
    assert!(
        wide.is_empty(),
        "comments wider than {COLUMNS} columns; `RUSTC_BOOTSTRAP=1 cargo fmt --all -- --config \
         unstable_features=true,wrap_comments=true,comment_width={COLUMNS}` breaks them:\n  {}",
        wide.join("\n  ")
    );
}

#[test]
fn a_line_of_a_comment_is_too_wide_and_a_table_is_not() {
    let words = "word ".repeat(21);
    assert!(is_too_wide(&format!("    /// {words}")));
    assert!(is_too_wide(&format!("//! {words}")));
    assert!(!is_too_wide(&format!("//! | {words} |")));
    assert!(!is_too_wide(&format!("// https://{}", "a".repeat(100))));
    assert!(!is_too_wide("/// short"));
    assert!(!is_too_wide(&format!("let a = \"{words}\";")));
}
