//! The system's message bus. Knows calls, answers and their faults; what they mean is the callers'.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use zbus::{Connection, DynamicType, OwnedVariant, fdo};

use super::waiting::Unfinished;
use super::{Host, Stop, Stopped, locked};

/// How long one call may take. Services answer at once and tell the end of long work by signals; starting a service
/// that is not there yet takes the bus up to 25 s.
const CALL: Duration = Duration::from_secs(30);

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// For messages: "systemd".
    pub(crate) name: &'static str,
    /// Its name on the bus.
    pub(crate) bus: &'static str,
}

/// Why a call came to nothing. Where nothing else is said, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusFault {
    #[error("no message bus on this node: {source}; it needs a running dbus-daemon")]
    NoBus { source: zbus::Error },
    #[error("{peer} is not on this node's message bus: {text}")]
    Absent { peer: &'static str, text: String },
    #[error("{peer} does not permit {method}: {text}; the agent runs as root, or polkit needs a rule for it")]
    Denied { peer: &'static str, method: String, text: String },
    #[error("{peer} refused {method}: {text}")]
    Refused { peer: &'static str, method: String, name: String, text: String },
    #[error("{peer} gave an answer to {method} that makes no sense: {text}")]
    Malformed { peer: &'static str, method: String, text: String },
    #[error("{peer} did not answer {method}; what it did is not known")]
    Silent { peer: &'static str, method: String },
    #[error("the message bus went away; what was being done is not known")]
    Lost,
    #[error("cannot wait: {0}")]
    Failed(std::io::Error),
    #[error("stopped")]
    Stopped(Stopped),
}

impl BusFault {
    /// The class in one word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            BusFault::NoBus { .. } => "NoMessageBus",
            BusFault::Absent { .. } => "ServiceAbsent",
            BusFault::Denied { .. } => "PermissionDenied",
            BusFault::Refused { .. } => "Refused",
            BusFault::Malformed { .. } => "BackendProtocol",
            BusFault::Silent { .. } | BusFault::Lost => "BackendSilent",
            BusFault::Failed(_) => "Failed",
            BusFault::Stopped(Stopped::Cancelled) => "Cancelled",
            BusFault::Stopped(Stopped::TimedOut) => "TimedOut",
        }
    }
}

/// The connection, with short ways to call.
#[derive(Debug, Clone)]
pub(crate) struct Bus(pub(crate) Connection);

impl Host {
    /// Does the work on the message bus, until the task is cancelled or its time is over. The connection is kept for
    /// the tasks that come after; one that broke is made anew.
    pub(crate) fn on_bus<T, F>(&self, stop: &Stop<'_>, work: impl FnOnce(Bus) -> F) -> Result<T, BusFault>
    where
        F: Future<Output = Result<T, BusFault>>,
    {
        let kept = locked(&self.bus).clone().filter(|bus| !bus.0.is_closed());
        let done = self.wait(stop, async {
            let bus = match kept {
                Some(bus) => bus,
                None => connect().await?,
            };
            *locked(&self.bus) = Some(bus.clone());
            work(bus).await
        });
        match done {
            Ok(done) => done,
            Err(Unfinished::Stopped(stopped)) => Err(BusFault::Stopped(stopped)),
            Err(Unfinished::Failed(error)) => Err(BusFault::Failed(error)),
        }
    }
}

async fn connect() -> Result<Bus, BusFault> {
    let building = zbus::connection::Builder::system().method_timeout(CALL).build();
    building.await.map(Bus).map_err(|source| BusFault::NoBus { source })
}

impl Bus {
    /// Calls a method and reads its answer.
    pub(crate) async fn call<B, T>(&self, to: Peer, path: &str, method: (&str, &str), body: &B) -> Result<T, BusFault>
    where
        B: serde::Serialize + DynamicType,
        T: serde::de::DeserializeOwned + zbus::Type,
    {
        let (interface, member) = method;
        let answer = self.0.call_method(Some(to.bus), path, Some(interface), member, body).await;
        let answer = answer.map_err(|error| fault(to, member, error))?;
        answer.body().deserialize::<T>().map_err(|error| malformed(to, member, &error))
    }

    /// All properties that an object has of an interface.
    pub(crate) async fn properties(
        &self,
        of: Peer,
        path: &str,
        interface: &str,
    ) -> Result<BTreeMap<String, OwnedVariant>, BusFault> {
        self.call(of, path, ("org.freedesktop.DBus.Properties", "GetAll"), &interface).await
    }
}

/// A property as text; "" if it is missing or something else.
pub(crate) fn text(properties: &BTreeMap<String, OwnedVariant>, name: &str) -> String {
    properties.get(name).and_then(|value| <&str>::try_from(value).ok()).unwrap_or_default().to_owned()
}

pub(crate) fn malformed(peer: Peer, method: &str, error: &zbus::Error) -> BusFault {
    BusFault::Malformed { peer: peer.name, method: method.to_owned(), text: error.to_string() }
}

fn fault(to: Peer, method: &str, error: zbus::Error) -> BusFault {
    let (peer, method) = (to.name, method.to_owned());
    match error {
        zbus::Error::MethodError(name, text, _) => refused(peer, method, name.to_string(), text.unwrap_or_default()),
        zbus::Error::FDO(error) => match *error {
            fdo::Error::ServiceUnknown(text)
            | fdo::Error::NameHasNoOwner(text)
            | fdo::Error::SpawnServiceNotFound(text)
            | fdo::Error::SpawnChildExited(text)
            | fdo::Error::SpawnChildSignaled(text)
            | fdo::Error::SpawnFailed(text)
            | fdo::Error::SpawnExecFailed(text) => BusFault::Absent { peer, text },
            fdo::Error::AccessDenied(text)
            | fdo::Error::AuthFailed(text)
            | fdo::Error::InteractiveAuthorizationRequired(text) => BusFault::Denied { peer, method, text },
            fdo::Error::NoReply(_) | fdo::Error::Timeout(_) | fdo::Error::TimedOut(_) => {
                BusFault::Silent { peer, method }
            }
            fdo::Error::Disconnected(_) => BusFault::Lost,
            error => {
                let (name, text) = (zbus::DBusError::name(&error).to_string(), described(&error));
                refused(peer, method, name, text)
            }
        },
        zbus::Error::InputOutput(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            BusFault::Silent { peer, method }
        }
        zbus::Error::InputOutput(_) => BusFault::Lost,
        error => BusFault::Malformed { peer, method, text: error.to_string() },
    }
}

fn described(error: &fdo::Error) -> String {
    zbus::DBusError::description(error).map_or_else(|| error.to_string(), str::to_owned)
}

/// systemd and PackageKit have names of their own for what polkit denied.
fn refused(peer: &'static str, method: String, name: String, text: String) -> BusFault {
    if name.ends_with(".NotAuthorized") || name.ends_with(".InteractiveAuthorizationRequired") {
        return BusFault::Denied { peer, method, text };
    }
    BusFault::Refused { peer, method, name, text }
}
