//! Claims: judged by the core on what the cache knows, committed with what they rely on, answered with the work.

use lockstep_apis::keys::{Attempt, AttemptKey, Key};
use lockstep_apis::v1alpha::{Claim, ClaimAnswer as Message, Work, server_message};
use lockstep_core::protocol::{self, ClaimAnswer, Delivery as Sealed, Place};

use super::Delivery;
use super::session::{Session, locked};
use crate::clock::now_ms;
use crate::sealing::{self, KeyRing, SealingError};
use crate::store::StoreError;

/// How often a claim that was overtaken is judged again before the agent is told to ask again.
const ATTEMPTS: u32 = 5;

/// What an agent is answered.
enum Outcome {
    Granted(Box<Work>),
    /// An earlier process of the node has it: the work without secrets, to report it by if nothing is left of it.
    Forgotten(Box<Work>),
    Refused(String),
    Again,
}

impl Delivery {
    /// Answers a node's request for an attempt.
    pub(super) async fn claim(&self, session: &Session, attempt: Attempt) {
        let outcome = self.judge_claim(session, &attempt).await;
        let mut answer = Message { attempt: Some((&attempt).into()), ..Message::default() };
        match outcome {
            Outcome::Granted(work) => {
                locked(&session.holding).insert(attempt);
                answer.work = Some(*work);
            }
            Outcome::Forgotten(work) => {
                answer.work = Some(*work);
                answer.refused = "an earlier process of this node claimed it".into();
            }
            Outcome::Refused(reason) => {
                session.forget_offer(&attempt);
                answer.refused = reason;
            }
            Outcome::Again => answer.again = true,
        }
        session.send(server_message::Message::Claim(answer));
    }

    async fn judge_claim(&self, session: &Session, attempt: &Attempt) -> Outcome {
        let claim = Claim { instance: session.instance.clone(), boot_id: session.boot_id.clone(), at_ms: now_ms() };
        for turn in 0..ATTEMPTS {
            let recorded = self.recorded(session);
            let judged = protocol::answer_claim(self.parts.cache.read().world(), attempt, &claim);
            match judged {
                ClaimAnswer::Granted if self.may_begin(&recorded, attempt) => return self.work(attempt),
                // The session is not recorded yet, or its server's lease is in doubt.
                ClaimAnswer::Granted => return Outcome::Again,
                ClaimAnswer::Forgotten => {
                    let delivery = protocol::work(self.parts.cache.read().world(), attempt);
                    return delivery.map_or(Outcome::Again, |delivery| Outcome::Forgotten(Box::new(delivery.work)));
                }
                ClaimAnswer::Refused(reason) => return Outcome::Refused(reason.to_owned()),
                ClaimAnswer::Commit(commit) => match self.parts.committer.commit(commit).await {
                    Ok(_) => return self.work(attempt),
                    // Judged anew by what the store says then.
                    Err(StoreError::Conflict) => {}
                    Err(StoreError::Indeterminate { .. }) if turn == 0 => {}
                    Err(problem) => {
                        tracing::debug!(node = session.name, %problem, "a claim was not committed");
                        return Outcome::Again;
                    }
                },
                ClaimAnswer::NotYet if turn > 0 => return self.unknown(attempt),
                ClaimAnswer::NotYet => {}
            }
            if self.parts.cache.catch_up(&*self.parts.store).await.is_err() {
                return Outcome::Again;
            }
        }
        Outcome::Again
    }

    /// Not there though the cache is new: gone with its Run, or never made.
    fn unknown(&self, attempt: &Attempt) -> Outcome {
        match self.parts.cache.read().world().run(&attempt.run) {
            Some(run) if run.plan().is_none() => Outcome::Again,
            _ => Outcome::Refused("there is no such assignment".into()),
        }
    }

    fn work(&self, attempt: &Attempt) -> Outcome {
        let (delivery, output_bytes) = {
            let cache = self.parts.cache.read();
            (protocol::work(cache.world(), attempt), cache.config().output_bytes())
        };
        let Some(mut delivery) = delivery else { return Outcome::Again };
        delivery.work.output_limit_bytes = output_bytes;
        match open(&self.parts.sealing, delivery) {
            Ok(work) => Outcome::Granted(Box::new(work)),
            Err(problem) => {
                tracing::error!(run = attempt.run, %problem, "a secret result cannot be opened");
                Outcome::Again
            }
        }
    }
}

/// Where a secret result of a report is sealed for.
pub(super) fn result_place(attempt: &Attempt, task: u32) -> (Key, String) {
    (AttemptKey::Report.of(attempt), format!("tasks[{task}].result"))
}

/// Where a secret shared value of a retried Run is sealed for.
pub(crate) fn shared_place(run: &str, id: &str) -> (Key, String) {
    (lockstep_apis::keys::snapshot_prefix(run), format!("sealedShared.{id}"))
}

/// Opens a shared or own result that was sealed for its report.
pub(crate) fn open_result(
    ring: &KeyRing,
    attempt: &Attempt,
    task: u32,
    sealed: &lockstep_apis::v1alpha::Sealed,
) -> Result<lockstep_apis::v1alpha::Value, SealingError> {
    let (key, field) = result_place(attempt, task);
    ring.open_value(sealing::Place { key: &key, field: &field }, sealed)
}

/// Puts the secret values into the work.
fn open(ring: &KeyRing, delivery: Sealed) -> Result<Work, SealingError> {
    let Sealed { mut work, sealed } = delivery;
    for secret in sealed {
        let value = match &secret.bound_to {
            Some((attempt, task)) => open_result(ring, attempt, *task, &secret.sealed)?,
            None => {
                let (key, field) = shared_place(&work.run_uid, &secret.id);
                ring.open_value(sealing::Place { key: &key, field: &field }, &secret.sealed)?
            }
        };
        match secret.place {
            Place::Shared => {
                work.shared.insert(secret.id.clone(), value);
                work.secret_shared.push(secret.id);
            }
            Place::Results => {
                work.results.insert(secret.id.clone(), value);
                work.secret_results.push(secret.id);
            }
            Place::Known(index) => {
                if let Some(known) = work.known.iter_mut().find(|known| known.task == index) {
                    known.result = Some(value);
                    known.sealed = None;
                }
                work.secret_results.push(secret.id);
            }
        }
    }
    Ok(work)
}
