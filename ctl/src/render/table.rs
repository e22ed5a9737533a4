//! Objects as columns.

use super::{counts, phase_word, plural, safe};
use lockstep_apis::{
    kinds::Kind,
    v1alpha::{EventSeverity, NodeGroup, Object, TaskBook, Value, object::Kind as Message, value},
};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Rows under headings; columns as wide as they need be.
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    wide: bool,
    namespaces: bool,
    now_s: i64,
}

impl Table {
    /// A table with this kind's headings.
    pub(crate) fn for_kind(kind: &Kind, wide: bool, namespaces: bool) -> Table {
        let mut headings = Vec::new();
        let namespaces = namespaces && kind.namespaced;
        if namespaces {
            headings.push("NAMESPACE");
        }
        headings.push("NAME");
        headings.extend(match kind.name {
            "Namespace" => &["STATUS"][..],
            "Node" => &["STATUS", "VERSION", "OS"],
            "NodeGroup" => &["SELECTS"],
            "TaskBook" => &["TASKS", "ROLLOUT"],
            "Run" => &["PHASE", "BOOK", "NODES"],
            "Lock" => &["STATE", "HELD BY", "WAITING"],
            "Event" => &["SEVERITY", "TYPE", "MESSAGE"],
            _ => &[],
        });
        headings.push("AGE");
        if wide {
            headings.push("LABELS");
            headings.push("UID");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Table { headings, rows: Vec::new(), wide, namespaces, now_s: now.as_secs() as i64 }
    }

    /// Adds an object of the table's kind.
    pub(crate) fn push(&mut self, object: &Object) {
        let metadata = object.metadata();
        let mut row = Vec::new();
        if self.namespaces {
            row.push(metadata.namespace.clone());
        }
        row.push(metadata.name.clone());
        row.extend(cells(object));
        row.push(metadata.created_at.as_ref().map_or_else(|| "-".into(), |at| age(self.now_s - at.seconds)));
        if self.wide {
            row.push(metadata.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","));
            row.push(metadata.uuid.clone());
        }
        self.rows.push(row);
    }

    /// The rows alone, for a watch.
    pub(crate) fn rows(&self) -> String {
        self.rows.iter().map(|row| self.line(row.iter().map(String::as_str))).collect()
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.headings.len())
            .map(|n| {
                let cells = self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
                cells.chain([self.headings[n].len()]).max().unwrap_or(0)
            })
            .collect()
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for (cell, width) in cells.zip(self.widths()) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', 3 + width.saturating_sub(cell.chars().count())));
        }
        format!("{}\n", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(self.headings.iter().copied()))?;
        f.write_str(&self.rows())
    }
}

fn cells(object: &Object) -> Vec<String> {
    match &object.kind {
        Some(Message::Namespace(namespace)) => {
            let phase = namespace.status.as_ref().map_or("", |s| s.phase.as_str());
            vec![if phase.is_empty() { "Active".into() } else { phase.to_owned() }]
        }
        Some(Message::Node(node)) => {
            let status = node.status.clone().unwrap_or_default();
            let mut state = if status.liveness.is_empty() { "NeverSeen".to_owned() } else { status.liveness.clone() };
            if node.spec.as_ref().is_some_and(|spec| spec.unschedulable) {
                state.push_str(",Cordoned");
            }
            vec![state, status.version, safe(fact(status.facts.as_ref(), &["os", "pretty"]), 40)]
        }
        Some(Message::NodeGroup(group)) => vec![group_selects(group)],
        Some(Message::TaskBook(book)) => {
            let tasks = book.spec.as_ref().map_or(0, |spec| spec.tasks.len());
            vec![tasks.to_string(), rollout(book)]
        }
        Some(Message::Run(run)) => {
            let status = run.status.clone().unwrap_or_default();
            let books = run.spec.as_ref().map(|spec| spec.task_books.join(",")).unwrap_or_default();
            let phase = match (phase_word(status.phase()), status.reason.as_str()) {
                (phase, reason) if reason.is_empty() || reason == phase => phase.to_owned(),
                (phase, reason) => format!("{phase} ({reason})"),
            };
            vec![phase, books, status.nodes.as_ref().map(counts).unwrap_or_default()]
        }
        Some(Message::Lock(lock)) => super::locks::cells(lock),
        Some(Message::Event(event)) => {
            let spec = event.spec.clone().unwrap_or_default();
            vec![severity(spec.severity()).into(), safe(&spec.r#type, 60), safe(&spec.message, 120)]
        }
        _ => Vec::new(),
    }
}

/// The severity as users read it.
pub(crate) fn severity(severity: EventSeverity) -> &'static str {
    match severity {
        EventSeverity::Warning => "Warning",
        EventSeverity::Critical => "Critical",
        _ => "Info",
    }
}

fn group_selects(group: &NodeGroup) -> String {
    let spec = group.spec.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if !spec.selector.is_empty() {
        parts.push(spec.selector);
    }
    if !spec.r#where.is_empty() {
        parts.push(format!("where {}", spec.r#where));
    }
    if !spec.nodes.is_empty() {
        parts.push(plural(u32::try_from(spec.nodes.len()).unwrap_or(u32::MAX), "name"));
    }
    parts.extend(spec.include.iter().map(|g| format!("+{g}")));
    parts.extend(spec.exclude.iter().map(|g| format!("-{g}")));
    safe(&parts.join(" "), 60)
}

fn rollout(book: &TaskBook) -> String {
    let spec = book.spec.clone().unwrap_or_default();
    match spec.run_options.and_then(|options| options.serialize) {
        Some(serialize) => serialize.count.iter().map(super::plan::count).collect::<Vec<_>>().join(", "),
        None if spec.tasks.iter().any(|task| task.serialize.is_some()) => "by task".into(),
        None => "all at once".into(),
    }
}

fn fact<'a>(facts: Option<&'a Value>, path: &[&str]) -> &'a str {
    let mut at = facts;
    for part in path {
        at = match at.and_then(|value| value.kind.as_ref()) {
            Some(value::Kind::Map(map)) => map.entries.get(*part),
            _ => None,
        };
    }
    match at.and_then(|value| value.kind.as_ref()) {
        Some(value::Kind::Text(text)) => text,
        _ => "",
    }
}

/// The largest unit that fits: `45s`, `3m`, `7h`, `12d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(
            ["5s", "119s", "2m", "119m", "2h", "2d"],
            [5, 119, 120, 7199, 7200, 172_800].map(age).each_ref().map(String::as_str)
        );
        assert_eq!(age(-3), "0s");
    }
}
