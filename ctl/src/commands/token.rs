//! `lockstep token`.

use crate::{
    cli::TokenCommand,
    context::Session,
    error::{Error, Result},
};
use lockstep_apis::{duration, v1alpha::CreateTokenRequest};
use std::collections::BTreeMap;

pub(crate) async fn token(session: &Session, command: TokenCommand) -> Result<()> {
    let TokenCommand::Create { ttl, node, label, server } = command;
    let ttl_ms = duration::parse(&ttl).map_err(|e| Error::Usage(format!("--ttl {ttl}: {e}")))?;
    let answer = session
        .cluster()
        .create_token(CreateTokenRequest {
            ttl: Some(duration::to_proto(ttl_ms)),
            node_name: node.unwrap_or_default(),
            labels: labels(&label)?,
            server,
        })
        .await?
        .into_inner();
    println!("{}", answer.token);
    Ok(())
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    given
        .iter()
        .map(|pair| {
            pair.split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| Error::Usage(format!("--label {pair}: write key=value")))
        })
        .collect()
}
