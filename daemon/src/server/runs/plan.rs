//! What a Run would do: gathered and compiled as the leader does it, and not committed.

use std::sync::Arc;

use lockstep_apis::keys;
use lockstep_apis::v1alpha::{Metadata, Object, PlanRequest, Run, Snapshot};
use lockstep_apis::validate;
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::check;
use lockstep_core::compile::Rejection;

use super::RunsApi;
use crate::cache::State;
use crate::clock::now_ms;
use crate::leader::gather;
use crate::status::{Answer, Problem};

impl RunsApi {
    pub(super) async fn plan_of(&self, request: PlanRequest) -> Answer<Snapshot> {
        let metadata = Metadata { name: "plan".into(), namespace: request.namespace, ..Metadata::default() };
        let run = Run { metadata: Some(metadata), spec: request.spec, status: None };
        let mut violations = validate::object(&Object::from(run.clone()));
        violations.extend(check::run(&run));
        if !violations.is_empty() {
            return Err(Problem::Violations(violations));
        }
        self.0.cache.catch_up(&*self.0.store).await?;
        let gathered = {
            let state = self.0.cache.read();
            book_is_there(&state, &run)?;
            let up = |node: &_| self.0.up.is_up(&state, node);
            let gathered = gather(&state, Arc::new(run), up, &self.0.sealing, now_ms());
            gathered.map_err(|(reason, message)| Problem::Violations(vec![of_field(reason, "spec", message)]))?
        };
        let compiled = tokio::task::spawn_blocking(move || gathered.compile()).await;
        let compiled = compiled.map_err(|problem| Problem::Internal(format!("planning ended: {problem}")))?;
        compiled.map_err(rejected)
    }
}

fn book_is_there(state: &State, run: &Run) -> Answer<()> {
    let namespace = run.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
    let mut books = run.spec.iter().flat_map(|spec| &spec.task_books);
    let gone = books.find(|name| state.object(&keys::object("taskbooks", namespace, name)).is_none());
    let Some(name) = gone else { return Ok(()) };
    let message = format!("there is no TaskBook {} in the namespace `{namespace}`", shown(name));
    Err(Problem::Missing(vec![of_field("NotFoundReference", "spec.taskBooks", message)]))
}

fn rejected(rejection: Rejection) -> Problem {
    match rejection.violations.is_empty() {
        true => Problem::Violations(vec![of_field(rejection.reason, "spec", rejection.message)]),
        false => Problem::Violations(rejection.violations),
    }
}
