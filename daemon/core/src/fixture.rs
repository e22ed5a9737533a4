//! A store of one process and Runs made by hand, for the tests of this crate.

use std::collections::BTreeMap;

use lockstep_apis::{
    commit::{Commit, Compare, Entry, Operation, Revision, Term},
    keys::{self, Attempt, Key},
    v1alpha::{
        Claim, CompiledTask, Concurrency, ConcurrencyPolicy, Group, Leader, LockMode, LockRequest, Metadata, OnFailure,
        OnInterrupt, Origin, OriginType, Outcome, Report, Run, RunPhase, RunSpec, Segment, Snapshot, SnapshotNode,
        TaskReport, Window,
    },
};
use prost::Message;

use crate::{
    protocol::{self, ClaimAnswer, Entering, Refusal},
    step::{self, Step},
    world::{NodeEnd, World},
};

/// When the fixture's Runs are made.
pub(crate) const START_MS: u64 = 1_000_000;

/// A store, the world that follows it without delay, and a leader.
pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) term: Term,
    pub(crate) now_ms: u64,
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let mut fixture = Fixture {
            world: World::new(),
            term: Term::default(),
            now_ms: START_MS,
            entries: BTreeMap::new(),
            revision: 10,
        };
        fixture.commit(Commit::new().put(keys::leader(), Leader::default().encode_to_vec())).unwrap();
        fixture.term = Term { incarnation: 1, revision: fixture.revision };
        fixture
    }

    /// Commits, or says which compare does not hold.
    pub(crate) fn commit(&mut self, commit: Commit) -> Result<(), Compare> {
        assert!(commit.operations.len() <= 100 && commit.compares.len() <= 100, "too large: {commit:?}");
        if let Some(fails) = commit.compares.iter().find(|compare| !self.holds(compare)) {
            return Err(fails.clone());
        }
        self.revision += 1;
        let revision = self.revision;
        for operation in commit.operations {
            match operation {
                Operation::Put { key, value, .. } => {
                    let create_revision = self.entries.get(&key).map_or(revision, |entry| entry.create_revision);
                    let entry = Entry { key: key.clone(), value, create_revision, mod_revision: revision };
                    self.world.put(&entry).unwrap();
                    self.entries.insert(key, entry);
                }
                Operation::Delete(key) => self.delete(&key),
                Operation::DeletePrefix(prefix) => {
                    let under: Vec<Key> =
                        self.entries.keys().filter(|key| key.as_str().starts_with(prefix.as_str())).cloned().collect();
                    under.iter().for_each(|key| self.delete(key));
                }
            }
        }
        self.world.advance(revision);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        self.entries.remove(key);
        self.world.delete(key);
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Present(key) => self.entries.contains_key(key),
            Compare::ModRevision(key, at) => self.entries.get(key).is_some_and(|entry| entry.mod_revision == *at),
            Compare::CreateRevision(key, at) => self.entries.get(key).is_some_and(|entry| entry.create_revision == *at),
            Compare::Value(key, value) => self.entries.get(key).is_some_and(|entry| entry.value == *value),
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn step(&self) -> Step {
        step::step(&self.world, self.term, self.now_ms)
    }

    /// Steps and commits until nothing is decided any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            let step = self.step();
            if step.commits.is_empty() && step.status.is_empty() {
                return;
            }
            // Statuses are for readers: behind the decisions, and only while no decision writes the object.
            let writes = if step.commits.is_empty() { step.status } else { step.commits };
            for commit in writes {
                self.commit(commit).unwrap();
            }
        }
        panic!("decides for ever: {:?}", self.step().commits);
    }

    /// Makes a Run and admits it.
    pub(crate) fn admit(&mut self, plan: Snapshot) {
        let uid = plan.run_uid.clone();
        self.create(&plan);
        for commit in step::admission(&self.world, self.term, &uid, &plan).unwrap() {
            self.commit(commit).unwrap();
        }
    }

    /// Admits a Run that was made.
    pub(crate) fn admit_created(&mut self, plan: &Snapshot) {
        for commit in step::admission(&self.world, self.term, &plan.run_uid, plan).unwrap() {
            self.commit(commit).unwrap();
        }
    }

    /// Makes a Run of this user that waits for admission.
    pub(crate) fn create_by(&mut self, plan: &Snapshot, name: &str) {
        let mut run = keyed(plan, ConcurrencyPolicy::Unspecified);
        let origin = Origin { r#type: OriginType::User.into(), name: name.into(), uid: format!("uid-{name}") };
        run.spec = Some(RunSpec { origin: Some(origin), concurrency: None, ..run.spec.unwrap_or_default() });
        let key = keys::object("runs", &plan.namespace, &plan.run_name);
        self.commit(Commit::new().create(key, run.encode_to_vec())).unwrap();
    }

    /// Makes a Run that waits for admission.
    pub(crate) fn create(&mut self, plan: &Snapshot) {
        let metadata = Metadata {
            name: plan.run_name.clone(),
            namespace: plan.namespace.clone(),
            uuid: plan.run_uid.clone(),
            ..Default::default()
        };
        let run = Run { metadata: Some(metadata), ..Default::default() };
        let key = keys::object("runs", &plan.namespace, &plan.run_name);
        self.commit(Commit::new().create(key, run.encode_to_vec())).unwrap();
    }

    /// Makes a Run with the plan's concurrency key, as its policy says. Returns the uid of the one that it joins.
    pub(crate) fn enter(&mut self, plan: &Snapshot, policy: ConcurrencyPolicy) -> Result<Option<String>, Refusal> {
        let run = keyed(plan, policy);
        match protocol::enter(&self.world, &run, 0, "user/x", self.now_ms)? {
            Entering::Join(uid) => Ok(Some(uid)),
            Entering::Enter(commit) => {
                let key = keys::object("runs", &plan.namespace, &plan.run_name);
                self.commit(commit.create(key, run.encode_to_vec())).unwrap();
                Ok(None)
            }
        }
    }

    /// [`Self::enter`], and admits it.
    pub(crate) fn enter_and_admit(&mut self, plan: Snapshot, policy: ConcurrencyPolicy) {
        assert_eq!(self.enter(&plan, policy), Ok(None));
        self.admit_created(&plan);
    }

    /// `node` claims what it is offered. Returns the attempt.
    pub(crate) fn claim(&mut self, node: &str) -> Attempt {
        let attempt = self.world.offers(node).next().unwrap_or_else(|| panic!("{node} is offered nothing")).clone();
        match protocol::answer_claim(&self.world, &attempt, &by("one")) {
            ClaimAnswer::Commit(commit) => self.commit(commit).unwrap(),
            other => panic!("{other:?}"),
        }
        attempt
    }

    /// `node` claims, and reports every task of the segment with the outcome.
    pub(crate) fn work(&mut self, node: &str, outcome: Outcome) -> Attempt {
        let attempt = self.claim(node);
        self.report(&attempt, outcome);
        attempt
    }

    pub(crate) fn report(&mut self, attempt: &Attempt, outcome: Outcome) {
        let work = protocol::work(&self.world, attempt).unwrap().work;
        let known = |task: &&CompiledTask| !work.known.iter().any(|known| known.task == task.index);
        let tasks = work.tasks.iter().filter(known);
        let tasks = tasks.map(|task| TaskReport { task: task.index, outcome: outcome.into(), ..Default::default() });
        let report = Report { tasks: tasks.collect(), ..Default::default() };
        let seen = self.world.attempt(attempt).is_some_and(|state| state.verdict.is_some());
        self.commit(protocol::report(attempt, &report, seen)).unwrap();
    }

    /// Names of nodes that are offered something of the Run, `run/node/segment/attempt`.
    pub(crate) fn offered(&self) -> Vec<String> {
        let nodes = ["a", "b", "c", "d", "e", "f"];
        let all = nodes.iter().flat_map(|node| self.world.offers(node));
        all.map(|at| format!("{}/{}/{}/{}", at.run, at.node, at.segment, at.attempt)).collect()
    }

    pub(crate) fn phase(&self, run: &str) -> RunPhase {
        self.world.run(run).unwrap().stored_phase()
    }

    pub(crate) fn end_of(&self, run: &str, node: &str) -> Option<NodeEnd> {
        let run = self.world.run(run).unwrap();
        let plan = run.plan().unwrap();
        match crate::outcome::node_state(run, plan, plan.node(node).unwrap(), run.has_ended()) {
            crate::outcome::NodeState::Ended(end) => Some(end),
            _ => None,
        }
    }
}

