//! The daemon as a whole: what it is made of, in which order it starts, and how it ends. The only place that wires.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use lockstep_apis::commit::{Commit, Term};
use lockstep_apis::v1alpha::{Cluster, Leader as LeaderRecord, ServerRecord};
use lockstep_apis::{DESCRIPTORS, keys};
use lockstep_grpc::agents_server::AgentsServer;
use lockstep_grpc::cluster_admin_server::ClusterAdminServer;
use lockstep_grpc::locks_server::LocksServer;
use lockstep_grpc::objects_server::ObjectsServer;
use lockstep_grpc::runs_server::RunsServer;
use prost::Message;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::authorization::{Authorized, Rules};
use crate::cache::Cache;
use crate::clock::now_ms;
use crate::committer::Committer;
use crate::delivery::{Delivery, Parts};
use crate::election::Election;
use crate::events::Outbox;
use crate::identity::authority::CertificateAuthority;
use crate::identity::credentials::Credentials;
use crate::identity::join::ServerGrant;
use crate::identity::listener::{self, Connections, Incoming, TlsIdentity};
use crate::identity::membership::Membership;
use crate::identity::renewal::renewed;
use crate::leader::{Leader, UpNodes};
use crate::logs::LogStore;
use crate::readiness::{self, Noting};
use crate::sealing::KeyRing;
use crate::server::{AgentsApi, Announced, ClusterApi, LocksApi, ObjectsApi, Peers, RunsApi, Shared, finish_deletions};
use crate::settings::{Flags, Settings};
use crate::store::{self, Store, StoreError, StoreSettings};
use crate::{agent, presence};

/// Between attempts to reach the store at the start.
const PAUSE: Duration = Duration::from_secs(1);

/// How long requests have to end when the server does.
const DRAIN: Duration = Duration::from_secs(3);

/// How often readiness is looked at, and the output of Runs that are gone.
const LOOK: Duration = Duration::from_secs(1);
const LOG_LOOK: Duration = Duration::from_secs(60);

/// How often namespaces are looked for whose delete was cut off.
const NAMESPACE_LOOK: Duration = Duration::from_secs(10);

/// How often it is checked whether the server's certificate is to be renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(300);

/// A connection's bounds: an agent has one stream and a few calls, a user a few watches.
const MAX_STREAMS: u32 = 100;

/// Windows of flow control. Small, for there are thousands of connections that are idle; a message may be larger.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Largest request.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Runs the daemon until it is told to end.
pub async fn serve(flags: &Flags) -> anyhow::Result<()> {
    let settings = Settings::load(flags)?;
    log(&settings.log_level);
    raise_file_limit();
    let (shutdown, ending) = watch::channel(false);
    let mut server = match settings.roles.server {
        true => Some(ServerRole::start(&settings).await?),
        false => None,
    };
    let mut agent = JoinSet::new();
    if settings.roles.agent {
        let start = agent::Start {
            settings: settings.clone(),
            own_server: server.as_ref().and_then(|server| server.addresses.first().cloned()),
            executor: agent::this_program(),
            boot_id: agent::boot_id(),
            shutdown: ending,
        };
        agent.spawn(agent::run(start));
    }
    let listening = server.as_ref().map(|server| server.addresses.join(" ")).unwrap_or_default();
    println!("ready {listening}");
    tracing::info!(name = settings.name, listening, "ready");

    let ended = tokio::select! {
        ended = told_to_end(flags) => ended,
        Some(ended) = agent.join_next() => unexpected("agent", ended),
        Some(ended) = next(&mut server) => unexpected("server", ended),
    };
    tracing::info!("ending");
    // Nothing new is claimed; executors live on.
    shutdown.send_replace(true);
    while agent.join_next().await.is_some() {}
    if let Some(server) = server {
        server.end().await;
    }
    ended
}

fn log(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOCKSTEP_LOG").unwrap_or_else(|_| {
        // Libraries say what they must.
        tracing_subscriber::EnvFilter::new(format!("warn,lockstep_daemon={level}"))
    });
    // An error means that a test has set one up.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

