//! dpkg's files: its database, its lock, and the age of the package lists. Reads only.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Host;

/// The database.
pub(crate) const STATUS: &str = "/var/lib/dpkg/status";
/// Where dpkg notes what it did since it last wrote the database.
const UPDATES: &str = "/var/lib/dpkg/updates";
/// Who changes packages holds one of these.
const LOCKS: [&str; 2] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"];
/// Longest database that is read: twenty times that of a large desktop.
const MAX_STATUS: u64 = 128 << 20;

/// A process that holds the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) program: String,
}

impl Host {
    /// The texts of the database, in the order in which later ones correct earlier ones. `None`: this node has no dpkg.
    pub(crate) fn dpkg_texts(&self) -> Option<Vec<String>> {
        let mut texts = vec![read(Path::new(STATUS))?];
        texts.extend(updates().iter().filter_map(|path| read(path)));
        Some(texts)
    }

    /// dpkg was cut off: it wants to finish before anything else.
    pub(crate) fn dpkg_is_interrupted(&self) -> bool {
        !updates().is_empty()
    }

    /// Who holds dpkg's lock, but for `excepted`.
    pub(crate) fn dpkg_lock_holder(&self, excepted: &[&str]) -> Option<Holder> {
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        let pids = locks.lines().filter(|line| line.contains(" POSIX ")).filter_map(|line| {
            // `7: POSIX  ADVISORY  WRITE 1234 00:2a:16 0 EOF`; a waiting one has `->` before its kind.
            line.split_whitespace().nth(4)?.parse::<u32>().ok()
        });
        pids.filter(|pid| has_open(*pid))
            .map(|pid| Holder { pid, program: program(pid) })
            .find(|holder| !excepted.contains(&holder.program.as_str()))
    }

    /// How old the package lists are; `None`: there are none.
    pub(crate) fn package_lists_age(&self) -> Option<Duration> {
        let lists = Path::new("/var/lib/apt/lists");
        let is_list = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().contains("Packages");
        let any = std::fs::read_dir(lists).ok()?.flatten().any(|entry| is_list(&entry));
        let touched = [lists.to_owned(), lists.join("partial")].iter().filter_map(|path| modified(path)).max()?;
        any.then(|| SystemTime::now().duration_since(touched).unwrap_or_default())
    }

    /// Whether where packages come from was changed after the lists were read.
    pub(crate) fn package_sources_changed(&self) -> bool {
        let Some(age) = self.package_lists_age() else { return true };
        let mut sources = vec!["/etc/apt/sources.list".into(), "/etc/apt/sources.list.d".into()];
        sources.extend(std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path()));
        let newest: Option<SystemTime> = sources.iter().filter_map(|path: &std::path::PathBuf| modified(path)).max();
        newest.is_some_and(|newest| newest.elapsed().unwrap_or_default() < age)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// dpkg's notes, in order; their names are numbers.
fn updates() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(UPDATES).into_iter().flatten().flatten();
    let is_note = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let mut notes: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(is_note))
        .collect();
    notes.sort();
    notes
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_STATUS).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn has_open(pid: u32) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| LOCKS.iter().any(|lock| target == Path::new(lock)))
}

fn program(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}
