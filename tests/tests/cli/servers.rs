//! Servers that are down or hang, and what the tool makes of the addresses in its context.

use super::shell::{BOOK, Shell, said};
use anyhow::{Context, Result, anyhow, ensure};
use lockstep_apis::manifest;
use lockstep_tests::{daemon::program, etcd::EtcdCluster};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

/// The context's addresses, in its order.
fn addresses(shell: &Shell) -> Result<Vec<String>> {
    let shown = shell.ok(&["context", "show"])?;
    let line = shown.lines().find_map(|line| line.strip_prefix("servers")).context("no servers are shown")?;
    Ok(line.split(',').map(|address| address.trim().to_owned()).collect())
}

/// All that the context holds.
fn content(shell: &Shell) -> Result<serde_json::Value> {
    let text = fs::read_to_string(shell.context())?;
    let value = manifest::decode_value("context", text.as_bytes()).map_err(|found| anyhow!("{found:?}"))?;
    Ok((&value).into())
}

/// Writes other addresses into the context.
fn set(shell: &Shell, addresses: &[String]) -> Result<()> {
    let mut content = content(shell)?;
    content["servers"] = addresses.into();
    Ok(fs::write(shell.context(), content.to_string())?)
}

#[test]
fn servers_that_hang_are_passed_over_and_who_answers_is_asked_first_the_next_time() -> Result<()> {
    let shell = Shell::start()?;
    let good = addresses(&shell)?;
    // They take connections and never say a word, as a stopped process does; one after another they would take 50 s.
    let mute = (0..10).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let mute = mute.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect::<Result<Vec<_>>>()?;
    // And nobody listens here.
    let dead = [TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()];
    set(&shell, &[mute.as_slice(), &dead, &good].concat())?;
    let before = content(&shell)?;
    let mut asked = Command::new("timeout");
    asked.arg("20").arg(program("lockstep")?).args(["--context", &shell.context().display().to_string(), "status"]);
    let answer = said(asked.output()?)?;
    ensure!(answer.code == 0 && answer.out.contains("leader   s1"), "{answer:?}");
    ensure!(addresses(&shell)? == [good.as_slice(), &mute, &dead].concat(), "{:?}", addresses(&shell)?);
    let mode = fs::metadata(shell.context())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "the context's mode is {mode:o}");
    let mut after = content(&shell)?;
    after["servers"] = before["servers"].clone();
    ensure!(after == before, "more than the servers changed");
    Ok(())
}

#[test]
fn a_context_that_cannot_be_written_stops_nothing() -> Result<()> {
    let shell = Shell::start()?;
    let good = addresses(&shell)?;
    let dead = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    set(&shell, &[dead, good[0].clone()])?;
    // A pipe can be read, and not replaced.
    let mut command = shell.command(&["get", "nodes", "-o", "name"])?;
    command.env("LOCKSTEP_CONTEXT", "/dev/stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut asked = command.spawn()?;
    asked.stdin.take().context("a pipe")?.write_all(&fs::read(shell.context())?)?;
    let answer = said(asked.wait_with_output()?)?;
    ensure!((answer.code, answer.out.as_str(), answer.err.as_str()) == (0, "node/s1\n", ""), "{answer:?}");
    Ok(())
}

/// Two servers of one cluster: the context is told of the second, and then needs no first.
#[test]
fn with_one_of_two_servers_stopped_in_mid_run_the_other_is_asked() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let etcd = runtime.block_on(EtcdCluster::start(1))?;
    let shell = Shell::start_with_etcd(&etcd)?;
    let second = shell.join("s2", &["--server"])?;
    let (first, second) = (shell.daemon().address().to_owned(), second.address().to_owned());
    let mut known = addresses(&shell)?;
    known.sort();
    ensure!(known == sorted(&[&first, &second]), "the second server is not noted: {known:?}");
    let book = shell.file("slow.yaml", &BOOK.replace("[echo, hello]", "[sh, -c, 'echo one; sleep 3; echo two']"))?;
    shell.ok(&["apply", "-f", &book])?;
    set(&shell, &[first.clone(), second.clone()])?;
    let piped = |arguments: &[&str]| -> Result<Child> {
        Ok(shell.command(arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let run = piped(&["run", "web", "--node", "s2", "--name", "one", "--wait"])?;
    shell.until(&["get", "run", "one", "-o", "jsonpath={.status.phase}"], |said| said.out.starts_with("Running"))?;
    let logs = piped(&["logs", "one", "--follow"])?;
    let stopped = Stopped::new(shell.daemon().pid())?;
    let asked = shell.run(&["get", "nodes", "-o", "name"])?;
    let (run, logs) = (said(run.wait_with_output()?)?, said(logs.wait_with_output()?)?);
    drop(stopped);
    ensure!((asked.code, asked.out.as_str()) == (0, "node/s1\nnode/s2\n"), "{asked:?}");
    ensure!(run.code == 0 && run.out.contains("Succeeded"), "{run:?}");
    ensure!((logs.code, logs.out.as_str()) == (0, "s2 hello | one\ns2 hello | two\n"), "{logs:?}");
    ensure!(addresses(&shell)? == [second, first], "who answered is first: {:?}", addresses(&shell)?);
    Ok(())
}

fn sorted(addresses: &[&String]) -> Vec<String> {
    let mut sorted: Vec<String> = addresses.iter().map(|address| (*address).clone()).collect();
    sorted.sort();
    sorted
}

/// A process that stands still, until this goes.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: u32) -> Result<Stopped> {
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Stopped(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have gone.
        let _ = kill_process(self.0, Signal::CONT);
    }
}
