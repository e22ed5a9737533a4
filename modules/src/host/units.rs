//! systemd's units over the message bus: reading one, changing its files, and jobs to their end. Knows no book.

use std::fmt::Write;

use futures::StreamExt;
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath};

use super::bus::{self, Bus, BusFault, Peer};

const SYSTEMD: Peer = Peer { name: "systemd", bus: "org.freedesktop.systemd1" };
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// A folder that is there exactly when systemd runs this machine: `sd_booted(3)`.
pub(crate) const BOOTED: &str = "/run/systemd/system";

/// A unit as systemd knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its own name, if the one that was asked for is an alias.
    pub(crate) id: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub(crate) load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub(crate) active: String,
    /// `enabled`, `disabled`, `static`, `masked`, …; "" if it has no file.
    pub(crate) file: String,
    /// Its files were changed since systemd read them.
    pub(crate) stale: bool,
    /// It understands reload.
    pub(crate) can_reload: bool,
    pub(crate) path: String,
    /// Of its last start, in hexadecimal.
    pub(crate) invocation: String,
}

/// What happens to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Start,
    Stop,
    Restart,
    Reload,
    ReloadOrRestart,
}

impl Job {
    fn method(self) -> &'static str {
        match self {
            Job::Start => "StartUnit",
            Job::Stop => "StopUnit",
            Job::Restart => "RestartUnit",
            Job::Reload => "ReloadUnit",
            Job::ReloadOrRestart => "ReloadOrRestartUnit",
        }
    }
}

/// What happens to a unit's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Enable,
    Disable,
    Mask,
    Unmask,
}

/// systemd.
#[derive(Debug, Clone)]
pub(crate) struct Systemd(pub(crate) Bus);

impl Systemd {
    async fn manager<B, T>(&self, method: &str, body: &B) -> Result<T, BusFault>
    where
        B: serde::Serialize + zbus::DynamicType,
        T: serde::de::DeserializeOwned + zbus::Type,
    {
        self.0.call(SYSTEMD, ROOT, (MANAGER, method), body).await
    }

    /// Reads a unit; one that has no file is `not-found`, no fault.
    pub(crate) async fn unit(&self, name: &str) -> Result<Unit, BusFault> {
        let path: OwnedObjectPath = self.manager("LoadUnit", &name).await?;
        let found = self.0.properties(SYSTEMD, path.as_str(), UNIT).await?;
        let flag = |name: &str| found.get(name).and_then(|value| bool::try_from(value).ok()).unwrap_or(false);
        let mut unit = Unit {
            id: bus::text(&found, "Id"),
            load: bus::text(&found, "LoadState"),
            active: bus::text(&found, "ActiveState"),
            file: String::new(),
            stale: flag("NeedDaemonReload"),
            can_reload: flag("CanReload"),
            path: path.as_str().to_owned(),
            invocation: String::new(),
        };
        if let Some(Ok(bytes)) = found.get("InvocationID").map(|value| value.try_clone().and_then(Vec::<u8>::try_from))
        {
            for byte in bytes {
                let _ = write!(unit.invocation, "{byte:02x}");
            }
        }
        // The property of that name is what systemd last read, not what is on the disk.
        unit.file = match self.manager("GetUnitFileState", &unit.id.as_str()).await {
            Ok(state) => state,
            Err(BusFault::Refused { .. }) => String::new(),
            Err(fault) => return Err(fault),
        };
        Ok(unit)
    }

    /// Has systemd read all unit files again.
    pub(crate) async fn reload(&self) -> Result<(), BusFault> {
        self.manager("Reload", &()).await
    }

