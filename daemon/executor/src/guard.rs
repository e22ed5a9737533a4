//! The guard of one segment under `onNodeLost: AfterFence`: a process beside the executor that kills everything of the
//! segment when no heartbeat was acknowledged for its fence. Knows the segment's folder and processes; no server.
//!
//! Either of the two may die alone: the executor's end without a farewell makes the guard kill what is left, and a guard
//! that ends is followed by another. Time is CLOCK_BOOTTIME: it goes on while the machine
//! sleeps. What breaks the promise is both killed at once, a guard that is stopped, and a clock that stands still while
//! others go on (a paused virtual machine).

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
        timerfd_settime,
    },
};

use crate::{
    folder::{Folder, Identity},
    leftovers,
};

/// What the guard says when it watches, and the executor when it has ended.
const READY: u8 = b'r';
const ENDED: u8 = b'e';

/// For a guard to start on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// This machine's clock since its boot, sleep included, in milliseconds.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// The executor's hold on its guard.
pub(crate) struct Guarded {
    /// To the guard of now.
    line: Arc<Mutex<UnixStream>>,
    is_over: Arc<AtomicBool>,
}

/// Starts the guard of a folder, in which this process has written its identity, and returns when it watches.
pub(crate) fn start(folder: &Path, program: &[OsString]) -> io::Result<Guarded> {
    let first = launch(folder, program)?;
    let line = Arc::new(Mutex::new(first.try_clone()?));
    let is_over = Arc::new(AtomicBool::new(false));
    let guarded = Guarded { line: Arc::clone(&line), is_over: Arc::clone(&is_over) };
    let (folder, program) = (folder.to_owned(), program.to_owned());
    thread::Builder::new()
        .name("guarded".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || keep_guarded(first, &line, &is_over, || launch(&folder, &program)))?;
    Ok(guarded)
}

/// Follows each guard that ends with another. Without one this process ends; the agent kills what it leaves.
fn keep_guarded(
    mut present: UnixStream,
    line: &Mutex<UnixStream>,
    is_over: &AtomicBool,
    launch: impl Fn() -> io::Result<UnixStream>,
) {
    loop {
        let _ = present.read(&mut [0u8; 1]);
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        match launch().and_then(|next| Ok((next.try_clone()?, next))) {
            Ok((next, to_read)) => (*line, present) = (next, to_read),
            Err(_) => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }
}

fn launch(folder: &Path, program: &[OsString]) -> io::Result<UnixStream> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let own_program = [OsString::from("/proc/self/exe"), "guard".into()];
    let words = if program.is_empty() { &own_program[..] } else { program };
    let (name, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(name)
        .arg0("lockstepd")
        .args(arguments)
        .arg(folder)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    ours.set_read_timeout(Some(START_PATIENCE))?;
    ours.read_exact(&mut [0u8])?;
    ours.set_read_timeout(None)?;
    Ok(ours)
}

impl Guarded {
    /// Everything of the segment has ended: the guard may go.
    pub(crate) fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that it has gone.
        let _ = line.write_all(&[ENDED]);
    }
}

/// The guard's process: body of `lockstepd guard FOLDER`, with its line to the executor as standard input.
pub fn guard(path: &Path) -> ExitCode {
    // Out of the session that it may have to kill.
    let watched = rustix::process::setsid().map_err(io::Error::from).and_then(|_| watch(&Folder::at(path)));
    match watched {
        Ok(()) => ExitCode::SUCCESS,
        // The executor sees our end, and ends.
        Err(_) => ExitCode::FAILURE,
    }
}

fn watch(folder: &Folder) -> io::Result<()> {
    let identity = folder.identity().ok_or(io::ErrorKind::NotFound)?;
    let fence_ms = folder.read_work()?.fence_ms;
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let mut renewed_ms = folder.renewed_ms().ok_or(io::ErrorKind::NotFound)?;
    let mut is_ready = false;
    loop {
        // Caught while it is written, the last value stands.
        renewed_ms = folder.renewed_ms().unwrap_or(renewed_ms).max(renewed_ms);
        let end_ms = renewed_ms + fence_ms;
        if boot_ms() >= end_ms {
            // Before the kill: whoever finds the executor dead also finds why.
            let marked = std::fs::write(folder.fenced(), "");
            end(folder, identity);
            return marked;
        }
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &at(end_ms))?;
        if !std::mem::replace(&mut is_ready, true) {
            // An error means that the executor is gone, which the line says below.
            let _ = line.write_all(&[READY]);
        }
        let mut waits = [PollFd::new(&line, PollFlags::IN), PollFd::new(&timer, PollFlags::IN)];
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !waits[0].revents().is_empty() {
            let mut word = [0u8];
            let is_farewell = line.read(&mut word).is_ok_and(|count| count == 1 && word == [ENDED]);
            if !is_farewell {
                end(folder, identity);
            }
            return Ok(());
        }
    }
}

/// Kills everything of the segment. With a control group this process is among it, and is killed last of all or with the
/// others; there is nothing more for it to do.
fn end(folder: &Folder, identity: Identity) {
    while !leftovers::kill(identity) {}
    if let Some(group) = folder.cgroup() {
        while !group.kill() {}
    }
}

fn at(boot_ms: u64) -> Itimerspec {
    let seconds = i64::try_from(boot_ms / 1000).unwrap_or(i64::MAX);
    let value = Timespec { tv_sec: seconds, tv_nsec: (boot_ms % 1000 * 1_000_000) as i64 };
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value }
}
