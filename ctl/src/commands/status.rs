//! `lockstep status`: the cluster at a glance.

use crate::{context::Session, error::Result};
use lockstep_apis::v1alpha::StatusRequest;

pub(crate) async fn status(session: &Session) -> Result<()> {
    let status = session.ask(async || session.cluster().status(StatusRequest {}).await).await?;
    let cluster = status.cluster.unwrap_or_default();
    let leader = status.leader.unwrap_or_default();
    println!("cluster  {} ({}), incarnation {}", cluster.cluster_id, cluster.trust_domain, cluster.incarnation);
    println!("store    {}", status.store);
    println!("nodes    {} of {} ready", status.nodes_ready, status.nodes);
    println!("leader   {}", if leader.server_name.is_empty() { "none" } else { &leader.server_name });
    for server in status.servers {
        println!("server   {}  {}  {}", server.name, server.addresses.join(","), server.version);
    }
    Ok(())
}
