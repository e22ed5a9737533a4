//! The one module with `unsafe`: what a child does between fork and exec to become another user, where only system calls
//! are made, nothing that allocates or takes a lock; and a fork into a control group.
#![allow(unsafe_code, reason = "CommandExt::pre_exec and clone3(2) are unsafe")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::process::{Gid, Pid, Uid, WaitOptions, waitpid};

use super::cgroup::Side;

/// Who a child becomes.
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Has the child take the identity, completely and for good, and the umask, and keep a descriptor over its exec.
pub(super) fn prepare(command: &mut Command, identity: Option<Identity>, umask: Option<u32>, kept: Option<OwnedFd>) {
    let identity = identity.map(|identity| {
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid), groups)
    });
    let before_exec = move || -> io::Result<()> {
        if let Some(kept) = &kept {
            rustix::io::fcntl_setfd(kept, FdFlags::empty())?;
        }
        if let Some(umask) = umask {
            rustix::process::umask(Mode::from_raw_mode(umask));
        }
        if let Some((uid, gid, groups)) = &identity {
            // The child of a fork has one thread: what is set for the thread is set for the process.
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls on values made before the fork; it neither allocates nor locks.
    unsafe { command.pre_exec(before_exec) };
}

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Of sched.h; libc's is of a type that it does not fit in.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A copy of this process in the control group; see [`super::Cgroup::fork_into`].
pub(super) fn fork_into(group: BorrowedFd<'_>) -> io::Result<Side> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("only a process of one thread is copied"));
    }
    let mut arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: group.as_raw_fd() as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM this is fork(2): the child has a copy of all memory and goes on from here. There is no
    // other thread that could hold a lock, and the arguments live as long as the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Side::Inside),
        Ok(pid) if pid > 0 => Ok(Side::Ended(end_of(pid))),
        _ => Err(io::Error::last_os_error()),
    }
}

fn end_of(pid: i32) -> u8 {
    loop {
        match waitpid(Pid::from_raw(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            // No child of ours any more: somebody else waited for it.
            Err(_) => return u8::MAX,
        }
    }
}
