//! The cluster itself: join tokens, and how it stands. Knows what a token may be; making one is `identity::tokens`.

use std::sync::Arc;

use lockstep_apis::commit::Commit;
use lockstep_apis::selector::{label_key, label_value};
use lockstep_apis::v1alpha::{CreateTokenRequest, CreateTokenResponse, StatusRequest, StatusResponse, Violation};
use lockstep_apis::violation::{of_field, shown};
use lockstep_apis::{duration, keys, name};
use lockstep_grpc::cluster_admin_server;
use tonic::{Request, Response, Status};

use crate::cache::Cache;
use crate::clock::now_ms;
use crate::events::{Happening, Outbox};
use crate::identity::tokens::{self, TokenRequest};
use crate::logs::LogStore;
use crate::status::{self, Answer, Problem};
use crate::store::{Store, StoreError};

/// Longest life of a token: an hour.
const MAX_TTL_MS: u64 = 3_600_000;

/// Labels that only the system gives.
const RESERVED: &str = "lockstep/";

/// The service.
#[derive(Clone)]
pub struct ClusterApi {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    outbox: Outbox,
    /// SHA-256 of the root certificate, which tokens carry.
    pin: [u8; 32],
    /// The store is inside this server: there can be no further one.
    embedded: bool,
    logs: LogStore,
}

impl ClusterApi {
    /// With what the server's services share.
    pub fn of(shared: &super::Shared) -> Self {
        Self {
            store: shared.store.clone(),
            cache: shared.cache.clone(),
            outbox: shared.outbox.clone(),
            pin: shared.ca.authority().pin(),
            embedded: shared.store_kind == "embedded",
            logs: shared.logs.clone(),
        }
    }

    async fn token(
        &self,
        request: CreateTokenRequest,
        by: &crate::identity::PeerIdentity,
    ) -> Answer<CreateTokenResponse> {
        let violations = violations(&request);
        if !violations.is_empty() {
            return Err(Problem::Violations(violations));
        }
        if request.server && self.embedded {
            return Err(Problem::Precondition(
                "this cluster keeps its store inside its only server; for a further server, move the store to etcd first"
                    .into(),
            ));
        }
        let what = if request.server { "server" } else { "node" };
        let made = tokens::make(
            TokenRequest {
                ttl_ms: request.ttl.as_ref().map_or(0, duration::from_proto),
                node_name: request.node_name,
                labels: request.labels,
                server: request.server,
                created_by: by.to_string(),
            },
            self.pin,
            now_ms(),
        );
        let id = made.record.id.clone();
        let value = prost::Message::encode_to_vec(&made.record);
        let key = keys::token(&id);
        match self.store.commit(&Commit::new().create(key.clone(), value)).await {
            Ok(_) => {}
            // Whether it is there is known when it is used; to make another one is always right.
            Err(problem @ StoreError::Indeterminate { .. }) => {
                self.store.get(&key).await?.entry.ok_or(problem)?;
            }
            Err(problem) => return Err(problem.into()),
        }
        let message = format!("{} made a join token for a {what}", by.name);
        self.outbox.tell(Happening::of_cluster("token/created", format!("Token/{id}"), message));
        Ok(CreateTokenResponse { token: made.text.to_string(), expires_ms: made.record.expires_ms })
    }
}

/// All that is wrong with a request for a token.
fn violations(request: &CreateTokenRequest) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(ttl) = &request.ttl {
        let ms = duration::from_proto(ttl);
        if ms == 0 || ms > MAX_TTL_MS || ttl.seconds < 0 {
            found.push(of_field("OutOfRange", "ttl", "a token lives more than 0 and at most 1h"));
        }
    }
    if !request.node_name.is_empty()
        && let Err(rule) = name::check(&request.node_name)
    {
        found.push(of_field("Format", "nodeName", format!("{} is no name: {rule}", shown(&request.node_name))));
    }
    for (key, value) in &request.labels {
        let field = format!("labels.{key}");
        if key.starts_with(RESERVED) {
            let message = "labels that begin with `lockstep/` are the system's; choose another prefix";
            found.push(of_field("Reserved", &field, message));
        }
        found.extend(label_key(key).err().map(|rule| of_field("Format", &field, rule)));
        found.extend(label_value(value).err().map(|rule| of_field("Format", &field, rule)));
    }
    found
}

#[tonic::async_trait]
impl cluster_admin_server::ClusterAdmin for ClusterApi {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let caller = status::caller(&request)?;
        Ok(Response::new(self.token(request.into_inner(), &caller).await?))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.cache.catch_up(&*self.store).await.map_err(Problem::from)?;
        // What cannot be told is 0.
        let (disk_free_bytes, disk_total_bytes) = self.logs.room().unwrap_or_default();
        let state = self.cache.read();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let uid = |node: &lockstep_apis::v1alpha::Node| node.metadata.as_ref().map(|own| own.uuid.clone());
        let ready = state.nodes().filter_map(uid).filter(|uid| state.world().session(uid).is_some()).count();
        Ok(Response::new(StatusResponse {
            cluster: state.cluster().cloned(),
            store: if self.embedded { "embedded" } else { "etcd" }.into(),
            leader: state.world().leader().map(|(leader, _)| leader.clone()),
            servers: state.servers().values().cloned().collect(),
            nodes: count(state.node_count()),
            nodes_ready: count(ready),
            version: env!("CARGO_PKG_VERSION").into(),
            now_ms: now_ms(),
            disk_free_bytes,
            disk_total_bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_token_is_said_at_once() {
        let request = CreateTokenRequest {
            ttl: Some(duration::to_proto(MAX_TTL_MS + 1)),
            node_name: "Web 1".into(),
            labels: [("lockstep/x".to_owned(), "y".to_owned()), ("a b".to_owned(), "c".to_owned())].into(),
            server: false,
        };
        let fields: Vec<String> = violations(&request).into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["ttl", "nodeName", "labels.a b", "labels.lockstep/x"]);
        assert_eq!(violations(&CreateTokenRequest::default()), []);
    }
}
