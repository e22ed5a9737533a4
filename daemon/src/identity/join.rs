//! Joining and renewing, the server's side: from what the store says to the commit and the answer. Pure but for the
//! keys that sign: the caller reads the entries, commits, and on a conflict reads and asks again.
//!
//! # Guarantees
//! - A token admits one key: its record is marked in the commit that makes the Node. The same joiner (same key) that
//!   lost the answer may ask again until the token expires, and gets the same uid.
//! - All faults of a token give one and the same text.

use std::collections::BTreeMap;

use lockstep_apis::commit::{Commit, Compare, Entry};
use lockstep_apis::keys::{self, Key};
use lockstep_apis::v1alpha::{
    Cluster, JoinRequest, JoinResponse, JoinToken, Metadata, Node, NodeSpec, NodeStatus, Object, RenewRequest,
    RenewResponse, ServerMaterial,
};
use lockstep_apis::{kinds, name, object};
use prost::Message;
use uuid::Uuid;

use super::authority::{AuthorityError, CertificateAuthority, request_fingerprint};
use super::files::{self, FileError};
use super::{PeerIdentity, Role, tokens};
use crate::sealing::KeyRing;
use crate::settings::Settings;
use crate::store::StoreSettings;

/// Most addresses of a joining server.
const MAX_ADDRESSES: usize = 16;

/// Why somebody is not let in. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Unknown, expired, used, wrong secret, for another name, not for servers: whoever asks learns no more.
    #[error(
        "the token is not valid for this: it is unknown, used or expired, or was made for another name or role; make one with `lockstep token create`"
    )]
    Token,
    /// The node's name breaks the rules of names.
    #[error("the node's name {0:?} is not valid: {1}")]
    Name(String, &'static str),
    /// A node of this name exists already.
    #[error("a node named {0:?} exists; choose another name, or delete it first: `lockstep delete node {0}`")]
    NodeExists(String),
    /// The embedded store has room for one server only.
    #[error("this cluster keeps its store inside its only server; for a further server, move the store to etcd first")]
    Embedded,
    /// A server must say where it can be reached.
    #[error("a server needs 1 to 16 addresses, each host:port")]
    Addresses,
    /// The certificate request, or our CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The caller's certificate has ended, or it has none.
    #[error("renewing needs a certificate that is still valid; join again with a new token")]
    NotRenewable,
    /// The store's record of token or node does not decode.
    #[error("the store's {0} is damaged")]
    Damaged(Key),
}

/// What a further server gets beside its certificate.
#[derive(Clone, Debug, Default)]
pub struct ServerGrant {
    /// The CA's folder.
    pub ca_files: BTreeMap<String, Vec<u8>>,
    /// The sealing keys.
    pub sealing_keys: BTreeMap<String, Vec<u8>>,
    /// Where etcd is.
    pub etcd_endpoints: Vec<String>,
    /// CA, certificate and key for etcd, by the names `ca.pem`, `cert.pem`, `key.pem`; none for etcd without TLS.
    pub etcd_files: BTreeMap<String, Vec<u8>>,
}

impl ServerGrant {
    /// Reads what this server has. `None`: its store is embedded, so there can be no further server.
    pub fn read(settings: &Settings, sealing: &KeyRing) -> Result<Option<Self>, FileError> {
        let Some(StoreSettings::Etcd(etcd)) = &settings.store else { return Ok(None) };
        let mut etcd_files = BTreeMap::new();
        if let Some(tls) = &etcd.tls {
            for (name, path) in [("ca.pem", &tls.ca), ("cert.pem", &tls.certificate), ("key.pem", &tls.key)] {
                etcd_files.insert(name.to_owned(), files::read(path)?);
            }
        }
        Ok(Some(Self {
            ca_files: files::read_folder(&settings.ca_folder())?.into_iter().collect(),
            sealing_keys: sealing.export(),
            etcd_endpoints: etcd.endpoints.clone(),
            etcd_files,
        }))
    }
}

/// What the server knows when somebody asks to join.
pub struct Joining<'a> {
    /// Signs.
    pub ca: &'a CertificateAuthority,
    /// The store's record.
    pub cluster: &'a Cluster,
    /// Where all servers can be reached.
    pub servers: &'a [String],
    /// What is at [`token_key`].
    pub token: Option<&'a Entry>,
    /// What is at [`node_key`].
    pub node: Option<&'a Entry>,
    /// What further servers get; `None` while the store is embedded.
    pub server: Option<&'a ServerGrant>,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
}

/// Somebody who may join.
pub struct Admission {
    /// To commit before the answer is given; `None` if it was committed before and the answer was lost.
    pub commit: Option<Commit>,
    /// The answer.
    pub response: JoinResponse,
}

/// Where the token's record is. An id that cannot be one is refused before it becomes part of a key.
pub fn token_key(request: &JoinRequest) -> Result<Key, JoinError> {
    tokens::is_id(&request.token_id).then(|| keys::token(&request.token_id)).ok_or(JoinError::Token)
}

/// Where the Node of the requested name is.
pub fn node_key(request: &JoinRequest) -> Result<Key, JoinError> {
    name::check(&request.node_name).map_err(|rule| JoinError::Name(request.node_name.clone(), rule))?;
    Ok(keys::object("nodes", "", &request.node_name))
}

