//! What an executor that died left running: every process of its session. Reads `/proc`, kills by process handle.
//! Knows no journal: the caller has made sure that the executor is dead.

use std::{fs, thread, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::folder::Identity;

/// How long killed processes may take to go; longer, they hang in the kernel.
const PATIENCE_TRIES: u32 = 400;
const PATIENCE_PAUSE: Duration = Duration::from_millis(5);

/// What one line of `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    session: i32,
    start_ticks: u64,
    zombie: bool,
}

/// This process, as a later one must find it.
pub(crate) fn own_identity() -> Option<Identity> {
    let pid = rustix::process::getpid();
    // Refused if it leads a group already (started by hand from a shell): then its session is not its own to kill.
    let leads_session = rustix::process::setsid().is_ok() || rustix::process::getsid(None).is_ok_and(|sid| sid == pid);
    let pid = pid.as_raw_nonzero().get();
    Some(Identity { pid, start_ticks: process(pid)?.start_ticks, leads_session })
}

/// Whether this very process still is there.
pub(crate) fn is_there(identity: Identity) -> bool {
    process(identity.pid).is_some_and(|process| process.start_ticks == identity.start_ticks && !process.zombie)
}

/// Sends SIGTERM to the executor itself, if it still is there; its children are its own to end.
pub(crate) fn terminate(identity: Identity) {
    let handle = Pid::from_raw(identity.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // The handle first: from then on the number cannot become another process under our hands.
    if let Some(handle) = handle
        && is_there(identity)
    {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(handle, Signal::TERM);
    }
}

/// Kills every process of the dead executor's session. `true`: none is left.
pub(crate) fn kill(identity: Identity) -> bool {
    if !identity.leads_session {
        return true;
    }
    for _ in 0..PATIENCE_TRIES {
        let left = members(identity);
        if left.is_empty() {
            return true;
        }
        for pid in left {
            kill_member(pid, identity);
        }
        thread::sleep(PATIENCE_PAUSE);
    }
    members(identity).is_empty()
}

/// The living processes of the session. A number is not given away again while its session has members, so another
/// leader under it means that all of ours are gone.
fn members(identity: Identity) -> Vec<i32> {
    if process(identity.pid).is_some_and(|leader| leader.start_ticks != identity.start_ticks) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| process(*pid).is_some_and(|process| belongs(process, identity)))
        .collect()
}

fn belongs(process: Process, identity: Identity) -> bool {
    process.session == identity.pid && !process.zombie && process.start_ticks >= identity.start_ticks
}

fn kill_member(pid: i32, identity: Identity) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // Looked at again through the handle's lifetime: the number may have gone to another process since it was read.
    if process(pid.as_raw_nonzero().get()).is_some_and(|process| belongs(process, identity)) {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

fn process(pid: i32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// See proc(5): the command's name is in brackets and may itself hold brackets and spaces.
fn parse(stat: &str) -> Option<Process> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    // Fields count from 1 in the manual; the state is the third, the session the sixth, the start the 22nd.
    let session = fields.nth(2)?.parse().ok()?;
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Process { session, start_ticks, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_hostile_name() {
        let stat = "77 (a) R 1 (b) S 1 76 75 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 991 1000 2 18446744073709551615 0";
        assert_eq!(parse(stat), Some(Process { session: 75, start_ticks: 991, zombie: false }));
    }

    #[test]
    fn own_process_is_there_and_one_with_another_start_is_not() {
        let pid = std::process::id() as i32;
        let own = Identity { pid, start_ticks: process(pid).unwrap().start_ticks, leads_session: true };
        assert!(is_there(own));
        assert!(!is_there(Identity { start_ticks: own.start_ticks + 1, ..own }));
    }

    #[test]
    fn nothing_is_killed_under_a_number_that_another_process_has_now() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(kill(Identity { pid, start_ticks: 1, leads_session: true }));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