/// A server has a descriptor for each agent; usual limits of a service are far below that.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(problem) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%problem, "the limit of open files stays at {:?}", limit.current);
    }
}

async fn next(server: &mut Option<ServerRole>) -> Option<Result<anyhow::Result<()>, JoinError>> {
    match server {
        Some(server) => server.serving.join_next().await,
        None => std::future::pending().await,
    }
}

fn unexpected<E: Into<anyhow::Error>>(what: &str, ended: Result<Result<(), E>, JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(Ok(())) => bail!("the {what} ended by itself"),
        Ok(Err(problem)) => Err(problem.into()).with_context(|| format!("the {what} ended")),
        Err(problem) => Err(problem).with_context(|| format!("the {what} failed")),
    }
}

/// SIGTERM and SIGINT end; SIGHUP reads the settings again, and keeps the old ones if they are broken.
async fn told_to_end(flags: &Flags) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match Settings::load(flags) {
                Ok(_) => tracing::info!("the settings are good; what they change takes a restart"),
                Err(problem) => tracing::error!(%problem, "the settings are broken; the old ones stay"),
            },
        }
    }
}

/// The server role while it runs.
struct ServerRole {
    /// Where it can be reached: its own agent tries the first.
    addresses: Vec<String>,
    store: Arc<dyn Store>,
    lease: presence::LeaseWatch,
    delivery: Arc<Delivery>,
    stop: watch::Sender<bool>,
    serving: JoinSet<anyhow::Result<()>>,
    tasks: JoinSet<()>,
}

impl ServerRole {
    async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let chosen = settings.store.as_ref().context("a server needs a store")?;
        let ca = CertificateAuthority::load(&settings.ca_folder())?;
        let credentials = Credentials::load(&settings.server_credentials(), ca.authority().clone())?;
        let credentials = renewed(credentials, &ca, settings, now_ms())?;
        let sealing = Arc::new(KeyRing::load(&settings.sealing_folder())?);
        let noting = Noting::new(store::open(chosen).await?);
        let store: Arc<dyn Store> = noting.clone();
        let cluster = patiently(|| cluster_of(&*store)).await?;
        check_cluster(&cluster, settings, &ca)?;
        let cache = patiently(|| async { Ok(Cache::load(&*store).await?) }).await?;

        let tls = TlsIdentity::new(&credentials)?;
        let connections = Connections::default();
        let incoming = listener::listen(&settings.listeners, &tls, &connections).await?;
        let listening: Vec<String> = incoming.addresses().iter().map(ToString::to_string).collect();
        let addresses = if settings.advertise.is_empty() { listening.clone() } else { settings.advertise.clone() };
        let uid = credentials.identity().uid.clone();
        let source = format!("server/{uid}");

