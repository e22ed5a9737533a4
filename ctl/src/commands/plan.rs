//! `lockstep plan`: what a Run would do, asked of the server that would compile it.

use super::run::spec;
use crate::{
    cli::Plan,
    context::Session,
    error::{Error, Result},
    render::plan,
};
use lockstep_apis::v1alpha::PlanRequest;

pub(crate) async fn plan(session: &Session, arguments: &Plan) -> Result<()> {
    let spec = spec(session, Some(&arguments.book), &arguments.spec).await?;
    let request = PlanRequest { namespace: session.namespace.clone(), spec: Some(spec) };
    let answer = session.ask(async || session.runs().plan(request.clone()).await).await?;
    let snapshot = answer.snapshot.ok_or_else(|| Error::Usage("the server sent no plan".into()))?;
    print!("{}", plan::snapshot(&snapshot, answer.concurrency.as_ref()));
    Ok(())
}
