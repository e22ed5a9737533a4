//! The documentation as a whole: every page is in the book, and no link leads nowhere.

use anyhow::{Context, Result, ensure};
use lockstep_apis::{
    manifest,
    v1alpha::{Object, Violation, object},
};
use lockstep_core::check;
use std::{
    collections::BTreeSet,
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

#[test]
fn every_example_is_a_page_with_all_its_files() -> Result<()> {
    for example in fs::read_dir(project().join("examples"))? {
        let example = example?.path();
        let name = example.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let page = fs::read_to_string(project().join(format!("docs/examples/{name}.md"))).context(name.clone())?;
        for file in fs::read_dir(&example)? {
            let include = format!("{{{{#include ../../examples/{name}/{}}}}}", file?.file_name().to_string_lossy());
            ensure!(page.contains(&include), "docs/examples/{name}.md has no {include}");
        }
    }
    Ok(())
}

/// The objects in a page: blocks of YAML that begin with `metadata:`, with the line they begin at.
fn objects(text: &str) -> Vec<(usize, String)> {
    let mut objects = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line == "```yaml" {
            let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            if block.first().is_some_and(|first| first.starts_with("metadata:")) {
                objects.push((at + 2, block.join("\n")));
            }
        }
    }
    objects
}

#[test]
fn every_object_in_a_page_would_be_accepted() -> Result<()> {
    let mut found = Vec::new();
    pages(&project(), &mut found)?;
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in &found {
        for (line, text) in objects(&fs::read_to_string(page)?) {
            seen += 1;
            // A template's file is beside the manifest, and a page has none.
            let text = text.replace("template: {file: ./nginx.conf.hbs}", "content: x");
            let objects = manifest::decode("page.yaml", text.as_bytes(), None);
            let violations = match &objects {
                Ok(objects) => objects.iter().flat_map(checked).collect(),
                Err(violations) => violations.clone(),
            };
            wrong.extend(
                violations.iter().map(|violation| format!("{}, block at line {line}: {violation}", page.display())),
            );
        }
    }
    ensure!(seen > 8, "only {seen} objects were found");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn checked(object: &Object) -> Vec<Violation> {
    match &object.kind {
        Some(object::Kind::TaskBook(book)) => check::book(book),
        _ => Vec::new(),
    }
}

/// Names of tests in the project's sources below `folder`.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            tests_below(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            // Behind the attribute of a test stand, at most, others; then its name.
            let tests = text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1));
            let names = tests.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
    Ok(())
}

#[test]
fn every_promise_has_tests_that_exist() -> Result<()> {
    let page = fs::read_to_string(project().join("docs/promises.md"))?;
    let mut tests = BTreeSet::new();
    tests_below(&project(), &mut tests)?;
    // A promise is the line of an item, and the next line names its tests.
    let lines: Vec<&str> = page.lines().collect();
    let items = lines.windows(2).filter_map(|pair| Some((pair[0].strip_prefix("- ")?, pair[1])));
    let (mut promises, mut wrong) = (0, Vec::new());
    for (promise, named) in items {
        promises += 1;
        let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        wrong.extend(names.is_empty().then(|| format!("{promise}: has no test")));
        let missing = names.iter().filter(|name| !tests.contains(**name));
        wrong.extend(missing.map(|name| format!("{promise}: there is no test {name}")));
    }
    ensure!(promises > 20, "only {promises} promises were found");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
