//! The documentation as a whole: every page is in the book, and no link leads nowhere.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("invariant: the tests lie in the project").to_owned()
}

/// The Markdown files of the project below `folder`.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// Targets of inline links, outside code.
fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code || line.starts_with("    ") {
            continue;
        }
        let prose = line.split('`').step_by(2);
        for (at, piece) in prose.clone().flat_map(|piece| piece.match_indices("](").map(move |(at, _)| (at, piece))) {
            links.extend(piece[at + 2..].split(')').next());
        }
    }
    links
}

/// The anchors of a page's headings, as mdBook and most renderers make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
        })
        .collect()
}

#[test]
fn no_link_leads_nowhere() -> Result<()> {
    let mut found = Vec::new();
    pages(&project(), &mut found)?;
    let mut broken = Vec::new();
    for page in &found {
        let text = fs::read_to_string(page)?;
        let folder = page.parent().context("a file lies in a folder")?;
        for link in links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { folder.join(path) };
            let is_there = target.exists();
            let has_anchor = anchor.is_empty()
                || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|own| own == anchor));
            if !is_there || !has_anchor {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    ensure!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    Ok(())
}

#[test]
fn every_page_is_in_the_book() -> Result<()> {
    let docs = project().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md"))?;
    let mut found = Vec::new();
    pages(&docs, &mut found)?;
    let listed = links(&summary);
    let mut missing = Vec::new();
    for page in found {
        let name = page.strip_prefix(&docs)?.to_string_lossy().into_owned();
        if name != "SUMMARY.md" && !listed.contains(&name.as_str()) {
            missing.push(name);
        }
    }
    ensure!(missing.is_empty(), "not in docs/SUMMARY.md: {}", missing.join(", "));
    Ok(())
}
