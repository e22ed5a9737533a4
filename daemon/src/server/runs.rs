//! What is done with Runs beside reading and creating them: stop, go on, retry, release, look at, plan, logs. Knows
//! that each is one guarded commit by the core's rules; decides nothing itself.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use lockstep_apis::commit::Commit;
use lockstep_apis::v1alpha::{
    ApproveRequest, EventSeverity, LogLine, LogsRequest, PlanRequest, PlanResponse, ReleaseRequest, Run, RunApproval,
    RunNodesResponse, RunRequest, VariablesRequest, VariablesResponse,
};
use lockstep_apis::violation::{of_field, shown};
use lockstep_apis::{name, timestamp};
use lockstep_core::outcome;
use lockstep_core::protocol::{self, Refusal};
use lockstep_core::world::{RunState, World};
use lockstep_grpc::runs_server;
use tonic::{Request, Response, Status};

use super::Shared;
use crate::clock::now_ms;
use crate::events::Happening;
use crate::status::{self, Answer, Problem};
use crate::store::StoreError;

mod output;
mod plan;
mod retry;
mod variables;

/// How often somebody else may be faster: gates are written by admins and the leader only.
const ATTEMPTS: usize = 8;

/// Longest reason that an admin gives.
const MAX_REASON: usize = 1024;

/// The service.
#[derive(Clone)]
pub struct RunsApi(pub Arc<Shared>);

impl RunsApi {
    /// Commits what the core decides about a Run, again if the world has changed meanwhile.
    async fn change(
        &self,
        request: &RunRequest,
        decide: impl Fn(&World, &RunState) -> Result<Commit, Refusal> + Send,
    ) -> Answer<Run> {
        // An answer may be lost: then a refusal may be our own doing.
        let mut perhaps = None;
        for _ in 0..ATTEMPTS {
            self.0.cache.catch_up(&*self.0.store).await?;
            let decided = {
                let state = self.0.cache.read();
                let run = find(state.world(), request)?;
                decide(state.world(), run)
            };
            let commit = match (decided, perhaps.take()) {
                (Ok(commit), _) => commit,
                (
                    Err(Refusal::AlreadyPaused | Refusal::AlreadyStopped | Refusal::NotPaused | Refusal::NotAwaiting),
                    Some(_),
                ) => {
                    return self.current(request);
                }
                (Err(refusal), _) => return Err(refused(&refusal, request)),
            };
            match self.0.store.commit(&commit).await {
                Ok(committed) => {
                    self.0.cache.reached(committed.revision).await;
                    return self.current(request);
                }
                Err(StoreError::Conflict) => {}
                Err(problem @ StoreError::Indeterminate { .. }) => perhaps = Some(problem),
                Err(problem) => return Err(problem.into()),
            }
        }
        match perhaps {
            Some(problem) => Err(problem.into()),
            None => Err(Problem::Conflict("the run kept changing; nothing was done: try again".into())),
        }
    }

    fn current(&self, request: &RunRequest) -> Answer<Run> {
        let state = self.0.cache.read();
        let run = find(state.world(), request)?;
        let object = run.object().ok_or_else(|| missing(request))?;
        let mut run = object.value.as_ref().clone();
        run.metadata.get_or_insert_default().resource_version = object.revision.to_string();
        Ok(run)
    }

    fn tell(&self, r#type: &'static str, request: &RunRequest, node: &str, message: String) {
        self.0.outbox.tell(Happening {
            namespace: request.namespace.clone(),
            r#type,
            severity: EventSeverity::Info,
            regarding: format!("Run/{}/{}", request.namespace, request.name),
            node: node.to_owned(),
            message,
            data: None,
        });
    }
}

/// A Run by its name. Errors: names that cannot be, no such Run.
fn find<'w>(world: &'w World, request: &RunRequest) -> Answer<&'w RunState> {
    let names = [("namespace", &request.namespace), ("name", &request.name)];
    let wrong = names.into_iter().filter_map(|(field, text)| {
        let rule = name::check(text).err()?;
        Some(of_field("Format", field, format!("{} is no name: {rule}", shown(text))))
    });
    let wrong: Vec<_> = wrong.collect();
    if !wrong.is_empty() {
        return Err(Problem::Violations(wrong));
    }
    world.run_named(&request.namespace, &request.name).ok_or_else(|| missing(request))
}

fn missing(request: &RunRequest) -> Problem {
    Problem::NotFound(format!("there is no run {} in the namespace `{}`", shown(&request.name), request.namespace))
}

