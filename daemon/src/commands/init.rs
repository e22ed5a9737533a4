//! `lockstepd init`: makes a cluster. This machine becomes its first server and first node; whoever calls becomes its
//! admin. Either all of it is there afterwards, or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use lockstep_apis::commit::Commit;
use lockstep_apis::v1alpha::{
    Cluster, Config, ConfigSpec, Metadata, Namespace, NamespaceSpec, NamespaceStatus, Object,
};
use lockstep_apis::{keys, name, object};
use prost::Message;
use uuid::Uuid;

use super::place::{NewPlace, now_ms, planned};
use crate::identity::authority::CertificateAuthority;
use crate::identity::credentials::{self, Credentials, FreshKey};
use crate::identity::membership::Membership;
use crate::identity::{Role, files, join};
use crate::sealing::KeyRing;
use crate::settings::{self, Flags, Roles, Settings};
use crate::store::etcd::EtcdTls;
use crate::store::{self, Store, StoreError};

/// Options of `lockstepd init`.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArguments {
    #[command(flatten)]
    flags: Flags,
    /// This machine's name in the cluster; its host name if not given.
    #[arg(long)]
    name: Option<String>,
    /// The cluster's name: of the admin's context, and of all its identities.
    #[arg(long, default_value = "lockstep")]
    cluster_name: String,
    /// The admin's name in the certificate.
    #[arg(long, default_value = "admin")]
    admin: String,
    /// Where to write the admin's context; `~/.config/lockstep/contexts/<cluster name>.yaml` if not given.
    #[arg(long, value_name = "FILE")]
    context_file: Option<PathBuf>,
    /// Keep the store in etcd at these URLs, in place of a file on this machine.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd: Vec<String>,
    /// The CA of etcd's members, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_cert", "etcd_key"])]
    etcd_ca: Option<PathBuf>,
    /// Our certificate for etcd, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_ca", "etcd_key"])]
    etcd_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_ca", "etcd_cert"])]
    etcd_key: Option<PathBuf>,
}

/// Makes the cluster and prints what to do next. Errors leave nothing behind.
pub async fn init(arguments: InitArguments) -> anyhow::Result<()> {
    if let Err(rule) = name::check(&arguments.cluster_name) {
        bail!("--cluster-name {:?}: {rule}", arguments.cluster_name);
    }
    let mut settings = planned(&arguments.flags, arguments.name.as_deref(), Roles { server: true, agent: true })?;
    let context_file = match &arguments.context_file {
        Some(path) => std::path::absolute(path)?,
        None => contexts_folder()?.join(format!("{}.yaml", arguments.cluster_name)),
    };
    let place = NewPlace::claim(&settings, &[&context_file])?;
    settings.store = Some(match arguments.etcd.is_empty() {
        true => settings::embedded(&settings.state_folder),
        false => settings::etcd(arguments.etcd.clone(), etcd_files(&arguments, &settings.state_folder)?),
    });
    make(&arguments, &settings, &context_file).await?;
    place.keep();
    report(&settings, &context_file);
    Ok(())
}

async fn make(arguments: &InitArguments, settings: &Settings, context_file: &Path) -> anyhow::Result<()> {
    let now_ms = now_ms();
    let ca = CertificateAuthority::create(&settings.ca_folder(), &arguments.cluster_name, now_ms)?;
    let (server_uid, node_uid) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let leaf = |role, uid: &str, name: &str| -> anyhow::Result<Credentials> {
        let key = FreshKey::generate()?;
        let chain = ca.issue(key.request(), role, uid, name, now_ms)?;
        Ok(key.certified(chain, ca.authority().clone())?)
    };
    leaf(Role::Server, &server_uid, &settings.name)?.store(&settings.server_credentials())?;
    leaf(Role::Node, &node_uid, &settings.name)?.store(&settings.node_credentials())?;
    files::write_private(&settings.authority_file(), credentials::authority_pem(ca.authority()).as_bytes())?;
    KeyRing::add_key(&settings.sealing_folder(), now_ms)?;
    KeyRing::load(&settings.sealing_folder())?;

    let cluster = Cluster {
        cluster_id: Uuid::new_v4().to_string(),
        trust_domain: arguments.cluster_name.clone(),
        incarnation: 1,
        created_ms: now_ms,
    };
    let servers = settings.advertise.clone();
    let membership = Membership { cluster_id: cluster.cluster_id.clone(), servers: servers.clone(), incarnation: 1 };
    membership.store(&settings.membership_file())?;
    let admin = leaf(Role::User, &Uuid::now_v7().to_string(), &arguments.admin)?;
    files::write_private(context_file, context(&arguments.cluster_name, &servers, &admin).as_bytes())?;
    files::write_private(&settings.file, settings.to_yaml().as_bytes())?;
    // Last, for it is what cannot be taken back when the store is etcd.
    let chosen = settings.store.as_ref().expect("invariant: init has chosen a store");
    let commit = first_commit(&cluster, &settings.name, &node_uid);
    write_first_records(&*store::open(chosen).await?, &cluster, &commit).await
}

