//! Where a node's variables come from: the layers that an admission would take, for one node.

use std::sync::Arc;

use lockstep_apis::keys;
use lockstep_apis::v1alpha::{
    NodeGroup, Object, VariableLayer, VariableLevel, VariableReach, VariablesRequest, VariablesResponse, object::Kind,
};
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::compile::AdmissionNode;
use lockstep_core::variables;

use super::RunsApi;
use crate::status::{Answer, Problem};
use crate::variables::VariableObjects;

impl RunsApi {
    pub(super) async fn variables_of(&self, request: VariablesRequest) -> Answer<VariablesResponse> {
        self.0.cache.catch_up(&*self.0.store).await?;
        let state = self.0.cache.read();
        let VariablesRequest { namespace, node, task_book, set } = request;
        let missing = |field: &str, kind: &str, name: &str| {
            Problem::Missing(vec![of_field("NotFoundReference", field, format!("there is no {kind} {}", shown(name)))])
        };
        if state.object(&keys::object("namespaces", "", &namespace)).is_none() {
            return Err(missing("namespace", "Namespace", &namespace));
        }
        if state.object(&keys::object("nodes", "", &node)).is_none() {
            return Err(missing("node", "Node", &node));
        }
        let nodes: Vec<AdmissionNode<'_>> = state.nodes().map(|node| AdmissionNode { node, up: false }).collect();
        let prefix = keys::object_prefix("nodegroups", None);
        let groups: Vec<&NodeGroup> = state.objects(&prefix).filter_map(|(_, object)| as_group(object)).collect();
        let cluster = state.object(&keys::object("configs", "", "cluster"));
        let config = cluster.and_then(|object| match &object.kind {
            Some(Kind::Config(config)) => Some(config),
            _ => None,
        });
        let found = VariableObjects::of(&state, &namespace)
            .lend(|sources| variables::of_node(sources, config, &nodes, &groups, &node));
        let mut layers = found
            .map_err(|rejection| Problem::Violations(vec![of_field(rejection.reason, "node", rejection.message)]))?;
        let stronger = |source: String, level: VariableLevel, values| VariableLayer {
            source,
            level: level.into(),
            reach: VariableReach::All.into(),
            values,
            every_node: true,
            ..VariableLayer::default()
        };
        if !task_book.is_empty() {
            let book = state.object(&keys::object("taskbooks", &namespace, &task_book));
            let Some(Kind::TaskBook(book)) = book.and_then(|book| book.kind.as_ref()) else {
                return Err(missing("taskBook", "TaskBook", &task_book));
            };
            let values = book.spec.as_ref().map(|spec| spec.variables.clone()).unwrap_or_default();
            layers.push(stronger(format!("TaskBook/{task_book}"), VariableLevel::Book, values));
        }
        if !set.is_empty() {
            layers.push(stronger("Run".to_owned(), VariableLevel::Run, set));
        }
        layers.retain(|layer| !layer.values.is_empty());
        Ok(VariablesResponse { layers })
    }
}

fn as_group(object: &Arc<Object>) -> Option<&NodeGroup> {
    match &object.kind {
        Some(Kind::NodeGroup(group)) => Some(group),
        _ => None,
    }
}
