//! Retry: a new Run for the nodes that did not succeed, to be compiled from the old one's snapshot.

use lockstep_apis::commit::{Commit, Compare};
use lockstep_apis::keys;
use lockstep_apis::v1alpha::{EarlyEnd, Metadata, Object, Origin, OriginType, Run, RunRequest};
use lockstep_apis::violation::shown;
use lockstep_apis::{object, timestamp};
use lockstep_core::outcome::{NodeState, node_state};
use lockstep_core::protocol::{self, Entering};
use lockstep_core::world::{NodeEnd, RunState};
use uuid::Uuid;

use super::{ATTEMPTS, RunsApi, find, missing};
use crate::cache::State;
use crate::clock::now_ms;
use crate::identity::PeerIdentity;
use crate::status::{Answer, Problem};
use crate::store::StoreError;

/// Longest name of an object.
const MAX_NAME: usize = 253;

impl RunsApi {
    pub(super) async fn retry_run(&self, request: &RunRequest, by: &PeerIdentity) -> Answer<Run> {
        for _ in 0..ATTEMPTS {
            self.0.cache.catch_up(&*self.0.store).await?;
            let (run, commit) = match retry_of(&self.0.cache.read(), request, by)? {
                Retrying::New(run, commit) => (*run, commit),
                Retrying::Joined(run) => return Ok(*run),
            };
            let key = Object::from(run.clone()).key();
            let revision = match self.0.store.commit(&commit).await {
                Ok(committed) => committed.revision,
                Err(StoreError::Conflict) => continue,
                Err(problem @ StoreError::Indeterminate { .. }) => {
                    // Its uid is new: what is there is ours, or another's of the same name.
                    let found = self.0.store.get(&key).await?.entry;
                    let ours = found.filter(|entry| entry.value == Object::from(run.clone()).to_stored());
                    ours.ok_or(problem)?.mod_revision
                }
                Err(problem) => return Err(problem.into()),
            };
            let mut run = run;
            let metadata = run.metadata.get_or_insert_default();
            metadata.resource_version = revision.to_string();
            let message = format!("retried as {} by {}", metadata.name, by.words());
            self.tell("run/retried", request, "", message);
            return Ok(run);
        }
        Err(Problem::Conflict("others kept retrying the same run; nothing was done: try again".into()))
    }
}

enum Retrying {
    /// The new Run and the commit that makes it.
    New(Box<Run>, Commit),
    /// By its concurrency key it is another that is there.
    Joined(Box<Run>),
}

fn retry_of(state: &State, request: &RunRequest, by: &PeerIdentity) -> Answer<Retrying> {
    let old = find(state.world(), request)?;
    let object = old.object().ok_or_else(|| missing(request))?;
    if !old.has_ended() {
        let name = shown(&request.name);
        return Err(Problem::Precondition(format!("the run {name} has not ended; wait for it, or cancel it first")));
    }
    let nodes = unfinished(old, &request.name)?;
    let namespace = keys::object("namespaces", "", &request.namespace);
    let open = state.object(&namespace).filter(|namespace| namespace.metadata().deleted_at.is_none());
    let open = open.ok_or_else(|| {
        Problem::Precondition(format!("the namespace {} is being deleted", shown(&request.namespace)))
    })?;
    let version = open.metadata().resource_version.parse().map_err(|_| StoreError::Conflict)?;
    let mut spec = object.value.spec.clone().unwrap_or_default();
    spec.retry_of.clone_from(&request.name);
    spec.retry_nodes = nodes;
    spec.origin = Some(Origin { r#type: OriginType::User.into(), name: by.name.clone(), uid: by.uid.clone() });
    let metadata = Metadata {
        api_version: object::API_VERSION.into(),
        kind: "Run".into(),
        name: free_name(state, request),
        namespace: request.namespace.clone(),
        labels: object.value.metadata.as_ref().map(|own| own.labels.clone()).unwrap_or_default(),
        uuid: Uuid::now_v7().to_string(),
        generation: 1,
        created_at: Some(timestamp::from_ms(now_ms())),
        ..Metadata::default()
    };
    let run = Run { metadata: Some(metadata), spec: Some(spec), status: None };
    let stored = Object::from(run.clone());
    // Of the same version, as it follows the same snapshot.
    let generation = object.value.status.as_ref().map_or(0, |status| status.book_generation);
    let entering = match protocol::enter(state.world(), &run, generation, &by.words(), now_ms()) {
        Ok(Entering::Enter(commit)) => commit,
        Ok(Entering::Join(uid)) => {
            let of = state.world().run(&uid).and_then(RunState::object).ok_or(StoreError::Conflict)?;
            return Ok(Retrying::Joined(Box::new(of.value.as_ref().clone())));
        }
        Err(refusal) => return Err(Problem::Precondition(refusal.to_string())),
    };
    let commit = entering
        .when(Compare::ModRevision(namespace, version))
        .when(Compare::Present(keys::object("runs", &request.namespace, &request.name)))
        .create(stored.key(), stored.to_stored());
    Ok(Retrying::New(Box::new(run), commit))
}

/// Uids of the nodes that did not succeed.
fn unfinished(old: &RunState, name: &str) -> Answer<Vec<String>> {
    let plan = old.plan().ok_or_else(|| {
        Problem::Precondition(format!("the run {} was never admitted: start it anew with `lockstep run`", shown(name)))
    })?;
    let nodes = plan.snapshot.nodes.iter().enumerate().filter(|(at, node)| {
        match node_state(old, plan, u32::try_from(*at).unwrap_or(u32::MAX), true) {
            NodeState::Ended(NodeEnd::Ok | NodeEnd::Changed) => false,
            // Cordoned or down then; or nothing was for it.
            NodeState::Ended(NodeEnd::Skipped) => node.early() != EarlyEnd::Unspecified,
            _ => true,
        }
    });
    let nodes: Vec<String> = nodes.map(|(_, node)| node.uid.clone()).collect();
    match nodes.is_empty() {
        true => {
            Err(Problem::Precondition(format!("every node of the run {} succeeded: nothing to retry", shown(name))))
        }
        false => Ok(nodes),
    }
}

/// `web`, `web-retry-1`, `web-retry-2`: of a retry too, so that names stay short.
fn free_name(state: &State, request: &RunRequest) -> String {
    let (stem, _) = request.name.rsplit_once("-retry-").unwrap_or((&request.name, ""));
    // ASCII, as names are; room for the ending.
    let stem = stem.get(..stem.len().min(MAX_NAME - 20)).unwrap_or(stem).trim_end_matches(['-', '.']);
    let names = (1_u64..).map(|number| format!("{stem}-retry-{number}"));
    let mut free = names.filter(|name| state.object(&keys::object("runs", &request.namespace, name)).is_none());
    free.next().expect("invariant: there are fewer runs than numbers")
}
