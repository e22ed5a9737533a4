//! docs/tutorial.md, typed line by line on three fresh hosts. A line that a reader would see fail, fails here.

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::{
    hosts::{Lab, LabOptions, folder, programs},
    rig::said,
};
use std::{fs, path::Path};

/// One thing that the tutorial's reader does.
#[derive(Debug, PartialEq)]
enum Step {
    Type { host: String, line: String },
    Save { name: String, text: String },
}

/// Lines of console blocks that name a host, and the files to save, in order.
fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut to_save = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some((_, rest)) = line.split_once("Save this as `") {
            to_save = rest.split('`').next().map(str::to_owned);
        }
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match (kind, to_save.take()) {
            ("yaml", Some(name)) => steps.push(Step::Save { name, text: block.join("\n") + "\n" }),
            ("", None) => steps.extend(block.iter().filter_map(|line| {
                let (host, line) = line.split_once("# ")?;
                Some(Step::Type { host: host.to_owned(), line: line.to_owned() })
            })),
            other => bail!("a block that is neither to be typed nor saved: {other:?} {block:?}"),
        }
    }
    Ok(steps)
}

#[test]
fn every_line_of_the_tutorial_works() -> Result<()> {
    let page = fs::read_to_string(folder().join("../docs/tutorial.md"))?;
    let steps = steps(&page)?;
    ensure!(steps.len() > 30, "only {} steps were found", steps.len());
    let programs = programs()?;
    let binds =
        ["lockstepd", "lockstep"].map(|name| format!("{0}/{name}:/usr/local/bin/{name}:ro", programs.display()));
    let lab = Lab::up(3, &LabOptions { name: "tutorial", subnet: "10.84.0", binds: &binds, packages: None })?;
    let mut story = String::new();
    for step in &steps {
        match step {
            Step::Save { name, text } => save(&lab, "h1", &format!("/root/{name}"), text)?,
            Step::Type { host, line } => {
                let said = type_line(&lab, host, line).with_context(|| story.clone())?;
                story.push_str(&format!("{host}# {line}\n{said}"));
            }
        }
        bring_tokens(&lab, step)?;
    }
    println!("{story}");
    ensure!(story.contains("3 nodes: 3 ok"), "the second run of the first book changes nothing:\n{story}");
    ensure!(story.contains("1.1\n"), "the new version is served at the end:\n{story}");
    Ok(())
}

fn type_line(lab: &Lab, host: &str, line: &str) -> Result<String> {
    let done = lab.try_exec(host, &["timeout", "120", "sh", "-c", &format!("cd /root && {line}")])?;
    let text = said(&done);
    ensure!(done.status.success(), "{host}# {line}\n{text}\n{}", done.status);
    Ok(text)
}

fn save(lab: &Lab, host: &str, path: &str, text: &str) -> Result<()> {
    lab.exec(host, &["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", text, path]).map(drop)
}

/// What the page asks to be carried from one server to another.
fn bring_tokens(lab: &Lab, step: &Step) -> Result<()> {
    let Step::Type { line, .. } = step else { return Ok(()) };
    let Some((_, path)) = line.split_once("token create").and_then(|(_, rest)| rest.split_once("> ")) else {
        return Ok(());
    };
    let host = Path::new(path).file_stem().context("a token's file has a name")?.to_string_lossy().into_owned();
    let token = lab.exec("h1", &["cat", path])?;
    save(lab, &host, path, &token)
}

#[test]
fn the_tutorial_is_read_as_it_is_meant() -> Result<()> {
    let page = "Save this as `a.yaml`:\n\n```yaml\nx: 1\n```\n\n```\nh1# ls\nyou$ scp\n```\n";
    let expected = [
        Step::Save { name: "a.yaml".into(), text: "x: 1\n".into() },
        Step::Type { host: "h1".into(), line: "ls".into() },
    ];
    ensure!(steps(page)? == expected);
    ensure!(steps("```yaml\nx: 1\n```\n").is_err(), "a file without a name");
    Ok(())
}