fn refused(refusal: &Refusal, request: &RunRequest) -> Problem {
    match refusal {
        Refusal::Unknown => missing(request),
        Refusal::OwnRun => Problem::Denied(format!("{}: {refusal}", shown(&request.name))),
        refusal => Problem::Precondition(format!("{}: {refusal}", shown(&request.name))),
    }
}

#[tonic::async_trait]
impl runs_server::Runs for RunsApi {
    async fn cancel(&self, request: Request<RunRequest>) -> Result<Response<Run>, Status> {
        let by = status::caller(&request)?.words();
        let request = request.into_inner();
        let run = self.change(&request, |world, run| protocol::cancel(world, run.uid(), &by, now_ms())).await?;
        self.tell("run/cancelled", &request, "", format!("cancelled by {by}"));
        Ok(Response::new(run))
    }

    async fn pause(&self, request: Request<RunRequest>) -> Result<Response<Run>, Status> {
        let by = status::caller(&request)?.words();
        let request = request.into_inner();
        let run = self.change(&request, |world, run| protocol::pause(world, run.uid(), &by, now_ms())).await?;
        self.tell("run/paused", &request, "", format!("paused by {by}"));
        Ok(Response::new(run))
    }

    async fn resume(&self, request: Request<RunRequest>) -> Result<Response<Run>, Status> {
        let by = status::caller(&request)?.words();
        let request = request.into_inner();
        let run = self.change(&request, |world, run| protocol::resume(world, run.uid())).await?;
        self.tell("run/resumed", &request, "", format!("resumed by {by}"));
        Ok(Response::new(run))
    }

    async fn retry(&self, request: Request<RunRequest>) -> Result<Response<Run>, Status> {
        let caller = status::caller(&request)?;
        Ok(Response::new(self.retry_run(request.get_ref(), &caller).await?))
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Result<Response<Run>, Status> {
        let caller = status::caller(&request)?;
        let by = caller.words();
        let ApproveRequest { namespace, name, reason } = request.into_inner();
        if reason.len() > MAX_REASON {
            let message = format!("has {} bytes, and at most {MAX_REASON} are kept", reason.len());
            return Err(Problem::Violations(vec![of_field("OutOfRange", "reason", message)]).into());
        }
        let request = RunRequest { namespace, name };
        let approval =
            |at| RunApproval { by: by.clone(), by_uid: caller.uid.clone(), at: Some(at), reason: reason.clone() };
        let decide =
            |world: &World, run: &RunState| protocol::approve(world, run.uid(), approval(timestamp::from_ms(now_ms())));
        let run = self.change(&request, decide).await?;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        self.tell("run/approved", &request, "", format!("approved by {by}{why}"));
        Ok(Response::new(run))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<Run>, Status> {
        let by = status::caller(&request)?.words();
        let ReleaseRequest { namespace, name, node } = request.into_inner();
        let request = RunRequest { namespace, name };
        let uid_of = |run: &RunState| {
            let plan = run.plan()?;
            // Delegates hold places, too, and need not be among the Run's nodes.
            let found = plan.snapshot.nodes.iter().chain(&plan.snapshot.delegates).find(|known| known.name == node)?;
            Some(found.uid.clone())
        };
        let decide = |world: &World, run: &RunState| {
            let uid = uid_of(run).ok_or(Refusal::NothingHeld)?;
            protocol::release(world, run.uid(), &uid, &by, now_ms())
        };
        let run = self.change(&request, decide).await?;
        self.tell("run/released", &request, &node, format!("the place of {node} was given free by {by}"));
        Ok(Response::new(run))
    }

    async fn nodes(&self, request: Request<RunRequest>) -> Result<Response<RunNodesResponse>, Status> {
        self.0.cache.catch_up(&*self.0.store).await.map_err(Problem::from)?;
        let state = self.0.cache.read();
        let mut nodes = outcome::node_states(find(state.world(), request.get_ref())?);
        // Nobody can open them, and nobody needs to try.
        let reports = nodes.iter_mut().flat_map(|node| &mut node.tasks).filter_map(|task| task.report.as_mut());
        reports.for_each(|report| report.sealed = None);
        Ok(Response::new(RunNodesResponse { nodes }))
    }

    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        Ok(Response::new(self.plan_of(request.into_inner()).await?))
    }

    async fn variables(&self, request: Request<VariablesRequest>) -> Result<Response<VariablesResponse>, Status> {
        Ok(Response::new(self.variables_of(request.into_inner()).await?))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(self.output_of(request.into_inner()).await?))
    }
}
