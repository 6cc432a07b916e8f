//! As much of Markdown as the documents use: headings, fenced blocks, tables, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const README: &str = "README.md";
pub(crate) const GUIDE: &str = "docs/GUIDE.md";
pub(crate) const FIGURES: &str = "docs/FIGURES.md";

/// A file of the repository.
pub(crate) fn read(document: &str) -> String {
    let path = root().join(document);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Where its text begins: document and line.
    pub(crate) place: String,
    /// The heading it stands under.
    pub(crate) section: String,
    pub(crate) language: String,
    pub(crate) text: String,
}

impl Block {
    /// Its commands, each on one line and without comments.
    pub(crate) fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let bare = joined.lines().map(|line| without_comment(line).trim().to_owned());
        bare.filter(|command| !command.is_empty()).collect()
    }
}

fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, letter) in line.char_indices() {
        match quote {
            Some(open) if open == letter => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None if letter == '#' && before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = letter;
    }
    line
}

pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut section = String::new();
    let mut open: Option<(Block, usize)> = None;
    for (number, line) in read(document).lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some(language), None) => {
                let block = Block {
                    place: format!("{document}:{}", number + 2),
                    section: section.clone(),
                    language: language.to_owned(),
                    text: String::new(),
                };
                open = Some((block, line.len() - line.trim_start().len()));
            }
            (None, Some((block, indent))) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) if line.starts_with('#') => {
                section = line.trim_start_matches('#').trim().to_owned();
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: a block has no end");
    blocks
}

/// A document without its fenced blocks.
pub(crate) fn prose(document: &str) -> String {
    let mut inside = false;
    let text = read(document);
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between backticks in a document's text.
pub(crate) fn code_spans(document: &str) -> Vec<String> {
    let prose = prose(document).replace('\n', " ");
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The cells of each row of the table under the row that begins with `heading`.
#[track_caller]
pub(crate) fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("no table {heading}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// The names by which a document's headings are linked to, as forges make them.
fn anchors(document: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect::<String>()
    };
    let prose = prose(document);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Where a document's links and pictures lead.
fn links(document: &str) -> Vec<String> {
    let prose = prose(document);
    let mut links: Vec<_> = prose.split("](").skip(1).collect();
    for attribute in ["src=\"", "srcset=\""] {
        links.extend(prose.split(attribute).skip(1));
    }
    links.iter().map(|rest| rest.split([')', '"']).next().unwrap().to_owned()).collect()
}

/// All documents of the repository.
fn documents() -> Vec<String> {
    let mut documents = Vec::new();
    for folder in ["", "docs", "docs/notes", "lab", "sim", "fuzz", "tests/fixtures/legacy"] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else { continue };
        let names = entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name()));
        let markdown = names.filter(|name| name.extension().is_some_and(|ending| ending == "md"));
        documents.extend(markdown.map(|name| name.to_str().unwrap().to_owned()));
    }
    documents
}

#[test]
fn every_link_within_the_documents_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() >= 8, "{documents:?}");
    let mut broken = Vec::new();
    for document in &documents {
        let folder = Path::new(document).parent().unwrap();
        for link in links(document) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { document.into() } else { folder.join(file) };
            let found = fs::canonicalize(root().join(&target)).ok();
            let known = match (&found, anchor) {
                (None, _) => false,
                (Some(_), "") => true,
                (Some(path), _) => anchors(path.to_str().unwrap()).contains(anchor),
            };
            if !known {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_readme_is_short() {
    let lines = read(README).lines().count();
    assert!(
        lines <= 180,
        "{lines} lines; what is not for who has never heard of it goes elsewhere"
    );
}

#[test]
fn comments_end_commands_and_quotes_protect_them() {
    assert_eq!(without_comment("imux server # as root"), "imux server ");
    assert_eq!(
        without_comment("imux server --comment 'a # b' # c"),
        "imux server --comment 'a # b' "
    );
    assert_eq!(without_comment("curl localhost/a#b"), "curl localhost/a#b");
}