/// A Run that has the plan's concurrency key.
pub(crate) fn keyed(plan: &Snapshot, policy: ConcurrencyPolicy) -> Run {
    let metadata = Metadata {
        name: plan.run_name.clone(),
        namespace: plan.namespace.clone(),
        uuid: plan.run_uid.clone(),
        ..Default::default()
    };
    let concurrency = Concurrency { key: plan.concurrency_key.clone(), policy: policy.into() };
    let spec = RunSpec { task_books: vec!["b".into()], concurrency: Some(concurrency), ..Default::default() };
    Run { metadata: Some(metadata), spec: Some(spec), status: None }
}

pub(crate) fn by(instance: &str) -> Claim {
    Claim { instance: instance.into(), ..Default::default() }
}

/// A Run over the nodes: one group, one segment of one task that may rerun, windows of `size`.
pub(crate) fn plan(run: &str, nodes: &[&str], size: usize) -> Snapshot {
    let indices: Vec<u32> = (0..nodes.len() as u32).collect();
    let windows = indices.chunks(size).map(|nodes| Window { nodes: nodes.to_vec(), size: size as u32 });
    Snapshot {
        run_uid: run.into(),
        run_name: run.into(),
        namespace: "shop".into(),
        nodes: nodes
            .iter()
            .map(|node| SnapshotNode { uid: (*node).into(), name: (*node).into(), ..Default::default() })
            .collect(),
        groups: vec![Group {
            windows: windows.collect(),
            segment_count: 1,
            on_failure: OnFailure::StopNow.into(),
            ..Default::default()
        }],
        segments: vec![segment(0)],
        timeout_ms: 60_000,
        grace_ms: 10_000,
        created_ms: START_MS,
        ..Default::default()
    }
}

/// The same with so many segments, a barrier between each two.
pub(crate) fn with_barriers(mut plan: Snapshot, segments: u32) -> Snapshot {
    plan.groups[0].segment_count = segments;
    plan.segments = (0..segments).map(segment).collect();
    plan
}

pub(crate) fn with_key(mut plan: Snapshot, key: &str) -> Snapshot {
    plan.concurrency_key = key.into();
    plan
}

pub(crate) fn with_poison(mut plan: Snapshot, name: &str) -> Snapshot {
    let mode = LockMode::Write.into();
    plan.locks.push(LockRequest { name: name.into(), mode, poison: true });
    plan
}

pub(crate) fn with_lock(mut plan: Snapshot, name: &str, mode: LockMode) -> Snapshot {
    plan.locks.push(LockRequest { name: name.into(), mode: mode.into(), ..Default::default() });
    plan
}

fn segment(index: u32) -> Segment {
    let task = CompiledTask {
        index,
        id: format!("t{index}"),
        name: format!("task {index}"),
        action: "command.run".into(),
        on_interrupt: OnInterrupt::Rerun.into(),
        ..Default::default()
    };
    Segment { tasks: vec![task], all_of_window: true, ..Default::default() }
}
