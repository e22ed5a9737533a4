//! What agents call: joining, renewing, and the stream of their lives.

use std::sync::Arc;

use lockstep_apis::v1alpha::{AgentMessage, JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use lockstep_grpc::agents_server::Agents;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use crate::clock::now_ms;
use crate::delivery::{self, Stream};
use crate::identity::join::{self, Joining};
use crate::status::{Answer, Problem, caller};
use crate::store::StoreError;

/// How often a join that was overtaken is decided again.
const ATTEMPTS: u32 = 5;

/// The service.
pub struct AgentsApi(pub Arc<Shared>);

#[tonic::async_trait]
impl Agents for AgentsApi {
    type AttachStream = Stream;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Ok(Response::new(self.admit(&request.into_inner()).await?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = caller(&request)?;
        let renewed = join::renew(request.get_ref(), &peer, &self.0.ca, now_ms());
        Ok(Response::new(renewed.map_err(Problem::from)?))
    }

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Stream>, Status> {
        let peer = caller(&request)?;
        let stream = delivery::attach(&self.0.delivery, &peer, request.into_inner()).await?;
        Ok(Response::new(stream))
    }
}

impl AgentsApi {
    async fn admit(&self, request: &JoinRequest) -> Answer<JoinResponse> {
        let shared = &self.0;
        let (token_key, node_key) = (join::token_key(request)?, join::node_key(request)?);
        for _ in 0..ATTEMPTS {
            let token = shared.store.get(&token_key).await?.entry;
            let node = shared.store.get(&node_key).await?.entry;
            let servers = shared.delivery.addresses();
            let admission = join::admit(
                request,
                &Joining {
                    ca: &shared.ca,
                    cluster: &shared.cluster,
                    servers: &servers,
                    token: token.as_ref(),
                    node: node.as_ref(),
                    server: shared.grant.as_ref(),
                    now_ms: now_ms(),
                },
            )?;
            let Some(commit) = admission.commit else { return Ok(admission.response) };
            match shared.store.commit(&commit).await {
                Ok(committed) => {
                    tracing::info!(node = request.node_name, uid = admission.response.node_uid, "a node joined");
                    // The new node is known here before it attaches.
                    shared.cache.reached(committed.revision).await;
                    return Ok(admission.response);
                }
                // The next turn finds out whether the token is used, and by whom.
                Err(StoreError::Conflict | StoreError::Indeterminate { .. }) => {}
                Err(problem) => return Err(problem.into()),
            }
        }
        Err(Problem::Conflict("the token or the node's name changed meanwhile; try again".into()))
    }
}
