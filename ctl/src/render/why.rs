//! What a Run or a node waits for, as a chain: each line is one cause of the line above it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use lockstep_apis::{
    timestamp,
    v1alpha::{Node, Object, OriginType, Run, RunNode, RunPhase, object::Kind as Message},
};

use super::{phase_word, safe};

/// Deepest chain that is shown.
const MAX_DEPTH: usize = 12;

/// What is known of the objects of a chain.
#[derive(Default)]
pub(crate) struct Facts {
    /// By `kind/name`; `None`: it is gone.
    objects: BTreeMap<String, Option<Object>>,
    /// Runs that have to do with the node that was asked about, and what it does in them.
    of_node: Vec<(Run, RunNode)>,
}

/// An object that must be looked at.
pub(crate) struct Wanted {
    /// `run/x`, `node/y`.
    pub(crate) on: String,
}

impl Facts {
    /// Notes an object.
    pub(crate) fn add(&mut self, on: &str, object: Object) {
        self.objects.insert(on.to_owned(), Some(object));
    }

    /// Notes that there is no such object any more.
    pub(crate) fn gone(&mut self, on: &str) {
        self.objects.insert(on.to_owned(), None);
    }

    /// Notes what the node does in a Run.
    pub(crate) fn of_node(&mut self, run: Run, node: RunNode) {
        self.of_node.push((run, node));
    }

    /// The next object that the chain needs.
    pub(crate) fn next(&self, about: &str) -> Option<Wanted> {
        let mut seen = BTreeSet::new();
        let mut open = vec![about.to_owned()];
        while let Some(on) = open.pop() {
            if !seen.insert(on.clone()) {
                continue;
            }
            match self.objects.get(&on) {
                None => return Some(Wanted { on }),
                Some(Some(Object { kind: Some(Message::Run(run)) })) => open.extend(behind(run)),
                Some(_) => {}
            }
        }
        None
    }

    fn run(&self, on: &str) -> Option<&Run> {
        match self.objects.get(on)?.as_ref()?.kind.as_ref()? {
            Message::Run(run) => Some(run),
            _ => None,
        }
    }

    fn node(&self, on: &str) -> Option<&Node> {
        match self.objects.get(on)?.as_ref()?.kind.as_ref()? {
            Message::Node(node) => Some(node),
            _ => None,
        }
    }
}

/// What a Run's waiting leads to: other Runs, and nodes.
fn behind(run: &Run) -> Vec<String> {
    let Some(status) = &run.status else { return Vec::new() };
    let named = |text: &&String| text.starts_with("run/") || text.starts_with("node/");
    let waiting = status.waiting_for.iter().flat_map(|waiting| [&waiting.on, &waiting.behind]);
    let held = status.held_nodes.iter().map(|node| format!("node/{node}"));
    waiting.filter(named).cloned().chain(held).collect()
}

/// Whether a Run can have to do with a node: it goes, or keeps places.
pub(crate) fn may_meet(run: &Run, node: &str) -> bool {
    let status = run.status.clone().unwrap_or_default();
    let ended = matches!(status.phase(), RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled);
    !ended || status.held_nodes.iter().any(|held| held == node)
}

/// The chain in lines.
pub(crate) fn chain(about: &str, facts: &Facts) -> String {
    let mut telling = Telling { facts, out: String::new(), told: BTreeSet::new() };
    match about.starts_with("node/") {
        true => telling.about_node(about),
        false => telling.run(about, 0),
    }
    telling.out
}

struct Telling<'f> {
    facts: &'f Facts,
    out: String,
    told: BTreeSet<String>,
}

