//! What `init` and `join` share: where a new daemon will be, that nothing is there yet, and taking back what a
//! failed attempt has made.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use lockstep_apis::name;

use crate::identity::files;
use crate::identity::listener::ListenAddress;
use crate::settings::{DEFAULT_PORT, DEFAULT_SOCKET, DEFAULT_STATE_FOLDER, Flags, Roles, Settings};

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The settings that a new daemon is to have, without its store.
pub(super) fn planned(flags: &Flags, given_name: Option<&str>, roles: Roles) -> anyhow::Result<Settings> {
    let name = match given_name {
        Some(name) => name.to_owned(),
        None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
    };
    if let Err(rule) = name::check(&name) {
        bail!("the node's name {name:?} is not valid: {rule}; give another with --name");
    }
    let state_folder = absolute(flags.state_folder.as_deref().unwrap_or(Path::new(DEFAULT_STATE_FOLDER)))?;
    let mut listeners = Vec::new();
    let mut advertise = Vec::new();
    if roles.server {
        let everywhere = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), DEFAULT_PORT);
        let addresses = if flags.listen.is_empty() { vec![everywhere] } else { flags.listen.clone() };
        if addresses.iter().any(|address| address.port() == 0) {
            bail!("--listen: a new server needs a port that stays; port 0 is another one with each start");
        }
        advertise = match flags.advertise.is_empty() {
            false => flags.advertise.clone(),
            true => addresses.iter().map(|address| reachable(*address).to_string()).collect(),
        };
        listeners = addresses.into_iter().map(ListenAddress::Tcp).collect();
        let usual = state_folder == Path::new(DEFAULT_STATE_FOLDER);
        let socket = if usual { PathBuf::from(DEFAULT_SOCKET) } else { state_folder.join("lockstepd.sock") };
        listeners.push(ListenAddress::Unix(socket));
    }
    Ok(Settings {
        name,
        roles,
        listeners,
        advertise,
        store: None,
        state_folder,
        log_level: flags.log_level.clone().unwrap_or_else(|| "info".into()),
        root: absolute(flags.root.as_deref().unwrap_or(Path::new("/")))?,
        file: absolute(&flags.config)?,
    })
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// Where others reach what listens everywhere: at the address that the default route leaves from. Sends nothing.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let ours = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // TEST-NET-1: connecting a datagram socket only looks up the route.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let ip = ours.map_or(IpAddr::from([127, 0, 0, 1]), |ours| ours.ip());
    SocketAddr::new(ip, address.port())
}

/// Everything that a new daemon makes. Removed again when dropped, unless [`NewPlace::keep`] was called.
pub(super) struct NewPlace {
    made: Vec<PathBuf>,
}

impl NewPlace {
    /// Claims a place where nothing is. Errors: something is there, with what to do about it.
    pub(super) fn claim(settings: &Settings, also: &[&Path]) -> anyhow::Result<NewPlace> {
        let state = &settings.state_folder;
        let ours = ["ca", "identity", "sealing", "etcd", "store.redb"].map(|part| state.join(part));
        let made: Vec<PathBuf> =
            ours.into_iter().chain([settings.file.clone()]).chain(also.iter().map(|path| (*path).to_owned())).collect();
        if let Some(there) = made.iter().find(|path| path.symlink_metadata().is_ok()) {
            bail!(
                "{} exists: this machine belongs to a cluster already, and nothing was changed.\n\
                 Start its daemon with `lockstepd serve --config {}`; or, to begin anew and lose what it has,\n\
                 remove {} and {} first.",
                there.display(),
                settings.file.display(),
                there.display(),
                state.display(),
            );
        }
        files::make_private_folder(state)?;
        Ok(NewPlace { made })
    }

    /// All is done: it stays.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for NewPlace {
    fn drop(&mut self) {
        for path in &self.made {
            // The error that brought us here is what counts.
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}
