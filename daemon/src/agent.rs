//! The agent: takes segments of work that servers offer this node, has executors do them, and reports. Knows its
//! servers, its folders and its executors; never the store, and no work that is not its own.
//!
//! # Guarantees
//! - Nothing is started before its claim was granted, by a server of our cluster, to this process, for an attempt that
//!   this process was not given before; and not before the claim is in a journal on the disk.
//! - Executors outlive the agent. The next one finds the folders, waits for what works, and reports what has ended.
//! - A folder goes when report and output are acknowledged, not before.
//! - What the node tells of itself waits on its disk until a server has stored it.
//!
//! An idle agent sleeps: it wakes for the heartbeat, for what servers send, and now and then to look at its facts, which
//! it sends when they changed.

mod backoff;
mod boots;
mod executor;
mod facts;
mod holdings;
mod outbox;
mod output;
mod posting;
mod renewal;
mod segment;
mod session;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_apis::keys::Attempt;
use lockstep_grpc::channel;
use lockstep_grpc::peer::Authority;
use lockstep_modules::Cgroup;
use tokio::sync::watch;

use crate::identity::credentials::{Credentials, CredentialsError};
use crate::identity::files::{self, FileError};
use crate::identity::membership::Membership;
use crate::settings::Settings;
use backoff::Backoff;
use facts::Facts;
use holdings::Holdings;
use outbox::Outbox;
use session::{End, Link};

/// What an agent is started with.
pub struct Start {
    /// Of this daemon.
    pub settings: Settings,
    /// The server in this process, host:port: tried first.
    pub own_server: Option<String>,
    /// The program that is called as `PROGRAM execute FOLDER`; see [`this_program`].
    pub executor: PathBuf,
    /// The kernel's name for the machine's present boot; see [`boot_id`].
    pub boot_id: String,
    /// Becomes true, or loses its sender, when the agent is to end.
    pub shutdown: watch::Receiver<bool>,
}

