//! Reports: secrets sealed, committed once, acknowledged when they are known to be stored.

use lockstep_apis::commit::Commit;
use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{EventSeverity, Outcome, Report, ReportAnswer, TaskReport, server_message};
use lockstep_core::protocol;
use lockstep_core::world::World;

use super::Delivery;
use super::claims::result_place;
use super::session::{Session, locked};
use crate::clock::now_ms;
use crate::events::{self, Happening};
use crate::sealing::Place;
use crate::store::StoreError;

/// How often a report that was overtaken is committed anew before the agent must send it again.
const ATTEMPTS: u32 = 5;

/// Most bytes of a report: what an agent keeps to, with room for the rest of it.
const MAX_REPORT_BYTES: usize = 512 * 1024;

impl Delivery {
    /// Stores a node's report and acknowledges it.
    pub(super) async fn report(&self, session: &Session, attempt: Attempt, report: Report) {
        let stored = self.store_report(session, &attempt, report).await;
        if stored {
            locked(&session.holding).remove(&attempt);
        }
        let answer = ReportAnswer { attempt: Some((&attempt).into()), stored };
        session.send(server_message::Message::Report(answer));
    }

    /// Whether the report is stored, or nobody will ever ask for it.
    pub(super) async fn store_report(&self, session: &Session, attempt: &Attempt, report: Report) -> bool {
        use prost::Message;
        let report = match report.encoded_len() > MAX_REPORT_BYTES {
            false => report,
            true => without_results(report),
        };
        let Some(report) = self.sealed(attempt, report).await else { return false };
        for _ in 0..ATTEMPTS {
            let commit = match self.report_commit(session, attempt, &report) {
                Ok(commit) => commit,
                Err(stored) => return stored,
            };
            match self.parts.committer.commit(commit).await {
                Ok(_) => return true,
                // What the store says then tells whether it is there.
                Err(StoreError::Conflict | StoreError::Indeterminate { .. }) => {}
                Err(problem) => {
                    tracing::warn!(node = session.name, %problem, "a report was not stored; it comes again");
                    return false;
                }
            }
            if self.parts.cache.catch_up(&*self.parts.store).await.is_err() {
                return false;
            }
        }
        false
    }

    /// The commit, or what to answer without one.
    fn report_commit(&self, session: &Session, attempt: &Attempt, report: &Report) -> Result<Commit, bool> {
        let cache = self.parts.cache.read();
        let Some(state) = cache.world().attempt(attempt) else {
            // Deleted with its Run, or not here yet.
            return Err(cache.world().run(&attempt.run).is_none());
        };
        if state.report.is_some() {
            return Err(true);
        }
        let late = state.verdict.is_some();
        let mut commit = protocol::report(attempt, report, late);
        if !late && let Some(happening) = failure(cache.world(), attempt, session, report) {
            let source = format!("node/{}", session.node);
            if events::is_kept(&cache.config(), happening.r#type) {
                commit.operations.push(happening.into_operation(&source, now_ms()));
            }
        }
        Ok(commit)
    }

    /// Secret results leave the clear before they leave this function. `None`: what is secret is not known yet.
    async fn sealed(&self, attempt: &Attempt, report: Report) -> Option<Report> {
        let secret = match self.secret_tasks(attempt) {
            Some(secret) => secret,
            None => {
                self.parts.cache.catch_up(&*self.parts.store).await.ok()?;
                match self.secret_tasks(attempt) {
                    Some(secret) => secret,
                    // The Run is gone: nothing of the report will be stored.
                    None if self.parts.cache.read().world().run(&attempt.run).is_none() => Vec::new(),
                    None => return None,
                }
            }
        };
        let seal = |mut task: TaskReport| {
            if !secret.contains(&task.task) {
                // Nobody but us seals.
                task.sealed = None;
                return task;
            }
            let (key, field) = result_place(attempt, task.task);
            let place = Place { key: &key, field: &field };
            task.sealed = task.result.take().map(|value| self.parts.sealing.seal_value(place, &value));
            task
        };
        Some(Report { tasks: report.tasks.into_iter().map(seal).collect(), late: false, ..report })
    }

    fn secret_tasks(&self, attempt: &Attempt) -> Option<Vec<u32>> {
        let cache = self.parts.cache.read();
        let plan = cache.world().run(&attempt.run)?.plan()?;
        let tasks = &plan.segment(attempt.segment)?.tasks;
        Some(tasks.iter().filter(|task| task.secret).map(|task| task.index).collect())
    }
}

/// A report over every limit keeps what decides, and loses what tasks hand on.
fn without_results(mut report: Report) -> Report {
    for task in &mut report.tasks {
        task.result = None;
        task.sealed = None;
        task.message.truncate(task.message.floor_char_boundary(256));
    }
    report.error.truncate(report.error.floor_char_boundary(1024));
    report
}

/// The first failure that a report tells of.
fn failure(world: &World, attempt: &Attempt, session: &Session, report: &Report) -> Option<Happening> {
    // What would fail in a check did not happen.
    let plan = world.run(&attempt.run)?.plan().filter(|plan| !plan.snapshot.check)?;
    let failed = report
        .tasks
        .iter()
        .find(|task| matches!(task.outcome(), Outcome::Failed | Outcome::Interrupted) && !task.ignored);
    let (what, r#type) = match failed {
        Some(failed) => {
            let tasks = &plan.segment(attempt.segment)?.tasks;
            let name = tasks.iter().find(|task| task.index == failed.task).map_or("", |task| task.name.as_str());
            let r#type = if failed.outcome() == Outcome::Failed { "task/failed" } else { "task/interrupted" };
            (format!("task {name:?}: {}", failed.message), r#type)
        }
        None if report.error.is_empty() => return None,
        None => (report.error.clone(), "segment/failed"),
    };
    let snapshot = &plan.snapshot;
    Some(Happening {
        namespace: snapshot.namespace.clone(),
        r#type,
        severity: EventSeverity::Warning,
        regarding: format!("Run/{}/{}", snapshot.namespace, snapshot.run_name),
        node: session.name.clone(),
        message: what,
        data: None,
    })
}
