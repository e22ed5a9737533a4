//! Runs a child in a process group of its own, hands on what it prints in the order it comes, and ends it in time, with
//! all that it started if we are in a control group.
//! No thread is made: one poll waits for the pipes, the process and the switch that cancels.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Access, CWD};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::cgroup::Members;
use super::spawn::{self, Identity};
use super::{Host, User, memory};
use crate::action::{Cancel, Stream};

/// After the child's end, how long pipes are read that background processes of it still hold.
const LINGER: Duration = Duration::from_millis(200);
/// After SIGKILL, how long an end is waited for. Only a process stuck in the kernel takes longer.
const UNKILLABLE: Duration = Duration::from_secs(5);
/// What one read takes; a pipe holds twice that by default.
const CHUNK: usize = 32 << 10;

/// What to run.
pub(crate) struct Command<'a> {
    pub(crate) argv: Vec<&'a str>,
    /// All of it.
    pub(crate) environment: BTreeMap<&'a str, &'a str>,
    pub(crate) directory: &'a str,
    pub(crate) login: Option<&'a (User, Vec<u32>)>,
    pub(crate) umask: Option<u32>,
    pub(crate) stdin: Option<&'a [u8]>,
    pub(crate) file: Option<Handed<'a>>,
}

/// A file in memory that the child inherits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handed<'a> {
    pub(crate) content: &'a [u8],
    /// Its path goes before this argument.
    pub(crate) at: usize,
}

/// When to end it early.
pub(crate) struct Stop<'a> {
    pub(crate) cancel: &'a Cancel,
    pub(crate) deadline: Option<Instant>,
    pub(crate) grace: Duration,
}

/// Gets what the child prints.
pub(crate) type Reader<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) stopped: Option<Stopped>,
}

/// What the kernel says of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exit(i32),
    Signal {
        number: i32,
        core: bool,
    },
    /// SIGKILL did not end it within 5 s.
    Unresponsive,
}

/// Why we ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    TimedOut,
    Cancelled,
}

/// Why it never ran.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{program:?} holds a NUL, or the command is empty")]
    Malformed { program: String },
    #[error("no program {program} in {path}; install it, or give its full path")]
    NotInPath { program: String, path: String },
    #[error("{program} does not exist (or the interpreter its first line names)")]
    NotFound { program: String },
    #[error("{program} may not be executed by this user; look at its mode and the directories above")]
    NotExecutable { program: String },
    #[error("{program} is neither a program for this machine nor a script with #! in its first line")]
    WrongFormat { program: String },
    #[error("the working directory {directory} cannot be entered; make it first")]
    NoDirectory { directory: String },
    #[error("the arguments and environment of {program} are too long for the kernel")]
    TooLong { program: String },
    #[error("could not start {program}: {source}")]
    Failed { program: String, source: io::Error },
}

impl Fault {
    /// The class in one word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Fault::Malformed { .. } => "InvalidCommand",
            Fault::NotInPath { .. } | Fault::NotFound { .. } => "CommandNotFound",
            Fault::NotExecutable { .. } => "CommandNotExecutable",
            Fault::WrongFormat { .. } => "CommandWrongFormat",
            Fault::NoDirectory { .. } => "NoWorkingDirectory",
            Fault::TooLong { .. } => "CommandTooLong",
            Fault::Failed { .. } => "CommandNotStarted",
        }
    }
}