    /// Changes what the unit's files say, on the disk and in systemd.
    pub(crate) async fn change_files(&self, name: &str, change: Files) -> Result<(), BusFault> {
        type Changes = Vec<(String, String, String)>;
        let names = vec![name];
        match change {
            Files::Enable => {
                let _: (bool, Changes) = self.manager("EnableUnitFiles", &(names, false, false)).await?;
            }
            Files::Disable => {
                let _: Changes = self.manager("DisableUnitFiles", &(names, false)).await?;
            }
            Files::Mask => {
                let _: Changes = self.manager("MaskUnitFiles", &(names, false, false)).await?;
            }
            Files::Unmask => {
                let _: Changes = self.manager("UnmaskUnitFiles", &(names, false)).await?;
            }
        }
        self.reload().await
    }

    /// Starts a job and waits for its end: `done`, `failed`, `timeout`, `dependency`, `canceled`, …
    pub(crate) async fn job(&self, name: &str, job: Job, begun: &mut Option<String>) -> Result<String, BusFault> {
        self.subscribe().await?;
        let wrong = |error: zbus::Error| bus::malformed(SYSTEMD, "JobRemoved", &error);
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD.bus).interface(MANAGER);
        let rule = rule.member("JobRemoved").build().map_err(wrong)?;
        let mut removed = MessageStream::for_match_rule(rule, &self.0.0, None).await.map_err(wrong)?;
        let path: OwnedObjectPath = self.manager(job.method(), &(name, "replace")).await?;
        *begun = Some(path.as_str().to_owned());
        while let Some(message) = removed.next().await {
            let (_, ended, _, result): (u32, OwnedObjectPath, String, String) = read(&message.map_err(wrong)?)?;
            if ended == path {
                return Ok(result);
            }
        }
        Err(BusFault::Lost)
    }

    /// Asks for the signals of jobs. Once is enough for a connection, which tasks of a segment share.
    async fn subscribe(&self) -> Result<(), BusFault> {
        match self.manager("Subscribe", &()).await {
            Err(BusFault::Refused { name, .. }) if name == "org.freedesktop.systemd1.AlreadySubscribed" => Ok(()),
            other => other,
        }
    }

    /// Takes back a job that is not wanted longer.
    pub(crate) async fn cancel(&self, job: &str) -> Result<(), BusFault> {
        self.0.call(SYSTEMD, job, ("org.freedesktop.systemd1.Job", "Cancel"), &()).await
    }

    /// How the unit's last process ended, if it is a service: `exit-code, status 1`.
    pub(crate) async fn result(&self, unit: &Unit) -> Option<String> {
        let found = self.0.properties(SYSTEMD, &unit.path, "org.freedesktop.systemd1.Service").await.ok()?;
        let result = bus::text(&found, "Result");
        let status = found.get("ExecMainStatus").and_then(|value| i32::try_from(value).ok()).unwrap_or(0);
        (!result.is_empty() && result != "success").then(|| match status {
            0 => result,
            status => format!("{result}, status {status}"),
        })
    }

    /// The names of all units of that suffix that have a file.
    pub(crate) async fn names(&self, suffix: &str) -> Result<Vec<String>, BusFault> {
        let patterns = (Vec::<&str>::new(), vec![format!("*{suffix}")]);
        let files: Vec<(String, String)> = self.manager("ListUnitFilesByPatterns", &patterns).await?;
        Ok(files.into_iter().filter_map(|(path, _)| path.rsplit('/').next().map(str::to_owned)).collect())
    }
}

impl Unit {
    /// The command that prints the last lines of its last start.
    pub(crate) fn last_lines(&self) -> Option<Vec<String>> {
        if self.invocation.is_empty() {
            return None;
        }
        let id = format!("_SYSTEMD_INVOCATION_ID={}", self.invocation);
        Some(["journalctl", "-q", "--no-pager", "-o", "cat", "-n", "10", &id].map(str::to_owned).to_vec())
    }
}

fn read<T: serde::de::DeserializeOwned + zbus::Type>(message: &Message) -> Result<T, BusFault> {
    message.body().deserialize().map_err(|error| bus::malformed(SYSTEMD, "JobRemoved", &error))
}
