//! What a message must satisfy that no rule of a single field says.

use regex::RegexBuilder;

use super::Walk;
use crate::{
    descriptor::Message,
    selector::{label_key, label_value},
    tree::{Content, Node, Scalar},
    violation::{Path, shown},
};

/// Most bytes of all annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Longest name of a variable, as of a task's id.
const MAX_VARIABLE_NAME: usize = 63;

/// Labels with this prefix are the system's.
pub(crate) const RESERVED_LABEL_PREFIX: &str = "lockstep/";

pub(super) fn message(walk: &mut Walk<'_, '_>, message: &Message, node: &Node<'_>, path: &Path<'_>) {
    match message.name.as_str() {
        "Metadata" => {
            labels(walk, node, path);
            annotations(walk, node, path);
        }
        "Targets" => targets(walk, node, path),
        "TaskBookSpec" | "RunDefaults" => variables(walk, node, path, "variables"),
        "VariableSet" => variables(walk, node, path, "values"),
        "RunSpec" => variables(walk, node, path, "set"),
        "VariablesSpec" => {
            variables(walk, node, path, "static");
            every_match(walk, node, path);
        }
        "Task" => {
            environment(walk, node, path);
            block(walk, node, path);
        }
        "CommandRun" | "CommandQuery" => program(walk, node, path),
        "FileLine" => line(walk, node, path),
        "CronEntry" => cron_entry(walk, node, path),
        "UserPresent" => password(walk, node, path),
        "GitCheckout" => git_secrets(walk, node, path),
        _ => {}
    }
}

fn labels(walk: &mut Walk<'_, '_>, metadata: &Node<'_>, path: &Path<'_>) {
    let Some(entries) = metadata.get("labels").and_then(Node::entries) else { return };
    let path = Path::Field(path, "labels");
    for entry in entries {
        let own = Path::Field(&path, &entry.key);
        if let Err(rule) = label_key(&entry.key) {
            walk.violations.push(
                entry.at,
                &own,
                "InvalidLabel",
                format!("{} is no label key: {rule}", shown(&entry.key)),
            );
        } else if entry.key.starts_with(RESERVED_LABEL_PREFIX) && !walk.mode.system_fields {
            let message = "labels that begin with `lockstep/` are the system's; choose another prefix";
            walk.violations.push(entry.at, &own, "InvalidLabel", message);
        }
        if let Some(Scalar::Text(text)) = entry.value.scalar()
            && let Err(rule) = label_value(text)
        {
            walk.violations.push(
                entry.value.at,
                &own,
                "InvalidLabel",
                format!("{} is no label value: {rule}", shown(text)),
            );
        }
    }
}

fn annotations(walk: &mut Walk<'_, '_>, metadata: &Node<'_>, path: &Path<'_>) {
    let Some(node) = metadata.get("annotations") else { return };
    let Some(entries) = node.entries() else { return };
    let path = Path::Field(path, "annotations");
    for entry in entries {
        if let Err(rule) = label_key(&entry.key) {
            let message =
                format!("{} is no annotation key: {}", shown(&entry.key), rule.replace("label", "annotation"));
            walk.violations.push(entry.at, &Path::Field(&path, &entry.key), "InvalidLabel", message);
        }
    }
    let bytes: usize = entries.iter().map(|e| e.key.len() + e.value.raw().map_or(0, str::len)).sum();
    if bytes > MAX_ANNOTATION_BYTES {
        let message = format!("{bytes} bytes of annotations; 256 KiB in all are allowed");
        walk.violations.push(node.at, &path, "TooLarge", message);
    }
}

/// An empty match is never "all": whoever means every node says so.
fn targets(walk: &mut Walk<'_, '_>, node: &Node<'_>, path: &Path<'_>) {
    let given = |name: &str| match node.get(name).map(|node| &node.content) {
        Some(Content::List(items)) => !items.is_empty(),
        other => other.is_some(),
    };
    let all = node.get("all").and_then(Node::scalar) == Some(Scalar::Bool(true));
    let later = given("eventNode");
    if !all && !later && !["nodes", "nodeGroups", "selector", "where"].into_iter().any(given) {
        let message =
            "says of no node that it is meant: give `nodes`, `nodeGroups`, `selector` or `where`, or say `all: true`";
        walk.violations.push(node.at, path, "EmptySelector", message);
    }
    if all && (given("nodes") || given("nodeGroups")) {
        let message = "`all: true` and a choice of nodes exclude each other; leave one out";
        walk.violations.push(node.at, path, "OneOf", message);
    }
}

/// Words of CEL's grammar that no field may be called by.
const RESERVED: [&str; 22] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
    "__proto__",
];

/// Names that expressions can read as `vars.NAME`.
fn variables(walk: &mut Walk<'_, '_>, spec: &Node<'_>, path: &Path<'_>, field: &str) {
    let Some(entries) = spec.get(field).and_then(Node::entries) else { return };
    let path = Path::Field(path, field);
    for entry in entries {
        let key = &*entry.key;
        let word = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && key.len() <= MAX_VARIABLE_NAME;
        if !word || RESERVED.contains(&key) {
            let why = if word { "it is a word of the language" } else { "letters, digits and `_`, at most 63" };
            let message = format!("{} cannot be read as `vars.NAME`: {why}", shown(key));
            walk.violations.push(entry.at, &Path::Field(&path, key), "InvalidName", message);
        }
    }
}

