//! What a daemon must know before it can reach the store: a small YAML file, overridden by `LOCKSTEP_*` and flags.
//! All else is in Config objects. Knows where things are in the state folder; never what is in them.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::identity::listener::ListenAddress;
use crate::store::StoreSettings;
use crate::store::embedded::EmbeddedSettings;
use crate::store::etcd::{EtcdSettings, EtcdTls};

mod read;
#[cfg(test)]
mod tests;

/// Where settings are, if nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/lockstep/lockstepd.yaml";

/// Where state is, if nobody says otherwise.
pub const DEFAULT_STATE_FOLDER: &str = "/var/lib/lockstep";

/// The unix socket of a daemon whose state is at the usual place.
pub const DEFAULT_SOCKET: &str = "/run/lockstep/lockstepd.sock";

/// The port of servers.
pub const DEFAULT_PORT: u16 = 7400;

const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Flags that override the settings file, with their variables. An empty list overrides nothing.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The settings file.
    #[arg(long, env = "LOCKSTEP_CONFIG", value_name = "FILE", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Where this daemon keeps what it must not lose.
    #[arg(long, env = "LOCKSTEP_STATE_FOLDER", value_name = "FOLDER")]
    pub state_folder: Option<PathBuf>,
    /// Where a server listens, ADDRESS:PORT; may be repeated. Port 0 is any free one.
    #[arg(long, env = "LOCKSTEP_LISTEN", value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,
    /// Where others reach this server, HOST:PORT; may be repeated.
    #[arg(long, env = "LOCKSTEP_ADVERTISE", value_name = "HOST:PORT", value_delimiter = ',')]
    pub advertise: Vec<String>,
    /// The folder that tasks take for `/`: for development and tests.
    #[arg(long, env = "LOCKSTEP_ROOT", value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// error, warn, info, debug or trace.
    #[arg(long, env = "LOCKSTEP_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Has the store, answers requests.
    pub server: bool,
    /// Does work.
    pub agent: bool,
}

/// Settings that were read, overridden and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The node's name.
    pub name: String,
    /// What it is.
    pub roles: Roles,
    /// Where a server listens; empty for others.
    pub listeners: Vec<ListenAddress>,
    /// Where others reach this server, host:port. Empty: the addresses that are listened on.
    pub advertise: Vec<String>,
    /// Of servers.
    pub store: Option<StoreSettings>,
    /// What must not be lost.
    pub state_folder: PathBuf,
    /// One of error, warn, info, debug, trace.
    pub log_level: String,
    /// What tasks take for `/`.
    pub root: PathBuf,
    /// Where this was read from.
    pub file: PathBuf,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is missing.
    #[error(
        "{0} does not exist: this machine belongs to no cluster yet; make one with `lockstepd init`, or join one with \
         `lockstepd join TOKEN --server-address HOST:PORT --name NAME`"
    )]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everything that is wrong, one line each.
    #[error("{}", .0.join("\n"))]
    Problems(Vec<String>),
}

/// Why a log level is none, if it is not.
fn wrong_level(level: &str) -> Option<String> {
    (!LOG_LEVELS.contains(&level)).then(|| format!("{level:?} is not one of {}", LOG_LEVELS.join(", ")))
}

impl Settings {
    /// Reads the file that the flags name and overrides it with them. Every mistake is in the error, not the first.
    pub fn load(flags: &Flags) -> Result<Settings, SettingsError> {
        let path = &flags.config;
        let text = read_trusted(path)?;
        let mut settings = read::parse(path, &text).map_err(SettingsError::Problems)?;
        settings.override_with(flags);
        match settings.problems() {
            problems if problems.is_empty() => Ok(settings),
            problems => Err(SettingsError::Problems(problems)),
        }
    }

    fn override_with(&mut self, flags: &Flags) {
        if let Some(folder) = &flags.state_folder {
            self.state_folder.clone_from(folder);
        }
        if let Some(root) = &flags.root {
            self.root.clone_from(root);
        }
        if let Some(level) = &flags.log_level {
            self.log_level.clone_from(level);
        }
        if !flags.listen.is_empty() {
            self.listeners.retain(|listener| matches!(listener, ListenAddress::Unix(_)));
            self.listeners.extend(flags.listen.iter().copied().map(ListenAddress::Tcp));
        }
        if !flags.advertise.is_empty() {
            self.advertise.clone_from(&flags.advertise);
        }
    }

