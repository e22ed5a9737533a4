//! How a node stands in its Runs: for whom it works, what it still owes. Read from the world when somebody asks, so that
//! nothing of it is ever written. Knows Runs; not whether the node is heard.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    outcome::owed,
    world::{Plan, RunState, World},
};

/// All that nodes owe is asked of the same Runs.
pub struct Standings<'w> {
    world: &'w World,
    /// Those that have handlers, in the order in which they were created.
    with_handlers: Vec<(&'w RunState, &'w Plan)>,
}

impl<'w> Standings<'w> {
    /// Of this moment.
    pub fn of(world: &'w World) -> Self {
        let has_handlers = |plan: &Plan| {
            let mut tasks = plan.snapshot.segments.iter().flat_map(|segment| &segment.tasks);
            !plan.snapshot.check && tasks.any(|task| task.handler)
        };
        let with_plan = world.runs().filter_map(|run| Some((run, &**run.plan()?)));
        let mut with_handlers: Vec<_> = with_plan.filter(|(_, plan)| has_handlers(plan)).collect();
        with_handlers.sort_by_key(|(run, plan)| (plan.snapshot.created_ms, run.uid()));
        Self { world, with_handlers }
    }

    /// The Run that a node works for, as `namespace/name`: of several at once the first.
    pub fn run(&self, node: &str) -> Option<String> {
        let mut held = self.world.held(node).map(|attempt| attempt.run.as_str());
        let snapshot = &self.world.run(held.next()?)?.plan()?.snapshot;
        Some(format!("{}/{}", snapshot.namespace, snapshot.run_name))
    }

    /// Handlers that were notified on a node and have not ended well since, as `namespace/book: name`. A later Run of the
    /// book does them if it notifies them, or is a retry.
    pub fn owed_handlers(&self, node: &str) -> Vec<String> {
        let mut owing: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for &(run, plan) in &self.with_handlers {
            let Some(at) = plan.node(node) else { continue };
            let snapshot = &plan.snapshot;
            let book = owing.entry((&snapshot.namespace, &snapshot.book_name)).or_default();
            let owed = owed(run, plan, at);
            let ended = run.ended_tasks(at);
            for task in snapshot.segments.iter().flat_map(|segment| &segment.tasks).filter(|task| task.handler) {
                if owed.contains(&task.index) {
                    book.insert(&task.name);
                } else if ended.contains(&task.index) {
                    book.remove(task.name.as_str());
                }
            }
        }
        let owing = owing.into_iter().flat_map(|(book, names)| names.into_iter().map(move |name| (book, name)));
        owing.map(|((namespace, book), name)| format!("{namespace}/{book}: {name}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_apis::v1alpha::{CompiledTask, Outcome, Report, Snapshot, TaskReport};

    use super::*;
    use crate::{
        fixture::{Fixture, plan},
        protocol,
    };

    fn notifying(run: &str) -> Snapshot {
        let mut plan = plan(run, &["a", "b"], 2);
        plan.book_name = "web".into();
        plan.groups[0].max_failures = 2;
        let tasks = &mut plan.segments[0].tasks;
        tasks[0].notify = vec![9];
        tasks.push(CompiledTask { index: 9, handler: true, name: "restart".into(), ..Default::default() });
        plan
    }

    fn ends(f: &mut Fixture, run: &str, node: &str, ends: &[(u32, Outcome)]) {
        let attempt = f.claim(node);
        assert_eq!(attempt.run, run);
        let task =
            |&(task, outcome): &(u32, Outcome)| TaskReport { task, outcome: outcome.into(), ..Default::default() };
        let report = Report { tasks: ends.iter().map(task).collect(), ..Default::default() };
        f.commit(protocol::report(&attempt, &report, false)).unwrap();
        f.settle();
    }

    #[test]
    fn a_node_works_for_a_run_from_its_assignment_to_its_report() {
        let mut f = Fixture::new();
        assert_eq!(Standings::of(&f.world).run("a"), None);
        f.admit(notifying("r"));
        f.settle();
        let snapshot = &f.world.run("r").unwrap().plan().unwrap().snapshot;
        let named = format!("{}/{}", snapshot.namespace, snapshot.run_name);
        assert_eq!(Standings::of(&f.world).run("a"), Some(named));
        ends(&mut f, "r", "a", &[(0, Outcome::Ok)]);
        assert_eq!(Standings::of(&f.world).run("a"), None);
    }

    #[test]
    fn what_is_owed_is_shown_until_a_later_run_has_done_it() {
        let mut f = Fixture::new();
        f.admit(notifying("r"));
        f.settle();
        ends(&mut f, "r", "a", &[(0, Outcome::Changed), (9, Outcome::Failed)]);
        ends(&mut f, "r", "b", &[(0, Outcome::Ok)]);
        let owed = |f: &Fixture, node: &str| Standings::of(&f.world).owed_handlers(node);
        let namespace = f.world.run("r").unwrap().plan().unwrap().snapshot.namespace.clone();
        assert_eq!(owed(&f, "a"), [format!("{namespace}/web: restart")]);
        assert!(owed(&f, "b").is_empty());
        for (run, reports, is_owed) in
            [("s", vec![(0, Outcome::Ok)], true), ("t", vec![(0, Outcome::Changed), (9, Outcome::Changed)], false)]
        {
            f.admit(Snapshot { created_ms: notifying(run).created_ms + 1, ..notifying(run) });
            f.settle();
            ends(&mut f, run, "a", &reports);
            ends(&mut f, run, "b", &[(0, Outcome::Ok)]);
            assert_eq!(!owed(&f, "a").is_empty(), is_owed, "{run}");
        }
    }
}
