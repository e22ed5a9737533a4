//! `lockstepd join`: makes this machine a node of a cluster, or a further server of it. Keys are made here and stay
//! here; the token's secret is sent only to a server whose CA has the hash in the token.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use lockstep_apis::v1alpha::{JoinRequest, JoinResponse, ServerMaterial};
use lockstep_grpc::agents_client::AgentsClient;
use lockstep_grpc::channel::{Pinned, connect_pinned};
use std::sync::Arc;

use super::place::{NewPlace, planned};
use crate::identity::authority::CertificateAuthority;
use crate::identity::credentials::{self, FreshKey};
use crate::identity::membership::Membership;
use crate::identity::tokens::{self, TokenText};
use crate::identity::{Authority, Role, files};
use crate::sealing::KeyRing;
use crate::settings::{self, Flags, Roles, Settings};
use crate::store::etcd::EtcdTls;

/// How often a lost answer is asked for again, and how long apart. The token admits the same key again.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Options of `lockstepd join`.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArguments {
    /// What `lockstep token create` printed.
    #[arg(env = "LOCKSTEP_TOKEN", hide_env_values = true)]
    token: String,
    /// A server of the cluster, HOST:PORT; several are tried in order.
    #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT")]
    server_address: Vec<String>,
    /// This machine's name in the cluster; its host name if not given.
    #[arg(long)]
    name: Option<String>,
    /// Become a further server too. The token must be for that, and the store be etcd.
    #[arg(long)]
    server: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Keys that are made here before anybody is asked.
struct Keys {
    node: FreshKey,
    server: Option<FreshKey>,
}

/// Joins and prints what to do next. Errors leave nothing behind on this machine.
pub async fn join(arguments: JoinArguments) -> anyhow::Result<()> {
    let token = tokens::parse(&arguments.token)?;
    let roles = Roles { server: arguments.server, agent: true };
    let mut settings = planned(&arguments.flags, arguments.name.as_deref(), roles)?;
    let place = NewPlace::claim(&settings, &[])?;
    let server = if arguments.server { Some(FreshKey::generate()?) } else { None };
    let keys = Keys { node: FreshKey::generate()?, server };
    let (answer, authority) = ask(&arguments.server_address, &token, &settings, &keys).await?;
    install(answer, Arc::new(authority), keys, &arguments.server_address, &mut settings)?;
    place.keep();
    println!("{} has joined the cluster.", settings.name);
    println!("Next:\n  lockstepd serve --config {}", settings.file.display());
    Ok(())
}

async fn ask(
    addresses: &[String],
    token: &TokenText,
    settings: &Settings,
    keys: &Keys,
) -> anyhow::Result<(JoinResponse, Authority)> {
    let request = JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.to_vec(),
        node_name: settings.name.clone(),
        csr: keys.node.request().to_vec(),
        server_csr: keys.server.as_ref().map(|key| key.request().to_vec()).unwrap_or_default(),
        addresses: settings.advertise.clone(),
    };
    for attempt in 1.. {
        let Pinned { channel, authority } = connect_any(addresses, token.pin).await?;
        match AgentsClient::new(channel).join(request.clone()).await {
            Ok(answer) => return Ok((answer.into_inner(), authority)),
            Err(status) if is_lost(&status) && attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
            Err(status) => bail!("the server refused: {}", status.message()),
        }
    }
    unreachable!("the loop ends with its last attempt")
}

/// Whether the server may have let us in without our hearing of it, or may do so if asked again.
fn is_lost(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Aborted | Code::DeadlineExceeded | Code::Cancelled
    )
}

async fn connect_any(addresses: &[String], pin: [u8; 32]) -> anyhow::Result<Pinned> {
    let mut problems = Vec::new();
    for address in addresses {
        match connect_pinned(address, pin).await {
            Ok(pinned) => return Ok(pinned),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    bail!("no server could be reached, and the token was not sent:\n{}", problems.join("\n"))
}

fn install(
    answer: JoinResponse,
    authority: Arc<Authority>,
    keys: Keys,
    reached_at: &[String],
    settings: &mut Settings,
) -> anyhow::Result<()> {
    let node = keys.node.certified(answer.certificate_chain, authority.clone())?;
    if node.identity().role != Role::Node || node.identity().uid != answer.node_uid {
        bail!("the server gave us a certificate of somebody else: {}", node.identity());
    }
    node.store(&settings.node_credentials())?;
    files::write_private(&settings.authority_file(), credentials::authority_pem(&authority).as_bytes())?;
    // Where we reached it comes first: that is known to work from here.
    let mut servers = reached_at.to_vec();
    servers.extend(answer.servers.into_iter().filter(|server| !reached_at.contains(server)));
    let membership = Membership { cluster_id: answer.cluster_id, servers, incarnation: 0 };
    membership.store(&settings.membership_file())?;
    match (keys.server, answer.server) {
        (None, _) => {}
        (Some(key), Some(material)) => install_server(material, key, &authority, settings)?,
        (Some(_), None) => bail!("the server did not make us a server"),
    }
    files::write_private(&settings.file, settings.to_yaml().as_bytes())?;
    Ok(())
}

fn install_server(
    material: ServerMaterial,
    key: FreshKey,
    authority: &Arc<Authority>,
    settings: &mut Settings,
) -> anyhow::Result<()> {
    let server = key.certified(material.certificate_chain, authority.clone())?;
    if server.identity().role != Role::Server || server.identity().uid != material.server_uid {
        bail!("the server gave us a server's certificate of somebody else: {}", server.identity());
    }
    server.store(&settings.server_credentials())?;
    write_all(&settings.ca_folder(), &material.ca_files)?;
    let ca = CertificateAuthority::load(&settings.ca_folder())?;
    if ca.authority().root() != authority.root() {
        bail!("the CA that the server sent is not the one that the token names");
    }
    KeyRing::install(&settings.sealing_folder(), &material.sealing_keys)?;
    KeyRing::load(&settings.sealing_folder())?;
    let folder = settings.state_folder.join("etcd");
    write_all(&folder, &material.etcd_files)?;
    let tls = (!material.etcd_files.is_empty()).then(|| EtcdTls {
        ca: folder.join("ca.pem"),
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    });
    settings.store = Some(settings::etcd(material.etcd_endpoints, tls));
    Ok(())
}

fn write_all(folder: &Path, contents: &std::collections::BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    for (name, content) in contents {
        if !files::is_plain_name(name) {
            bail!("the server sent a file under the name {name:?}");
        }
        files::write_private(&folder.join(name), content).with_context(|| "what the server sent".to_owned())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
