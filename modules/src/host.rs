//! The managed machine: the only part that reads or changes it. Paths are walked one component at a time from an open
//! root folder, so that nobody can swap a symbolic link under a privileged write. Knows no action, task or Run.

mod accounts;
mod bus;
mod cgroup;
mod children;
mod content;
mod directory;
mod dpkg;
mod error;
mod filesystem;
mod git;
mod http;
mod kernel;
mod link;
mod listing;
mod memory;
mod network;
mod owner;
mod packagekit;
mod path;
mod place;
mod remove;
mod replace;
mod spawn;
mod temporary;
mod units;
mod unsynced;
mod waiting;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Gid;

pub(crate) use accounts::{Accounts, Shadow, User};
use accounts::{no_group, no_user, number};
pub(crate) use bus::{Bus, BusFault};
use cgroup::Members;
pub use cgroup::{Cgroup, NoCgroups, Side};
pub use children::rest;
pub(crate) use children::{Command, Ended, Ending, Handed, Reader, Stop, Stopped};
pub(crate) use content::Content;
pub use error::{HostError, Kind};
use filesystem::Durability;
pub(crate) use git::{FETCHED, GitFault, Named, Store};
pub(crate) use http::{Answer, Asked, HttpFault, Trust, ask};
pub(crate) use kernel::{Mounted, unescape};
pub(crate) use memory::InMemory;
pub(crate) use packagekit::{Package, Question, TransactionFault};
pub(crate) use place::{Place, Seen};
pub(crate) use replace::{Replacement, Temporary};
pub(crate) use temporary::TemporaryDirectory;
pub(crate) use units::{BOOTED, Files, Job, Systemd, Unit};
pub use unsynced::Unsynced;
pub(crate) use waiting::Unfinished;
pub(crate) use walk::Dir;

/// How long a directory stays open between tasks, and accounts stay known: what others rename or edit is seen after
/// that. What tasks of ours may have renamed, [`Host::forget`] drops at once.
const KEPT: Duration = Duration::from_secs(1);

/// Directories kept open at most; descriptors are short.
const DIRS: usize = 32;

/// The machine that tasks work on, or a folder that stands for one.
///
/// Guarantees: with a root folder, no path of a file leads out of it, whatever symbolic links say. Commands run on
/// this machine all the same. Caveat: what a path means is remembered for up to a second.
#[derive(Debug)]
pub struct Host {
    root: Option<PathBuf>,
    base: Arc<Dir>,
    euid: u32,
    /// Supplementary.
    groups: Vec<Gid>,
    own: OnceLock<User>,
    dirs: Mutex<HashMap<String, (Instant, Arc<Dir>)>>,
    durability: Mutex<BTreeMap<u64, Durability>>,
    /// Of this machine, and of the root folder.
    accounts: Mutex<[Option<Read>; 2]>,
    buffer: Mutex<Vec<u8>>,
    foreseen: Mutex<BTreeMap<String, Foreseen>>,
    /// Dropped before what it waits with.
    bus: Mutex<Option<Bus>>,
    waiting: Mutex<Option<waiting::Waiting>>,
    /// Of the control group that we and our commands are in.
    members: Option<Members>,
}

/// What a check expects at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreseen {
    /// A directory.
    Directory,
    /// Something else.
    Other,
    /// Nothing.
    Gone,
}

/// Accounts, and when they were read.
type Read = (Instant, Arc<Accounts>);

