//! `lockstep why`: what a Run or a node waits for, and what that waits for, to its cause. Fetches; the words are
//! `render`'s.

use super::{get, run_name};
use crate::{
    cli::Why,
    context::Session,
    error::{Error, Result},
    render::why::{self, Facts, Wanted},
};
use lockstep_apis::v1alpha::{GetRequest, ObjectRef, RunRequest, object::Kind as Message};
use tonic::Code;

/// Objects that one answer looks at: a chain that is longer says so.
const MAX_LOOKS: usize = 50;

pub(crate) async fn why(session: &Session, why: &Why) -> Result<()> {
    let mut facts = Facts::default();
    let about = match why.about.split_once('/') {
        Some(("node" | "nodes" | "no", name)) => {
            of_node(session, name, &mut facts).await?;
            format!("node/{name}")
        }
        Some((word, _)) if !["run", "runs"].contains(&word) => {
            return Err(Error::Usage(format!("why {}: ask about `run/NAME` or `node/NAME`", why.about)));
        }
        _ => format!("run/{}", run_name(&why.about)),
    };
    for _ in 0..MAX_LOOKS {
        let Some(wanted) = facts.next(&about) else { break };
        look(session, &wanted, &about, &mut facts).await?;
    }
    print!("{}", why::chain(&about, &facts));
    Ok(())
}

/// Fetches one object of the chain. What is gone meanwhile is noted as such, unless it is what was asked about.
async fn look(session: &Session, wanted: &Wanted, about: &str, facts: &mut Facts) -> Result<()> {
    let (kind, name) = wanted.on.split_once('/').unwrap_or(("run", &wanted.on));
    let namespace = get::namespace_of(session, kind);
    let reference = ObjectRef { kind: kind.to_owned(), namespace, name: name.to_owned() };
    match session.objects().get(GetRequest { r#ref: Some(reference) }).await {
        Ok(found) => facts.add(&wanted.on, found.into_inner()),
        Err(status) if status.code() == Code::NotFound && wanted.on != about => facts.gone(&wanted.on),
        Err(status) => return Err(status.into()),
    }
    Ok(())
}

/// The live Runs of all namespaces that work on the node, keep it or wait for it.
async fn of_node(session: &Session, node: &str, facts: &mut Facts) -> Result<()> {
    let (runs, _) = get::list(session, get::kind("Run")?, "", "").await?;
    for object in runs {
        let Some(Message::Run(run)) = object.kind else { continue };
        if !why::may_meet(&run, node) {
            continue;
        }
        let metadata = run.metadata.clone().unwrap_or_default();
        let request = RunRequest { namespace: metadata.namespace, name: metadata.name };
        let nodes = match session.runs().nodes(request).await {
            Ok(answer) => answer.into_inner().nodes,
            // Deleted since it was listed.
            Err(status) if status.code() == Code::NotFound => continue,
            Err(status) => return Err(status.into()),
        };
        if let Some(of) = nodes.into_iter().find(|of| of.name == node) {
            facts.of_node(run, of);
        }
    }
    Ok(())
}
