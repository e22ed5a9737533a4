//! `lockstep cancel | pause | resume | approve | release`.

use super::run_name;
use crate::{
    cli::{Approve, Release},
    context::Session,
    error::Result,
};
use lockstep_apis::v1alpha::{ApproveRequest, ReleaseRequest, Run, RunPhase, RunRequest};

/// What is asked of a Run.
#[derive(Clone, Copy)]
pub(crate) enum Control {
    Cancel,
    Pause,
    Resume,
}

pub(crate) async fn control(session: &Session, what: Control, typed: &str) -> Result<()> {
    let request = RunRequest { namespace: session.namespace.clone(), name: run_name(typed).to_owned() };
    let mut runs = session.runs();
    let (done, run) = match what {
        Control::Cancel => ("cancelled", runs.cancel(request).await?),
        Control::Pause => ("paused", runs.pause(request).await?),
        Control::Resume => ("resumed", runs.resume(request).await?),
    };
    let run = run.into_inner();
    match what {
        Control::Cancel if working(&run) > 0 => println!(
            "run/{} is being cancelled: {} node{} still working; `lockstep get run {} -w` shows the end",
            name(&run),
            working(&run),
            if working(&run) == 1 { "" } else { "s" },
            name(&run)
        ),
        _ => println!("run/{} {done}", name(&run)),
    }
    Ok(())
}

pub(crate) async fn approve(session: &Session, approve: &Approve) -> Result<()> {
    let request = ApproveRequest {
        namespace: session.namespace.clone(),
        name: run_name(&approve.run).to_owned(),
        reason: approve.reason.clone(),
    };
    let run = session.runs().approve(request).await?.into_inner();
    println!("run/{} approved", name(&run));
    Ok(())
}

pub(crate) async fn release(session: &Session, release: &Release) -> Result<()> {
    let request = ReleaseRequest {
        namespace: session.namespace.clone(),
        name: run_name(&release.run).to_owned(),
        node: release.node.clone(),
    };
    let run = session.runs().release(request).await?.into_inner();
    println!("run/{}: the place of node {} is free; it may still be working", name(&run), release.node);
    Ok(())
}

fn name(run: &Run) -> &str {
    run.metadata.as_ref().map_or("", |m| m.name.as_str())
}

fn working(run: &Run) -> u32 {
    let ended = |phase| matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled);
    match &run.status {
        Some(status) if !ended(status.phase()) => status.nodes.as_ref().map_or(0, |n| n.working),
        _ => 0,
    }
}
