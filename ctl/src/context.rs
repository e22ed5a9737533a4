//! A context: which cluster, and who I am there. Reads the file that `lockstep init` wrote, and connects.

use crate::{
    cli::Global,
    error::{Error, Result, is_lost},
    link::Link,
    renewal,
};
use lockstep_apis::{manifest, v1alpha::Value};
use lockstep_grpc::{
    addresses::Addresses,
    agents_client::AgentsClient,
    channel,
    cluster_admin_client::ClusterAdminClient,
    locks_client::LocksClient,
    objects_client::ObjectsClient,
    peer::{self, PeerError, Validity},
    runs_client::RunsClient,
};
use serde::Deserialize;
use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

/// Most bytes of one answer: a page of large objects.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// So often a question is asked whose answer is lost.
const QUESTIONS: u32 = 3;

/// The file's content. The key is the user's own: the file is 0600.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    name: String,
    /// host:port, each a server of the cluster; the one that answered last is first.
    servers: Vec<String>,
    /// PEM.
    ca: String,
    /// PEM, leaf first.
    chain: String,
    /// PEM.
    key: String,
    #[serde(default)]
    namespace: Option<String>,
    /// Where it was read from.
    #[serde(skip)]
    file: PathBuf,
}

impl Context {
    /// Reads the context that the command line names, or the usual one.
    pub(crate) fn load(global: &Global) -> Result<Context> {
        let mut context = Context::read(&locate(global)?)?;
        if global.namespace.is_some() {
            context.namespace.clone_from(&global.namespace);
        }
        Ok(context)
    }

    /// Reads a context's file.
    pub(crate) fn read(path: &Path) -> Result<Context> {
        let text = fs::read_to_string(path).map_err(|e| {
            Error::Context(format!("{}: {e}\ncontexts are files in {}", path.display(), folder().display()))
        })?;
        let mut context: Context = serde_saphyr::from_str(&text)
            .map_err(|e| Error::Context(format!("{}: not a context: {e}", path.display())))?;
        path.clone_into(&mut context.file);
        Ok(context)
    }

    /// Its own name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it was read from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// host:port of each server that it knows.
    pub(crate) fn servers(&self) -> &[String] {
        &self.servers
    }

    /// From when until when the certificate counts.
    pub(crate) fn validity(&self) -> Result<Validity, PeerError> {
        peer::validity_of_pem(&self.chain)
    }

    /// The cluster's, PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// Puts another certificate and its key in the file.
    pub(crate) fn note_identity(&self, chain: String, key: String) -> Result<()> {
        rewrite(&self.file, |context| Some(Context { chain, key, ..context }))
    }

    /// As it is read.
    fn to_yaml(&self) -> String {
        let servers = Value::list(self.servers.iter().map(|server| Value::text(server.as_str())));
        let texts = [("name", &self.name), ("ca", &self.ca), ("chain", &self.chain), ("key", &self.key)];
        let mut entries: Vec<(&str, Value)> =
            texts.into_iter().map(|(key, text)| (key, Value::text(text.as_str()))).collect();
        entries.push(("servers", servers));
        entries.extend(self.namespace.as_ref().map(|namespace| ("namespace", Value::text(namespace.as_str()))));
        manifest::print_value_yaml(&Value::map(entries))
    }

    /// Of commands that name none.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// Connects to this one, and learns nothing from it.
    pub(crate) async fn connect_to(&self, address: &str) -> Result<Session> {
        let identity = channel::ClientIdentity::from_pem(&self.ca, &self.chain, &self.key)
            .map_err(|e| Error::Context(format!("the context {}: {e}", self.name)))?;
        let addresses = Addresses::new(&[address.to_owned()]);
        let channel = channel::connect_sharing(&addresses, &identity, channel::ATTENTIVE)
            .await
            .map_err(|e| Error::Unreachable(e.to_string()))?;
        Ok(Session { link: Link::deaf(channel), namespace: self.namespace().to_owned() })
    }

    /// Connects to the first server that answers, the one that did so last time being tried first.
    pub(crate) async fn connect(&self) -> Result<Session> {
        let identity = channel::ClientIdentity::from_pem(&self.ca, &self.chain, &self.key)
            .map_err(|e| Error::Context(format!("the context {}: {e}", self.name)))?;
        let addresses = Addresses::new(&self.servers);
        let channel = channel::connect_sharing(&addresses, &identity, channel::ATTENTIVE)
            .await
            .map_err(|e| Error::Unreachable(e.to_string()))?;
        let link = Link::new(channel, addresses, &self.file, &self.ca, &self.servers);
        let session = Session { link, namespace: self.namespace().to_owned() };
        renewal::if_due(self, &session).await;
        Ok(session)
    }
}