    /// What does not fit together, or was overridden with nonsense.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |bad: bool, text: String| problems.extend(bad.then_some(text));
        let file = self.file.display();
        if let Some(problem) = wrong_level(&self.log_level) {
            wrong(true, format!("{file}: logLevel: {problem}"));
        }
        for (name, folder) in [("stateFolder", &self.state_folder), ("root", &self.root)] {
            wrong(!folder.is_absolute(), format!("{file}: {name}: {:?} is not an absolute path", folder.display()));
        }
        wrong(self.roles.server && self.store.is_none(), format!("{file}: store: a server needs one"));
        wrong(
            self.roles.server && !self.listeners.iter().any(|l| matches!(l, ListenAddress::Tcp(_))),
            format!("{file}: listeners: a server needs an address that others can reach"),
        );
        for (n, listener) in self.listeners.iter().enumerate() {
            let taken =
                self.listeners[..n].contains(listener) && !matches!(listener, ListenAddress::Tcp(a) if a.port() == 0);
            wrong(taken, format!("{file}: listeners[{n}]: {listener:?} is there twice"));
        }
        problems
    }

    /// The CA with its keys, on servers.
    pub fn ca_folder(&self) -> PathBuf {
        self.state_folder.join("ca")
    }

    /// The sealing keys, on servers.
    pub fn sealing_folder(&self) -> PathBuf {
        self.state_folder.join("sealing")
    }

    /// One folder per attempt that this node has claimed.
    pub fn segments_folder(&self) -> PathBuf {
        self.state_folder.join("segments")
    }

    /// Events of this node that no server has stored yet.
    pub fn outbox_folder(&self) -> PathBuf {
        self.state_folder.join("outbox")
    }

    /// What tasks printed, on servers.
    pub fn logs_folder(&self) -> PathBuf {
        self.state_folder.join("logs")
    }

    /// The CA's certificate.
    pub fn authority_file(&self) -> PathBuf {
        self.state_folder.join("identity/ca.pem")
    }

    /// Key and chain of the node.
    pub fn node_credentials(&self) -> PathBuf {
        self.state_folder.join("identity/node.pem")
    }

    /// Key and chain of the server.
    pub fn server_credentials(&self) -> PathBuf {
        self.state_folder.join("identity/server.pem")
    }

    /// What an agent knows of its cluster.
    pub fn membership_file(&self) -> PathBuf {
        self.state_folder.join("identity/membership.json")
    }

    /// The first unix socket, if any is listened on.
    pub fn socket(&self) -> Option<&Path> {
        self.listeners.iter().find_map(|listener| match listener {
            ListenAddress::Unix(path) => Some(path.as_path()),
            ListenAddress::Tcp(_) => None,
        })
    }

    /// The settings as a file that reads back as the same.
    pub fn to_yaml(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let roles = [("server", self.roles.server), ("agent", self.roles.agent)];
        let roles = roles.into_iter().filter(|(_, has)| *has).map(|(word, _)| word.to_owned()).collect();
        let mut text = format!("name: {}\nroles: {}\n", quoted(&self.name), list(roles));
        if !self.listeners.is_empty() {
            text.push_str("listeners:\n");
        }
        for listener in &self.listeners {
            text.push_str(&match listener {
                ListenAddress::Tcp(address) => format!("  - address: {}\n", quoted(&address.to_string())),
                ListenAddress::Unix(socket) => format!("  - socket: {}\n", path(socket)),
            });
        }
        if !self.advertise.is_empty() {
            text.push_str(&format!("advertise: {}\n", list(self.advertise.iter().map(|a| quoted(a)).collect())));
        }
        match &self.store {
            None => {}
            Some(StoreSettings::Embedded(embedded)) => {
                text.push_str(&format!("store:\n  embedded:\n    path: {}\n", path(&embedded.path)));
            }
            Some(StoreSettings::Etcd(etcd)) => {
                let endpoints = list(etcd.endpoints.iter().map(|e| quoted(e)).collect());
                text.push_str(&format!(
                    "store:\n  etcd:\n    endpoints: {endpoints}\n    prefix: {}\n",
                    quoted(&etcd.root)
                ));
                if let Some(tls) = &etcd.tls {
                    let files = [("ca", &tls.ca), ("cert", &tls.certificate), ("key", &tls.key)];
                    text.extend(files.map(|(name, file)| format!("    {name}: {}\n", path(file))));
                }
            }
        }
        text.push_str(&format!("stateFolder: {}\nlogLevel: {}\n", path(&self.state_folder), self.log_level));
        if self.root != Path::new("/") {
            text.push_str(&format!("root: {}\n", path(&self.root)));
        }
        text
    }
}

/// Reads a file that nobody but root or ourselves can have written.
fn read_trusted(path: &Path) -> Result<String, SettingsError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SettingsError::Missing(path.to_owned()),
        _ => SettingsError::File { path: path.to_owned(), source },
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.mode() & 0o022 != 0 {
        let problem = format!("others than its owner may write it (mode {:04o}); chmod go-w", metadata.mode() & 0o7777);
        return Err(failed(io::Error::other(problem)));
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != ours {
        return Err(failed(io::Error::other("it belongs to another user; chown it to root")));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// etcd's settings with the usual prefix.
pub fn etcd(endpoints: Vec<String>, tls: Option<EtcdTls>) -> StoreSettings {
    StoreSettings::Etcd(EtcdSettings { endpoints, tls, root: EtcdSettings::ROOT.into() })
}

/// The embedded store at its usual place in a state folder.
pub fn embedded(state_folder: &Path) -> StoreSettings {
    StoreSettings::Embedded(EmbeddedSettings::new(state_folder.join("store.redb")))
}