        let mut tasks = JoinSet::new();
        let (lease_sender, lease) = watch::channel(None);
        let sure = presence::SureLease::default();
        let (term_sender, term) = watch::channel(None);
        let (committer, committing) = Committer::new(store.clone());
        let (outbox, telling) = Outbox::new(store.clone(), cache.clone(), source.clone());
        let logs = LogStore::new(settings.logs_folder());
        let delivery = Delivery::new(Parts {
            store: store.clone(),
            cache: cache.clone(),
            committer,
            sealing: sealing.clone(),
            outbox: outbox.clone(),
            logs: logs.clone(),
            lease: lease.clone(),
            sure: sure.clone(),
            connections: connections.clone(),
            server_uid: uid.clone(),
            cluster: cluster.clone(),
        });
        let up = Arc::new(UpNodes::default());
        let shared = Arc::new(Shared {
            store: store.clone(),
            store_kind: kind_of(chosen),
            cache: cache.clone(),
            cluster: cluster.clone(),
            uid: uid.clone(),
            grant: ServerGrant::read(settings, &sealing)?,
            sealing: sealing.clone(),
            delivery: delivery.clone(),
            outbox: outbox.clone(),
            logs: logs.clone(),
            peers: Peers::new(cache.clone(), uid.clone(), credentials.client()?),
            up: up.clone(),
            ca,
        });
        let record = ServerRecord {
            uid: uid.clone(),
            name: settings.name.clone(),
            addresses: addresses.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let election = Election {
            store: store.clone(),
            cache: cache.clone(),
            leader: LeaderRecord { server_uid: uid, server_name: settings.name.clone() },
            incarnation: cluster.incarnation,
            lease: lease.clone(),
        };
        let leader = Arc::new(Leader { store: store.clone(), cache: cache.clone(), sealing, source, up });
        let (health, health_service) = tonic_health::server::health_reporter();

        let (following, repairing) = ((cache.clone(), store.clone()), (cache.clone(), store.clone()));
        tasks.spawn(async move { following.0.follow(&*following.1).await });
        tasks.spawn(async move { repairing.0.repair(&*repairing.1).await });
        tasks.spawn(presence::keep(store.clone(), record.clone(), lease_sender, sure.clone()));
        tasks.spawn(election.stand(term_sender));
        tasks.spawn(leader.lead(term.clone()));
        let objects = ObjectsApi::new(store.clone(), cache.clone(), outbox);
        tasks.spawn(finish_namespaces(objects, term));
        tasks.spawn(committing);
        tasks.spawn(telling.store_all());
        tasks.spawn(delivery.clone().dispatch());
        tasks.spawn(delivery.clone().look_after_sessions());
        tasks.spawn(watch_health(health, cache.clone(), noting, record, lease.clone()));
        tasks.spawn(forget_logs(logs, cache.clone()));
        tasks.spawn(renew(shared.clone(), settings.clone(), tls, credentials.identity().not_after_ms));

        let (stop, stopping) = watch::channel(false);
        let mut serving = JoinSet::new();
        serving.spawn(answer(shared, cache, incoming, health_service, stopping));
        Ok(Self { addresses: listening, store, lease, delivery, stop, serving, tasks })
    }

    /// Ends in the order that costs others least: no new work, sessions closed, requests drained, the lease given back.
    async fn end(mut self) {
        self.delivery.close_all();
        self.stop.send_replace(true);
        if tokio::time::timeout(DRAIN, self.serving.join_next()).await.is_err() {
            tracing::info!("requests that did not end in time are cut");
        }
        self.serving.shutdown().await;
        // First: the lease must not be got again.
        let lease = self.lease.clone();
        self.tasks.shutdown().await;
        presence::end(&*self.store, &lease).await;
    }
}

fn kind_of(store: &StoreSettings) -> &'static str {
    match store {
        StoreSettings::Embedded(_) => "embedded",
        StoreSettings::Etcd(_) => "etcd",
    }
}