async fn write_first_records(store: &dyn Store, cluster: &Cluster, commit: &Commit) -> anyhow::Result<()> {
    match store.commit(commit).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict) => bail!(
            "the store holds a cluster already. For a further server of it: `lockstep token create --server` where \
             you administer it, then here `lockstepd join TOKEN --server`"
        ),
        // It may be there now: ask by key, and believe only our own id.
        Err(indeterminate @ StoreError::Indeterminate { .. }) => {
            let found = store.get(&keys::cluster()).await.context("after a write with unknown outcome")?;
            match found.entry.is_some_and(|entry| entry.value == cluster.encode_to_vec()) {
                true => Ok(()),
                false => Err(indeterminate.into()),
            }
        }
        Err(problem) => Err(problem.into()),
    }
}

/// What a cluster begins with.
fn first_commit(cluster: &Cluster, node_name: &str, node_uid: &str) -> Commit {
    let metadata = |kind: &str, name: &str| {
        Some(Metadata {
            api_version: object::API_VERSION.into(),
            kind: kind.into(),
            name: name.into(),
            uuid: Uuid::now_v7().to_string(),
            generation: 1,
            created_at: Some(join::timestamp(cluster.created_ms)),
            ..Metadata::default()
        })
    };
    let namespace = |name: &str| {
        let status = NamespaceStatus { phase: "Active".into() };
        let spec = Some(NamespaceSpec::default());
        Object::from(Namespace { metadata: metadata("Namespace", name), spec, status: Some(status) })
    };
    let config = Config { metadata: metadata("Config", "cluster"), spec: Some(ConfigSpec::default()) };
    let node = join::new_node(node_name, node_uid, &BTreeMap::new(), cluster.created_ms);
    let first = Commit::new().create(keys::cluster(), cluster.encode_to_vec());
    [namespace("system"), namespace("default"), config.into(), node.into()]
        .into_iter()
        .fold(first, |commit, object| commit.create(object.key(), object.to_stored()))
}

/// Copies etcd's files into our state folder: what the daemon needs to start is in one place, and stays.
fn etcd_files(arguments: &InitArguments, state_folder: &Path) -> anyhow::Result<Option<EtcdTls>> {
    let (Some(ca), Some(cert), Some(key)) = (&arguments.etcd_ca, &arguments.etcd_cert, &arguments.etcd_key) else {
        return Ok(None);
    };
    let copy = |from: &Path, name: &str| -> anyhow::Result<PathBuf> {
        let to = state_folder.join("etcd").join(name);
        let content = std::fs::read(from).with_context(|| from.display().to_string())?;
        files::write_private(&to, &content)?;
        Ok(to)
    };
    Ok(Some(EtcdTls { ca: copy(ca, "ca.pem")?, certificate: copy(cert, "cert.pem")?, key: copy(key, "key.pem")? }))
}

fn contexts_folder() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))
        .context("neither HOME nor XDG_CONFIG_HOME is set; say where the context goes with --context-file")?;
    Ok(base.join("lockstep/contexts"))
}

/// The admin's context, as `lockstep` reads it.
fn context(name: &str, servers: &[String], admin: &Credentials) -> String {
    let block = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let servers: Vec<String> =
        servers.iter().map(|server| serde_json::Value::from(server.as_str()).to_string()).collect();
    format!(
        "name: {name}\nservers: [{}]\nca: |\n{}chain: |\n{}key: |\n{}",
        servers.join(", "),
        block(&credentials::authority_pem(admin.authority())),
        block(&admin.chain_pem()),
        block(&admin.key_pem()),
    )
}

fn report(settings: &Settings, context_file: &Path) {
    println!("The cluster is made; {} is its first server and first node.", settings.name);
    println!("  settings  {}", settings.file.display());
    println!("  state     {}", settings.state_folder.display());
    println!("  context   {}   (yours; keep it to yourself)", context_file.display());
    println!("Next:");
    println!("  lockstepd serve --config {}", settings.file.display());
    println!("  lockstep token create             # one for each further node, which then joins with");
    println!("  lockstepd join TOKEN --server-address {} --name NAME", settings.advertise.join(","));
}

#[cfg(test)]
mod tests;
