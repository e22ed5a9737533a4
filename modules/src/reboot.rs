//! `reboot.now` and `reboot.ifRequired`: whether the machine is to go down, and what brings it down. Between the two the
//! caller makes sure that the next boot knows of it: an action alone never reboots.

use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::{RebootIfRequired, RebootNow, Value};

use crate::action::{Cancel, Done, Function, Outcome, Stream};
use crate::host::{Command, Ending, Host, Stop};
use crate::parameters::decoded;

/// Files that packages leave when they want a reboot; the second is the first on most systems.
const MARKS: [&str; 2] = ["/run/reboot-required", "/var/run/reboot-required"];

/// Of systems with rpm; exits with 1 if a reboot is wanted.
const NEEDS_RESTARTING: &str = "/usr/bin/needs-restarting";

/// For what asks, and for what brings down; neither waits for the reboot.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What commands find in their environment.
const ENVIRONMENT: [(&str, &str); 2] =
    [("LANG", "C.UTF-8"), ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];

/// `reboot.now`. Changed: the machine is to be rebooted by [`go_down`].
pub(crate) static NOW: Function = Function {
    name: "reboot.now",
    perform: |given, scope| {
        let now: RebootNow = decoded("reboot.now", given)?;
        Ok(wanted(scope.check, "", now.argv))
    },
};

/// `reboot.ifRequired`. Changed: the machine is to be rebooted by [`go_down`].
pub(crate) static IF_REQUIRED: Function = Function {
    name: "reboot.ifRequired",
    perform: |given, scope| {
        let asked: RebootIfRequired = decoded("reboot.ifRequired", given)?;
        match required(scope.host, scope.cancel)? {
            Some(why) => Ok(wanted(scope.check, &why, asked.argv)),
            None => Ok(Done::new(Outcome::Ok, "", [])),
        }
    },
};

fn wanted(check: bool, why: &str, argv: Vec<String>) -> Done {
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    let message = if check { format!("would reboot{because}") } else { format!("rebooted{because}") };
    let argv = if argv.is_empty() { vec!["systemctl".to_owned(), "reboot".to_owned()] } else { argv };
    Done::new(Outcome::Changed, message, [("argv", Value::list(argv.into_iter().map(Value::text)))])
}

/// Why a reboot is wanted, if it is.
fn required(host: &Host, cancel: &Cancel) -> Result<Option<String>, Done> {
    for mark in MARKS {
        let is_there = match host.root() {
            None => host.kernel_path_exists(mark),
            Some(_) => host.exists(mark).unwrap_or(false),
        };
        if is_there {
            return Ok(Some(format!("{mark} is there")));
        }
    }
    if host.root().is_some() || !host.kernel_path_exists(NEEDS_RESTARTING) {
        return Ok(None);
    }
    let mut printed = Vec::new();
    match run(host, &[NEEDS_RESTARTING, "-r"], cancel, &mut |_, bytes| printed.extend_from_slice(bytes)) {
        Ok(Ending::Exit(0)) => Ok(None),
        Ok(Ending::Exit(1)) => Ok(Some(format!("{NEEDS_RESTARTING} -r says so"))),
        Ok(ending) => {
            let last = String::from_utf8_lossy(&printed);
            let last = last.lines().next_back().unwrap_or_default();
            Err(Done::failed("Unknown", format!("{NEEDS_RESTARTING} -r ended with {ending:?}: {last}")))
        }
        Err(fault) => Err(Done::failed("Unknown", fault)),
    }
}

/// Starts the way down, as the `Changed` of one of these actions says. Returns when it is on its way: the machine goes
/// down a little later. The error is a sentence; the machine stays up then, as far as can be known.
pub fn go_down(
    host: &Host,
    wanted: &Value,
    cancel: &Cancel,
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<(), String> {
    if host.root().is_some() {
        return Err("a root folder is no machine that could be rebooted".to_owned());
    }
    let argv = wanted.get("argv").and_then(Value::as_list).unwrap_or_default();
    let argv: Vec<&str> = argv.iter().filter_map(Value::as_text).collect();
    match run(host, &argv, cancel, output)? {
        Ending::Exit(0) => Ok(()),
        // The manager may kill it together with us: then it is on its way.
        Ending::Signal { .. } if cancel.is_thrown() => Ok(()),
        Ending::Exit(code) => Err(format!("{} ended with the code {code}", argv.join(" "))),
        ending => Err(format!("{} ended with {ending:?}", argv.join(" "))),
    }
}

fn run(host: &Host, argv: &[&str], cancel: &Cancel, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Ending, String> {
    let command = Command {
        argv: argv.to_vec(),
        environment: ENVIRONMENT.into(),
        directory: "/",
        login: None,
        umask: None,
        stdin: None,
        file: None,
    };
    let stop = Stop { cancel, deadline: Some(Instant::now() + TIMEOUT), grace: Duration::ZERO };
    host.run(&command, &stop, output).map(|ended| ended.ending).map_err(|fault| fault.to_string())
}
