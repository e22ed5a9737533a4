//! Control groups (version 2) that hold all processes of a segment, also those that left its session and its parents.
//! Knows the kernel's files of them; not what the processes do. Without them the callers go by sessions and groups of
//! processes, which a process can leave.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::spawn;

/// Below the group that is ours, those of segments are in this one.
const SEGMENTS: &str = "lockstep-segments";

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// `CGROUP2_SUPER_MAGIC` of magic.h.
const CGROUP2: u64 = 0x6367_7270;

/// How long killed processes may take to go; longer, they hang in the kernel.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(5);

/// Why this process cannot make control groups of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCgroups {
    /// None are mounted where they are.
    #[error("no cgroup version 2 is mounted below /sys/fs/cgroup")]
    NotMounted,
    /// systemd keeps them to itself.
    #[error("systemd has not delegated the unit's cgroup: set Delegate=yes in it")]
    NotDelegated,
    /// The kernel lacks cgroup.kill (before 5.14).
    #[error("this kernel cannot kill a cgroup: it is older than 5.14")]
    NoKill,
    /// Making one failed.
    #[error("a cgroup cannot be made: {0}")]
    Refused(String),
}

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    folder: PathBuf,
}

/// What came back from [`Cgroup::fork_into`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This is the new process, in the group.
    Inside,
    /// This is the one that called. The other has ended with this exit code, or was killed by the signal that 128 was
    /// added to.
    Ended(u8),
}

impl Cgroup {
    /// Where this process may make groups for segments; made if it is not there.
    ///
    /// # Errors
    /// Why not; nothing is left.
    pub fn of_segments() -> Result<Cgroup, NoCgroups> {
        let own = own_folder().ok_or(NoCgroups::NotMounted)?;
        if Path::new("/run/systemd/system").exists() && !is_delegated(&own) {
            return Err(NoCgroups::NotDelegated);
        }
        let refused = |error: io::Error| NoCgroups::Refused(error.to_string());
        let segments = Cgroup::at(&own.join(SEGMENTS));
        make(&segments.folder).map_err(refused)?;
        if !segments.folder.join("cgroup.kill").exists() {
            return Err(NoCgroups::NoKill);
        }
        // Whether processes may be put there, only a group inside tells.
        let probe = segments.child("probe");
        make(&probe.folder).map_err(refused)?;
        probe.remove();
        Ok(segments)
    }

    /// Whether the segments of the agent that we are, or that started us, have groups.
    pub(crate) fn are_used() -> bool {
        own_folder().is_some_and(|own| own.join(SEGMENTS).exists())
    }

    /// The group of a folder of the kernel's.
    pub fn at(folder: &Path) -> Cgroup {
        Cgroup { folder: folder.to_owned() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A group inside. Not made.
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup { folder: self.folder.join(name) }
    }

    /// Makes the group, and a copy of this process in it. Not moved: that would wait for all processors, 10 ms and more.
    /// Call it before any thread is started; the caller waits for the other side's end.
    ///
    /// # Errors
    /// There is no other side, and this process is where it was.
    pub fn fork_into(&self) -> io::Result<Side> {
        let enter = || {
            make(&self.folder)?;
            let group = File::open(&self.folder)?;
            spawn::fork_into(group.as_fd())
        };
        // Another agent that sweeps may have taken the empty group away again.
        enter().or_else(|_| enter())
    }

    /// Kills all that is in it, and waits until it is gone. `false`: something hangs in the kernel.
    pub fn kill(&self) -> bool {
        for _ in 0..TRIES {
            // Again and again: what was just put there is killed, too. An error is that the group is gone.
            if fs::write(self.folder.join("cgroup.kill"), "1").is_err() || self.is_empty() {
                return true;
            }
            thread::sleep(PAUSE);
        }
        false
    }

    fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("cgroup.events")).unwrap_or_default();
        !events.lines().any(|line| line == "populated 1")
    }

    /// Removes the group. Best effort: one with processes in it stays.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.folder);
    }

    /// Removes the groups in it that no process is in.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            // Files of the kernel's and groups with processes stay.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// What is in a group beside this process, for who must end what came while it worked.
#[derive(Debug)]
pub(crate) struct Members {
    procs: File,
}

impl Members {
    /// Of this group.
    pub(crate) fn of(group: &Cgroup) -> io::Result<Members> {
        Ok(Members { procs: File::open(group.folder.join("cgroup.procs"))? })
    }

    /// The processes, without this one.
    pub(crate) fn now(&self) -> io::Result<BTreeSet<i32>> {
        let mut file = &self.procs;
        file.rewind()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != own).collect())
    }

    /// Kills what is there and was not `before`, until nothing is, or for 5 s.
    pub(crate) fn kill_since(&self, before: &BTreeSet<i32>) -> io::Result<()> {
        for _ in 0..TRIES {
            let new = |now: BTreeSet<i32>| -> Vec<i32> { now.difference(before).copied().collect() };
            let found = new(self.now()?);
            if found.is_empty() {
                return Ok(());
            }
            let open = |pid: &i32| Some((*pid, pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?));
            let handles: Vec<_> = found.iter().filter_map(open).collect();
            // Looked at again, now that no number can become another process's under our hands.
            let still = self.now()?;
            for (_, handle) in handles.iter().filter(|(pid, _)| still.contains(pid)) {
                // It may have ended meanwhile.
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The folder of our group, without what of it we made.
fn own_folder() -> Option<PathBuf> {
    let is_v2 = |mount: &&&str| rustix::fs::statfs(**mount).is_ok_and(|found| found.f_type as u64 == CGROUP2);
    let mount = MOUNTS.iter().find(is_v2)?;
    Some(Path::new(mount).join(own_path(&fs::read_to_string("/proc/self/cgroup").ok()?)?))
}

/// The group of version 2 in the text of `/proc/self/cgroup`, relative to the mount, without what of it we made.
fn own_path(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let ours = path.split('/').position(|part| part == SEGMENTS);
    Some(path.split('/').take(ours.unwrap_or(usize::MAX)).collect())
}

/// systemd marks what it leaves to others; see its `CGROUP_DELEGATION` document.
fn is_delegated(folder: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0u8; 1];
        rustix::fs::getxattr(folder, *name, &mut value[..]).is_ok_and(|_| value == *b"1")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_whoever_is_in_it() {
        let table = [
            ("0::/\n", ""),
            ("9:name=systemd:/\n0::/system.slice/lockstepd.service\n", "system.slice/lockstepd.service"),
            ("0::/system.slice/lockstepd.service/lockstep-segments/r-0-n-n-1", "system.slice/lockstepd.service"),
        ];
        for (text, path) in table {
            assert_eq!(own_path(text), Some(PathBuf::from(path)));
        }
        assert_eq!(own_path("1:cpu:/\n"), None);
    }
}
