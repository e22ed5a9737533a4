//! What reaches the disk when, seen by strace: one sync for a segment's claim before anything runs, one for its end
//! behind all files that it made, and none for its tasks.

use anyhow::{Context, Result, ensure};
use lockstep_tests::daemon::Daemon;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);

const BOOK: &str = r#"
metadata: {apiVersion: v1alpha, kind: TaskBook, name: syncs, namespace: default}
spec:
  targets: {all: true}
  tasks:
    - {name: a, file.managed: {path: /a, content: "a"}}
    - {name: one, command.run: {argv: [/bin/true, one]}}
    - {name: two, command.run: {argv: [/bin/true, two]}}
    - {name: b, file.managed: {path: /b, content: "b"}}
"#;

#[test]
fn a_segment_is_synced_at_its_claim_and_before_its_report() -> Result<()> {
    let daemon = Daemon::init("d1", &[])?;
    daemon.wait_until_it_answers()?;
    let folder = daemon.folder().to_owned();
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(&folder).output()?.stdout;
    ensure!(kind != b"tmpfs\n", "{} is in memory and needs no sync: set TMPDIR to a disk", folder.display());
    fs::write(folder.join("book.yaml"), BOOK)?;
    daemon.ctl(&["apply", "-f", &folder.join("book.yaml").display().to_string()])?;
    let traced = Traced::attach(daemon.pid(), &folder.join("trace"))?;
    daemon.ctl(&["run", "syncs", "--name", "once", "--wait"])?;
    let seen = traced.until("once is through", |calls| calls.iter().filter(|call| **call == "journal").count() >= 2)?;
    ensure!(seen == ["journal", "/bin/true", "/bin/true", "a", "b", "folder", "journal"], "{seen:?}");
    Ok(())
}

/// A strace of a daemon and all that it starts. It ends with its value.
struct Traced {
    strace: Child,
    file: std::path::PathBuf,
}

impl Traced {
    fn attach(pid: u32, file: &Path) -> Result<Traced> {
        let strace = Command::new("strace")
            .args(["-f", "-y", "-q", "-e", "trace=fsync,fdatasync,syncfs,execve", "-p", &pid.to_string(), "-o"])
            .arg(file)
            .stderr(Stdio::null())
            .spawn()
            .context("strace, which tests/components.sh installs")?;
        let traced = Traced { strace, file: file.to_owned() };
        let began = Instant::now();
        while !every_thread_is_traced(pid)? {
            ensure!(began.elapsed() < LIMIT, "strace does not attach: is ptrace allowed here?");
            std::thread::yield_now();
        }
        Ok(traced)
    }

    /// The calls of interest so far, by what they are for, once they are as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&[&'static str]) -> bool) -> Result<Vec<&'static str>> {
        let began = Instant::now();
        loop {
            let calls: Vec<_> = fs::read_to_string(&self.file)?.lines().filter_map(kind).collect();
            if wanted(&calls) {
                return Ok(calls);
            }
            ensure!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}: {calls:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn every_thread_is_traced(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        if status.contains("TracerPid:\t0\n") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a line of the trace is for. What a call that took long ended with is a line of its own, and none here.
fn kind(line: &str) -> Option<&'static str> {
    let synced = |path: &str| line.contains("sync(") && line.contains(&format!("{path}>"));
    let kinds = [("/journal", "journal"), ("/root/a", "a"), ("/root/b", "b"), ("/root", "folder")];
    let found = kinds.into_iter().find(|(path, _)| synced(path)).map(|(_, kind)| kind);
    found.or_else(|| line.contains("execve(\"/bin/true\"").then_some("/bin/true"))
}
