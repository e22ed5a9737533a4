//! `command.run`, `command.query`, `time.sleep`, `assert.that`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Outcome, Stream, VALIDATED_FILE};

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, list, text};

fn integer(done: &lockstep_modules::Done, key: &str) -> Option<i64> {
    done.result.get(key).and_then(Value::as_integer)
}

#[test]
fn a_command_that_succeeds_changed_something_and_a_query_never_does() {
    let mut stage = Stage::new();
    let done = stage.run(&["echo", "a  b", "$HOME"]);
    assert_changed(&done);
    assert_eq!((text(&done, "stdout"), integer(&done, "exitCode")), ("a  b $HOME", Some(0)));
    let done = stage.perform("command.query", [("shell", "echo $HOME >&2".into())]);
    assert_ok(&done);
    assert_eq!((text(&done, "stderr"), done.result.get("changed")), ("/root", Some(&false.into())));
}

#[test]
fn an_exit_code_and_a_signal_are_told_apart() {
    let mut stage = Stage::new();
    let done = stage.shell("echo it broke >&2; exit 255");
    assert_failed(&done, "ExitCode");
    assert_eq!((integer(&done, "exitCode"), done.message.as_str()), (Some(255), "exit 255: it broke"));
    let done = stage.shell("kill -9 $$");
    assert_failed(&done, "Signal");
    assert_eq!((integer(&done, "exitCode"), integer(&done, "signal")), (None, Some(9)));
    assert_eq!(done.message, "signal 9 (SIGKILL)");
    assert_eq!(integer(&stage.shell("exit 137"), "exitCode"), Some(137));
    let codes = Value::list([0, 3].map(Value::from));
    assert_changed(&stage.perform("command.run", [("shell", "exit 3".into()), ("exitCodes", codes)]));
    assert_changed(&stage.perform("command.run", [("shell", "exit 3".into()), ("exitCodes", 3.into())]));
}

#[test]
fn a_command_that_cannot_start_says_why() {
    let mut stage = Stage::new();
    assert_failed(&stage.run(&["no-such-program"]), "CommandNotFound");
    assert_failed(&stage.run(&["/no/such/program"]), "CommandNotFound");
    let plain = stage.write("plain", "#!/bin/sh\n");
    assert_failed(&stage.run(&[plain.to_str().unwrap()]), "CommandNotExecutable");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    assert_changed(&stage.run(&[plain.to_str().unwrap()]));
    fs::write(&plain, "#!/no/such/interpreter\n").unwrap();
    assert_failed(&stage.run(&[plain.to_str().unwrap()]), "CommandNotFound");
    fs::write(&plain, "neither\n").unwrap();
    assert_failed(&stage.run(&[plain.to_str().unwrap()]), "CommandWrongFormat");
    assert_failed(&stage.run(&["true", "a\0b"]), "InvalidCommand");
    assert_failed(&stage.run(&[]), "InvalidParameters");
    assert_failed(&stage.perform("command.run", [("argv", "ls -l".into())]), "InvalidParameters");
    let huge = "x".repeat(3 << 20);
    assert_failed(&stage.run(&["true", &huge]), "CommandTooLong");
    stage.working_directory = Some("/no/such/directory".into());
    assert_failed(&stage.run(&["true"]), "NoWorkingDirectory");
}

#[test]
fn what_a_shell_could_not_start_is_an_exit_code() {
    let mut stage = Stage::new();
    let plain = stage.write("plain", "#!/bin/sh\n");
    for (line, code) in [("no-such-program", 127), (plain.to_str().unwrap(), 126)] {
        let done = stage.shell(line);
        assert_failed(&done, "ExitCode");
        assert_eq!(integer(&done, "exitCode"), Some(code), "{line}");
    }
}

#[test]
fn a_script_has_its_interpreter_its_arguments_and_its_own_input() {
    let mut stage = Stage::new();
    let done = stage.perform(
        "command.script",
        [
            ("script", "echo \"$1 $2\"; cat; echo secret-4711 >/dev/null; tr '\\0' ' ' </proc/$$/cmdline".into()),
            ("args", list(&["a b", "c"])),
            ("stdin", "in\n".into()),
        ],
    );
    assert_changed(&done);
    let lines: Vec<&str> = text(&done, "stdout").lines().collect();
    assert_eq!(lines[..2], ["a b c", "in"]);
    assert!(lines[2].starts_with("/bin/sh /proc/self/fd/") && lines[2].ends_with(" a b c "), "{}", lines[2]);
    let done = stage.perform("command.script", [("template", "#!/usr/bin/env -S sh -u\necho $0; echo $NONE".into())]);
    assert_failed(&done, "ExitCode");
    assert!(text(&done, "stdout").starts_with("/proc/self/fd/"), "{done:?}");
    let given = [("script", "exit 3".into()), ("interpreter", "bash".into()), ("exitCodes", 3.into())];
    assert_failed(&stage.perform("command.script", given), "InvalidParameters");
    let given = [("script", "exit 3".into()), ("interpreter", list(&["bash", "-e"])), ("exitCodes", 3.into())];
    assert_changed(&stage.perform("command.script", given));
    let given = [("script", "true".into()), ("interpreter", list(&["/no/such"]))];
    assert_failed(&stage.perform("command.script", given), "CommandNotFound");
    assert_failed(&stage.perform("command.script", []), "InvalidParameters");
    assert!(stage.names().is_empty());
}

