//! What a server answers: the gRPC services, one file each. Knows requests; what may be asked by whom is decided
//! before, in `authorization`.

mod agents;
mod announce;
mod cluster;
mod locks;
mod objects;
mod peers;
mod runs;

use std::sync::Arc;

use lockstep_apis::v1alpha::Cluster;

use crate::cache::Cache;
use crate::delivery::Delivery;
use crate::events::Outbox;
use crate::identity::authority::CertificateAuthority;
use crate::identity::join::ServerGrant;
use crate::leader::UpNodes;
use crate::logs::LogStore;
use crate::sealing::KeyRing;
use crate::store::Store;

pub use agents::AgentsApi;
pub use announce::Announced;
pub use cluster::ClusterApi;
pub use locks::LocksApi;
pub use objects::ObjectsApi;
pub(crate) use objects::finish_deletions;
pub use peers::Peers;
pub use runs::RunsApi;

/// What all services share.
pub struct Shared {
    /// The store.
    pub store: Arc<dyn Store>,
    /// `etcd` or `embedded`.
    pub store_kind: &'static str,
    /// What is known of it.
    pub cache: Arc<Cache>,
    /// What it is.
    pub cluster: Cluster,
    /// This server's uid.
    pub uid: String,
    /// Issues certificates.
    pub ca: CertificateAuthority,
    /// Seals and opens secret results.
    pub sealing: Arc<KeyRing>,
    /// What further servers get; `None` while the store is embedded.
    pub grant: Option<ServerGrant>,
    /// The agents of this server.
    pub delivery: Arc<Delivery>,
    /// For what happens to Runs and nodes.
    pub outbox: Outbox,
    /// What tasks printed, as far as it came to this server.
    pub logs: LogStore,
    /// The other servers.
    pub peers: Peers,
    /// For plans: which nodes count as connected.
    pub up: Arc<UpNodes>,
}
