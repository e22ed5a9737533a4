//! The actions that run commands. Knows what a book may ask of a command and what its end means; how it is started,
//! watched and ended is the host's business.

mod capture;
mod script;

use std::collections::BTreeMap;
use std::time::Instant;

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Function, Outcome, Scope, Stream};
use crate::host::{self, Command, Ended, Ending, HostError, Reader, Stop, Stopped, User};
use crate::parameters::Parameters;
use capture::Capture;
use script::Script;

/// `command.query`.
pub(crate) static QUERY: Function =
    Function { name: "command.query", perform: |given, scope| perform(Wanted::read(given, Source::Query)?, scope) };

/// `command.run`.
pub(crate) static RUN: Function =
    Function { name: "command.run", perform: |given, scope| perform(Wanted::read(given, Source::Run)?, scope) };

/// `command.script`.
pub(crate) static SCRIPT: Function =
    Function { name: "command.script", perform: |given, scope| perform(Wanted::read(given, Source::Script)?, scope) };

/// Where commands are looked for, unless the task's environment says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What they print is the same on every machine.
const LANG: &str = "C.UTF-8";

/// The variable that names the root folder, if there is one; it is absolute.
const ROOT: &str = "LOCKSTEP_ROOT";

/// Which of the actions asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Run,
    Query,
    Script,
}

/// What a book asks for.
#[derive(Default)]
struct Wanted {
    argv: Vec<String>,
    script: Option<Script>,
    creates: Option<String>,
    removes: Option<String>,
    unless: Vec<String>,
    only_if: Vec<String>,
    stdin: Option<String>,
    umask: Option<u32>,
    /// `unless` and `onlyIf` may run in a check.
    check_safe: bool,
    exit_codes: Vec<i64>,
    /// Not `command.query`.
    changes: bool,
}

impl Wanted {
    fn read(parameters: &Value, source: Source) -> Result<Wanted, Done> {
        let mut from = Parameters::new(parameters, None);
        let mut wanted = Wanted { changes: source != Source::Query, ..Wanted::default() };
        match source {
            Source::Script => wanted.script = Some(Script::read(&mut from)),
            Source::Run | Source::Query => wanted.argv = argv(&mut from),
        }
        wanted.exit_codes = from.integers("exitCodes");
        wanted.stdin = from.text("stdin");
        // Whether secrets may be there was judged when the parameters were rendered.
        let _ = (from.flag("secretArgv"), from.flag("secretEnvironment"));
        if wanted.changes {
            wanted.creates = from.text("creates").filter(|path| !path.is_empty());
            wanted.removes = from.text("removes").filter(|path| !path.is_empty());
            wanted.unless = from.texts("unless");
            wanted.only_if = from.texts("onlyIf");
            wanted.umask = from.mode("umask");
            wanted.check_safe = from.flag("checkSafe");
        }
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        if wanted.exit_codes.is_empty() {
            wanted.exit_codes.push(0);
        }
        Ok(wanted)
    }

    fn has_commands_as_guards(&self) -> bool {
        !self.unless.is_empty() || !self.only_if.is_empty()
    }

    /// The command in its surroundings.
    fn command<'a>(&'a self, surroundings: &Surroundings<'a>) -> Command<'a> {
        let (stdin, umask) = (self.stdin.as_deref().map(str::as_bytes), self.umask);
        let Some(script) = &self.script else {
            return Command { stdin, umask, ..surroundings.command(&self.argv) };
        };
        let mut command = Command { stdin, umask, ..surroundings.command(&script.interpreter) };
        command.file = Some(host::Handed { content: script.body.as_bytes(), at: command.argv.len() });
        command.argv.extend(script.args.iter().map(String::as_str));
        command
    }
}