impl Host {
    /// Runs the command to its end. Always on this machine, whatever the root folder.
    pub(crate) fn run(&self, command: &Command<'_>, stop: &Stop<'_>, reader: Reader<'_>) -> Result<Ended, Fault> {
        let failed = |source: io::Error| Fault::Failed { program: command.argv.join(" "), source };
        let (stdout, child_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let (stderr, child_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        // What earlier commands left running is theirs.
        let before = self.members.as_ref().map(Members::now).transpose().map_err(failed)?;
        let child = start(command, child_stdout, child_stderr)?;
        let watched = Watched::new(child, stdout, stderr).map_err(failed)?;
        let ended = watched.wait(stop, reader).map_err(failed)?;
        if let (Some(members), Some(before), Some(_)) = (&self.members, &before, ended.stopped) {
            // Also what has left the group of processes, and the session.
            members.kill_since(before).map_err(failed)?;
        }
        Ok(ended)
    }
}

fn start(command: &Command<'_>, stdout: OwnedFd, stderr: OwnedFd) -> Result<Child, Fault> {
    let Some(name) = command.argv.first().filter(|name| !name.is_empty()) else {
        return Err(Fault::Malformed { program: String::new() });
    };
    let program = find(name, command.environment.get("PATH").copied().unwrap_or_default())?;
    // The standard library takes its posix_spawn path (no fork of our memory) for all of this but `prepare`.
    let mut process = std::process::Command::new(&program);
    let kept = command.file.map(|file| memory::file("script", file.content));
    let kept = kept.transpose().map_err(|source| Fault::Failed { program: program.clone(), source })?;
    let (before, after) = command.argv.split_at(command.file.map_or(1, |file| file.at));
    process.arg0(name).args(&before[1..]);
    if let Some(file) = &kept {
        process.arg(format!("/proc/self/fd/{}", file.as_raw_fd()));
    }
    process.args(after).env_clear().envs(&command.environment);
    process.current_dir(command.directory).process_group(0).stdout(stdout).stderr(stderr);
    process.stdin(match command.stdin {
        None => Stdio::null(),
        Some(text) => memory::file("stdin", text)
            .map(Stdio::from)
            .map_err(|source| Fault::Failed { program: program.clone(), source })?,
    });
    if command.login.is_some() || command.umask.is_some() || kept.is_some() {
        let identity =
            command.login.map(|(user, groups)| Identity { uid: user.uid, gid: user.gid, groups: groups.clone() });
        spawn::prepare(&mut process, identity, command.umask, kept);
    }
    process.spawn().map_err(|error| name_fault(error, program, command.directory))
}

/// The program's path, looked for as a shell would.
fn find(name: &str, path: &str) -> Result<String, Fault> {
    if name.contains('\0') {
        return Err(Fault::Malformed { program: name.to_owned() });
    }
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let mut found_other = None;
    for dir in path.split(':').filter(|dir| dir.starts_with('/')) {
        let candidate = format!("{dir}/{name}");
        let is_file = || std::fs::metadata(&candidate).is_ok_and(|found| found.is_file());
        match rustix::fs::accessat(CWD, &candidate, Access::EXEC_OK, rustix::fs::AtFlags::empty()) {
            Ok(()) if is_file() => return Ok(candidate),
            Err(Errno::ACCESS) if is_file() => found_other = Some(candidate),
            _ => {}
        }
    }
    match found_other {
        Some(program) => Err(Fault::NotExecutable { program }),
        None => Err(Fault::NotInPath { program: name.to_owned(), path: path.to_owned() }),
    }
}

fn name_fault(error: io::Error, program: String, directory: &str) -> Fault {
    if error.kind() == io::ErrorKind::InvalidInput {
        return Fault::Malformed { program };
    }
    if !std::path::Path::new(directory).is_dir() {
        return Fault::NoDirectory { directory: directory.to_owned() };
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Fault::NotFound { program },
        Some(Errno::ACCESS | Errno::PERM) => Fault::NotExecutable { program },
        Some(Errno::NOEXEC) => Fault::WrongFormat { program },
        Some(Errno::TOOBIG) => Fault::TooLong { program },
        _ => Fault::Failed { program, source: error },
    }
}

/// A child that runs, and what it prints.
struct Watched {
    child: Child,
    group: Pid,
    process: OwnedFd,
    outputs: [Option<OwnedFd>; 2],
    /// When it was seen to have ended. It is reaped only after the group got its last signal: until then the group's
    /// number is no one else's.
    ended: Option<Instant>,
    stopping: Option<Stopping>,
}

#[derive(Clone, Copy)]
struct Stopping {
    why: Stopped,
    kill_at: Instant,
    killed: bool,
}

impl Watched {
    fn new(mut child: Child, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Watched> {
        let group = Pid::from_child(&child);
        match rustix::process::pidfd_open(group, PidfdFlags::empty()) {
            Ok(process) => {
                let outputs = [Some(stdout), Some(stderr)];
                Ok(Watched { child, group, process, outputs, ended: None, stopping: None })
            }
            Err(errno) => {
                child.kill()?;
                child.wait()?;
                Err(errno.into())
            }
        }
    }

    fn wait(mut self, stop: &Stop<'_>, reader: Reader<'_>) -> io::Result<Ended> {
        let mut buffer = [0; CHUNK];
        loop {
            self.turn(stop, reader, &mut buffer)?;
            let now = Instant::now();
            if self.is_over(now) {
                break;
            }
            self.stop_if_asked(stop, now);
            if let Some(stopping) = &mut self.stopping
                && !stopping.killed
                && now >= stopping.kill_at
            {
                stopping.killed = true;
                signal(self.group, Signal::KILL);
            }
            if self.is_unresponsive(now) {
                let stopped = self.stopping.map(|stopping| stopping.why);
                return Ok(Ended { ending: Ending::Unresponsive, stopped });
            }
        }
        self.reap()
    }

    fn reap(mut self) -> io::Result<Ended> {
        if self.stopping.is_some() {
            signal(self.group, Signal::KILL);
        }
        let status = self.child.wait()?;
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exit(code),
            (None, number) => Ending::Signal { number: number.unwrap_or(0), core: status.core_dumped() },
        };
        Ok(Ended { ending, stopped: self.stopping.map(|stopping| stopping.why) })
    }

    /// The child has ended, and its outputs too, or nobody waits for them longer.
    fn is_over(&self, now: Instant) -> bool {
        let Some(ended) = self.ended else { return false };
        let until = match self.stopping {
            Some(stopping) => stopping.kill_at,
            None => ended + LINGER,
        };
        self.outputs.iter().all(Option::is_none) || now >= until
    }

    fn is_unresponsive(&self, now: Instant) -> bool {
        self.ended.is_none() && self.stopping.is_some_and(|stopping| now >= stopping.kill_at + UNKILLABLE)
    }

    fn stop_if_asked(&mut self, stop: &Stop<'_>, now: Instant) {
        if self.stopping.is_some() || self.ended.is_some() {
            return;
        }
        let why = if stop.cancel.is_thrown() {
            Stopped::Cancelled
        } else if stop.deadline.is_some_and(|deadline| now >= deadline) {
            Stopped::TimedOut
        } else {
            return;
        };
        signal(self.group, Signal::TERM);
        // A stopped process hears SIGTERM only when it goes on.
        signal(self.group, Signal::CONT);
        self.stopping = Some(Stopping { why, kill_at: now + stop.grace, killed: false });
    }

    /// Waits for the next thing to happen and takes in what it is.
    fn turn(&mut self, stop: &Stop<'_>, reader: Reader<'_>, buffer: &mut [u8]) -> io::Result<()> {
        let ready = {
            let events = |wanted: bool| if wanted { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = Vec::with_capacity(4);
            fds.push(PollFd::from_borrowed_fd(self.process.as_fd(), events(self.ended.is_none())));
            fds.push(PollFd::from_borrowed_fd(stop.cancel.fd(), events(self.stopping.is_none())));
            fds.extend(self.outputs.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let timeout = self.next_wake(stop).map(|at| timespec(at.saturating_duration_since(Instant::now())));
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Err(Errno::INTR) | Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut found = fds.iter().map(PollFd::revents);
            let process = found.next().unwrap_or(PollFlags::empty());
            let mut outputs = [PollFlags::empty(); 2];
            let mut found = found.skip(1);
            for (output, ready) in self.outputs.iter().zip(&mut outputs) {
                if output.is_some() {
                    *ready = found.next().unwrap_or(PollFlags::empty());
                }
            }
            (process, outputs)
        };
        let (process, outputs) = ready;
        for (nth, ready) in outputs.into_iter().enumerate() {
            self.take(nth, ready, reader, buffer)?;
        }
        if self.ended.is_none() && process.contains(PollFlags::IN) {
            self.ended = Some(Instant::now());
        }
        Ok(())
    }

    fn take(&mut self, nth: usize, ready: PollFlags, reader: Reader<'_>, buffer: &mut [u8]) -> io::Result<()> {
        let Some(output) = &self.outputs[nth] else { return Ok(()) };
        if ready.contains(PollFlags::IN) {
            match rustix::io::read(output, &mut *buffer) {
                Ok(0) => self.outputs[nth] = None,
                Ok(length) => reader([Stream::Stdout, Stream::Stderr][nth], &buffer[..length]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        } else if ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            self.outputs[nth] = None;
        }
        Ok(())
    }

    fn next_wake(&self, stop: &Stop<'_>) -> Option<Instant> {
        match (self.stopping, self.ended) {
            (Some(stopping), None) if stopping.killed => Some(stopping.kill_at + UNKILLABLE),
            (Some(stopping), _) => Some(stopping.kill_at),
            (None, Some(ended)) => Some(ended + LINGER),
            (None, None) => stop.deadline,
        }
    }
}

/// Signals the group; one that has no process left is as wanted.
fn signal(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Waits until the switch is thrown or the time is over. Whether it was thrown.
pub fn rest(cancel: &Cancel, duration: Duration) -> bool {
    let until = Instant::now() + duration;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if cancel.is_thrown() || left.is_zero() {
            return cancel.is_thrown();
        }
        let fd = cancel.fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        // An error can only be EINTR; the loop looks at the clock again.
        let _ = rustix::event::poll(&mut fds, Some(&timespec(left)));
    }
}
