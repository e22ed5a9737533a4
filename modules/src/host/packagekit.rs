//! PackageKit's transactions over the message bus: one method, its signals, its end. Knows no book. Everything that
//! comes over the bus is bounded and may be nonsense.

use std::num::NonZeroUsize;
use std::pin::pin;

use futures::StreamExt;
use zbus::match_rule::Builder;
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath};

use super::bus::{self, Bus, BusFault, Peer};

const DAEMON: Peer = Peer { name: "PackageKit", bus: "org.freedesktop.PackageKit" };
const ROOT: &str = "/org/freedesktop/PackageKit";
const TRANSACTION: &str = "org.freedesktop.PackageKit.Transaction";
const BUS: Peer = Peer { name: "the message bus", bus: "org.freedesktop.DBus" };

/// Packages that one answer may name: ten times what Debian has.
const MAX_PACKAGES: usize = 1_000_000;
/// Longest package id.
const MAX_ID: usize = 1024;
/// Signals that may wait to be read.
const QUEUE: usize = 4096;

/// Only what a trusted key signed.
const ONLY_TRUSTED: u64 = 1 << 1;
/// Only say what would be done.
const SIMULATE: u64 = 1 << 2;
/// Older versions, too.
const ALLOW_DOWNGRADE: u64 = 1 << 6;
/// The newest version, of this machine's architecture.
const NEWEST: u64 = 1 << 16;

/// What PackageKit is asked.
#[derive(Debug, Clone)]
pub(crate) enum Question<'a> {
    Resolve(&'a [String]),
    Updates,
    Refresh,
    Install { ids: &'a [String], simulate: bool },
    Update { ids: &'a [String], simulate: bool },
    Remove { ids: &'a [String], dependents: bool, simulate: bool },
}

/// A package in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    /// What happens to it: `PkInfoEnum`.
    pub(crate) info: u32,
    pub(crate) id: String,
}

impl Package {
    pub(crate) const INSTALLED: u32 = 1;
    pub(crate) const AVAILABLE: u32 = 2;
    pub(crate) const BLOCKED: u32 = 9;
    pub(crate) const DOWNLOADING: u32 = 10;
    pub(crate) const REMOVING: u32 = 13;
    pub(crate) const OBSOLETING: u32 = 15;

    /// Name, version and architecture.
    pub(crate) fn parts(&self) -> (&str, &str, &str) {
        let mut parts = self.id.split(';');
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next())
    }

    /// What happens to it, in a word; `None`: nothing worth telling.
    pub(crate) fn doing(&self) -> Option<&'static str> {
        Some(match self.info {
            Package::DOWNLOADING => "downloading",
            11 => "updating",
            12 => "installing",
            Package::REMOVING => "removing",
            Package::OBSOLETING => "obsoleting",
            19 => "reinstalling",
            20 => "downgrading",
            _ => return None,
        })
    }
}

/// Why a transaction did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransactionFault {
    #[error("{0}")]
    Bus(#[from] BusFault),
    #[error("{text}")]
    Error { code: u32, text: String },
    #[error("PackageKit does not start; it needs polkit, and `journalctl -u packagekit` says more")]
    NotStarted,
    #[error("packagekitd ended in the middle of it; what it did is looked up in the package database")]
    Died,
}

impl Bus {
    /// Whether PackageKit runs, or would when asked.
    pub(crate) async fn has_packagekit(&self) -> Result<bool, BusFault> {
        let names: Vec<String> =
            self.call(BUS, "/org/freedesktop/DBus", ("org.freedesktop.DBus", "ListActivatableNames"), &()).await?;
        Ok(names.iter().any(|name| name == DAEMON.bus))
    }

    /// Takes back a transaction.
    pub(crate) async fn cancel_transaction(&self, path: &str) -> Result<(), BusFault> {
        self.call(DAEMON, path, (TRANSACTION, "Cancel"), &()).await
    }

