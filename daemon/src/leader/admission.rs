//! From a pending Run to its snapshot: gathers what the compiler needs, compiles beside the runtime, commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_apis::commit::Term;
use lockstep_apis::keys;
use lockstep_apis::v1alpha::{Config, Node, NodeGroup, Object, Run, Sealed, Snapshot, TaskBook, Value, object};
use lockstep_core::compile::{self, Admission, AdmissionNode, Rejection, Retry};
use lockstep_core::outcome::{NodeState, node_state, owed};
use lockstep_core::protocol::results_of_all;
use lockstep_core::step::{admission, rejection};
use lockstep_core::world::{NodeEnd, Plan, RunState};
use lockstep_core::{Library, included_books};

use super::{Leader, Outcome};
use crate::cache::State;
use crate::clock::now_ms;
use crate::delivery::{open_result, shared_place};
use crate::sealing::{KeyRing, Place};
use crate::variables::VariableObjects;

/// All that an admission depends on, taken out of the cache so that compiling does not hold it.
pub struct Gathered {
    run: Arc<Run>,
    book: Option<Arc<Object>>,
    /// Those that it may include.
    books: Vec<Arc<Object>>,
    nodes: Vec<(Arc<Object>, bool)>,
    groups: Vec<Arc<Object>>,
    picks: BTreeMap<String, Vec<String>>,
    config: Option<Arc<Object>>,
    variables: VariableObjects,
    retry: Option<Earlier>,
    now_ms: u64,
}

/// What is taken on from an earlier Run.
struct Earlier {
    snapshot: Arc<Snapshot>,
    nodes: BTreeSet<String>,
    shared: BTreeMap<String, Value>,
    all: BTreeMap<String, Value>,
    sealed_shared: BTreeMap<String, Sealed>,
    owed: BTreeMap<String, BTreeSet<u32>>,
}

