//! `lockstep locks`: who holds what, and admins' own locks.

use super::get;
use crate::{
    cli::{AcquireLock, LockModeWord, LocksCommand},
    context::Session,
    error::{Error, Result},
    render::locks,
};
use lockstep_apis::{
    duration,
    v1alpha::{AcquireLockRequest, ClearLockRequest, Lock, LockMode, ReleaseLockRequest, ShowLockRequest},
};
use std::time::Duration;

/// How often is looked whether those that held it before are through.
const EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn locks(session: &Session, command: Option<LocksCommand>) -> Result<()> {
    let namespace = session.namespace.clone();
    match command {
        None => get::get(session, &get::of_kind("locks")).await,
        Some(LocksCommand::Acquire(acquire)) => self::acquire(session, &acquire).await,
        Some(LocksCommand::Release { name, owner }) => {
            let request = ReleaseLockRequest { namespace, name: bare(&name), owner: owner.unwrap_or_default() };
            session.locks().release(request).await?;
            println!("lock/{} released", bare(&name));
            Ok(())
        }
        Some(LocksCommand::Clear { name }) => {
            session.locks().clear(ClearLockRequest { namespace, name: bare(&name) }).await?;
            println!("lock/{} cleared", bare(&name));
            Ok(())
        }
    }
}

/// `name`, or `lock/name` as `-o name` prints it.
fn bare(typed: &str) -> String {
    typed.strip_prefix("lock/").unwrap_or(typed).to_owned()
}

async fn acquire(session: &Session, asked: &AcquireLock) -> Result<()> {
    let ttl_ms = duration::parse(&asked.ttl).map_err(|e| Error::Usage(format!("--ttl {}: {e}", asked.ttl)))?;
    let mode = match asked.mode {
        LockModeWord::Read => LockMode::Read,
        LockModeWord::Write => LockMode::Write,
        LockModeWord::Clean => LockMode::Clean,
    };
    let name = bare(&asked.name);
    let request = AcquireLockRequest {
        namespace: session.namespace.clone(),
        name: name.clone(),
        mode: mode.into(),
        ttl: Some(duration::to_proto(ttl_ms)),
        reason: asked.reason.clone(),
    };
    let mut lock = session.locks().acquire(request).await?.into_inner();
    let mut said = String::new();
    while let Some(waits) = locks::in_the_way(&lock, mode) {
        if asked.no_wait {
            return Err(Error::NotYet(format!("lock/{name} is kept for you and still held by {waits}")));
        }
        if said != waits {
            eprintln!("lock/{name} is kept for you; waiting for {waits}");
            said = waits;
        }
        tokio::time::sleep(EVERY).await;
        lock = show(session, &name).await?;
        if !locks::is_kept_for(&lock, &asked.reason) {
            return Err(Error::NotYet(format!("lock/{name} was released, or its time ran out, before it was free")));
        }
    }
    println!("lock/{name} acquired for {}", asked.ttl);
    Ok(())
}

async fn show(session: &Session, name: &str) -> Result<Lock> {
    let request = ShowLockRequest { namespace: session.namespace.clone(), name: name.to_owned() };
    Ok(session.locks().show(request).await?.into_inner())
}