impl Telling<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{}{text}", "  ".repeat(depth));
    }

    fn run(&mut self, on: &str, depth: usize) {
        let Some(run) = self.facts.run(on) else { return self.line(depth, &format!("{on} is gone")) };
        if !self.told.insert(on.to_owned()) {
            return self.line(depth, &format!("{on}: see above"));
        }
        let status = run.status.clone().unwrap_or_default();
        let why = if status.message.is_empty() { String::new() } else { format!(": {}", safe(&status.message, 256)) };
        let head = format!("{on} is {}{why}{}", phase_word(status.phase()), asked_for(run));
        self.line(depth, &head);
        for failure in &status.failures {
            let task = if failure.task.is_empty() { String::new() } else { format!(" task {}", failure.task) };
            self.line(depth + 1, &format!("node/{} failed:{task} {}", failure.node, safe(&failure.message, 256)));
        }
        for waiting in &status.waiting_for {
            if waiting.message != status.message {
                self.line(depth + 1, &safe(&waiting.message, 256));
            }
            let deeper = depth + 1 + usize::from(waiting.message != status.message);
            self.cause(&waiting.on, &waiting.behind, deeper);
        }
        for node in &status.held_nodes {
            self.line(depth + 1, &format!("node/{node} holds its place: `lockstep release` gives it free"));
            self.node(&format!("node/{node}"), depth + 2);
        }
    }

    /// What stands behind one thing that is waited for.
    fn cause(&mut self, on: &str, behind: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.line(depth, "…");
        }
        if behind.starts_with("run/") {
            self.run(behind, depth);
        } else if on.starts_with("node/") {
            self.node(on, depth);
        }
    }

    /// A node, if there is something to say of it.
    fn node(&mut self, on: &str, depth: usize) {
        let Some(node) = self.facts.node(on) else { return self.line(depth, &format!("{on} is gone")) };
        let status = node.status.clone().unwrap_or_default();
        if status.liveness != "Ready" {
            let seen = status.last_seen_at.as_ref().map(|at| format!(", last heard {}", timestamp::format(at)));
            let word = if status.liveness.is_empty() { "NeverSeen" } else { &status.liveness };
            self.line(depth, &format!("{on} is {word}{}", seen.unwrap_or_default()));
        }
    }

    fn about_node(&mut self, on: &str) {
        let Some(node) = self.facts.node(on) else { return self.line(0, &format!("{on} is gone")) };
        let status = node.status.clone().unwrap_or_default();
        let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable);
        let liveness = if status.liveness.is_empty() { "NeverSeen" } else { status.liveness.as_str() };
        let seen = status.last_seen_at.as_ref().filter(|_| liveness != "Ready");
        let seen = seen.map(|at| format!(", last heard {}", timestamp::format(at))).unwrap_or_default();
        let cordon = if cordoned { "; it is cordoned: new runs skip it" } else { "" };
        self.line(0, &format!("{on} is {liveness}{seen}{cordon}"));
        if self.facts.of_node.is_empty() {
            self.line(1, "no run has to do with it");
        }
        for (run, of) in &self.facts.of_node {
            let metadata = run.metadata.clone().unwrap_or_default();
            let held = if of.held { ", and holds its place" } else { "" };
            let name = format!("run/{} (namespace {})", metadata.name, metadata.namespace);
            self.line(1, &format!("in {name} it is {}{held}{}", of.state, asked_for(run)));
            let status = run.status.clone().unwrap_or_default();
            if !status.message.is_empty() {
                self.line(2, &format!("which is {}: {}", phase_word(status.phase()), safe(&status.message, 256)));
            }
            for waiting in status.waiting_for.iter().filter(|waiting| waiting.on == on) {
                self.line(2, &safe(&waiting.message, 256));
            }
        }
    }
}

