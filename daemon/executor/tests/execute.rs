//! Executors as processes: what they do, what is left when they are killed, and what is promised then.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "execute/raising.rs"]
mod raising;
#[path = "execute/rebooting.rs"]
mod rebooting;

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lockstep_apis::v1alpha::{CompiledTask, Outcome, Report, Value, Work};
use lockstep_executor::segment::{self, Options, Status};

const FOLDER: &str = "LOCKSTEP_TEST_FOLDER";
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a claim: the body of every executor that the tests below start.
#[test]
fn executor_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let guard = [std::env::current_exe().unwrap().into(), "guard_process".into(), "--exact".into()];
        let exit = segment::execute(Path::new(&folder), &Options { guard: guard.into(), ..Options::default() });
        std::process::exit(exit as i32);
    }
}

/// Not a claim: the body of every guard that those executors start.
#[test]
fn guard_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let code = lockstep_executor::guard::guard(Path::new(&folder));
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

struct Bench {
    parent: tempfile::TempDir,
    boot: String,
}

impl Bench {
    fn new() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
        Self { parent: tempfile::tempdir().unwrap(), boot }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn create(&self, name: &str, work: &Work) -> PathBuf {
        let path = self.path(name);
        segment::create(&path, work, &self.boot).unwrap();
        path
    }

    fn report(&self, path: &Path) -> Report {
        match segment::status(path, &self.boot).unwrap() {
            Status::Ended(report) => report,
            other => panic!("not ended: {other:?}"),
        }
    }