impl Host {
    /// Opens the machine; with `root`, the folder that takes its place.
    ///
    /// # Errors
    /// The root folder is missing or cannot be opened.
    pub fn open(root: Option<&Path>) -> Result<Host, HostError> {
        let path = root.unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shown = path.display().to_string();
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| HostError::from_errno("open the root folder", &shown, errno))?;
        let euid = rustix::process::geteuid().as_raw();
        let groups = rustix::process::getgroups()
            .map_err(|errno| HostError::from_errno("read the groups of this process for", &shown, errno))?;
        Ok(Host {
            // Commands are told it, and do not run where we do.
            root: root.map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned())),
            base: Arc::new(Dir::base(fd, euid)?),
            euid,
            groups,
            own: OnceLock::new(),
            dirs: Mutex::default(),
            durability: Mutex::default(),
            accounts: Mutex::default(),
            buffer: Mutex::default(),
            foreseen: Mutex::default(),
            bus: Mutex::default(),
            waiting: Mutex::default(),
            members: None,
        })
    }

    /// Says that this process and its commands have a control group of their own: commands that are ended early leave
    /// nothing there.
    ///
    /// # Errors
    /// The group cannot be read.
    pub fn track(&mut self, group: &Cgroup) -> std::io::Result<()> {
        self.members = Some(Members::of(group)?);
        Ok(())
    }

    /// The folder that stands for the machine, if it is not the machine itself.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Drops what is remembered of the machine. To be called after anything that may have changed it behind our back.
    pub fn forget(&self) {
        locked(&self.dirs).clear();
        *locked(&self.accounts) = [None, None];
    }

    /// The path as other programs of this machine see it.
    pub(crate) fn outside(&self, path: &str) -> String {
        match &self.root {
            Some(root) => format!("{}{path}", root.display()),
            None => path.to_owned(),
        }
    }

    /// The number of the user that owns files, given as a name or number.
    pub(crate) fn uid(&self, name: &str) -> Result<u32, HostError> {
        match name {
            "root" => Ok(0),
            _ => match number(name) {
                Some(uid) => Ok(uid),
                None => self.accounts(true).user(name).map(|user| user.uid).ok_or_else(|| no_user(name)),
            },
        }
    }

    /// The number of the group that owns files, given as a name or number.
    pub(crate) fn gid(&self, name: &str) -> Result<u32, HostError> {
        match name {
            "root" => Ok(0),
            _ => match number(name) {
                Some(gid) => Ok(gid),
                None => self.accounts(true).gid(name).ok_or_else(|| no_group(name)),
            },
        }
    }

    /// The user that a command runs as, and its groups. Of this machine, not of the root folder: commands run here.
    pub(crate) fn login(&self, name: &str) -> Result<(User, Vec<u32>), HostError> {
        let accounts = self.accounts(false);
        let user = accounts.user(name).ok_or_else(|| no_user(name))?.clone();
        accounts.check_open(&user, now_s() / DAY_S)?;
        let groups = accounts.groups_of(&user);
        Ok((user, groups))
    }

    /// The accounts of the machine (its root folder, if it has one), read now.
    pub(crate) fn read_accounts(&self) -> Result<Accounts, HostError> {
        let file = |path: &str| self.text(path).ok_or_else(|| HostError::FileMissing { path: path.to_owned() });
        let shadow = self.text("/etc/shadow").unwrap_or_default();
        Ok(Accounts::parse(&file("/etc/passwd")?, &file("/etc/group")?, &shadow))
    }

    fn accounts(&self, rooted: bool) -> Arc<Accounts> {
        let slot = &mut locked(&self.accounts)[usize::from(rooted)];
        match slot {
            Some((at, accounts)) if at.elapsed() < KEPT => Arc::clone(accounts),
            _ => {
                let read = |path: &str| if rooted { self.text(path) } else { std::fs::read_to_string(path).ok() };
                let passwd = read("/etc/passwd").unwrap_or_default();
                let group = read("/etc/group").unwrap_or_default();
                // Only those matter who log in, which is on this machine.
                let shadow = if rooted { None } else { read("/etc/shadow") }.unwrap_or_default();
                let accounts = Arc::new(Accounts::parse(&passwd, &group, &shadow));
                *slot = Some((Instant::now(), Arc::clone(&accounts)));
                accounts
            }
        }
    }

    /// A short text file of the machine (its root folder, if it has one); `None` if it cannot be read.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        if self.root.is_none() {
            return std::fs::read_to_string(path).ok();
        }
        let place = self.place_followed(path, false).ok()?;
        let seen = place.look().ok()??;
        match self.content(&place, &seen, MAX_TEXT).ok()? {
            Content::Read(bytes) => String::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A text of the kernel: of the machine that runs, whatever the root folder.
    pub(crate) fn kernel_text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    /// Whether the machine that runs has this path.
    pub(crate) fn kernel_path_exists(&self, path: &str) -> bool {
        std::fs::symlink_metadata(path).is_ok()
    }

    /// Where a symbolic link of the machine (its root folder, if it has one) points.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let place = self.place(path, false).ok()?;
        place.look().ok()?.filter(|seen| seen.kind == Kind::Symlink)?;
        place.link().ok()
    }

    /// Names of kernel and machine.
    pub(crate) fn uname(&self) -> rustix::system::Uname {
        rustix::system::uname()
    }

    /// The user that this program runs as.
    pub(crate) fn own_user(&self) -> &User {
        self.own.get_or_init(|| match self.euid {
            0 => User {
                name: "root".into(),
                uid: 0,
                gid: 0,
                comment: String::new(),
                home: "/root".into(),
                shell: "/bin/sh".into(),
            },
            uid => self.accounts(false).user(&uid.to_string()).cloned().unwrap_or_else(|| User {
                name: uid.to_string(),
                uid,
                gid: rustix::process::getegid().as_raw(),
                comment: String::new(),
                home: "/".into(),
                shell: "/bin/sh".into(),
            }),
        })
    }

    /// Says what would be at a path, had this not been a check; tasks that come later count on it.
    pub(crate) fn foresee(&self, path: &str, foreseen: Foreseen) {
        locked(&self.foreseen).insert(path.to_owned(), foreseen);
    }

    /// Forgets what an earlier check expected: something was really done.
    pub(crate) fn foresee_nothing(&self) {
        locked(&self.foreseen).clear();
    }

    /// Whether something would be at the path, as far as an earlier task of this check says.
    pub(crate) fn foreseen(&self, path: &str) -> Option<bool> {
        locked(&self.foreseen).get(path).map(|foreseen| *foreseen != Foreseen::Gone)
    }

    /// Owner and group of what is made in the directory when the book does not say: root's, or ours if we are not root.
    pub(crate) fn default_owner(&self, dir: &Dir) -> (u32, u32) {
        match self.euid {
            0 => (0, 0),
            uid => (uid, dir.passes_group.unwrap_or_else(|| rustix::process::getegid().as_raw())),
        }
    }

    /// Whether an earlier task of this check would have made the directory that the path is in.
    pub(crate) fn parent_is_foreseen(&self, path: &str) -> bool {
        path.rsplit_once('/')
            .is_some_and(|(parent, _)| locked(&self.foreseen).get(parent) == Some(&Foreseen::Directory))
    }

    /// The number of the user that this program works as.
    pub(crate) fn euid(&self) -> u32 {
        self.euid
    }

    fn durability(&self, dir: &Dir) -> Durability {
        *locked(&self.durability).entry(dir.device).or_insert_with(|| filesystem::durability(dir.magic, dir.device))
    }
}