/// Tries until the store answers. Errors that trying does not mend end it.
async fn patiently<T, F: Future<Output = anyhow::Result<T>>>(attempt: impl Fn() -> F) -> anyhow::Result<T> {
    loop {
        match attempt().await {
            Err(problem) if problem.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient) => {
                tracing::warn!(%problem, "waiting for the store");
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn cluster_of(store: &dyn Store) -> anyhow::Result<Cluster> {
    let found = store.get(&keys::cluster()).await?.entry;
    let entry = found.context(
        "the store is empty: it is not the one that this server belongs to. Restore it from a backup; an empty store \
         is never taken for an empty cluster",
    )?;
    Cluster::decode(entry.value.as_slice()).context("the store's record of the cluster is damaged")
}

/// Refuses a store that is not ours, or older than what this machine has seen.
fn check_cluster(cluster: &Cluster, settings: &Settings, ca: &CertificateAuthority) -> anyhow::Result<()> {
    let ours = ca.authority().trust_domain();
    if cluster.trust_domain != ours {
        bail!("the store is of the cluster {:?}, and this server of {ours:?}", cluster.trust_domain);
    }
    let file = settings.membership_file();
    match Membership::load(&file) {
        Ok(known) if known.cluster_id != cluster.cluster_id => {
            bail!("the store is of another cluster ({}) than this server ({})", cluster.cluster_id, known.cluster_id)
        }
        Ok(known) if known.incarnation > cluster.incarnation => bail!(
            "the store is older (incarnation {}) than what this server has seen ({})",
            cluster.incarnation,
            known.incarnation
        ),
        Ok(_) => Ok(()),
        Err(problem) if problem.is_missing() => Ok(()),
        Err(problem) => Err(problem.into()),
    }
}

async fn answer<H>(
    shared: Arc<Shared>,
    cache: Arc<Cache>,
    incoming: Incoming,
    health: H,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()>
where
    H: tower::Service<
            tonic::codegen::http::Request<tonic::body::Body>,
            Response = tonic::codegen::http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send + 'static,
{
    let reflection =
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).build_v1()?;
    let authorized = Authorized::new(Rules::of_descriptors()?, cache.clone());
    let objects =
        ObjectsServer::new(ObjectsApi::new(shared.store.clone(), shared.cache.clone(), shared.outbox.clone()));
    let runs = RunsServer::new(RunsApi(shared.clone()));
    let locks = LocksServer::new(LocksApi(shared.clone()));
    let agents = AgentsServer::new(AgentsApi(shared.clone()));
    let cluster = ClusterAdminServer::new(ClusterApi::of(&shared));
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(authorized)
        .layer(Announced::new(cache))
        .add_service(objects.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(runs.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(locks.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(agents.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(cluster.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(reflection)
        .add_service(health)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error is the sender's end: the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        })
        .await?;
    Ok(())
}

/// Tells gRPC's health service. While the store is full, the server's own record is written again and again: the
/// first time that it is taken, there is room.
async fn watch_health(
    health: HealthReporter,
    cache: Arc<Cache>,
    store: Arc<Noting>,
    record: ServerRecord,
    lease: presence::LeaseWatch,
) {
    loop {
        let ready = readiness::is_ready(&cache, &store);
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status("", status).await;
        let held = *lease.borrow();
        if let Some(held) = held
            && store.is_full()
        {
            let probe = Commit::new().put_leased(keys::server(&record.uid), record.encode_to_vec(), held);
            // The store notes how it went.
            let _ = store.commit(&probe).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Namespaces whose delete was cut off with the server that answered it: the leader's server goes on.
async fn finish_namespaces(objects: ObjectsApi, term: watch::Receiver<Option<Term>>) {
    loop {
        tokio::time::sleep(NAMESPACE_LOOK).await;
        let leads = term.borrow().is_some();
        if leads {
            finish_deletions(&objects).await;
        }
    }
}

async fn forget_logs(logs: LogStore, cache: Arc<Cache>) {
    loop {
        let (logs, cache) = (logs.clone(), cache.clone());
        let forgotten =
            tokio::task::spawn_blocking(move || logs.keep_only(|run| cache.read().world().run(run).is_some())).await;
        if let Err(problem) = forgotten.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%problem, "the output of runs that are gone was not removed");
        }
        tokio::time::sleep(LOG_LOOK).await;
    }
}

/// This server has the CA: it renews its own certificate.
async fn renew(shared: Arc<Shared>, settings: Settings, tls: Arc<TlsIdentity>, mut ends_ms: u64) {
    loop {
        tokio::time::sleep(RENEWAL_LOOK).await;
        let loaded = Credentials::load(&settings.server_credentials(), shared.ca.authority().clone());
        let done =
            loaded.map_err(anyhow::Error::from).and_then(|old| Ok(renewed(old, &shared.ca, &settings, now_ms())?));
        match done {
            Ok(credentials) if credentials.identity().not_after_ms == ends_ms => {}
            Ok(credentials) => {
                ends_ms = credentials.identity().not_after_ms;
                let replaced = tls.replace(&credentials).map_err(anyhow::Error::from);
                match replaced.and_then(|()| Ok(credentials.client()?)) {
                    Ok(client) => {
                        shared.peers.replace_identity(client).await;
                        tracing::info!("the server's certificate was renewed");
                    }
                    Err(problem) => tracing::error!(%problem, "the server's renewed certificate cannot be used"),
                }
            }
            Err(problem) => tracing::error!(%problem, "the server's certificate was not renewed"),
        }
    }
}