/// The command that `argv` or `shell` give.
fn argv(from: &mut Parameters<'_>) -> Vec<String> {
    let argv = from.texts("argv");
    let argv = match from.text("shell").filter(|line| !line.is_empty()) {
        None => argv,
        Some(_) if !argv.is_empty() => {
            from.fault("argv and shell exclude each other");
            argv
        }
        Some(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
    };
    if argv.first().is_none_or(String::is_empty) {
        from.fault("argv or shell is missing");
    }
    argv
}

fn perform(wanted: Wanted, scope: &mut Scope<'_>) -> Result<Done, Done> {
    let deadline = scope.timeout.map(|timeout| Instant::now() + timeout);
    if let Some(reason) = guarded_by_path(&wanted, scope)? {
        return Ok(unneeded(reason));
    }
    if scope.check && !wanted.changes && scope.unsettled {
        return Ok(unpredicted("an earlier task would change the machine before it reads"));
    }
    if scope.check && wanted.changes && (!wanted.has_commands_as_guards() || !wanted.check_safe || scope.unsettled) {
        return Ok(predict(&wanted, scope.unsettled));
    }
    let login = scope.user.map(|name| scope.host.login(name)).transpose()?;
    let place = Place { login: login.as_ref(), deadline };
    if let Some(reason) = guarded_by_command(&wanted, &place, scope)? {
        return Ok(unneeded(reason));
    }
    if scope.check && wanted.changes {
        return Ok(would_run());
    }
    let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
    let output = &mut *scope.output;
    let mut reader = |stream: Stream, bytes: &[u8]| {
        match stream {
            Stream::Stdout => stdout.take(bytes),
            Stream::Stderr => stderr.take(bytes),
        }
        output(stream, bytes);
    };
    let surroundings = Surroundings::of(scope.host, scope.environment, scope.working_directory, &place);
    let stop = Stop { cancel: scope.cancel, deadline, grace: scope.grace };
    let ended = run(scope.host, &wanted.command(&surroundings), &stop, wanted.changes, &mut reader)?;
    Ok(judge(&wanted, ended, &stdout, &stderr, scope))
}

/// Who a command runs as, and until when.
struct Place<'a> {
    login: Option<&'a (User, Vec<u32>)>,
    deadline: Option<Instant>,
}

/// The environment and place of a command.
struct Surroundings<'a> {
    environment: BTreeMap<&'a str, &'a str>,
    directory: &'a str,
    login: Option<&'a (User, Vec<u32>)>,
}

impl<'a> Surroundings<'a> {
    fn of(
        host: &'a host::Host,
        given: &'a BTreeMap<String, String>,
        directory: Option<&'a str>,
        place: &Place<'a>,
    ) -> Surroundings<'a> {
        let user = place.login.map_or_else(|| host.own_user(), |(user, _)| user);
        let mut environment = BTreeMap::from([
            ("PATH", PATH),
            ("LANG", LANG),
            ("HOME", user.home.as_str()),
            ("USER", user.name.as_str()),
            ("LOGNAME", user.name.as_str()),
            ("SHELL", user.shell.as_str()),
        ]);
        // Commands run on this machine as it is; where a folder stands for its root, they can find it.
        if let Some(root) = host.root().and_then(|root| root.to_str()) {
            environment.insert(ROOT, root);
        }
        environment.extend(given.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Surroundings { environment, directory: directory.unwrap_or("/"), login: place.login }
    }

