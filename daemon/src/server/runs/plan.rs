//! What a Run would do: gathered and compiled as the leader does it, and not committed.

use std::sync::Arc;

use lockstep_apis::keys;
use lockstep_apis::v1alpha::object::Kind as K;
use lockstep_apis::v1alpha::{Concurrency, Metadata, Object, PlanRequest, PlanResponse, Run};
use lockstep_apis::validate;
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::compile::Rejection;
use lockstep_core::{check, concurrency};

use super::RunsApi;
use crate::cache::State;
use crate::clock::now_ms;
use crate::leader::gather;
use crate::status::{Answer, Problem};

impl RunsApi {
    pub(super) async fn plan_of(&self, request: PlanRequest) -> Answer<PlanResponse> {
        let metadata = Metadata { name: "plan".into(), namespace: request.namespace, ..Metadata::default() };
        let mut run = Run { metadata: Some(metadata), spec: request.spec, status: None };
        let mut violations = validate::object(&Object::from(run.clone()));
        violations.extend(check::run(&run));
        if !violations.is_empty() {
            return Err(Problem::Violations(violations));
        }
        self.0.cache.catch_up(&*self.0.store).await?;
        let (gathered, concurrency) = {
            let state = self.0.cache.read();
            let concurrency = concurrency_of(&state, &run)?;
            run.spec.get_or_insert_default().concurrency.clone_from(&concurrency);
            let up = |node: &_| self.0.up.is_up(&state, node);
            let gathered = gather(&state, Arc::new(run), up, &self.0.sealing, now_ms());
            let wrong =
                |(reason, message): (&str, String)| Problem::Violations(vec![of_field(reason, "spec", message)]);
            (gathered.map_err(wrong)?, concurrency)
        };
        let compiled = tokio::task::spawn_blocking(move || gathered.compile()).await;
        let compiled = compiled.map_err(|problem| Problem::Internal(format!("planning ended: {problem}")))?;
        Ok(PlanResponse { snapshot: Some(compiled.map_err(rejected)?), concurrency })
    }
}

/// The key that the Run would be created with. Errors: its book is not there, or gives no key for these inputs.
fn concurrency_of(state: &State, run: &Run) -> Answer<Option<Concurrency>> {
    let namespace = run.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
    let spec = run.spec.clone().unwrap_or_default();
    let Some(name) = spec.task_books.first() else { return Ok(None) };
    let found = state.object(&keys::object("taskbooks", namespace, name)).and_then(|object| object.kind.as_ref());
    let Some(K::TaskBook(book)) = found else {
        let message = format!("there is no TaskBook {} in the namespace `{namespace}`", shown(name));
        return Err(Problem::Missing(vec![of_field("NotFoundReference", "spec.taskBooks", message)]));
    };
    concurrency::of_run(&book.spec.clone().unwrap_or_default(), &spec).map_err(Problem::Violations)
}

fn rejected(rejection: Rejection) -> Problem {
    match rejection.violations.is_empty() {
        true => Problem::Violations(vec![of_field(rejection.reason, "spec", rejection.message)]),
        false => Problem::Violations(rejection.violations),
    }
}