    /// Asks, and waits for the end. `begun` gets the transaction's path, by which it can be taken back; `heard` each
    /// package as it comes.
    pub(crate) async fn packagekit(
        &self,
        question: Question<'_>,
        begun: &mut Option<String>,
        heard: &mut dyn FnMut(&Package),
    ) -> Result<Vec<Package>, TransactionFault> {
        // Before the first call: a daemon that dies sends nothing else.
        let mut owners = self.signals(BUS, rule(BUS).member("NameOwnerChanged").arg(0, DAEMON.bus)).await?;
        let created = self.call(DAEMON, ROOT, ("org.freedesktop.PackageKit", "CreateTransaction"), &()).await;
        let path: OwnedObjectPath = match created {
            Err(BusFault::Silent { .. }) => return Err(TransactionFault::NotStarted),
            created => created?,
        };
        let path = path.as_str();
        *begun = Some(path.to_owned());
        let mut signals = self.signals(DAEMON, rule(DAEMON).path(path).interface(TRANSACTION)).await?;
        let hints = vec!["interactive=false", "locale=C.UTF-8"];
        let _: () = self.call(DAEMON, path, (TRANSACTION, "SetHints"), &hints).await?;
        let mut asked = pin!(self.ask(path, question));
        let mut is_asked = false;
        let mut story = Story::default();
        loop {
            tokio::select! {
                biased;
                answer = &mut asked, if !is_asked => {
                    answer?;
                    is_asked = true;
                }
                signal = signals.next() => {
                    let signal = signal.ok_or(BusFault::Lost)?.map_err(|_| BusFault::Lost)?;
                    if let Some(end) = story.hear(&signal, heard)? {
                        return end;
                    }
                }
                owner = owners.next() => {
                    let owner = owner.ok_or(BusFault::Lost)?.map_err(|_| BusFault::Lost)?;
                    let (_, _, new): (String, String, String) = read(&owner, "NameOwnerChanged")?;
                    if new.is_empty() {
                        return Err(TransactionFault::Died);
                    }
                }
            }
        }
    }

    async fn signals(&self, from: Peer, rule: Builder<'_>) -> Result<MessageStream, BusFault> {
        let wrong = |error: zbus::Error| bus::malformed(from, "AddMatch", &error);
        let rule = rule.build().map_err(wrong)?;
        MessageStream::for_match_rule(rule, &self.0, NonZeroUsize::new(QUEUE)).await.map_err(wrong)
    }

    async fn ask(&self, path: &str, question: Question<'_>) -> Result<(), BusFault> {
        let method = |name: &'static str| (TRANSACTION, name);
        let trusted = |simulate: bool| ONLY_TRUSTED | if simulate { SIMULATE } else { 0 };
        match question {
            Question::Resolve(names) => self.call(DAEMON, path, method("Resolve"), &(NEWEST, names)).await,
            Question::Updates => self.call(DAEMON, path, method("GetUpdates"), &NEWEST).await,
            Question::Refresh => self.call(DAEMON, path, method("RefreshCache"), &true).await,
            Question::Install { ids, simulate } => {
                let flags = trusted(simulate) | ALLOW_DOWNGRADE;
                self.call(DAEMON, path, method("InstallPackages"), &(flags, ids)).await
            }
            Question::Update { ids, simulate } => {
                self.call(DAEMON, path, method("UpdatePackages"), &(trusted(simulate), ids)).await
            }
            Question::Remove { ids, dependents, simulate } => {
                let body = (trusted(simulate), ids, dependents, false);
                self.call(DAEMON, path, method("RemovePackages"), &body).await
            }
        }
    }
}

fn rule(from: Peer) -> Builder<'static> {
    MatchRule::builder().msg_type(Type::Signal).sender(from.bus)
}

/// What a transaction told so far.
#[derive(Default)]
struct Story {
    packages: Vec<Package>,
    error: Option<(u32, String)>,
}

impl Story {
    /// Takes a signal in; the transaction's end, if it is that.
    fn hear(
        &mut self,
        signal: &Message,
        heard: &mut dyn FnMut(&Package),
    ) -> Result<Option<Result<Vec<Package>, TransactionFault>>, BusFault> {
        let header = signal.header();
        match header.member().map(|member| member.as_str()).unwrap_or_default() {
            "Package" => {
                let (info, id, _): (u32, String, String) = read(signal, "Package")?;
                let package = package(info, id)?;
                if self.packages.len() >= MAX_PACKAGES {
                    return Err(nonsense("Package", format!("more than {MAX_PACKAGES} packages")));
                }
                heard(&package);
                self.packages.push(package);
            }
            "ErrorCode" => self.error = Some(read(signal, "ErrorCode")?),
            "Finished" => {
                let (exit, _): (u32, u32) = read(signal, "Finished")?;
                return self.ended(exit).map(Some);
            }
            "Destroy" => return Ok(Some(Err(TransactionFault::Died))),
            _ => {}
        }
        Ok(None)
    }