    fn command(&self, argv: &'a [String]) -> Command<'a> {
        Command {
            argv: argv.iter().map(String::as_str).collect(),
            environment: self.environment.clone(),
            directory: self.directory,
            login: self.login,
            umask: None,
            stdin: None,
            file: None,
        }
    }
}

/// Runs it; what it may have changed is forgotten.
fn run(
    host: &host::Host,
    command: &Command<'_>,
    stop: &Stop<'_>,
    changes: bool,
    reader: Reader<'_>,
) -> Result<Ended, Done> {
    let ended = host.run(command, stop, reader).map_err(|fault| Done::failed(fault.reason(), fault));
    if changes {
        host.forget();
    }
    ended
}

/// Runs a command of an action's own in the task's surroundings, as the user this program runs as.
pub(crate) fn run_plain(argv: &[String], scope: &mut Scope<'_>) -> Result<Ended, Done> {
    let place = Place { login: None, deadline: scope.timeout.map(|timeout| Instant::now() + timeout) };
    let surroundings = Surroundings::of(scope.host, scope.environment, scope.working_directory, &place);
    let stop = Stop { cancel: scope.cancel, deadline: place.deadline, grace: scope.grace };
    run(scope.host, &surroundings.command(argv), &stop, false, &mut *scope.output)
}

/// Runs one of the system's programs that changes the machine, to its end, in the task's surroundings.
///
/// # Errors
/// It did not succeed. What it says is in the message; what it changed until then, it changed.
pub(crate) fn run_tool(argv: &[String], stdin: Option<&str>, scope: &mut Scope<'_>) -> Result<(), Done> {
    let place = Place { login: None, deadline: scope.timeout.map(|timeout| Instant::now() + timeout) };
    let surroundings = Surroundings::of(scope.host, scope.environment, None, &place);
    let command = Command { stdin: stdin.map(str::as_bytes), ..surroundings.command(argv) };
    let stop = Stop { cancel: scope.cancel, deadline: place.deadline, grace: scope.grace };
    let mut said = Capture::default();
    let output = &mut *scope.output;
    let mut reader = |stream: Stream, bytes: &[u8]| {
        said.take(bytes);
        output(stream, bytes);
    };
    let ended = run(scope.host, &command, &stop, true, &mut reader)?;
    if let Some(stopped) = ended.stopped {
        return Err(cut_short(stopped, ended.ending, scope, []));
    }
    match ended.ending {
        Ending::Exit(0) => Ok(()),
        ending => {
            let said =
                said.last_line().filter(|_| !scope.sensitive).map(|line| format!(": {line}")).unwrap_or_default();
            Err(Done::failed("ProgramFailed", format!("{} ended with {}{said}", argv[0], describe(ending))))
        }
    }
}

/// Runs a command of an action's own in a small clean environment with these additions; its output is the reader's.
pub(crate) fn run_with(
    argv: &[String],
    environment: &BTreeMap<String, String>,
    stop: &Stop<'_>,
    host: &host::Host,
    reader: Reader<'_>,
) -> Result<Ended, Done> {
    let place = Place { login: None, deadline: stop.deadline };
    let surroundings = Surroundings::of(host, environment, None, &place);
    run(host, &surroundings.command(argv), stop, false, reader)
}

/// Why `creates` or `removes` say that there is nothing to do.
fn guarded_by_path(wanted: &Wanted, scope: &Scope<'_>) -> Result<Option<String>, Done> {
    if let Some(path) = &wanted.creates
        && exists(path, scope)?
    {
        return Ok(Some(format!("{path} exists")));
    }
    match &wanted.removes {
        Some(path) if !exists(path, scope)? => Ok(Some(format!("{path} does not exist"))),
        _ => Ok(None),
    }
}

/// Whether the path is there; in a check, whether it would be.
fn exists(path: &str, scope: &Scope<'_>) -> Result<bool, HostError> {
    match scope.host.foreseen(path).filter(|_| scope.check) {
        Some(is_there) => Ok(is_there),
        None => scope.host.exists(path),
    }
}

/// Why `unless` or `onlyIf` say that there is nothing to do. Their output is dropped.
fn guarded_by_command(wanted: &Wanted, place: &Place<'_>, scope: &Scope<'_>) -> Result<Option<String>, Done> {
    let surroundings = Surroundings::of(scope.host, scope.environment, scope.working_directory, place);
    let stop = Stop { cancel: scope.cancel, deadline: place.deadline, grace: scope.grace };
    for (argv, name, skips_on_success) in [(&wanted.unless, "unless", true), (&wanted.only_if, "onlyIf", false)] {
        if argv.is_empty() {
            continue;
        }
        let ended = run(scope.host, &surroundings.command(argv), &stop, true, &mut |_, _| {})?;
        if let Some(stopped) = ended.stopped {
            return Err(cut_short(stopped, ended.ending, scope, []));
        }
        if (ended.ending == Ending::Exit(0)) == skips_on_success {
            return Ok(Some(format!("{name}: {} ended with {}", argv[0], describe(ended.ending))));
        }
    }
    Ok(None)
}

/// What a command that did not have to run comes to. Its result has what later tasks may read of one that did.
fn unneeded(reason: String) -> Done {
    let result = [("skipped", true.into()), ("stdout", "".into()), ("stderr", "".into()), ("exitCode", 0.into())];
    Done::new(Outcome::Ok, format!("not run: {reason}"), result)
}

/// Check mode: what running it would be.
fn predict(wanted: &Wanted, unsettled: bool) -> Done {
    if wanted.has_commands_as_guards() {
        return unpredicted(match wanted.check_safe && unsettled {
            true => "an earlier task would change the machine before unless and onlyIf look",
            false => "unless and onlyIf are not run in a check, but with checkSafe: true",
        });
    }
    if wanted.creates.is_some() || wanted.removes.is_some() {
        return would_run();
    }
    unpredicted("nobody can tell what a command without creates or removes would do")
}

fn would_run() -> Done {
    Done::new(Outcome::Changed, "would run", [])
}

fn unpredicted(why: &str) -> Done {
    Done::new(Outcome::Unpredicted, why, [])
}

fn judge(wanted: &Wanted, ended: Ended, stdout: &Capture, stderr: &Capture, scope: &Scope<'_>) -> Done {
    let mut result: Vec<(&str, Value)> = Vec::with_capacity(6);
    match ended.ending {
        Ending::Exit(code) => result.push(("exitCode", i64::from(code).into())),
        Ending::Signal { number, core } => {
            result.push(("exitCode", Value::null()));
            result.push(("signal", i64::from(number).into()));
            result.push(("coreDumped", core.into()));
        }
        Ending::Unresponsive => result.push(("exitCode", Value::null())),
    }
    stdout.describe(["stdout", "stdoutBase64", "stdoutBytes"], &mut result);
    stderr.describe(["stderr", "stderrBase64", "stderrBytes"], &mut result);
    if let Some(stopped) = ended.stopped {
        return cut_short(stopped, ended.ending, scope, result);
    }
    match ended.ending {
        Ending::Exit(code) if wanted.exit_codes.contains(&i64::from(code)) => {
            Done::new(if wanted.changes { Outcome::Changed } else { Outcome::Ok }, "", result)
        }
        ending => {
            let last = if scope.sensitive { None } else { stderr.last_line().or_else(|| stdout.last_line()) };
            let last = last.map(|line| format!(": {line}")).unwrap_or_default();
            let reason = if matches!(ending, Ending::Exit(_)) { "ExitCode" } else { "Signal" };
            result.push(("reason", reason.into()));
            Done::new(Outcome::Failed, format!("{}{last}", describe(ending)), result)
        }
    }
}

fn cut_short<'k>(
    stopped: Stopped,
    ending: Ending,
    scope: &Scope<'_>,
    result: impl IntoIterator<Item = (&'k str, Value)>,
) -> Done {
    let (outcome, reason, why) = match stopped {
        Stopped::Cancelled => (Outcome::Cancelled, "Cancelled", "cancelled".to_owned()),
        Stopped::TimedOut => {
            let limit = lockstep_apis::duration::format(scope.timeout.unwrap_or_default().as_millis() as u64);
            (Outcome::Failed, "TimedOut", format!("TimedOut: not done after {limit}"))
        }
    };
    let reason = if ending == Ending::Unresponsive { "Unresponsive" } else { reason };
    let result = result.into_iter().chain([("reason", reason.into())]);
    Done::new(outcome, format!("{why}; it ended with {}", describe(ending)), result)
}

/// How a command ended, as `exit 3` or `signal 9 (SIGKILL)`.
pub(crate) fn describe(ending: Ending) -> String {
    match ending {
        Ending::Exit(code) => format!("exit {code}"),
        Ending::Signal { number, core } => {
            let name = signal_name(number).map(|name| format!(" ({name})")).unwrap_or_default();
            format!("signal {number}{name}{}", if core { ", core dumped" } else { "" })
        }
        Ending::Unresponsive => "nothing, not even on SIGKILL: it is stuck in the kernel".to_owned(),
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}