/// Why an agent cannot start. What it does once started, it repeats until it works.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file of its identity, or the segments' folder.
    #[error("the agent's {0}")]
    File(#[from] FileError),
    /// The CA's certificate.
    #[error("the agent's CA certificate: {0}")]
    Authority(#[from] lockstep_grpc::peer::PeerError),
    /// Its certificate.
    #[error("the agent: {0}")]
    Credentials(#[from] CredentialsError),
    /// Another daemon works in this state folder: two would each think the other's work forgotten.
    #[error("another daemon works with {}; stop it first", .0.display())]
    Busy(PathBuf),
    /// The folders that an earlier agent left.
    #[error("the agent cannot take up what an earlier one left: {0}")]
    Segments(#[from] lockstep_executor::segment::SegmentError),
}

/// This program itself, even after its file was replaced by an upgrade.
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Runs the agent until it is told to end. Executors that are at work then go on.
pub async fn run(start: Start) -> Result<(), AgentError> {
    let mut agent = Agent::new(start)?;
    agent.take_up()?;
    agent.work().await;
    agent.holdings.let_go();
    Ok(())
}

/// What lives as long as the process; sessions come and go.
struct Agent {
    settings: Arc<Settings>,
    own_server: Option<String>,
    credentials: Credentials,
    membership: Membership,
    holdings: Arc<Holdings>,
    outbox: Arc<Outbox>,
    facts: Facts,
    link: watch::Sender<Link>,
    shutdown: watch::Receiver<bool>,
    boot_id: String,
    boot_number: u64,
    /// Names this process to servers.
    instance: String,
    /// Held as long as we are.
    _lock: File,
}

impl Agent {
    fn new(start: Start) -> Result<Self, AgentError> {
        let Start { settings, own_server, executor, boot_id, shutdown } = start;
        let authority = Arc::new(Authority::from_pem(&files::read_private_text(&settings.authority_file())?)?);
        let credentials = Credentials::load(&settings.node_credentials(), authority)?;
        let membership = Membership::load(&settings.membership_file())?;
        files::make_private_folder(&settings.segments_folder())?;
        let lock = lock(&settings.state_folder.join("agent.lock"))?;
        let outbox = Arc::new(Outbox::open(&settings.outbox_folder())?);
        let facts = Facts::new(settings.root.clone(), outbox.clone());
        let boot_number = boots::number(&settings.state_folder.join("boots"), &boot_id)?;
        let surroundings = segment::Surroundings {
            segments: settings.segments_folder(),
            executor,
            root: settings.root.clone(),
            cgroups: cgroups(),
            boot_id: boot_id.clone(),
            outbox: outbox.clone(),
            worked: facts.worked(),
            link: watch::Sender::new(None),
        };
        let link = surroundings.link.clone();
        Ok(Self {
            settings: Arc::new(settings),
            own_server,
            credentials,
            membership,
            holdings: Arc::new(Holdings::new(surroundings)),
            outbox,
            facts,
            link,
            shutdown,
            boot_id,
            boot_number,
            instance: crate::identity::hex(&crate::identity::random::<8>()),
            _lock: lock,
        })
    }

    fn uid(&self) -> &str {
        &self.credentials.identity().uid
    }

    /// Attaches to everything that has a folder.
    fn take_up(&mut self) -> Result<(), AgentError> {
        let folders = lockstep_executor::segment::list(&self.settings.segments_folder())?;
        let count = folders.len();
        for folder in folders {
            match lockstep_executor::segment::work(&folder) {
                Ok(work) => Holdings::take_up(&self.holdings, &work),
                // Its attempt cannot be told, so nobody can be told how it ended; the server will find it forgotten.
                Err(problem) => tracing::error!(folder = %folder.display(), %problem, "a segment is unreadable"),
            }
        }
        if count > 0 {
            tracing::info!(count, "took up segments of an earlier agent");
        }
        Ok(())
    }

    /// One session after another.
    async fn work(&mut self) {
        let mut backoff = Backoff::new();
        let mut turn = usize::from(crate::identity::random::<1>()[0]);
        let mut shutdown = self.shutdown.clone();
        loop {
            let addresses = self.addresses();
            // Our own server first, in each round; the others from a place of our own on, so that load spreads.
            let address = addresses.get(turn % addresses.len().max(1)).cloned();
            turn = turn.wrapping_add(1);
            let ended = tokio::select! {
                ended = self.attend(address) => ended,
                _ = shutdown.wait_for(|ending| *ending) => return,
            };
            match ended {
                End::Renewed => {}
                End::Lost { lasted } => {
                    let pause = backoff.after(lasted);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = shutdown.wait_for(|ending| *ending) => return,
                    }
                }
            }
        }
    }

    fn addresses(&self) -> Vec<String> {
        match &self.own_server {
            Some(own) => vec![own.clone()],
            None => self.membership.servers.clone(),
        }
    }

    /// Connects and serves one session; renews the certificate first when it is time.
    async fn attend(&mut self, address: Option<String>) -> End {
        let none = End::Lost { lasted: std::time::Duration::ZERO };
        let Some(address) = address else {
            tracing::error!("no server address is known; join again, or write one into membership.json");
            return none;
        };
        if self.credentials.is_expired(now_ms()) {
            tracing::error!(
                "the node's certificate has ended: remove the node's state and join again with a new token"
            );
            return none;
        }
        let channel = match self.credentials.client() {
            Ok(client) => channel::connect(std::slice::from_ref(&address), &client).await.map_err(|e| e.to_string()),
            Err(problem) => Err(problem.to_string()),
        };
        let channel = match channel {
            Ok(channel) => channel,
            Err(problem) => {
                tracing::warn!(%problem, "no connection to a server");
                return none;
            }
        };
        if renewal::is_due(&self.credentials, now_ms()) {
            match renewal::renew(&self.credentials, channel.clone(), &self.settings.node_credentials()).await {
                Ok(renewed) => {
                    self.credentials = renewed;
                    tracing::info!("the node's certificate was renewed");
                    return End::Renewed;
                }
                Err(problem) => tracing::warn!(%problem, "the node's certificate was not renewed; trying again later"),
            }
        }
        let ended = session::serve(self, channel, &address).await;
        // Segments hold what they have to say until there is a link again.
        self.link.send_replace(None);
        ended
    }
}

/// The kernel gives it back when we end, however that is.
fn lock(path: &Path) -> Result<File, AgentError> {
    let failed = |problem| FileError { path: path.to_owned(), problem };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AgentError::Busy(path.parent().unwrap_or(path).to_owned())),
        Err(errno) => Err(failed(errno.into()).into()),
    }
}

/// Where segments get control groups; empty ones that an earlier agent left are removed.
fn cgroups() -> Option<Cgroup> {
    match Cgroup::of_segments() {
        Ok(cgroups) => {
            cgroups.sweep();
            Some(cgroups)
        }
        Err(why) => {
            tracing::warn!(%why, "segments get no cgroups: what leaves a task's session may outlive its end");
            None
        }
    }
}

/// The kernel's name for the machine's present boot.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    // Without /proc no boot can be told from another: each start of the agent is then taken for one, which is safe.
    text.map_or_else(|_| crate::identity::hex(&crate::identity::random::<16>()), |text| text.trim().to_owned())
}

/// Milliseconds since the epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A lock that a panic elsewhere does not take from us.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What identifies an attempt in logs.
fn shown(attempt: &Attempt) -> String {
    format!("{}/{}/{}", attempt.run, attempt.segment, attempt.attempt)
}

#[cfg(test)]
mod tests;
