//! What admins do with locks: acquire, release, clear. Knows that each is one guarded commit by the core's rules.

use std::sync::Arc;

use lockstep_apis::commit::{Commit, Compare};
use lockstep_apis::v1alpha::{
    AcquireLockRequest, ClearLockRequest, EventSeverity, Lock, LockHold, LockMode, Metadata, ReleaseLockRequest,
    ShowLockRequest, Violation,
};
use lockstep_apis::violation::{of_field, shown};
use lockstep_apis::{duration, keys, name, object, timestamp};
use lockstep_core::protocol::{self, Refusal};
use lockstep_core::world::World;
use lockstep_grpc::locks_server;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Shared;
use crate::cache::State;
use crate::clock::now_ms;
use crate::events::Happening;
use crate::identity::PeerIdentity;
use crate::status::{self, Answer, Problem};
use crate::store::StoreError;

/// How often somebody else may be faster: other admins, and the leader that copies who waits.
const ATTEMPTS: usize = 16;

/// Longest that an admin may hold a lock without acquiring it again: seven days.
const MAX_TTL_MS: u64 = 7 * 24 * 3_600_000;

/// Longest reason that an admin gives.
const MAX_REASON: usize = 1024;

/// The service.
#[derive(Clone)]
pub struct LocksApi(pub Arc<Shared>);

/// Which lock.
struct Named {
    namespace: String,
    name: String,
}

impl LocksApi {
    /// Commits what the core decides about a lock, again if it has changed meanwhile. The answer: the lock as it then is.
    async fn change(
        &self,
        of: &Named,
        decide: impl Fn(&State) -> Answer<Commit> + Send,
        done: impl Fn(&World) -> bool + Send,
    ) -> Answer<Lock> {
        let mut perhaps = None;
        for _ in 0..ATTEMPTS {
            self.0.cache.catch_up(&*self.0.store).await?;
            let decided = {
                let state = self.0.cache.read();
                // An answer was lost: what was asked for may have happened.
                if perhaps.is_some() && done(state.world()) {
                    return Ok(current(&state, of));
                }
                decide(&state)?
            };
            match self.0.store.commit(&decided).await {
                Ok(committed) => {
                    self.0.cache.reached(committed.revision).await;
                    return Ok(current(&self.0.cache.read(), of));
                }
                Err(StoreError::Conflict) => perhaps = None,
                Err(problem @ StoreError::Indeterminate { .. }) => perhaps = Some(problem),
                Err(problem) => return Err(problem.into()),
            }
        }
        match perhaps {
            Some(problem) => Err(problem.into()),
            None => Err(Problem::Conflict("the lock kept changing; nothing was done: try again".into())),
        }
    }

    async fn acquire_for(&self, request: AcquireLockRequest, by: &PeerIdentity) -> Answer<Lock> {
        let of = Named { namespace: request.namespace.clone(), name: request.name.clone() };
        let ttl_ms = request.ttl.as_ref().map_or(0, duration::from_proto);
        let mut wrong = wrong_names(&of);
        if ttl_ms == 0 || ttl_ms > MAX_TTL_MS {
            wrong.push(of_field("OutOfRange", "ttl", "must be given, more than 0 and at most 168h"));
        }
        match request.reason.len() {
            0 => wrong.push(of_field("Required", "reason", "must be given: those who wait read it")),
            bytes if bytes > MAX_REASON => {
                let message = format!("has {bytes} bytes, and at most {MAX_REASON} are kept");
                wrong.push(of_field("OutOfRange", "reason", message));
            }
            _ => {}
        }
        if !wrong.is_empty() {
            return Err(Problem::Violations(wrong));
        }
        let mode = if request.mode() == LockMode::Unspecified { LockMode::Write } else { request.mode() };
        let now_ms = now_ms();
        let hold = LockHold {
            owner: by.words(),
            owner_uid: by.uid.clone(),
            mode: mode.into(),
            reason: request.reason,
            since: Some(timestamp::from_ms(now_ms)),
            until: Some(timestamp::from_ms(now_ms + ttl_ms)),
        };
        let decide = |state: &State| {
            let open = open_namespace(state, &of)?;
            let commit = protocol::acquire_lock(state.world(), metadata(&of, now_ms), hold.clone());
            Ok(commit.map_err(|refusal| refused(&refusal, &of))?.when(open))
        };
        let holds = |world: &World| {
            let status = world.lock(&of.namespace, &of.name).and_then(|lock| lock.value.status.as_ref());
            status.is_some_and(|status| status.holds.contains(&hold))
        };
        let lock = self.change(&of, decide, holds).await?;
        let until = hold.until.as_ref().map(timestamp::format).unwrap_or_default();
        let message = format!("{} acquired the lock {} until {until}: {}", hold.owner, of.name, hold.reason);
        self.tell("lock/acquired", &of, message);
        Ok(lock)
    }

    fn tell(&self, r#type: &'static str, of: &Named, message: String) {
        self.0.outbox.tell(Happening {
            namespace: of.namespace.clone(),
            r#type,
            severity: EventSeverity::Info,
            regarding: format!("Lock/{}/{}", of.namespace, of.name),
            node: String::new(),
            message,
            data: None,
        });
    }
}