/// Why there is nothing to compile from.
type Missing = (&'static str, String);

impl Leader {
    /// Admits or rejects one Run.
    pub(super) async fn admit(&self, term: Term, uid: &str) -> Outcome {
        let gathered = {
            let cache = self.cache.read();
            let Some(object) = cache.world().run(uid).and_then(RunState::object) else { return Outcome::default() };
            gather(&cache, object.value.clone(), |node| self.up.is_up(&cache, node), &self.sealing, now_ms())
        };
        let compiled = match gathered {
            Ok(gathered) => compiled(gathered).await,
            Err((reason, message)) => Err((reason.to_owned(), message)),
        };
        let commits = {
            let cache = self.cache.read();
            let admitted = compiled.and_then(|snapshot| {
                admission(cache.world(), term, uid, &snapshot)
                    .map_err(|e| ("SnapshotTooLarge".to_owned(), e.to_string()))
            });
            admitted.unwrap_or_else(|(reason, message)| {
                rejection(cache.world(), term, uid, &reason, &message, now_ms()).into_iter().collect()
            })
        };
        let mut outcome = Outcome::default();
        for commit in commits {
            outcome = outcome.and(self.commit(self.with_events(commit)).await);
            if outcome.conflicts {
                break;
            }
        }
        outcome
    }
}

async fn compiled(gathered: Gathered) -> Result<Snapshot, (String, String)> {
    let compiling = tokio::task::spawn_blocking(move || gathered.compile());
    match compiling.await {
        Ok(compiled) => compiled.map_err(|rejection| (rejection.reason.to_owned(), rejection.message)),
        Err(problem) => {
            tracing::error!(%problem, "the compiler failed");
            Err(("Internal".to_owned(), "the run could not be compiled; the server's log says more".to_owned()))
        }
    }
}

/// Takes out of the cache what the compiler needs for a Run.
pub fn gather(
    cache: &State,
    run: Arc<Run>,
    is_up: impl Fn(&Node) -> bool,
    ring: &KeyRing,
    now_ms: u64,
) -> Result<Gathered, Missing> {
    let spec = run.spec.clone().unwrap_or_default();
    let metadata = run.metadata.clone().unwrap_or_default();
    let book = spec
        .task_books
        .first()
        .and_then(|name| cache.object(&keys::object("taskbooks", &metadata.namespace, name)).cloned());
    let all_nodes = keys::object_prefix("nodes", None);
    let nodes = cache.objects(&all_nodes).map(|(_, object)| (object.clone(), as_node(object).is_some_and(&is_up)));
    let retry = match spec.retry_of.as_str() {
        "" => None,
        earlier => {
            let of = cache.world().run_named(&metadata.namespace, earlier);
            let of = of.and_then(|of| Some((of, of.plan()?)));
            let (of, plan) =
                of.ok_or_else(|| ("RunNotFound", format!("the run {earlier}, which this one retries, is gone")))?;
            Some(taken_on(of, plan, &metadata.uuid, spec.retry_nodes.iter().cloned().collect(), ring)?)
        }
    };
    let tasks = book.as_deref().and_then(as_book).and_then(|book| book.spec.as_ref());
    let tasks = tasks.map_or(spec.tasks.as_slice(), |book| book.tasks.as_slice());
    // Most books include none.
    let books =
        (!included_books(tasks).is_empty()).then(|| keys::object_prefix("taskbooks", Some(&metadata.namespace)));
    let books = books.iter().flat_map(|prefix| cache.objects(prefix)).map(|(_, object)| object.clone()).collect();
    Ok(Gathered {
        books,
        book,
        nodes: nodes.collect(),
        groups: cache.objects(&keys::object_prefix("nodegroups", None)).map(|(_, object)| object.clone()).collect(),
        picks: cache.world().picks(&metadata.namespace),
        config: cache.object(&keys::object("configs", "", "cluster")).cloned(),
        variables: VariableObjects::of(cache, &metadata.namespace),
        retry,
        now_ms,
        run,
    })
}

impl Gathered {
    /// Compiles. Takes as long as the Run is large.
    pub fn compile(&self) -> Result<Snapshot, Rejection> {
        let nodes: Vec<AdmissionNode<'_>> = self
            .nodes
            .iter()
            .filter_map(|(object, up)| Some(AdmissionNode { node: as_node(object)?, up: *up }))
            .collect();
        let groups: Vec<&NodeGroup> = self
            .groups
            .iter()
            .filter_map(|object| match &object.kind {
                Some(object::Kind::NodeGroup(group)) => Some(group),
                _ => None,
            })
            .collect();
        let retry = self.retry.as_ref().map(|earlier| Retry {
            snapshot: &earlier.snapshot,
            nodes: &earlier.nodes,
            shared: &earlier.shared,
            all: &earlier.all,
            sealed_shared: &earlier.sealed_shared,
            owed: &earlier.owed,
        });
        let library = Library::whole(self.books.iter().filter_map(|object| as_book(object)));
        self.variables.lend(|variables| {
            compile::compile(&Admission {
                run: &self.run,
                book: self.book.as_deref().and_then(as_book),
                library: &library,
                nodes: &nodes,
                groups: &groups,
                picks: &self.picks,
                config: self.config.as_deref().and_then(as_config),
                variables: *variables,
                now_ms: self.now_ms,
                retry,
            })
        })
    }
}

/// The uids of a Run's nodes that did not succeed.
pub fn unfinished(run: &RunState, plan: &Plan) -> Vec<String> {
    let nodes = 0..u32::try_from(plan.snapshot.nodes.len()).unwrap_or(u32::MAX);
    let done =
        |node: &u32| matches!(node_state(run, plan, *node, true), NodeState::Ended(NodeEnd::Ok | NodeEnd::Changed));
    nodes.filter(|node| !done(node)).map(|node| plan.uid(node).to_owned()).collect()
}

/// What a Run's tasks have made for all, secrets sealed for the new Run.
fn taken_on(
    run: &RunState,
    plan: &Arc<Plan>,
    new_uid: &str,
    nodes: BTreeSet<String>,
    ring: &KeyRing,
) -> Result<Earlier, Missing> {
    let read = plan.snapshot.segments.iter().flat_map(|segment| &segment.reads_all);
    let all = read.map(|id| (id.clone(), Value::map(results_of_all(run, plan, id)))).collect();
    let every = 0..u32::try_from(plan.snapshot.nodes.len()).unwrap_or(u32::MAX);
    let mut earlier = Earlier {
        owed: every.map(|node| (plan.uid(node).to_owned(), owed(run, plan, node))).collect(),
        snapshot: plan.snapshot.clone(),
        nodes,
        shared: BTreeMap::new(),
        all,
        sealed_shared: BTreeMap::new(),
    };
    let unusable =
        |id: &str| ("SecretUnusable", format!("the secret value shared.{id} of the earlier run cannot be opened"));
    let seal = |id: &str, value: &Value| {
        let (key, field) = shared_place(new_uid, id);
        ring.seal_value(Place { key: &key, field: &field }, value)
    };
    // Those that it was given itself were sealed for it.
    for (id, sealed) in &plan.snapshot.sealed_shared {
        let (key, field) = shared_place(run.uid(), id);
        let value = ring.open_value(Place { key: &key, field: &field }, sealed).map_err(|_| unusable(id))?;
        earlier.sealed_shared.insert(id.clone(), seal(id, &value));
    }
    for (at, segment) in plan.snapshot.segments.iter().enumerate() {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        for task in segment.tasks.iter().filter(|task| task.shared) {
            for node in 0..u32::try_from(plan.snapshot.nodes.len()).unwrap_or(u32::MAX) {
                let Some(track) = run.track(at, node) else { continue };
                for attempt in &track.attempts {
                    let reports = attempt.counted_report().into_iter().flat_map(|report| &report.tasks);
                    for report in reports.filter(|report| report.task == task.index) {
                        if let Some(sealed) = &report.sealed {
                            let place = run.attempt_of(plan, at, node, attempt.number);
                            let value =
                                open_result(ring, &place, task.index, sealed).map_err(|_| unusable(&task.id))?;
                            earlier.sealed_shared.insert(task.id.clone(), seal(&task.id, &value));
                        } else if let Some(value) = &report.result {
                            earlier.shared.insert(task.id.clone(), value.clone());
                        }
                    }
                }
            }
        }
    }
    Ok(earlier)
}

fn as_node(object: &Arc<Object>) -> Option<&Node> {
    match &object.kind {
        Some(object::Kind::Node(node)) => Some(node),
        _ => None,
    }
}

fn as_book(object: &Object) -> Option<&TaskBook> {
    match &object.kind {
        Some(object::Kind::TaskBook(book)) => Some(book),
        _ => None,
    }
}

fn as_config(object: &Object) -> Option<&Config> {
    match &object.kind {
        Some(object::Kind::Config(config)) => Some(config),
        _ => None,
    }
}
