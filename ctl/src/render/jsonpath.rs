//! `-o jsonpath=…`: the templates that kubectl takes. `{.metadata.name}`, `{range .items[*]}…{end}`, text outside braces
//! as it is. What is not there is nothing. Pure.

use serde_json::Value as Json;

mod parse;

/// A template, read and in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

/// One step from every value that was found so far.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `.name`, `['name']`
    Field(String),
    /// `..name`, at any depth
    Below(String),
    /// `[0]`, `[-1]`
    Index(i64),
    /// `[1:3]`
    Slice(Option<i64>, Option<i64>),
    /// `[*]`, `.*`
    All,
    /// `[?(@.path == value)]`, `!=`, or the path alone: it is there
    Where(Vec<Step>, Option<(bool, Json)>),
}

impl JsonPath {
    /// Reads a template; text without braces is one path. Errors: what is wrong, and where.
    pub(crate) fn parse(text: &str) -> Result<JsonPath, String> {
        parse::template(text).map(|parts| JsonPath { parts })
    }

    /// What the template makes of a value, ending with a line end if it is not empty.
    pub(crate) fn render(&self, root: &Json) -> String {
        let mut out = String::new();
        render(&self.parts, root, &mut out);
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }
}

/// Paths start at `here`: the whole, or in a range the item.
fn render(parts: &[Part], here: &Json, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let found: Vec<String> = find(steps, here).into_iter().map(text).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(steps, inner) => {
                for item in find(steps, here) {
                    render(inner, item, out);
                }
            }
        }
    }
}

fn find<'j>(steps: &[Step], from: &'j Json) -> Vec<&'j Json> {
    let mut found = vec![from];
    for step in steps {
        found = found.into_iter().flat_map(|json| take(step, json)).collect();
    }
    found
}

fn take<'j>(step: &Step, json: &'j Json) -> Vec<&'j Json> {
    match (step, json) {
        (Step::Field(name), Json::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Below(name), _) => {
            let mut found = Vec::new();
            below(name, json, &mut found);
            found
        }
        (Step::Index(at), Json::Array(items)) => items.get(position(*at, items.len())).into_iter().collect(),
        (Step::Slice(from, to), Json::Array(items)) => {
            let from = from.map_or(0, |at| position(at, items.len())).min(items.len());
            let to = to.map_or(items.len(), |at| position(at, items.len())).min(items.len());
            items.get(from..to).unwrap_or_default().iter().collect()
        }
        (Step::All, Json::Array(items)) => items.iter().collect(),
        (Step::All, Json::Object(map)) => map.values().collect(),
        (Step::Where(path, test), Json::Array(items)) => items.iter().filter(|item| holds(path, test, item)).collect(),
        _ => Vec::new(),
    }
}

fn holds(path: &[Step], test: &Option<(bool, Json)>, item: &Json) -> bool {
    let found = find(path, item);
    match test {
        None => !found.is_empty(),
        Some((equal, value)) => found.contains(&value) == *equal,
    }
}

/// Negative ones count from the end; what is before the start is nowhere.
fn position(at: i64, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    usize::try_from(if at < 0 { length + at } else { at }).unwrap_or(usize::MAX)
}

fn below<'j>(name: &str, json: &'j Json, found: &mut Vec<&'j Json>) {
    match json {
        Json::Object(map) => {
            found.extend(map.get(name));
            map.values().for_each(|value| below(name, value, found));
        }
        Json::Array(items) => items.iter().for_each(|item| below(name, item, found)),
        _ => {}
    }
}

/// Text as it is, but for what would move a cursor: nodes may have said it.
fn text(json: &Json) -> String {
    let Json::String(text) = json else { return lockstep_apis::manifest::escape_json(json) };
    let mut out = String::new();
    for c in text.chars() {
        match c.is_control() && !matches!(c, '\n' | '\t') {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
