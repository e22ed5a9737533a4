//! A context: which cluster, and who I am there. Reads the file that `lockstep init` wrote, and connects.

use crate::{
    cli::Global,
    error::{Error, Result},
};
use lockstep_grpc::{
    channel, cluster_admin_client::ClusterAdminClient, locks_client::LocksClient, objects_client::ObjectsClient,
    runs_client::RunsClient,
};
use serde::Deserialize;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tonic::transport::Channel;

/// Most bytes of one answer: a page of large objects.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The file's content. The key is the user's own: the file is 0600.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    name: String,
    /// host:port, each a server of the cluster.
    servers: Vec<String>,
    /// PEM.
    ca: String,
    /// PEM, leaf first.
    chain: String,
    /// PEM.
    key: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Context {
    /// Reads the context that the command line names, or the usual one.
    pub(crate) fn load(global: &Global) -> Result<Context> {
        let path = locate(global)?;
        let text = fs::read_to_string(&path).map_err(|e| {
            Error::Context(format!("{}: {e}\ncontexts are files in {}", path.display(), folder().display()))
        })?;
        let mut context: Context = serde_saphyr::from_str(&text)
            .map_err(|e| Error::Context(format!("{}: not a context: {e}", path.display())))?;
        if global.namespace.is_some() {
            context.namespace.clone_from(&global.namespace);
        }
        Ok(context)
    }

    /// Of commands that name none.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// Connects to the first server that answers.
    pub(crate) async fn connect(&self) -> Result<Session> {
        let identity = channel::ClientIdentity::from_pem(&self.ca, &self.chain, &self.key)
            .map_err(|e| Error::Context(format!("the context {}: {e}", self.name)))?;
        let channel =
            channel::connect(&self.servers, &identity).await.map_err(|e| Error::Unreachable(e.to_string()))?;
        Ok(Session { channel, namespace: self.namespace().to_owned() })
    }
}

/// A connected user.
pub(crate) struct Session {
    channel: Channel,
    /// Of commands that name none.
    pub(crate) namespace: String,
}

impl Session {
    /// Connects to the first server of the context that answers.
    pub(crate) async fn open(global: &Global) -> Result<Session> {
        Context::load(global)?.connect().await
    }

    /// Every kind's seven verbs.
    pub(crate) fn objects(&self) -> ObjectsClient<Channel> {
        ObjectsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// What is done with Runs.
    pub(crate) fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// What admins do with locks.
    pub(crate) fn locks(&self) -> LocksClient<Channel> {
        LocksClient::new(self.channel.clone())
    }

    /// The cluster itself.
    pub(crate) fn cluster(&self) -> ClusterAdminClient<Channel> {
        ClusterAdminClient::new(self.channel.clone())
    }
}

/// Of commands without a namespace, where the context names none either.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Where contexts are kept.
pub(crate) fn folder() -> PathBuf {
    let base = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".config")))
        .unwrap_or_else(|| "/root/.config".into());
    base.join("lockstep/contexts")
}

fn locate(global: &Global) -> Result<PathBuf> {
    if let Some(named) = &global.context {
        let path = Path::new(named);
        if named.contains('/') || path.is_file() {
            return Ok(path.to_owned());
        }
        return Ok(folder().join(format!("{named}.yaml")));
    }
    let folder = folder();
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .map(|entries| {
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "yaml")).collect()
        })
        .unwrap_or_default();
    found.sort();
    match found.as_slice() {
        [] => Err(Error::Context(format!(
            "no context: {} holds none\n`lockstep init` on the first server writes one; name another with --context FILE",
            folder.display()
        ))),
        [one] => Ok(one.clone()),
        several => match several.iter().find(|p| p.file_stem().is_some_and(|s| s == "default")) {
            Some(default) => Ok(default.clone()),
            None => Err(Error::Context(format!(
                "several contexts: {}\nname one with --context, or set LOCKSTEP_CONTEXT",
                several
                    .iter()
                    .filter_map(|p| p.file_stem())
                    .map(|s| s.to_string_lossy())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        },
    }
}