fn wrong_names(of: &Named) -> Vec<Violation> {
    let names = [("namespace", &of.namespace), ("name", &of.name)];
    let wrong = names.into_iter().filter_map(|(field, text)| {
        let rule = name::check(text).err()?;
        Some(of_field("Format", field, format!("{} is no name: {rule}", shown(text))))
    });
    wrong.collect()
}

fn checked(namespace: String, name: String) -> Answer<Named> {
    let of = Named { namespace, name };
    let wrong = wrong_names(&of);
    if wrong.is_empty() { Ok(of) } else { Err(Problem::Violations(wrong)) }
}

/// That the namespace is there and takes objects.
fn open_namespace(state: &State, of: &Named) -> Answer<Compare> {
    let key = keys::object("namespaces", "", &of.namespace);
    let found = state.object(&key).map(|namespace| namespace.metadata());
    let found = found.ok_or_else(|| Problem::NotFound(format!("there is no namespace {}", shown(&of.namespace))))?;
    if found.deleted_at.is_some() {
        return Err(Problem::Precondition(format!("the namespace {} is being deleted", shown(&of.namespace))));
    }
    let revision = found.resource_version.parse().map_err(|_| StoreError::Conflict)?;
    Ok(Compare::ModRevision(key, revision))
}

fn metadata(of: &Named, now_ms: u64) -> Metadata {
    Metadata {
        api_version: object::API_VERSION.into(),
        kind: "Lock".into(),
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        uuid: Uuid::now_v7().to_string(),
        generation: 1,
        created_at: Some(timestamp::from_ms(now_ms)),
        ..Metadata::default()
    }
}

/// The lock with who holds it now; its name alone if nobody does. Who holds is taken from the Runs themselves: the copy
/// in the object may be older than the answer.
fn current(state: &State, of: &Named) -> Lock {
    let stored = state.world().lock(&of.namespace, &of.name);
    let mut lock = stored.map(|stored| stored.value.clone()).unwrap_or_default();
    let metadata = lock.metadata.get_or_insert_with(|| metadata(of, 0));
    metadata.resource_version = stored.map(|stored| stored.revision.to_string()).unwrap_or_default();
    lock.status.get_or_insert_default().holders = protocol::lock_holders(state.world(), &of.namespace, &of.name);
    lock
}

fn refused(refusal: &Refusal, of: &Named) -> Problem {
    Problem::Precondition(format!("{}: {refusal}", shown(&of.name)))
}

#[tonic::async_trait]
impl locks_server::Locks for LocksApi {
    async fn acquire(&self, request: Request<AcquireLockRequest>) -> Result<Response<Lock>, Status> {
        let caller = status::caller(&request)?;
        Ok(Response::new(self.acquire_for(request.into_inner(), &caller).await?))
    }

    async fn show(&self, request: Request<ShowLockRequest>) -> Result<Response<Lock>, Status> {
        let ShowLockRequest { namespace, name } = request.into_inner();
        let of = checked(namespace, name)?;
        self.0.cache.catch_up(&*self.0.store).await.map_err(Problem::from)?;
        Ok(Response::new(current(&self.0.cache.read(), &of)))
    }

    async fn release(&self, request: Request<ReleaseLockRequest>) -> Result<Response<Lock>, Status> {
        let caller = status::caller(&request)?;
        let ReleaseLockRequest { namespace, name, owner } = request.into_inner();
        let of = checked(namespace, name)?;
        let own = owner.is_empty();
        let owner = if own { caller.uid.clone() } else { owner };
        let decide = |state: &State| {
            let commit = protocol::release_lock(state.world(), &of.namespace, &of.name, &owner);
            commit.map_err(|refusal| match refusal {
                Refusal::LockNotHeld(_) if own => refused(&Refusal::LockNotHeld(caller.words()), &of),
                other => refused(&other, &of),
            })
        };
        let gone = |world: &World| protocol::release_lock(world, &of.namespace, &of.name, &owner).is_err();
        let lock = self.change(&of, decide, gone).await?;
        let of_whom = if own { String::new() } else { format!(" of {owner}") };
        self.tell("lock/released", &of, format!("{} released the lock {}{of_whom}", caller.words(), of.name));
        Ok(Response::new(lock))
    }

    async fn clear(&self, request: Request<ClearLockRequest>) -> Result<Response<Lock>, Status> {
        let caller = status::caller(&request)?;
        let ClearLockRequest { namespace, name } = request.into_inner();
        let of = checked(namespace, name)?;
        let decide = |state: &State| {
            let commit = protocol::clear_lock(state.world(), &of.namespace, &of.name);
            commit.map_err(|refusal| refused(&refusal, &of))
        };
        let clear = |world: &World| protocol::clear_lock(world, &of.namespace, &of.name).is_err();
        let lock = self.change(&of, decide, clear).await?;
        self.tell("lock/cleared", &of, format!("{} cleared the lock {} of its poison", caller.words(), of.name));
        Ok(Response::new(lock))
    }
}