#[test]
fn a_script_runs_as_another_user_and_only_when_its_guards_say_so() {
    let mut stage = Stage::new();
    stage.user = Some("daemon");
    let done = stage.perform("command.script", [("script", "id -u".into())]);
    assert_changed(&done);
    assert_eq!(text(&done, "stdout"), "1");
    let guarded = |stage: &mut Stage| {
        stage.perform("command.script", [("script", "exit 1".into()), ("creates", "/etc/passwd".into())])
    };
    assert_ok(&guarded(&mut stage));
    stage.check = true;
    assert_eq!(stage.perform("command.script", [("script", "exit 1".into())]).outcome, Outcome::Unpredicted);
}

#[test]
fn a_command_gets_stdin_umask_directory_and_a_clean_environment() {
    let mut stage = Stage::new();
    stage.environment.insert("GIVEN".into(), "yes".into());
    stage.working_directory = Some(stage.path(""));
    let done = stage.perform(
        "command.run",
        [("shell", "cat; umask; pwd; env | sort".into()), ("stdin", "in\n".into()), ("umask", "0027".into())],
    );
    assert_changed(&done);
    let lines: Vec<&str> = text(&done, "stdout").lines().collect();
    assert_eq!(lines[..3], ["in", "0027", stage.dir.path().to_str().unwrap()]);
    let names: Vec<&str> = lines[3..].iter().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["GIVEN", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "USER"]);
}

#[test]
fn a_command_can_find_the_folder_that_stands_for_the_root() {
    let mut stage = Stage::rooted();
    let done = stage.perform("command.query", [("shell", "printf %s \"$LOCKSTEP_ROOT\"".into())]);
    assert_eq!(text(&done, "stdout"), stage.dir.path().to_str().unwrap());
}

#[test]
fn a_command_of_another_user_has_only_that_users_rights() {
    let mut stage = Stage::new();
    stage.user = Some("daemon");
    let done = stage.shell("id -u; id -g; id -G; echo $HOME $USER; grep -E '^(CapEff|CapPrm)' /proc/self/status");
    assert_changed(&done);
    let lines: Vec<&str> = text(&done, "stdout").lines().collect();
    assert_eq!(lines[..4], ["1", "1", "1", "/usr/sbin daemon"]);
    assert!(lines[4..].iter().all(|line| line.ends_with("0000000000000000")), "{lines:?}");
    stage.user = Some("no-such-user");
    assert_failed(&stage.shell("id"), "NoSuchUser");
}

#[test]
fn a_command_leads_a_process_group_and_inherits_no_descriptors() {
    let mut stage = Stage::new();
    let _open = fs::File::open("/dev/null").unwrap();
    // No pipe: the shell would hold its ends for a moment.
    let done = stage.shell("echo $$; cut -d' ' -f5 /proc/$$/stat; ls /proc/$$/fd");
    let lines: Vec<&str> = text(&done, "stdout").lines().collect();
    assert_eq!(lines[0], lines[1]);
    let open: Vec<&str> = lines[2..].iter().copied().filter(|fd| fd.parse::<u32>().unwrap() < 10).collect();
    assert_eq!(open, ["0", "1", "2"]);
}

#[test]
fn guards_say_when_there_is_nothing_to_do() {
    let mut stage = Stage::new();
    let (marker, missing) = (stage.path("marker"), stage.path("missing"));
    let guarded = |stage: &mut Stage, name: &str, guard: Value| {
        stage.perform("command.run", [("argv", list(&["touch", &marker])), (name, guard)])
    };
    for (name, guard) in [
        ("creates", Value::text("/etc/passwd")),
        ("removes", missing.as_str().into()),
        ("unless", list(&["true"])),
        ("onlyIf", list(&["false"])),
    ] {
        let done = guarded(&mut stage, name, guard);
        assert_ok(&done);
        assert_eq!(done.result.get("skipped"), Some(&true.into()), "{name}");
    }
    assert!(stage.names().is_empty());
    assert_failed(&guarded(&mut stage, "unless", list(&["no-such-program"])), "CommandNotFound");
    assert!(stage.names().is_empty());
    assert_changed(&guarded(&mut stage, "creates", missing.into()));
    assert_changed(&guarded(&mut stage, "unless", list(&["false"])));
    assert_changed(&guarded(&mut stage, "onlyIf", list(&["true"])));
}

