//! The one module with `unsafe`: what a child does between fork and exec to become another user.
//! Only system calls are made there, nothing that allocates or takes a lock.
#![allow(unsafe_code, reason = "CommandExt::pre_exec is unsafe; only async-signal-safe calls are made in it")]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::process::{Gid, Uid};

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