/// A connected user.
pub(crate) struct Session {
    link: Link,
    /// Of commands that name none.
    pub(crate) namespace: String,
}

impl Session {
    /// Connects to the first server of the context that answers.
    pub(crate) async fn open(global: &Global) -> Result<Session> {
        Context::load(global)?.connect().await
    }

    /// The same user in another namespace, where one is named.
    pub(crate) fn within(&self, namespace: &str) -> Session {
        let namespace = if namespace.is_empty() { &self.namespace } else { namespace };
        Session { link: self.link.clone(), namespace: namespace.to_owned() }
    }

    /// Asks something that changes nothing: when the server goes before it has answered, another one is asked.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFn() -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T> {
        let mut left = QUESTIONS;
        loop {
            left -= 1;
            match question().await {
                Err(status) if left > 0 && is_lost(&status) => {}
                answer => return Ok(answer?.into_inner()),
            }
        }
    }

    /// For the renewal of certificates.
    pub(crate) fn agents(&self) -> AgentsClient<Link> {
        AgentsClient::new(self.link.clone())
    }

    /// Every kind's seven verbs.
    pub(crate) fn objects(&self) -> ObjectsClient<Link> {
        ObjectsClient::new(self.link.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// What is done with Runs.
    pub(crate) fn runs(&self) -> RunsClient<Link> {
        RunsClient::new(self.link.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// What admins do with locks.
    pub(crate) fn locks(&self) -> LocksClient<Link> {
        LocksClient::new(self.link.clone())
    }

    /// The cluster itself.
    pub(crate) fn cluster(&self) -> ClusterAdminClient<Link> {
        ClusterAdminClient::new(self.link.clone())
    }
}

/// Puts the addresses of servers in a context's file, if it is still one of that cluster.
pub(crate) fn note_servers(file: &Path, ca: &str, servers: &[String]) -> Result<()> {
    rewrite(file, |context| {
        let differs = context.ca == ca && context.servers != servers;
        differs.then(|| Context { servers: servers.to_vec(), ..context })
    })
}

/// Changes a context's file in one step, as it is now: whatever else was changed since it was read stays. Errors leave
/// it as it was.
fn rewrite(file: &Path, change: impl FnOnce(Context) -> Option<Context>) -> Result<()> {
    let failed = |e| Error::File(file.to_owned(), e);
    // What is replaced is the file, not a link to it.
    let path = fs::canonicalize(file).map_err(failed)?;
    let folder = File::open(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    // One at a time, where the file system can do that. It is given back with the folder.
    let _ = rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive);
    match change(Context::read(&path)?) {
        Some(changed) => replace(&path, changed.to_yaml().as_bytes()).map_err(failed),
        None => Ok(()),
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("yaml.{}", std::process::id()));
    let before = fs::metadata(path)?;
    let written = File::options().write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            // Under sudo, say: whose it was can still read it.
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
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

/// The file of the context of that name.
pub(crate) fn file_of(name: &str) -> PathBuf {
    folder().join(format!("{name}.yaml"))
}

/// Holds the name that `lockstep context use` was given.
pub(crate) fn chosen_file() -> PathBuf {
    folder().with_file_name("context")
}

/// The files of all contexts, in order of name.
pub(crate) fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|x| x == "yaml")).collect();
    found.sort();
    found
}

/// The file of the context that is meant: as named, as chosen with `context use`, the only one, or `default`.
pub(crate) fn locate(global: &Global) -> Result<PathBuf> {
    if let Some(named) = &global.context {
        let path = Path::new(named);
        if named.contains('/') || path.is_file() {
            return Ok(path.to_owned());
        }
        return Ok(file_of(named));
    }
    let chosen = fs::read_to_string(chosen_file()).unwrap_or_default();
    if !chosen.trim().is_empty() {
        return Ok(file_of(chosen.trim()));
    }
    let folder = folder();
    let found = files();
    match found.as_slice() {
        [] => Err(Error::Context(format!(
            "no context: {} holds none\n`lockstep init` on the first server writes one; name another with --context FILE",
            folder.display()
        ))),
        [one] => Ok(one.clone()),
        several => match several.iter().find(|p| p.file_stem().is_some_and(|s| s == "default")) {
            Some(default) => Ok(default.clone()),
            None => Err(Error::Context(format!(
                "several contexts: {}\nchoose one with `lockstep context use NAME`, or name it with --context",
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