/// By whom, and when.
fn asked_for(run: &Run) -> String {
    let origin = run.spec.as_ref().and_then(|spec| spec.origin.clone()).unwrap_or_default();
    let kind = match origin.r#type() {
        OriginType::User | OriginType::Unspecified => "",
        OriginType::CronJob => "the CronJob ",
        OriginType::Trigger => "the Trigger ",
        OriginType::Webhook => "the Webhook ",
        OriginType::Node => "the node ",
    };
    let at = run.metadata.as_ref().and_then(|metadata| metadata.created_at.as_ref()).map(timestamp::format);
    match (origin.name.as_str(), at) {
        ("", _) | (_, None) => String::new(),
        (name, Some(at)) => format!(" (asked for by {kind}{name}, {at})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::{Metadata, NodeStatus, Origin, RunSpec, RunStatus, Waiting};

    fn run(name: &str, phase: RunPhase, waiting: &[(&str, &str, &str)]) -> Object {
        let waiting = waiting.iter().map(|(on, message, behind)| Waiting {
            on: (*on).into(),
            message: (*message).into(),
            behind: (*behind).into(),
            ..Waiting::default()
        });
        let origin = Origin { name: "alice".into(), r#type: OriginType::User.into(), ..Origin::default() };
        let created_at = Some(timestamp::from_ms(0));
        Run {
            metadata: Some(Metadata { name: name.into(), created_at, ..Metadata::default() }),
            spec: Some(RunSpec { origin: Some(origin), ..RunSpec::default() }),
            status: Some(RunStatus { phase: phase.into(), waiting_for: waiting.collect(), ..RunStatus::default() }),
        }
        .into()
    }

    fn node(liveness: &str) -> Object {
        let last_seen_at = Some(timestamp::from_ms(1000));
        let status = NodeStatus { liveness: liveness.into(), last_seen_at, ..NodeStatus::default() };
        Node { status: Some(status), ..Node::default() }.into()
    }

    /// Fetches from these until nothing is wanted.
    fn told(about: &str, objects: Vec<(&str, Object)>) -> String {
        let objects: BTreeMap<&str, Object> = objects.into_iter().collect();
        let mut facts = Facts::default();
        while let Some(wanted) = facts.next(about) {
            match objects.get(wanted.on.as_str()) {
                Some(object) => facts.add(&wanted.on, object.clone()),
                None => facts.gone(&wanted.on),
            }
        }
        chain(about, &facts)
    }

    #[test]
    fn a_chain_goes_from_the_run_over_the_lock_to_the_node_that_is_away() {
        let x = run("x", RunPhase::Waiting, &[("lock/shop", "run y holds the lock shop", "run/y")]);
        let y = run("y", RunPhase::Running, &[("node/z", "z is at work", "")]);
        let expected = "\
run/x is Waiting (asked for by alice, 1970-01-01T00:00:00Z)
  run y holds the lock shop
    run/y is Running (asked for by alice, 1970-01-01T00:00:00Z)
      z is at work
        node/z is Unreachable, last heard 1970-01-01T00:00:01Z
";
        assert_eq!(told("run/x", vec![("run/x", x), ("run/y", y), ("node/z", node("Unreachable"))]), expected);
    }

    #[test]
    fn circles_and_what_is_gone_end_the_chain() {
        let x = run("x", RunPhase::Waiting, &[("node/a", "a is next for run y", "run/y"), ("run/w", "w", "run/w")]);
        let y = run("y", RunPhase::Waiting, &[("node/b", "b is next for run x", "run/x")]);
        let text =
            told("run/x", vec![("run/x", x), ("run/y", y), ("node/a", node("Ready")), ("node/b", node("Ready"))]);
        assert!(text.contains("      run/x: see above\n"), "{text}");
        assert!(text.contains("    run/w is gone\n"), "{text}");
    }

    #[test]
    fn a_node_names_the_runs_that_have_to_do_with_it() {
        let mut facts = Facts::default();
        facts.add("node/z", node("Unreachable"));
        let Some(Message::Run(of)) = run("y", RunPhase::Running, &[("node/z", "z is at work", "")]).kind else {
            panic!("a run")
        };
        facts.of_node(of, RunNode { name: "z".into(), state: "Working".into(), held: true, ..RunNode::default() });
        let text = chain("node/z", &facts);
        assert!(text.starts_with("node/z is Unreachable, last heard 1970-01-01T00:00:01Z\n"), "{text}");
        assert!(
            text.contains("  in run/y (namespace ) it is Working, and holds its place (asked for by alice"),
            "{text}"
        );
        assert!(text.ends_with("    z is at work\n"), "{text}");
        let mut idle = Facts::default();
        idle.add("node/z", node("Ready"));
        assert_eq!(chain("node/z", &idle), "node/z is Ready\n  no run has to do with it\n");
    }
}