/// Decides whether a joiner is let in, and as what.
pub fn admit(request: &JoinRequest, joining: &Joining<'_>) -> Result<Admission, JoinError> {
    let (token_entry, token) = valid_token(request, joining)?;
    let key = node_key(request)?;
    let fingerprint = super::hex(&request_fingerprint(&request.csr)?);
    if !token.used_by.is_empty() {
        let uid = repeated(&token, &fingerprint, joining)?;
        return Ok(Admission { commit: None, response: answer(request, joining, &uid)? });
    }
    if joining.node.is_some() {
        return Err(JoinError::NodeExists(request.node_name.clone()));
    }
    let uid = Uuid::now_v7().to_string();
    let used = JoinToken { used_by: format!("{uid}/{fingerprint}"), ..token.clone() };
    let node = new_node(&request.node_name, &uid, &token.labels, joining.now_ms);
    let commit = Commit::new()
        .when(Compare::ModRevision(token_entry.key.clone(), token_entry.mod_revision))
        .put(token_entry.key.clone(), used.encode_to_vec())
        .create(key, Object::from(node).to_stored());
    Ok(Admission { commit: Some(commit), response: answer(request, joining, &uid)? })
}

/// Issues the next leaf for whoever calls. The caller has checked that it still exists.
pub fn renew(
    request: &RenewRequest,
    caller: &PeerIdentity,
    ca: &CertificateAuthority,
    now_ms: u64,
) -> Result<RenewResponse, JoinError> {
    if now_ms >= caller.not_after_ms {
        return Err(JoinError::NotRenewable);
    }
    let certificate_chain = ca.issue(&request.csr, caller.role, &caller.uid, &caller.name, now_ms)?;
    Ok(RenewResponse { certificate_chain })
}

/// The object of a node that has just joined.
pub fn new_node(name: &str, uid: &str, labels: &BTreeMap<String, String>, now_ms: u64) -> Node {
    let metadata = Metadata {
        api_version: object::API_VERSION.into(),
        kind: "Node".into(),
        name: name.to_owned(),
        labels: labels.clone(),
        uuid: uid.to_owned(),
        generation: 1,
        created_at: Some(timestamp(now_ms)),
        ..Metadata::default()
    };
    let status = NodeStatus { liveness: "NeverSeen".into(), ..NodeStatus::default() };
    Node { metadata: Some(metadata), spec: Some(NodeSpec::default()), status: Some(status) }
}

/// A time as objects have it.
pub(crate) fn timestamp(ms: u64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ms % 1000 * 1_000_000).expect("less than a second");
    prost_types::Timestamp { seconds: (ms / 1000).cast_signed(), nanos }
}

fn valid_token<'a>(request: &JoinRequest, joining: &Joining<'a>) -> Result<(&'a Entry, JoinToken), JoinError> {
    let entry = joining.token.ok_or(JoinError::Token)?;
    let token = JoinToken::decode(entry.value.as_slice()).map_err(|_| JoinError::Damaged(entry.key.clone()))?;
    let named = token.node_name.is_empty() || token.node_name == request.node_name;
    let as_server = !request.server_csr.is_empty();
    if !tokens::verify(&token, &request.token_secret, joining.now_ms) || !named || (as_server && !token.server) {
        return Err(JoinError::Token);
    }
    if as_server {
        joining.server.ok_or(JoinError::Embedded)?;
        if request.addresses.is_empty() || request.addresses.len() > MAX_ADDRESSES {
            return Err(JoinError::Addresses);
        }
    }
    Ok((entry, token))
}

/// The uid that the token's only joiner got, if this is the same one and its node is still there.
fn repeated(token: &JoinToken, fingerprint: &str, joining: &Joining<'_>) -> Result<String, JoinError> {
    let (uid, used_by) = token.used_by.split_once('/').ok_or(JoinError::Token)?;
    let entry = joining.node.ok_or(JoinError::Token)?;
    let kind = kinds::named("Node").expect("invariant: Node is a kind");
    let node = Object::from_stored(kind, &entry.value, entry.mod_revision)
        .map_err(|_| JoinError::Damaged(entry.key.clone()))?;
    match used_by == fingerprint && node.metadata().uuid == uid {
        true => Ok(uid.to_owned()),
        false => Err(JoinError::Token),
    }
}

fn answer(request: &JoinRequest, joining: &Joining<'_>, uid: &str) -> Result<JoinResponse, JoinError> {
    let (ca, name, now_ms) = (joining.ca, &request.node_name, joining.now_ms);
    let server = match (request.server_csr.is_empty(), joining.server) {
        (false, Some(grant)) => Some(server_material(&request.server_csr, grant, ca, name, now_ms)?),
        _ => None,
    };
    Ok(JoinResponse {
        node_uid: uid.to_owned(),
        cluster_id: joining.cluster.cluster_id.clone(),
        trust_domain: ca.authority().trust_domain().to_owned(),
        certificate_chain: ca.issue(&request.csr, Role::Node, uid, name, now_ms)?,
        ca_certificate: ca.authority().root().to_vec(),
        servers: joining.servers.to_vec(),
        server,
    })
}

fn server_material(
    request: &[u8],
    grant: &ServerGrant,
    ca: &CertificateAuthority,
    name: &str,
    now_ms: u64,
) -> Result<ServerMaterial, JoinError> {
    let server_uid = Uuid::now_v7().to_string();
    Ok(ServerMaterial {
        certificate_chain: ca.issue(request, Role::Server, &server_uid, name, now_ms)?,
        server_uid,
        ca_files: grant.ca_files.clone(),
        sealing_keys: grant.sealing_keys.clone(),
        etcd_endpoints: grant.etcd_endpoints.clone(),
        etcd_files: grant.etcd_files.clone(),
    })
}

#[cfg(test)]
mod tests;
