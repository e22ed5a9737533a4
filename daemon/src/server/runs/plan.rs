//! What a Run would do: compiled as the leader would, and not committed.

use std::sync::Arc;

use lockstep_apis::keys;
use lockstep_apis::v1alpha::{Config, Metadata, Object, PlanRequest, Run, Snapshot, TaskBook, object::Kind as K};
use lockstep_apis::validate;
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::check;
use lockstep_core::compile::{Admission, AdmissionNode, Rejection, compile};

use super::RunsApi;
use crate::cache::State;
use crate::clock::now_ms;
use crate::status::{Answer, Problem};

/// All that a compile reads, taken out of the cache so that nobody waits for it.
struct Inventory {
    nodes: Vec<(Arc<Object>, bool)>,
    groups: Vec<Arc<Object>>,
    book: Option<Arc<Object>>,
    config: Option<Arc<Object>>,
}

impl RunsApi {
    pub(super) async fn plan_of(&self, request: PlanRequest) -> Answer<Snapshot> {
        let metadata = Metadata { name: "plan".into(), namespace: request.namespace.clone(), ..Metadata::default() };
        let run = Run { metadata: Some(metadata), spec: request.spec, status: None };
        let mut violations = validate::object(&Object::from(run.clone()));
        violations.extend(check::run(&run));
        if !violations.is_empty() {
            return Err(Problem::Violations(violations));
        }
        self.cache.catch_up(&*self.store).await?;
        let inventory = Inventory::of(&self.cache.read(), &run)?;
        let compiled = tokio::task::spawn_blocking(move || inventory.compile(&run)).await;
        let compiled = compiled.map_err(|problem| Problem::Internal(format!("planning ended: {problem}")))?;
        compiled.map_err(rejected)
    }
}

fn rejected(rejection: Rejection) -> Problem {
    match rejection.violations.is_empty() {
        true => Problem::Violations(vec![of_field(rejection.reason, "spec", rejection.message)]),
        false => Problem::Violations(rejection.violations),
    }
}

impl Inventory {
    fn of(state: &State, run: &Run) -> Answer<Self> {
        let namespace = run.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
        let named = run.spec.as_ref().and_then(|spec| spec.task_books.first());
        let book = named.map(|name| {
            let found = state.object(&keys::object("taskbooks", namespace, name)).cloned();
            found.ok_or_else(|| {
                let message = format!("there is no TaskBook {} in the namespace `{namespace}`", shown(name));
                Problem::Missing(vec![of_field("NotFoundReference", "spec.taskBooks", message)])
            })
        });
        let (nodes, groups) = (keys::object_prefix("nodes", None), keys::object_prefix("nodegroups", None));
        let up = |object: &Object| state.world().session(&object.metadata().uuid).is_some();
        Ok(Self {
            nodes: state.objects(&nodes).map(|(_, node)| (node.clone(), up(node))).collect(),
            groups: state.objects(&groups).map(|(_, group)| group.clone()).collect(),
            book: book.transpose()?,
            config: state.object(&keys::object("configs", "", "cluster")).cloned(),
        })
    }

    fn compile(&self, run: &Run) -> Result<Snapshot, Rejection> {
        let nodes = self.nodes.iter().filter_map(|(object, up)| match &object.kind {
            Some(K::Node(node)) => Some(AdmissionNode { node, up: *up }),
            _ => None,
        });
        let groups = self.groups.iter().filter_map(|object| match &object.kind {
            Some(K::NodeGroup(group)) => Some(group),
            _ => None,
        });
        let (nodes, groups): (Vec<_>, Vec<_>) = (nodes.collect(), groups.collect());
        compile(&Admission {
            run,
            book: self.book.as_deref().and_then(as_book),
            nodes: &nodes,
            groups: &groups,
            config: self.config.as_deref().and_then(as_config),
            now_ms: now_ms(),
            retry: None,
        })
    }
}

fn as_book(object: &Object) -> Option<&TaskBook> {
    match &object.kind {
        Some(K::TaskBook(book)) => Some(book),
        _ => None,
    }
}

fn as_config(object: &Object) -> Option<&Config> {
    match &object.kind {
        Some(K::Config(config)) => Some(config),
        _ => None,
    }
}
