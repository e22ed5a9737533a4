//! The other servers: what this one must ask them for. Connections are made when they are needed.

use std::collections::HashMap;
use std::sync::Arc;

use lockstep_grpc::channel::{self, ClientIdentity, ConnectError};
use tokio::sync::{Mutex, RwLock};
use tonic::transport::Channel;

use crate::cache::Cache;

/// Connections to other servers.
pub struct Peers {
    cache: Arc<Cache>,
    own_uid: String,
    identity: RwLock<ClientIdentity>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Peers {
    /// Peers of the server with this uid.
    pub fn new(cache: Arc<Cache>, own_uid: String, identity: ClientIdentity) -> Self {
        Self { cache, own_uid, identity: RwLock::new(identity), channels: Mutex::default() }
    }

    /// Takes our renewed certificate for new connections.
    pub async fn replace_identity(&self, identity: ClientIdentity) {
        *self.identity.write().await = identity;
        self.channels.lock().await.clear();
    }

    /// The other servers that are up, by uid.
    pub fn others(&self) -> Vec<String> {
        self.cache.read().servers().keys().filter(|uid| **uid != self.own_uid).cloned().collect()
    }

    /// A channel to another server.
    pub async fn channel(&self, uid: &str) -> Result<Channel, ConnectError> {
        if let Some(channel) = self.channels.lock().await.get(uid) {
            return Ok(channel.clone());
        }
        let addresses = self.cache.read().servers().get(uid).map(|server| server.addresses.clone());
        let identity = self.identity.read().await.clone();
        let channel = channel::connect(&addresses.unwrap_or_default(), &identity).await?;
        self.channels.lock().await.insert(uid.to_owned(), channel.clone());
        Ok(channel)
    }
}