/// Variables are for every node that matches, not for some of them.
fn every_match(walk: &mut Walk<'_, '_>, spec: &Node<'_>, path: &Path<'_>) {
    let Some(targets) = spec.get("targets") else { return };
    for name in ["limit", "pick"] {
        if let Some(given) = targets.get(name) {
            let path = Path::Field(path, "targets");
            let message = format!("variables are for every node that matches: leave `{name}` out");
            walk.violations.push(given.at, &Path::Field(&path, name), "OneOf", message);
        }
    }
}

fn environment(walk: &mut Walk<'_, '_>, task: &Node<'_>, path: &Path<'_>) {
    let Some(entries) = task.get("environment").and_then(Node::entries) else { return };
    let path = Path::Field(path, "environment");
    for entry in entries {
        let key = &*entry.key;
        let good = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            let message =
                format!("{} is no name of a variable: letters, digits and `_`, not beginning with a digit", shown(key));
            walk.violations.push(entry.at, &Path::Field(&path, key), "InvalidName", message);
        }
    }
}

/// What only an action can have, and what only a block can have.
fn block(walk: &mut Walk<'_, '_>, task: &Node<'_>, path: &Path<'_>) {
    let is_include = task.get("include").is_some();
    let is_block = task.get("block").is_some() || is_include;
    for entry in task.entries().unwrap_or_default() {
        let message = match &*entry.key {
            "id" | "success" | "changed" | "register" | "retries" if is_block => {
                "a block has no result of its own that this could be about; give it to the tasks in it"
            }
            "loop" | "loopLimit" if is_block => "loops over blocks are not there yet; give `loop` to the tasks in it",
            "loopLimit" if task.get("loop").is_none() => "limits a `loop`, and there is none",
            "delegateTo" | "throttle" if is_block => {
                "a block is not done elsewhere as a whole; give it to the tasks in it"
            }
            "block" if is_include => "is no part of an `include`: make a task of each",
            "rescue" | "always" if task.get("block").is_none() => {
                "belongs to a `block`: write the tasks that it is for as `block`"
            }
            _ => continue,
        };
        walk.violations.push(entry.at, &Path::Field(path, &entry.key), "NoMatch", message);
    }
}

/// An empty program or line would fail on every node.
fn program(walk: &mut Walk<'_, '_>, node: &Node<'_>, path: &Path<'_>) {
    let first = match node.get("argv").map(|argv| &argv.content) {
        Some(Content::List(items)) => items.first().map(|item| ("argv", item)),
        _ => None,
    };
    let shell = node.get("shell").map(|shell| ("shell", shell));
    for (name, value) in first.into_iter().chain(shell) {
        if matches!(value.scalar(), Some(Scalar::Text(""))) {
            let message = "an empty command cannot be run";
            walk.violations.push(value.at, &Path::Field(path, name), "OutOfRange", message);
        }
    }
}

/// A line that its own pattern does not match would be added again on every run.
fn line(walk: &mut Walk<'_, '_>, node: &Node<'_>, path: &Path<'_>) {
    let plain = |name: &str| match node.get(name).and_then(Node::scalar) {
        Some(Scalar::Text(text)) if !text.contains("${{") => Some(text),
        _ => None,
    };
    let absent = node.get("absent").is_some_and(|absent| absent.scalar() != Some(Scalar::Bool(false)));
    if node.get("line").is_none() && !(absent && node.get("regexp").is_some()) {
        let message = if absent { "needs `line` or `regexp`" } else { "`line` must be given" };
        walk.violations.push(node.at, &Path::Field(path, "line"), "Required", message);
    }
    let (Some(line), Some(regexp)) = (plain("line"), plain("regexp")) else { return };
    let matches = RegexBuilder::new(regexp).multi_line(true).build().map_or(true, |regexp| regexp.is_match(line));
    if !absent && !matches {
        let message = format!("{} does not match `line`, so it would never find it again", shown(regexp));
        let at = node.get("regexp").map_or(node.at, |regexp| regexp.at);
        walk.violations.push(at, &Path::Field(path, "regexp"), "Pattern", message);
    }
}

/// A plain password would be stored with the book. It is not echoed either.
fn password(walk: &mut Walk<'_, '_>, node: &Node<'_>, path: &Path<'_>) {
    let Some(given) = node.get("password") else { return };
    if matches!(given.scalar(), Some(Scalar::Text(text)) if !text.starts_with('$')) {
        let message = "is no hash as crypt(5) has them, like `$y$…`; make one with `mkpasswd`, better in a task with \
                       `register: {secret: true}`";
        walk.violations.push(given.at, &Path::Field(path, "password"), "InlineSecret", message);
    }
}

/// A plain token or key would be stored with the book. It is not echoed either.
fn git_secrets(walk: &mut Walk<'_, '_>, node: &Node<'_>, path: &Path<'_>) {
    if walk.mode.rendered {
        return;
    }
    for name in ["password", "sshKey"] {
        let Some(given) = node.get(name) else { continue };
        if matches!(given.scalar(), Some(Scalar::Text(text)) if !text.is_empty() && !text.contains("${{")) {
            let message =
                "would be stored with the book for all to read; take it from a variable or a result, `${{ … }}`";
            walk.violations.push(given.at, &Path::Field(path, name), "InlineSecret", message);
        }
    }
}

/// An entry is due sometime and does something, unless it is to be gone.
fn cron_entry(walk: &mut Walk<'_, '_>, node: &Node<'_>, path: &Path<'_>) {
    if node.get("absent").is_some_and(|absent| absent.scalar() != Some(Scalar::Bool(false))) {
        return;
    }
    for name in ["schedule", "command"].into_iter().filter(|name| node.get(name).is_none()) {
        walk.violations.push(node.at, &Path::Field(path, name), "Required", format!("`{name}` must be given"));
    }
}
