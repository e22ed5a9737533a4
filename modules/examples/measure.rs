//! What actions cost beside the least that could be done: `measure files DIR` does 500 files thrice (new, as wanted,
//! each 20th disturbed), `measure commands` runs 200 × `/bin/true`, `measure facts` gathers all facts. Microseconds.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Cancel, Done, Host, Outcome, Scope, Unsynced, action, facts};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["files", dir] => files(dir),
        ["commands"] => commands(),
        ["facts"] => {
            let host = Host::open(None)?;
            println!("facts: {} µs", timed(|| drop(facts(&host, &[]))));
            Ok(())
        }
        _ => Err("usage: measure files DIR | commands | facts".into()),
    }
}

fn files(dir: &str) -> Result<(), Box<dyn Error>> {
    let (host, cancel) = (Host::open(None)?, Cancel::new()?);
    for phase in ["new", "as wanted", "drift"] {
        if phase == "drift" {
            for nth in (0..500).step_by(20) {
                std::fs::write(format!("{dir}/f{nth}"), "disturbed")?;
            }
        }
        let mut changed = 0;
        let took = timed(|| {
            for nth in 0..500 {
                let content = format!("{nth:0250}\n");
                let parameters = Value::map([
                    ("path", Value::text(format!("{dir}/f{nth}"))),
                    ("content", content.into()),
                    ("mode", "0640".into()),
                ]);
                let done = perform("file.managed", &parameters, &host, &cancel);
                changed += usize::from(done.outcome == Outcome::Changed);
            }
        });
        println!("{phase}: {changed} changed, {took} µs");
    }
    Ok(())
}

fn commands() -> Result<(), Box<dyn Error>> {
    let (host, cancel) = (Host::open(None)?, Cancel::new()?);
    let parameters = Value::map([("argv", Value::list([Value::text("/bin/true")]))]);
    for _ in 0..3 {
        let least = timed(|| {
            for _ in 0..200 {
                let status = Command::new("/bin/true").status();
                assert!(status.is_ok_and(|status| status.success()));
            }
        });
        let ours = timed(|| {
            for _ in 0..200 {
                assert_eq!(perform("command.run", &parameters, &host, &cancel).outcome, Outcome::Changed);
            }
        });
        println!("commands: {ours} µs, spawn and wait {least} µs, ratio {:.2}", ours as f64 / least as f64);
    }
    Ok(())
}

fn perform(name: &str, parameters: &Value, host: &Host, cancel: &Cancel) -> Done {
    let mut scope = Scope {
        host,
        unsettled: false,
        check: false,
        diff: false,
        sensitive: false,
        environment: &BTreeMap::new(),
        user: None,
        working_directory: None,
        timeout: Some(Duration::from_secs(600)),
        cancel,
        grace: Duration::from_secs(10),
        output: &mut |_, _| {},
        unsynced: &mut Unsynced::new(),
    };
    action(name).expect("a known action").perform(parameters, &mut scope)
}

fn timed(work: impl FnOnce()) -> u128 {
    let start = Instant::now();
    work();
    start.elapsed().as_micros()
}