#[test]
fn both_streams_come_in_their_order() {
    let mut stage = Stage::new();
    let fifo = stage.path("heard");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    stage.heard = Some(fs::File::options().read(true).write(true).open(&fifo).unwrap());
    // Each line is printed only when the one before was read.
    let line = format!("exec 3<{fifo}; for i in 1 2 3; do echo o$i; read _ <&3; echo e$i >&2; read _ <&3; done");
    assert_changed(&stage.shell(&line));
    let order: Vec<&str> = stage.printed.iter().map(|(_, bytes)| std::str::from_utf8(bytes).unwrap().trim()).collect();
    assert_eq!(order, ["o1", "e1", "o2", "e2", "o3", "e3"]);
    assert_eq!((stage.printed[0].0, stage.printed[1].0), (Stream::Stdout, Stream::Stderr));
}

#[test]
fn much_output_is_streamed_and_its_result_bounded() {
    let mut stage = Stage::new();
    let done = stage.shell("head -c 10000000 /dev/zero | tr '\\0' x; printf end");
    assert_changed(&done);
    assert_eq!(stage.printed.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 10_000_003);
    assert!(text(&done, "stdout").len() < 70_000 && text(&done, "stdout").ends_with("end"));
    assert_eq!(integer(&done, "stdoutBytes"), Some(10_000_003));
    let done = stage.shell("printf '\\377\\376'; exec >&-; exit 0");
    assert_eq!(text(&done, "stdoutBase64"), "//4=");
}

