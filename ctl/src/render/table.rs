//! Objects as columns.

use super::{counts, grid::Grid, phase_word, plural, safe, screen::Screen};
use lockstep_apis::{
    kinds::Kind,
    timestamp,
    v1alpha::{
        Condition, EventSeverity, Node, NodeGroup, Object, Run, TaskBook, Value, VariablesSpec, object::Kind as Message,
    },
};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

/// What to show beside a kind's own columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    /// The further columns of `-o wide`.
    pub(crate) wide: bool,
    /// Objects of several namespaces.
    pub(crate) namespaces: bool,
    /// Facts of nodes, as paths: `cpu.count`.
    pub(crate) facts: Vec<String>,
    /// The Runs that nodes work for, by node, if they were asked for.
    pub(crate) runs: Option<BTreeMap<String, String>>,
}

/// Objects of one kind under its headings.
pub(crate) struct Table {
    grid: Grid,
    kind: &'static Kind,
    columns: Columns,
    now_s: i64,
}

impl Table {
    /// A table with this kind's headings.
    pub(crate) fn new(kind: &'static Kind, columns: Columns, screen: Screen) -> Table {
        let mut headings: Vec<String> = Vec::new();
        let mut say = |words: &[&str]| headings.extend(words.iter().map(|word| (*word).to_owned()));
        if columns.namespaces && kind.namespaced {
            say(&["NAMESPACE"]);
        }
        say(headings_of(kind));
        if columns.runs.is_some() {
            say(&["RUN"]);
        }
        let facts: Vec<String> = columns.facts.iter().map(|fact| fact.to_uppercase()).collect();
        headings.extend(facts);
        if columns.wide {
            headings.extend(wide_headings_of(kind).iter().chain(&["LABELS", "UID"]).map(|word| (*word).to_owned()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Table { grid: Grid::new(headings, screen), kind, columns, now_s: now.as_secs() as i64 }
    }

    /// Adds an object of the table's kind.
    pub(crate) fn push(&mut self, object: &Object) {
        let metadata = object.metadata();
        let mut row = Vec::new();
        if self.columns.namespaces && self.kind.namespaced {
            row.push(metadata.namespace.clone());
        }
        row.extend(self.cells(object));
        if let Some(runs) = &self.columns.runs {
            row.push(runs.get(&metadata.name).cloned().unwrap_or_else(|| "-".into()));
        }
        if let Some(Message::Node(node)) = &object.kind {
            let facts = node.status.as_ref().and_then(|status| status.facts.as_ref());
            row.extend(self.columns.facts.iter().map(|path| fact(facts, path)));
        }
        if self.columns.wide {
            row.extend(self.wide_cells(object));
            row.push(metadata.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","));
            row.push(metadata.uuid.clone());
        }
        self.grid.push(row);
    }

    /// The headings' line.
    pub(crate) fn heading(&self) -> String {
        self.grid.heading()
    }

    /// The rows since the last call.
    pub(crate) fn take_rows(&mut self) -> String {
        self.grid.take_rows()
    }

    fn since(&self, at: Option<&prost_types::Timestamp>) -> String {
        at.map_or_else(|| "-".into(), |at| age(self.now_s - at.seconds))
    }

    fn cells(&self, object: &Object) -> Vec<String> {
        let metadata = object.metadata();
        if let Some(Message::Event(event)) = &object.kind {
            let spec = event.spec.clone().unwrap_or_default();
            let at = spec.at.as_ref().map(timestamp::format).unwrap_or_default();
            return vec![
                at,
                severity(spec.severity()).into(),
                safe(&spec.r#type, 60),
                safe(&spec.regarding, 120),
                safe(&spec.message, 256),
            ];
        }
        let mut row = vec![metadata.name.clone()];
        row.extend(match &object.kind {
            Some(Message::Node(node)) => self.node(node),
            _ => cells(object),
        });
        row.push(self.since(metadata.created_at.as_ref()));
        row
    }

    fn node(&self, node: &Node) -> Vec<String> {
        let status = node.status.clone().unwrap_or_default();
        let seen = match status.liveness.as_str() {
            "Ready" => "now".into(),
            _ => self.since(status.last_seen_at.as_ref()),
        };
        vec![node_words(node).join(","), status.version, fact(status.facts.as_ref(), "os.pretty"), seen]
    }

    fn wide_cells(&self, object: &Object) -> Vec<String> {
        match &object.kind {
            Some(Message::Node(node)) => {
                let status = node.status.clone().unwrap_or_default();
                let facts = status.facts.as_ref();
                vec![fact(facts, "kernel.release"), fact(facts, "arch"), safe(&status.addresses.join(","), 60)]
            }
            Some(Message::Run(run)) => {
                let status = run.status.clone().unwrap_or_default();
                let took = match (&status.started_at, &status.finished_at) {
                    (Some(from), Some(to)) => age(to.seconds - from.seconds),
                    (Some(from), None) => age(self.now_s - from.seconds),
                    _ => "-".into(),
                };
                vec![took, safe(&status.message, 80)]
            }
            Some(Message::Event(_)) => vec![object.metadata().name.clone()],
            _ => Vec::new(),
        }
    }
}

fn headings_of(kind: &Kind) -> &'static [&'static str] {
    match kind.name {
        "Namespace" => &["NAME", "STATUS", "AGE"],
        "Node" => &["NAME", "STATUS", "VERSION", "OS", "SEEN", "AGE"],
        "NodeGroup" => &["NAME", "SELECTS", "AGE"],
        "TaskBook" => &["NAME", "TASKS", "ROLLOUT", "AGE"],
        "Run" => &["NAME", "PHASE", "BOOK", "NODES", "BY", "AGE"],
        "Lock" => &["NAME", "STATE", "HELD BY", "WAITING", "AGE"],
        "Variables" | "ClusterVariables" => &["NAME", "FOR", "PRIORITY", "NAMES", "AGE"],
        "ClusterVariablesBinding" => &["NAME", "BINDS", "NAMESPACES", "AGE"],
        "Event" => &["TIME", "SEVERITY", "TYPE", "REGARDING", "MESSAGE"],
        _ => &["NAME", "AGE"],
    }
}

fn wide_headings_of(kind: &Kind) -> &'static [&'static str] {
    match kind.name {
        "Node" => &["KERNEL", "ARCH", "ADDRESSES"],
        "Run" => &["TOOK", "SAYS"],
        "Event" => &["NAME"],
        _ => &[],
    }
}

fn cells(object: &Object) -> Vec<String> {
    match &object.kind {
        Some(Message::Namespace(namespace)) => {
            let phase = namespace.status.as_ref().map_or("", |s| s.phase.as_str());
            vec![if phase.is_empty() { "Active".into() } else { phase.to_owned() }]
        }
        Some(Message::NodeGroup(group)) => vec![group_selects(group)],
        Some(Message::TaskBook(book)) => {
            let tasks = book.spec.as_ref().map_or(0, |spec| spec.tasks.len());
            vec![tasks.to_string(), rollout(book)]
        }
        Some(Message::Run(run)) => run_cells(run),
        Some(Message::Lock(lock)) => super::locks::cells(lock),
        Some(Message::Variables(variables)) => variables_cells(variables.spec.as_ref()),
        Some(Message::ClusterVariables(variables)) => variables_cells(variables.spec.as_ref()),
        Some(Message::ClusterVariablesBinding(binding)) => {
            let spec = binding.spec.clone().unwrap_or_default();
            let namespaces = if spec.selector.is_empty() { spec.namespaces.join(" ") } else { spec.selector };
            vec![safe(&spec.cluster_variables.join(" "), 60), safe(&namespaces, 60)]
        }
        _ => Vec::new(),
    }
}

/// For whom, how strong, and what.
fn variables_cells(spec: Option<&VariablesSpec>) -> Vec<String> {
    let spec = spec.cloned().unwrap_or_default();
    let targets = spec.targets.unwrap_or_default();
    let mut parts = targets.nodes;
    parts.extend(targets.node_groups.iter().map(|group| format!("+{group}")));
    parts.extend(Some(targets.selector).filter(|text| !text.is_empty()));
    parts.extend(Some(targets.r#where).filter(|text| !text.is_empty()).map(|text| format!("where {text}")));
    if parts.is_empty() {
        parts.push("every node".into());
    }
    let names: Vec<&str> = spec.r#static.keys().map(String::as_str).collect();
    vec![safe(&parts.join(" "), 60), spec.priority.to_string(), safe(&names.join(" "), 60)]
}

fn run_cells(run: &Run) -> Vec<String> {
    let (spec, status) = (run.spec.clone().unwrap_or_default(), run.status.clone().unwrap_or_default());
    let what = match spec.task_books.as_slice() {
        [] => plural(u32::try_from(spec.tasks.len()).unwrap_or(u32::MAX), "task"),
        books => books.join(","),
    };
    let what = if spec.check { format!("{what} (check)") } else { what };
    let phase = match (phase_word(status.phase()), status.reason.as_str()) {
        (phase, reason) if reason.is_empty() || reason == phase => phase.to_owned(),
        (phase, reason) => format!("{phase} ({reason})"),
    };
    let by = spec.origin.map(|origin| safe(&origin.name, 40)).filter(|name| !name.is_empty());
    vec![phase, what, status.nodes.as_ref().map(counts).unwrap_or_default(), by.unwrap_or_else(|| "-".into())]
}

/// `Ready`, `Cordoned`, …: how it is reached, and all that an admin should know of it.
pub(crate) fn node_words(node: &Node) -> Vec<String> {
    let status = node.status.clone().unwrap_or_default();
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable);
    let reboots = |condition: &Condition| condition.r#type == "Ready" && condition.reason == "Rebooting";
    let liveness = match status.liveness.as_str() {
        _ if status.conditions.iter().any(reboots) => "Rebooting",
        "" => "NeverSeen",
        said => said,
    };
    let mut words = vec![liveness.to_owned()];
    words.extend(cordoned.then(|| "Cordoned".to_owned()));
    // Whether it is ready was said first.
    let odd = |condition: &&Condition| condition.status == "True" && condition.r#type != "Ready";
    let conditions = status.conditions.iter().filter(odd);
    words.extend(conditions.map(|condition| safe(&condition.r#type, 40)));
    words.extend((!status.owed_handlers.is_empty()).then(|| "OwesHandlers".to_owned()));
    words
}

/// The severity as users read it.
fn severity(severity: EventSeverity) -> &'static str {
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

/// A fact by its path, as text; `-` where the node has none.
fn fact(facts: Option<&Value>, path: &str) -> String {
    match facts.and_then(|facts| path.split('.').try_fold(facts, |at, part| at.get(part))) {
        None => "-".into(),
        Some(value) => match value.as_text() {
            Some(text) => safe(text, 40),
            None => safe(&serde_json::Value::from(value).to_string(), 40),
        },
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
