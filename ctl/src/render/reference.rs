//! The reference's pages as Markdown. Pure: `docs/reference` is compared with it.

use lockstep_apis::explain::{Member, Page, Topic, pages};
use std::{collections::BTreeMap, fmt::Write};

/// The first line of each page: which files are ours to write and to delete.
pub(crate) const MARK: &str =
    "<!-- Written by `make reference` from the comments and rules in apis/proto; do not edit. -->";

/// Every page, by file name.
pub(crate) fn all() -> BTreeMap<String, String> {
    let pages = pages();
    let mut places = BTreeMap::new();
    for page in &pages {
        for topic in &page.topics {
            places.insert(topic.path.clone(), page.name.clone());
        }
    }
    let mut files: BTreeMap<String, String> =
        pages.iter().map(|page| (format!("{}.md", page.name), markdown(page, &places))).collect();
    files.insert("index.md".into(), contents(&pages));
    files
}

fn contents(pages: &[Page]) -> String {
    let mut out = format!(
        "{MARK}\n\n# Reference\n\nWhat may be written in objects, and what is refused. The same is in the tool: \
         `lockstep explain KIND.FIELD`, `lockstep explain ACTION`. `lockstep schema` prints it as JSON Schema for \
         editors.\n\n"
    );
    for page in pages {
        let _ = writeln!(out, "- [{}]({}.md): {}", page.title, page.name, first_sentence(&page.text));
    }
    out
}

fn markdown(page: &Page, places: &BTreeMap<String, String>) -> String {
    let mut out = format!("{MARK}\n\n# {}\n\n{}\n", page.title, page.text);
    bullets(&mut out, &page.notes);
    if page.name == "actions" {
        out.push_str("\n| action | does |\n|---|---|\n");
        for topic in page.topics.iter().filter(|topic| topic.heading == "parameters") {
            let _ = writeln!(
                out,
                "| [`{}`](#{}) | {} |",
                topic.path,
                anchor(&topic.path),
                cell(first_sentence(&topic.text))
            );
        }
    }
    for topic in &page.topics {
        section(&mut out, topic, (page, places));
    }
    out
}

fn section(out: &mut String, topic: &Topic, at: (&Page, &BTreeMap<String, String>)) {
    let _ = write!(out, "\n## {}\n", topic.path);
    if !topic.text.is_empty() {
        let _ = write!(out, "\n{}\n", topic.text);
    }
    bullets(out, &topic.notes);
    if !topic.example.is_empty() {
        let _ = write!(out, "\n```yaml\n{}```\n", topic.example);
    }
    if topic.members.is_empty() {
        return;
    }
    let one = topic.heading.trim_end_matches('s');
    let _ = write!(out, "\n| {one} | holds | means |\n|---|---|---|\n");
    for member in &topic.members {
        let _ = writeln!(out, "| `{}` | {} | {} |", member.name, holds(member, at), cell(&means(member)));
    }
}

fn bullets(out: &mut String, notes: &[String]) {
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in notes {
        let _ = writeln!(out, "- {note}");
    }
}

/// The type, linked to where it is explained, and the rules.
fn holds(member: &Member, (page, places): (&Page, &BTreeMap<String, String>)) -> String {
    let mut text = cell(&member.holds);
    if let Some(of) = member.of
        && let Some(place) = places.get(of)
    {
        let file = if *place == page.name { String::new() } else { format!("{place}.md") };
        text = text.replacen(of, &format!("[{of}]({file}#{})", anchor(of)), 1);
    }
    for note in &member.notes {
        text = format!("{text}; {}", cell(note));
    }
    text
}

fn means(member: &Member) -> String {
    let mut text = member.text.clone();
    for (word, own) in member.words.iter().filter(|(_, own)| !own.is_empty()) {
        let _ = write!(text, "{}`{word}`: {own}", if text.is_empty() { "" } else { " " });
    }
    text
}

/// Text in a cell of a table: bars would end it, and what looks like a tag would be one.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// As mdBook and GitHub name headings.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// What lies in `docs/reference` and is ours.
    fn committed() -> BTreeMap<String, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let files =
            files.map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()));
        files.filter(|(_, text)| text.starts_with(MARK)).collect()
    }

    #[test]
    fn the_committed_reference_is_what_the_protos_say() {
        let (mut stale, mut committed) = (Vec::new(), committed());
        for (name, text) in all() {
            if committed.remove(&name).as_ref() != Some(&text) {
                stale.push(name);
            }
        }
        stale.extend(committed.into_keys());
        assert!(stale.is_empty(), "docs/reference is stale ({}): run `make reference`", stale.join(", "));
    }

    #[test]
    fn the_books_contents_name_every_page() {
        let summary = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SUMMARY.md")).unwrap();
        for name in all().keys() {
            assert!(summary.contains(&format!("(reference/{name})")), "docs/SUMMARY.md lacks reference/{name}");
        }
    }

    #[test]
    fn links_lead_to_headings_that_are_there() {
        let files = all();
        for (name, text) in &files {
            // What is in back-quotes is no link, whatever it looks like; names of links are in back-quotes too.
            let bare: String = text.split('`').step_by(2).collect();
            for link in bare.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = &files[if file.is_empty() { name } else { file }];
                let found = heading.is_empty()
                    || target.lines().filter_map(|line| line.strip_prefix("## ")).any(|own| anchor(own) == heading);
                assert!(found, "{name}: {link}");
            }
        }
    }
}