#[test]
fn a_background_process_does_not_hold_the_task() {
    let mut stage = Stage::new();
    let start = Instant::now();
    let done = stage.shell("sleep 60 & echo $!");
    assert_changed(&done);
    assert!(start.elapsed() < Duration::from_secs(10));
    let pid = rustix::process::Pid::from_raw(text(&done, "stdout").parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives on");
}

#[test]
fn a_command_that_is_late_gets_term_and_then_kill_with_all_its_children() {
    let mut stage = Stage::new();
    (stage.timeout, stage.grace) = (Some(Duration::from_millis(300)), Duration::from_millis(300));
    let start = Instant::now();
    let done = stage.shell("trap 'echo term' TERM; sleep 61 & echo $!; while :; do wait; done");
    assert_failed(&done, "TimedOut");
    assert!(start.elapsed() >= Duration::from_millis(600) && start.elapsed() < Duration::from_secs(10));
    assert_eq!(integer(&done, "signal"), Some(9));
    let mut lines = text(&done, "stdout").lines();
    let pid = rustix::process::Pid::from_raw(lines.next().unwrap().parse().unwrap()).unwrap();
    assert_eq!(lines.next(), Some("term"));
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the child lives: {stat}");
    let polite = stage.shell("trap 'exit 4' TERM; sleep 61 & wait");
    assert_failed(&polite, "TimedOut");
    assert_eq!(integer(&polite, "exitCode"), Some(4));
}

#[test]
fn the_switch_cancels_commands_and_sleeps_at_once() {
    let mut stage = Stage::new();
    stage.cancel.throw();
    let start = Instant::now();
    assert_eq!(stage.run(&["sleep", "60"]).outcome, Outcome::Cancelled);
    assert_eq!(stage.perform("time.sleep", [("duration", "1h".into())]).outcome, Outcome::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_sleep_is_as_long_as_asked_or_ends_at_its_timeout() {
    let mut stage = Stage::new();
    let start = Instant::now();
    assert_ok(&stage.perform("time.sleep", [("duration", "50ms".into())]));
    assert!(start.elapsed() >= Duration::from_millis(50));
    stage.timeout = Some(Duration::from_millis(20));
    assert_failed(&stage.perform("time.sleep", [("duration", "1h".into())]), "TimedOut");
    assert_failed(&stage.perform("time.sleep", [("duration", "soon".into())]), "InvalidParameters");
}

#[test]
fn a_wait_ends_when_what_it_waits_for_is_so() {
    let mut stage = Stage::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = i64::from(listener.local_addr().unwrap().port());
    let (path, gone) = (stage.path("path"), stage.path("gone"));
    assert_ok(&stage.perform("wait.for", [("port", port.into())]));
    assert_ok(&stage.perform("wait.for", [("path", gone.as_str().into()), ("absent", true.into())]));
    // Whatever is awaited comes while it waits.
    let (made, held) = (path.clone(), std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let accepted = listener.accept().unwrap();
    let thread = std::thread::spawn(move || {
        fs::write(made, "").unwrap();
        drop((held, accepted, listener));
    });
    assert_ok(&stage.perform("wait.for", [("path", path.into()), ("interval", "10ms".into())]));
    let soon = ("interval", Value::text("10ms"));
    assert_ok(&stage.perform("wait.for", [("port", port.into()), ("drained", true.into()), soon.clone()]));
    assert_ok(&stage.perform("wait.for", [("port", port.into()), ("absent", true.into()), soon.clone()]));
    thread.join().unwrap();
    stage.timeout = Some(Duration::from_millis(20));
    let done = stage.perform("wait.for", [("path", gone.as_str().into()), soon.clone()]);
    assert_failed(&done, "TimedOut");
    assert!(done.message.contains("gone to be there"), "{}", done.message);
    stage.check = true;
    assert_eq!(stage.perform("wait.for", [("path", gone.as_str().into())]).outcome, Outcome::Unpredicted);
    stage.check = false;
    stage.cancel.throw();
    assert_eq!(stage.perform("wait.for", [("path", gone.as_str().into())]).outcome, Outcome::Cancelled);
    for bad in [vec![], vec![("port", 0.into())], vec![("port", 1.into()), ("path", gone.as_str().into())]] {
        assert_failed(&stage.perform_with("wait.for", &Value::map(bad)), "InvalidParameters");
    }
}

#[test]
fn what_is_printed_is_in_the_message_and_the_output() {
    let mut stage = Stage::new();
    let done = stage.perform("debug.print", [("message", "hello".into())]);
    assert_ok(&done);
    assert_eq!((done.message.as_str(), stage.printed.pop()), ("hello", Some((Stream::Stdout, b"hello\n".to_vec()))));
    let done = stage.perform("debug.print", [("any", list(&["a"])), ("map", 1.into())]);
    assert_eq!(done.message, r#"{"any":["a"],"map":1}"#);
    stage.sensitive = true;
    assert_eq!(stage.perform_with("debug.print", &Value::text("hunter2")).message, "");
    assert_failed(&stage.perform_with("debug.print", &Value::null()), "InvalidParameters");
}

#[test]
fn an_assertion_names_the_first_condition_that_is_false() {
    let mut stage = Stage::new();
    let texts = list(&["a > 1", "b == 2", "c"]);
    let mut assert_that = |conditions: [bool; 3]| {
        let conditions = Value::list(conditions.map(Value::from));
        stage.perform("assert.that", [("conditions", conditions), ("texts", texts.clone())])
    };
    assert_ok(&assert_that([true, true, true]));
    let done = assert_that([true, false, false]);
    assert_failed(&done, "AssertionFailed");
    assert!(done.message.contains("b == 2") && !done.message.contains("c is"), "{}", done.message);
}

#[test]
fn a_secret_commands_failure_shows_nothing_it_printed() {
    let mut stage = Stage::new();
    stage.sensitive = true;
    assert_eq!(stage.shell("echo hunter2 >&2; exit 1").message, "exit 1");
}

#[test]
fn what_a_command_moved_is_seen_by_the_next_file() {
    let mut stage = Stage::new();
    fs::create_dir(stage.path("dir")).unwrap();
    assert_changed(&stage.manage("dir/a", "x"));
    let line = format!("cd {} && mv dir old && mkdir dir", stage.dir.path().display());
    assert_changed(&stage.shell(&line));
    assert_changed(&stage.manage("dir/a", "x"));
    assert_eq!(stage.read("dir/a"), "x");
}

#[test]
fn a_program_that_a_file_task_placed_can_be_run_before_the_sync() {
    let mut stage = Stage::new();
    let path = stage.path("program");
    let validate = Value::map([("argv", list(&[VALIDATED_FILE, "--check"]))]);
    let parameters = [
        ("path", path.as_str().into()),
        ("content", "#!/bin/sh\necho \"run $1\"\n".into()),
        ("mode", "0755".into()),
        ("validate", validate),
    ];
    assert_changed(&stage.perform("file.managed", parameters));
    assert_eq!(text(&stage.run(&[&path, "now"]), "stdout"), "run now");
    let other = stage.path("other");
    let parameters = [("path", other.as_str().into()), ("content", "#!/bin/sh\necho other\n".into())];
    assert_changed(&stage.perform("file.managed", parameters));
    assert_changed(&stage.run(&["chmod", "+x", &other]));
    assert_eq!(text(&stage.run(&[&other]), "stdout"), "other");
}
