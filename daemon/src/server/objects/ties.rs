//! Variables that set one value and of which none is stronger: refused when they are written. Judged by the cache: two
//! writers at once, or a node that joins later, may still make a tie, which then refuses the Run.

use std::collections::BTreeSet;

use lockstep_apis::keys;
use lockstep_apis::v1alpha::{ApplyAction, NodeGroup, Object, Violation, object::Kind as K};
use lockstep_apis::violation::of_field;
use lockstep_core::compile::{AdmissionNode, Rejection};
use lockstep_core::variables::{self, Tie};

use super::ObjectsApi;
use super::intake::Write;
use crate::cache::State;
use crate::status::{Answer, Problem};
use crate::variables::VariableObjects;

impl ObjectsApi {
    /// Refuses variables that tie with others, in the request or in the store.
    pub(super) async fn refuse_ties(&self, writes: &[Write]) -> Answer<()> {
        let changed: Vec<(u32, &Object)> = (0..)
            .zip(writes)
            .filter(|(_, write)| write.action != ApplyAction::Unchanged && holds_variables(&write.object))
            .map(|(index, write)| (index, &write.object))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.cache.catch_up(&*self.store).await?;
        let state = self.cache.read();
        let all: Vec<&Object> = writes.iter().map(|write| &write.object).collect();
        let mut violations = Vec::new();
        for namespace in namespaces(&state, &changed) {
            match of_namespace(&state, &namespace, &all) {
                Ok(ties) => violations.extend(ties.iter().filter_map(|tie| violation(tie, &changed))),
                Err(rejection) => {
                    let message = rejection.message;
                    let object = changed.iter().find(|(_, object)| message.starts_with(&source(object)));
                    let index = object.or(changed.first()).map_or(0, |(index, _)| *index);
                    violations.push(Violation { object: index, ..of_field(rejection.reason, "spec.targets", message) });
                }
            }
        }
        // The same two may tie in many namespaces.
        violations.dedup_by(|a, b| (a.object, &a.message) == (b.object, &b.message));
        if violations.is_empty() { Ok(()) } else { Err(Problem::Violations(violations)) }
    }
}

fn holds_variables(object: &Object) -> bool {
    matches!(object.kind, Some(K::Variables(_) | K::ClusterVariables(_) | K::ClusterVariablesBinding(_)))
}

/// Those that may see what is written.
fn namespaces(state: &State, changed: &[(u32, &Object)]) -> BTreeSet<String> {
    let (own, cluster): (Vec<&Object>, Vec<&Object>) =
        changed.iter().map(|(_, object)| *object).partition(|object| object.kind_of().namespaced);
    let mut namespaces: BTreeSet<String> = own.iter().map(|object| object.metadata().namespace.clone()).collect();
    if !cluster.is_empty() {
        let prefix = keys::object_prefix("namespaces", None);
        namespaces.extend(state.objects(&prefix).map(|(_, object)| object.metadata().name.clone()));
    }
    namespaces
}

fn of_namespace(state: &State, namespace: &str, written: &[&Object]) -> Result<Vec<Tie>, Rejection> {
    let sees = |object: &Object| match object.kind_of().name {
        "Namespace" => object.metadata().name == namespace,
        _ => holds_variables(object) && [namespace, ""].contains(&object.metadata().namespace.as_str()),
    };
    let objects = written.iter().filter(|object| sees(object));
    let objects = objects.fold(VariableObjects::of(state, namespace), |objects, object| objects.with(object));
    let nodes: Vec<AdmissionNode<'_>> = state.nodes().map(|node| AdmissionNode { node, up: false }).collect();
    let prefix = keys::object_prefix("nodegroups", None);
    let stored = state.objects(&prefix).map(|(_, object)| &**object);
    // Of a group that is there and in the request, the later one counts.
    let groups: Vec<&NodeGroup> = stored
        .chain(written.iter().copied())
        .filter_map(|object| match &object.kind {
            Some(K::NodeGroup(group)) => Some(group),
            _ => None,
        })
        .collect();
    objects.lend(|sources| variables::all_ties(sources, &nodes, &groups))
}

/// As a layer names it.
fn source(object: &Object) -> String {
    format!("{}/{}", object.kind_of().name, object.metadata().name)
}

/// The tie as a fault of what is written; `None`: it was there before.
fn violation(tie: &Tie, changed: &[(u32, &Object)]) -> Option<Violation> {
    let involved = |object: &Object| tie.sources.contains(&source(object));
    let of_cluster = tie.sources[0].starts_with("ClusterVariables/");
    let binds = |object: &Object| of_cluster && matches!(object.kind, Some(K::ClusterVariablesBinding(_)));
    let found = changed.iter().rev().find(|(_, object)| involved(object));
    let (index, object) = found.or_else(|| changed.iter().find(|(_, object)| binds(object)))?;
    let field = if involved(object) { "spec.priority" } else { "spec.clusterVariables" };
    Some(Violation { object: *index, ..of_field("VariableTie", field, tie.to_string()) })
}