    /// What the exit code (`PkExitEnum`) and the error before it come to.
    fn ended(&mut self, exit: u32) -> Result<Result<Vec<Package>, TransactionFault>, BusFault> {
        const CANCELLED: u32 = 17;
        const NEED_UNTRUSTED: u32 = 30;
        let error = self.error.take();
        Ok(match (exit, error) {
            (1, None) => Ok(std::mem::take(&mut self.packages)),
            (1..=11, Some((code, text))) => Err(TransactionFault::Error { code, text: text.trim().to_owned() }),
            (3 | 6 | 9, None) => Err(TransactionFault::Error { code: CANCELLED, text: "it was cancelled".to_owned() }),
            (8, None) => {
                Err(TransactionFault::Error { code: NEED_UNTRUSTED, text: "a package is not signed".to_owned() })
            }
            (2..=11, None) => Err(TransactionFault::Error { code: 0, text: format!("it ended with code {exit}") }),
            (exit, _) => return Err(nonsense("Finished", format!("{exit} is no code of an end"))),
        })
    }
}

fn package(info: u32, id: String) -> Result<Package, BusFault> {
    let parts: Vec<&str> = id.split(';').collect();
    if id.len() > MAX_ID || parts.len() != 4 || parts[0].is_empty() {
        let shown: String = id.chars().take(80).collect();
        return Err(nonsense("Package", format!("{shown:?} is no package id")));
    }
    // The upper half says how urgent an update is.
    Ok(Package { info: info & 0xffff, id })
}

fn nonsense(signal: &str, text: String) -> BusFault {
    BusFault::Malformed { peer: DAEMON.name, method: signal.to_owned(), text }
}

fn read<T: serde::de::DeserializeOwned + zbus::Type>(message: &Message, signal: &str) -> Result<T, BusFault> {
    message.body().deserialize().map_err(|error| bus::malformed(DAEMON, signal, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal<B: serde::Serialize + zbus::DynamicType>(name: &str, body: &B) -> Message {
        Message::signal("/1_a", TRANSACTION, name).build(body).unwrap()
    }

    fn hear(signals: &[Message]) -> Result<Option<Result<Vec<Package>, TransactionFault>>, BusFault> {
        let mut story = Story::default();
        let mut last = Ok(None);
        for signal in signals {
            last = story.hear(signal, &mut |_| {});
            if last.is_err() {
                break;
            }
        }
        last
    }

    #[test]
    fn a_story_ends_with_its_packages_or_its_error() {
        let package = || signal("Package", &(12u32 | 5 << 16, "web;1.0;all;lab", "a web"));
        let ended = hear(&[package(), signal("Finished", &(1u32, 20u32))]).unwrap().unwrap().unwrap();
        assert_eq!(ended, [Package { info: 12, id: "web;1.0;all;lab".to_owned() }]);
        let error = signal("ErrorCode", &(26u32, "no lock"));
        for exit in [1u32, 2] {
            let failed = hear(&[package(), error.clone(), signal("Finished", &(exit, 20u32))]).unwrap().unwrap();
            assert!(matches!(failed, Err(TransactionFault::Error { code: 26, .. })), "{failed:?}");
        }
        assert!(matches!(hear(&[signal("Destroy", &())]), Ok(Some(Err(TransactionFault::Died)))));
    }

    #[test]
    fn nonsense_is_a_fault_of_the_backend() {
        let long = format!("{};1;all;x", "a".repeat(2000));
        for wrong in [
            signal("Package", &(1u32, "a;b;c", "")),
            signal("Package", &(1u32, ";1;all;x", "")),
            signal("Package", &(1u32, long.as_str(), "")),
            signal("Package", &("web", 1u32)),
            signal("Finished", &(99u32, 1u32)),
            signal("Finished", &(0u32, 1u32)),
            signal("ErrorCode", &"text"),
        ] {
            let found = hear(std::slice::from_ref(&wrong));
            assert!(matches!(found, Err(BusFault::Malformed { .. })), "{wrong:?}: {found:?}");
        }
    }
}
