//! Executors in control groups: nothing that a task started outlives its early end, wherever it went. Needs root, and a
//! cgroup version 2 that it may write.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lockstep_apis::v1alpha::{CompiledTask, Outcome, Report, Value, Work};
use lockstep_executor::segment::{self, Status};
use lockstep_modules::Cgroup;
use lockstep_tests::hosts::programs;

const PATIENCE: Duration = Duration::from_secs(20);

/// One segment, and where its tasks note their processes.
struct Bench {
    parent: tempfile::TempDir,
    boot: String,
    cgroup: Cgroup,
}

impl Drop for Bench {
    fn drop(&mut self) {
        assert!(self.cgroup.kill(), "something hangs in {:?}", self.cgroup);
        self.cgroup.remove();
    }
}

impl Bench {
    fn new() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
        let parent = tempfile::tempdir().unwrap();
        let name = parent.path().file_name().unwrap().to_str().unwrap().to_owned();
        Self { parent, boot, cgroup: Cgroup::of_segments().unwrap().child(&name) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn create(&self, work: &Work) -> PathBuf {
        let path = self.path("segment");
        segment::create(&path, work, &self.boot).unwrap();
        path
    }

    fn start(&self, folder: &Path) -> Child {
        Command::new(programs().unwrap().join("lockstepd"))
            .arg("execute")
            .arg(folder)
            .arg("--cgroup")
            .arg(self.cgroup.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn report(&self, path: &Path) -> Report {
        until("the report", || match segment::status(path, &self.boot).unwrap() {
            Status::Ended(report) => Some(report),
            Status::Working => None,
            Status::NotStarted => panic!("not started"),
        })
    }

    /// A task that leaves a process behind in a session of its own, whose parent is gone; its number goes to a file.
    fn leaves(&self, name: &str, then: &str) -> CompiledTask {
        let file = self.path(name);
        let file = file.display();
        let line = format!(
            "(setsid sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000' >/dev/null 2>&1 &) ; while ! [ -e {file} ]; do sleep 0.01; done; {then}"
        );
        CompiledTask {
            id: name.into(),
            name: name.into(),
            action: "command.run".into(),
            parameters: Some(Value::map([("shell", Value::text(line))])),
            timeout_ms: 60_000,
            ..Default::default()
        }
    }

    fn left(&self, name: &str) -> String {
        until(name, || fs::read_to_string(self.path(name)).ok())
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn work(tasks: impl IntoIterator<Item = CompiledTask>) -> Work {
    let tasks = tasks.into_iter().enumerate().map(|(index, task)| CompiledTask { index: index as u32, ..task });
    Work { run_uid: "run".into(), attempt: 1, tasks: tasks.collect(), grace_ms: 100, ..Default::default() }
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn what_a_task_left_behind_well_lives_on_and_keeps_its_group() {
    let bench = Bench::new();
    let path = bench.create(&work([bench.leaves("kept", "true")]));
    assert!(bench.start(&path).wait().unwrap().success());
    assert_eq!(bench.report(&path).tasks[0].outcome(), Outcome::Changed);
    let kept = bench.left("kept");
    assert!(is_running(&kept));
    segment::remove(&path).unwrap();
    assert!(is_running(&kept) && bench.cgroup.folder().exists(), "it is still known whose it is");
}

#[test]
fn a_task_that_times_out_leaves_nothing_and_takes_nothing_of_earlier_ones() {
    let bench = Bench::new();
    let slow = CompiledTask { timeout_ms: 300, ..bench.leaves("fled", "sleep 1000") };
    let path = bench.create(&work([bench.leaves("kept", "true"), slow]));
    assert!(bench.start(&path).wait().unwrap().success());
    let outcomes: Vec<Outcome> = bench.report(&path).tasks.iter().map(|task| task.outcome()).collect();
    assert_eq!(outcomes, [Outcome::Changed, Outcome::Failed]);
    assert!(!is_running(&bench.left("fled")));
    assert!(is_running(&bench.left("kept")));
}

#[test]
fn a_task_that_is_cancelled_leaves_nothing() {
    let bench = Bench::new();
    let path = bench.create(&work([bench.leaves("fled", "sleep 1000")]));
    let mut executor = bench.start(&path);
    let fled = bench.left("fled");
    segment::cancel(&path).unwrap();
    assert!(executor.wait().unwrap().success());
    assert_eq!(bench.report(&path).tasks[0].outcome(), Outcome::Cancelled);
    assert!(!is_running(&fled));
}

#[test]
fn what_a_dead_executor_left_is_killed_before_anything_is_said() {
    let bench = Bench::new();
    let path = bench.create(&work([bench.leaves("fled", "sleep 1000")]));
    let mut executor = bench.start(&path);
    let fled = bench.left("fled");
    let pid = segment::executor(&path).unwrap();
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    assert_eq!(executor.wait().unwrap().code(), Some(128 + 9), "who waits for it says how it ended");
    assert_eq!(bench.report(&path).tasks[0].outcome(), Outcome::Interrupted);
    assert!(!is_running(&fled));
}

#[test]
fn a_fence_leaves_nothing() {
    let bench = Bench::new();
    let path = bench.create(&Work { fence_ms: 3000, ..work([bench.leaves("fled", "sleep 1000")]) });
    segment::renew(&path, lockstep_executor::guard::boot_ms()).unwrap();
    let mut executor = bench.start(&path);
    let fled = bench.left("fled");
    executor.wait().unwrap();
    let report = bench.report(&path);
    assert!(report.tasks[0].message.contains("fence"), "{report:?}");
    assert!(!is_running(&fled));
}