/// Longest file that [`Host::text`] reads.
const MAX_TEXT: u64 = 4 << 20;

/// The clock of the machine, as `20261120T135043Z`.
pub(crate) fn timestamp() -> String {
    let seconds = now_s();
    let (days, rest) = (seconds / DAY_S, seconds % DAY_S);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

const DAY_S: u64 = 86_400;

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The day as `2026-11-20`.
pub(crate) fn date(days: u64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The number of the day that is written as `2026-11-20`, from 1970-01-02 on; `None` if there is no such day.
pub(crate) fn days(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The inverse of `civil`, by the same author.
    let year_of_march = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year_of_march / 400, year_of_march % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)?;
    (days > 0 && self::date(days) == date).then_some(days)
}

/// Year, month, day of a number of days since 1970-01-01: Howard Hinnant's `civil_from_days`, for dates after it.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// Nothing panics while it holds one of these locks in a state that matters: all are caches.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a descriptor that can be synced or listed where the one at hand is only a path.
fn reopen(dir: &Dir) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(&dir.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_777), (2026, 11, 20));
        for day in [1, 59, 60, 11_016, 20_777, 73_048] {
            assert_eq!(days(&date(day)), Some(day));
        }
        for wrong in ["2026-02-29", "2026-1-02", "1970-01-01", "2026-13-01", "2026-11", "tomorrow", ""] {
            assert_eq!(days(wrong), None, "{wrong}");
        }
    }
}