    fn run(&self, name: &str, work: &Work) -> (PathBuf, Report) {
        let path = self.create(name, work);
        let status = start(&path).wait().unwrap();
        assert!(status.success(), "{status}");
        let report = self.report(&path);
        (path, report)
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["executor_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
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
    Work { run_uid: "run".into(), attempt: 1, tasks: tasks.collect(), grace_ms: 5000, ..Default::default() }
}

fn shell(id: &str, line: impl Into<String>) -> CompiledTask {
    CompiledTask {
        id: id.into(),
        name: id.into(),
        action: "command.run".into(),
        parameters: Some(Value::map([("shell", Value::text(line))])),
        timeout_ms: 60_000,
        keep_result: true,
        ..Default::default()
    }
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.tasks.iter().map(|task| task.outcome()).collect()
}

fn printed(path: &Path) -> String {
    let (chunks, _) = segment::read_output(path, 0).unwrap();
    chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned()).collect()
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn tasks_run_in_order_and_read_each_others_results() {
    let bench = Bench::new();
    let file = bench.path("made");
    let managed = CompiledTask {
        id: "file".into(),
        action: "file.managed".into(),
        parameters: Some(Value::map([
            ("path", Value::text(file.to_str().unwrap())),
            ("template", Value::text("{{results.say.stdout}} on {{node.name}}, {{vars.port}}\n")),
            ("mode", Value::text("0640")),
        ])),
        ..Default::default()
    };
    let never = CompiledTask { when: "results.say.stdout == \"bye\"".into(), ..shell("never", "exit 1") };
    let query = CompiledTask {
        action: "command.query".into(),
        changed: "result.stdout == \"x\"".into(),
        ..shell("q", "echo x")
    };
    let mut work = work([shell("say", "echo hello"), managed, never, query]);
    work.node_name = "n1".into();
    work.variables.insert("port".into(), Value::from(8080));
    let (path, report) = bench.run("a", &work);
    use Outcome::{Changed, Skipped};
    assert_eq!(outcomes(&report), [Changed, Changed, Skipped, Changed], "{report:?}");
    assert_eq!(fs::read_to_string(file).unwrap(), "hello on n1, 8080\n");
    assert_eq!(report.tasks[0].result.as_ref().unwrap().get("stdout"), Some(&Value::text("hello")));
    assert_eq!(report.tasks[1].result, None);
    assert_eq!(printed(&path), "hello\nx\n");
}

#[test]
fn nothing_is_started_after_a_failure() {
    let bench = Bench::new();
    let mark = bench.path("mark");
    let work = work([shell("bad", "exit 3"), shell("next", format!("touch {}", mark.display()))]);
    let (_, report) = bench.run("a", &work);
    assert_eq!(outcomes(&report), [Outcome::Failed]);
    assert!(report.tasks[0].message.contains('3'), "{}", report.tasks[0].message);
    assert!(!mark.exists());
}

#[test]
fn success_and_changed_judge_in_place_of_the_action() {
    let bench = Bench::new();
    let accepted =
        CompiledTask { success: "result.exitCode in [0, 3]".into(), changed: "false".into(), ..shell("a", "exit 3") };
    let refused = CompiledTask { success: "result.stdout != \"\"".into(), ..shell("b", "true") };
    let (_, report) = bench.run("a", &work([accepted, refused]));
    assert_eq!(outcomes(&report), [Outcome::Ok, Outcome::Failed]);
    assert!(report.tasks[1].message.contains("success"), "{}", report.tasks[1].message);
}

#[test]
fn executor_killed_in_mid_task_is_interrupted_and_leaves_no_process() {
    let bench = Bench::new();
    let pid_file = bench.path("pid");
    let line = format!("sh -c 'echo $$ > {}; exec sleep 300'", pid_file.display());
    let path = bench.create("a", &work([shell("one", "true"), shell("long", line), shell("last", "true")]));
    let mut executor = start(&path);
    let sleeping = until("the task", || fs::read_to_string(&pid_file).ok().filter(|pid| pid.ends_with('\n')));
    assert_eq!(segment::status(&path, &bench.boot).unwrap(), Status::Working);
    executor.kill().unwrap();
    assert_eq!(executor.wait().unwrap().signal(), Some(9));
    assert!(is_running(&sleeping), "the task's own process outlives its executor until the status is asked for");

    let report = bench.report(&path);
    assert_eq!(outcomes(&report), [Outcome::Changed, Outcome::Interrupted]);
    assert!(!is_running(&sleeping));
    // And nobody begins it again.
    assert_eq!(start(&path).wait().unwrap().code(), Some(segment::Exit::BegunBefore as i32));
    assert_eq!(outcomes(&bench.report(&path)), [Outcome::Changed, Outcome::Interrupted]);
}

#[test]
fn next_attempt_goes_on_at_the_first_task_without_a_result() {
    let bench = Bench::new();
    let log = bench.path("log");
    let note = |word: &str| format!("echo {word} >> {}; echo {word}", log.display());
    let tasks = || {
        [
            shell("one", note("one")),
            shell("two", format!("{}; kill -9 $PPID", note("two"))),
            shell("three", note("three")),
        ]
    };
    let path = bench.create("1", &work(tasks()));
    assert_eq!(start(&path).wait().unwrap().signal(), Some(9));
    let first = bench.report(&path);
    assert_eq!(outcomes(&first), [Outcome::Changed, Outcome::Interrupted]);

    let mut again = work(tasks());
    again.attempt = 2;
    again.known = vec![first.tasks[0].clone()];
    again.tasks[1] = CompiledTask { index: 1, ..shell("two", "echo ${{ results.one.stdout }}-again") };
    let (path, second) = bench.run("2", &again);
    assert_eq!(second.tasks.iter().map(|task| task.task).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(fs::read_to_string(log).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(printed(&path), "one-again\nthree\n");
}

#[test]
fn second_executor_finds_the_folder_busy() {
    let bench = Bench::new();
    let fifo = bench.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let path = bench.create("a", &work([shell("wait", format!("read x < {}", fifo.display()))]));
    let mut executor = start(&path);
    until("the executor", || (segment::status(&path, &bench.boot).unwrap() == Status::Working).then_some(()));
    assert_eq!(start(&path).wait().unwrap().code(), Some(segment::Exit::Busy as i32));
    fs::write(&fifo, "go\n").unwrap();
    assert!(executor.wait().unwrap().success());
    assert_eq!(outcomes(&bench.report(&path)), [Outcome::Changed]);
}

fn cancelled_by(bench: &Bench, ask: impl FnOnce(&Path, &Child), line: &str, grace_ms: u64) -> (Report, Duration) {
    let ready = bench.path("ready");
    let line = format!("{line} echo > {}; while :; do sleep 0.05; done", ready.display());
    let mut work = work([shell("long", line), shell("last", "true")]);
    work.grace_ms = grace_ms;
    let path = bench.create("a", &work);
    let mut executor = start(&path);
    until("the task", || ready.exists().then_some(()));
    let asked = Instant::now();
    ask(&path, &executor);
    assert!(executor.wait().unwrap().success());
    (bench.report(&path), asked.elapsed())
}

#[test]
fn cancel_mark_ends_the_running_task() {
    let bench = Bench::new();
    let (report, took) = cancelled_by(&bench, |path, _| segment::cancel(path).unwrap(), "", 60_000);
    assert_eq!(outcomes(&report), [Outcome::Cancelled]);
    assert!(took < PATIENCE, "{took:?}");
}

#[test]
fn sigterm_ends_the_running_task() {
    let bench = Bench::new();
    let (report, took) = cancelled_by(&bench, |_, executor| kill("-TERM", executor.id()), "", 60_000);
    assert_eq!(outcomes(&report), [Outcome::Cancelled]);
    assert!(took < PATIENCE, "{took:?}");
}

#[test]
fn task_that_ignores_sigterm_is_killed_after_its_grace() {
    let bench = Bench::new();
    let (report, took) = cancelled_by(&bench, |path, _| segment::cancel(path).unwrap(), "trap '' TERM;", 300);
    assert_eq!(outcomes(&report), [Outcome::Cancelled]);
    assert!(took >= Duration::from_millis(300), "{took:?}");
}

#[test]
fn segment_cancelled_before_its_start_begins_nothing() {
    let bench = Bench::new();
    let mark = bench.path("mark");
    let path = bench.create("a", &work([shell("one", format!("touch {}", mark.display()))]));
    segment::cancel(&path).unwrap();
    assert!(start(&path).wait().unwrap().success());
    assert_eq!(outcomes(&bench.report(&path)), [Outcome::Cancelled]);
    assert!(!mark.exists());
}

#[test]
fn secrets_are_masked_in_output_messages_and_results() {
    let bench = Bench::new();
    let shared = Value::map([("stdout", Value::text("swordfish-1"))]);
    let leak = "echo \"it is ${{ shared.token.stdout }}\"; printf ${{ shared.token.stdout }} | base64; echo ${{ shared.token.stdout }} >&2; exit 7";
    let mut work = work([
        CompiledTask { success: "true".into(), ..shell("leak", leak) },
        shell("fail", "echo ${{ shared.token.stdout }} >&2; exit 7"),
    ]);
    work.shared.insert("token".into(), shared);
    work.secret_shared.push("token".into());
    let (path, report) = bench.run("a", &work);
    assert_eq!(outcomes(&report), [Outcome::Changed, Outcome::Failed], "{report:?}");
    assert!(printed(&path).contains("it is ***\n"), "{}", printed(&path));
    for name in ["output", "journal"] {
        let bytes = String::from_utf8_lossy(&fs::read(path.join(name)).unwrap()).into_owned();
        assert!(!bytes.contains("swordfish"), "{name}");
        assert!(!bytes.contains("c3dvcmRmaXNo"), "{name}");
    }
}

#[test]
fn what_a_task_registers_as_secret_is_masked_from_then_on() {
    let bench = Bench::new();
    let make = CompiledTask { secret: true, ..shell("make", "echo tok-4711-xyz") };
    let (path, report) = bench.run("a", &work([make, shell("leak", "echo ${{ results.make.stdout }} is it")]));
    assert_eq!(report.tasks[0].result.as_ref().unwrap().get("stdout"), Some(&Value::text("tok-4711-xyz")));
    assert_eq!(report.tasks[1].result.as_ref().unwrap().get("stdout"), Some(&Value::text("*** is it")));
    assert_eq!(printed(&path), "*** is it\n");
}

#[test]
fn sensitive_task_keeps_no_output_message_or_result() {
    let bench = Bench::new();
    let task = CompiledTask { sensitive: true, ..shell("quiet", "echo canary-out; echo canary-err >&2; exit 1") };
    let (path, report) = bench.run("a", &work([task]));
    assert_eq!(outcomes(&report), [Outcome::Failed]);
    assert!(!format!("{report:?}").contains("canary"), "{report:?}");
    assert_eq!(printed(&path), "");
}

#[test]
fn output_over_the_limit_keeps_head_and_tail() {
    let bench = Bench::new();
    let mut work = work([shell("loud", "seq 1 100000")]);
    work.output_limit_bytes = 1000;
    let (path, _) = bench.run("a", &work);
    let (chunks, _) = segment::read_output(&path, 0).unwrap();
    let kept: usize = chunks.iter().map(|chunk| chunk.data.len()).sum();
    let dropped: u64 = chunks.iter().map(|chunk| chunk.dropped).sum();
    assert_eq!((kept, dropped), (1000, 588_895 - 1000));
    assert!(printed(&path).starts_with("1\n2\n") && printed(&path).ends_with("99999\n100000\n"));
}

#[test]
fn result_that_is_too_long_is_dropped_and_told() {
    let bench = Bench::new();
    let line = "head -c 40000 /dev/zero | tr '\\0' x";
    let (_, report) = bench.run("a", &work([shell("long", line)]));
    assert_eq!(outcomes(&report), [Outcome::Changed]);
    assert_eq!(report.tasks[0].result, None);
    assert!(report.tasks[0].message.contains("too long"), "{}", report.tasks[0].message);
}

#[test]
fn expression_that_cannot_be_evaluated_fails_its_task_before_it_begins() {
    let bench = Bench::new();
    let task = CompiledTask { when: "vars.nothing > 1".into(), ..shell("one", "true") };
    let (_, report) = bench.run("a", &work([task]));
    assert_eq!(outcomes(&report), [Outcome::Failed]);
    assert!(report.tasks[0].message.contains("nothing"), "{}", report.tasks[0].message);
}

#[test]
fn failure_noted_by_an_executor_that_died_still_ends_the_segment() {
    let bench = Bench::new();
    let mark = bench.path("mark");
    let wrong = CompiledTask { when: "vars.nothing > 1".into(), ..shell("wrong", "true") };
    let path = bench.create("a", &work([wrong, shell("next", format!("touch {}", mark.display()))]));
    assert!(start(&path).wait().unwrap().success());
    // Cut the end off: as if it had died before its report.
    let journal = path.join("journal");
    let (records, ..) = lockstep_executor::journal::read(&journal).unwrap();
    let end = 8 + prost::Message::encoded_len(records.last().unwrap()) as u64;
    let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    file.set_len(file.metadata().unwrap().len() - end).unwrap();
    assert_eq!(segment::status(&path, &bench.boot).unwrap(), Status::NotStarted);
    assert!(start(&path).wait().unwrap().success());
    assert_eq!(outcomes(&bench.report(&path)), [Outcome::Failed]);
    assert!(!mark.exists());
}

#[test]
fn secret_too_short_to_be_masked_is_told() {
    let bench = Bench::new();
    let make = CompiledTask { secret: true, ..shell("make", "echo abc") };
    let (_, report) = bench.run("a", &work([make]));
    assert!(report.tasks[0].message.contains("too short"), "{}", report.tasks[0].message);
}

#[test]
fn journal_on_a_full_disk_starts_no_task() {
    let bench = Bench::new();
    let mark = bench.path("mark");
    let path = bench.create("a", &work([shell("one", format!("touch {}", mark.display()))]));
    let journal = path.join("journal");
    // A limit on the size of files stands for the disk: what is there fits, the intent does not.
    let blocks = fs::metadata(&journal).unwrap().len();
    let line = format!("trap '' XFSZ; exec prlimit --fsize={blocks} \"$@\"");
    let status = Command::new("sh")
        .args(["-c", &line, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["executor_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(segment::Exit::JournalFailed as i32));
    assert!(!mark.exists());
    assert!(bench.report(&path).error.contains("journal"), "{:?}", bench.report(&path));
}

/// A command that notes its process and its fence token and goes on, under a fence of so many milliseconds.
fn fenced(bench: &Bench, fence_ms: u64) -> (PathBuf, Child, String) {
    let noted = bench.path("noted");
    let line = format!("echo $$ $LOCKSTEP_FENCE_TOKEN > {}; exec sleep 300", noted.display());
    let work = Work { fence_ms, fence_token: 4711, ..work([shell("long", line), shell("last", "true")]) };
    let path = bench.create("a", &work);
    segment::renew(&path, lockstep_executor::guard::boot_ms()).unwrap();
    let executor = start(&path);
    let noted = until("the task", || fs::read_to_string(&noted).ok().filter(|noted| noted.ends_with('\n')));
    let (pid, token) = noted.trim().split_once(' ').unwrap();
    assert_eq!(token, "4711");
    (path, executor, pid.to_owned())
}

/// The guards that watch the folder.
fn guards(path: &Path) -> Vec<u32> {
    let of = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).ok();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let text = path.to_str().unwrap().as_bytes();
    all.filter(|pid| of(*pid).is_some_and(|line| line.split(|byte| *byte == 0).any(|word| word == text))).collect()
}

#[test]
fn work_that_is_not_kept_alive_is_killed_and_says_why() {
    let bench = Bench::new();
    let (path, mut executor, pid) = fenced(&bench, 3000);
    let began = lockstep_executor::guard::boot_ms();
    segment::renew(&path, began).unwrap();
    assert_eq!(executor.wait().unwrap().signal(), Some(9));
    assert!(lockstep_executor::guard::boot_ms() >= began + 3000, "before its time");
    let report = bench.report(&path);
    assert_eq!(outcomes(&report), [Outcome::Interrupted]);
    assert!(report.tasks[0].message.contains("fence"), "{}", report.tasks[0].message);
    assert!(!is_running(&pid));
    until("the guard's end", || guards(&path).is_empty().then_some(()));
}

#[test]
fn guard_kills_what_a_killed_executor_leaves() {
    let bench = Bench::new();
    let (path, mut executor, pid) = fenced(&bench, 60_000);
    executor.kill().unwrap();
    executor.wait().unwrap();
    // Without anybody who asks for the status.
    until("the task's end", || (!is_running(&pid)).then_some(()));
    until("the guard's end", || guards(&path).is_empty().then_some(()));
}

#[test]
fn guard_that_is_killed_is_followed_by_another() {
    let bench = Bench::new();
    let (path, mut executor, pid) = fenced(&bench, 60_000);
    let first = guards(&path);
    assert_eq!(first.len(), 1);
    kill("-KILL", first[0]);
    let next = until("another guard", || guards(&path).into_iter().find(|guard| !first.contains(guard)));
    assert!(is_running(&pid));
    executor.kill().unwrap();
    executor.wait().unwrap();
    until("the task's end", || (!is_running(&pid)).then_some(()));
    until("the guard's end", || (!guards(&path).contains(&next)).then_some(()));
}

#[test]
fn fence_that_passed_before_the_start_lets_nothing_begin() {
    let bench = Bench::new();
    let mark = bench.path("mark");
    let work = Work { fence_ms: 1000, ..work([shell("one", format!("touch {}", mark.display()))]) };
    let path = bench.create("a", &work);
    segment::renew(&path, lockstep_executor::guard::boot_ms() - 1000).unwrap();
    let _ = start(&path).wait().unwrap();
    assert_eq!(outcomes(&bench.report(&path)), []);
    assert!(!mark.exists());
}
