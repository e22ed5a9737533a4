//! `lockstep vars`: a node's variables, and where they come from.

use super::run::set;
use crate::{
    cli::{VarsCommand, VarsOf},
    context::Session,
    error::{Error, Result},
    render::variables,
};
use lockstep_apis::v1alpha::{VariableLayer, VariablesRequest};

pub(crate) async fn vars(session: &Session, command: &VarsCommand) -> Result<()> {
    match command {
        VarsCommand::Get { name, of } => {
            let layers = layers(session, of).await?;
            print!("{}", variables::get(&layers, name.as_deref()).map_err(Error::Usage)?);
        }
        VarsCommand::Explain { name, of } => {
            let layers = layers(session, of).await?;
            print!("{}", variables::explain(&layers, name, &of.node).map_err(Error::Usage)?);
        }
    }
    Ok(())
}

/// Every source that has a say, weakest first.
pub(crate) async fn layers(session: &Session, of: &VarsOf) -> Result<Vec<VariableLayer>> {
    let request = VariablesRequest {
        namespace: session.namespace.clone(),
        node: of.node.clone(),
        task_book: of.book.clone().unwrap_or_default(),
        set: set(&of.set)?,
    };
    Ok(session.ask(async || session.runs().variables(request.clone()).await).await?.layers)
}
