//! Real faults on three isolated hosts: a real three-member etcd with mutual TLS, three real daemons under systemd.
//! The oracle is the monotonic log that the nodes' own tasks write; it knows nothing of Lockstep.

use anyhow::{Context, Result, ensure};
use lockstep_tests::{
    intervals,
    rig::{HOSTS, PATIENCE, Rig},
};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Long enough for a fault to strike in the middle of it.
const TASK_SECONDS: u32 = 3;

/// Starts the run of that name, strikes, and sees how it ends.
type Scenario = fn(&Faults, &str) -> Result<()>;

#[test]
fn no_fault_breaks_a_promise() -> Result<()> {
    let rig = Faults::up()?;
    let scenarios: [(&str, Scenario); 8] = [
        ("leader-killed", the_leader_is_killed_in_mid_window),
        ("agent-killed", an_agent_is_killed_in_mid_task),
        ("executor-killed", an_executor_is_killed_in_mid_task),
        ("etcd-member-killed", an_etcd_member_is_killed),
        ("node-cut-off", a_node_is_cut_off_for_30_s_and_healed),
        ("first-server-stopped", the_first_server_leads_is_stopped_and_continued),
        ("leader-stopped", another_server_leads_is_stopped_and_continued),
        ("node-fenced", a_node_is_cut_off_and_the_window_goes_on_after_its_fence),
    ];
    let mut failures = Vec::new();
    for (run, scenario) in scenarios {
        let began = Instant::now();
        let result = scenario(&rig, run).and_then(|()| rig.judge(run));
        println!(
            "{run}: {} after {:.1} s",
            if result.is_ok() { "ok" } else { "FAILED" },
            began.elapsed().as_secs_f64()
        );
        if let Err(error) = result {
            println!("{}", rig.story(run));
            failures.push(format!("{run}: {error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn the_leader_is_killed_in_mid_window(rig: &Faults, run: &str) -> Result<()> {
    rig.start(run)?;
    rig.wait_for_a_start(run, 1)?;
    rig.signal(&rig.leader()?, "KILL")?;
    rig.wait_for_phase(run, "Succeeded")
}

fn an_agent_is_killed_in_mid_task(rig: &Faults, run: &str) -> Result<()> {
    rig.start(run)?;
    let node = rig.wait_for_a_start(run, 1)?;
    rig.signal(&node, "KILL")?;
    rig.wait_for_phase(run, "Succeeded")
}

fn an_executor_is_killed_in_mid_task(rig: &Faults, run: &str) -> Result<()> {
    rig.start(run)?;
    let node = rig.wait_for_a_start(run, 1)?;
    rig.lab.exec(&node, &["pkill", "-KILL", "-f", "lockstepd execute"])?;
    // A command that was cut is not run again by itself, and the first failure stops the rollout.
    rig.wait_for_phase(run, "Failed")?;
    let described = rig.ctl(&["describe", "run", run])?;
    ensure!(described.contains(&format!("{node} Interrupted")), "the node is not Interrupted:\n{described}");
    let others = rig.marks()?.iter().filter(|m| m.run == run && m.word == "start" && m.node != node).count();
    ensure!(others == 0, "{others} other nodes started after the failure");
    Ok(())
}

fn an_etcd_member_is_killed(rig: &Faults, run: &str) -> Result<()> {
    rig.start(run)?;
    rig.wait_for_a_start(run, 1)?;
    rig.lab.exec("h2", &["systemctl", "kill", "-s", "KILL", "etcd"])?;
    // The unit is not restarted: the run must end with two of three members.
    rig.wait_for_phase(run, "Succeeded")?;
    rig.lab.exec("h2", &["systemctl", "restart", "etcd"])?;
    Ok(())
}

fn a_node_is_cut_off_for_30_s_and_healed(rig: &Faults, run: &str) -> Result<()> {
    rig.start(run)?;
    // Not h1: its etcd member may go, but the admin asks there.
    let mut node = rig.wait_for_a_start(run, 1)?;
    if node == "h1" {
        node = rig.wait_for_a_start(run, 2)?;
    }
    rig.lab.partition(&node)?;
    std::thread::sleep(Duration::from_secs(30));
    let started = rig.marks()?.iter().filter(|m| m.run == run && m.word == "start" && m.node != node).count();
    let phase = rig.phase(run)?;
    rig.lab.heal(&node)?;
    ensure!(phase != "Succeeded" && phase != "Failed", "the run was {phase} while {node} was cut off");
    ensure!(started <= 1, "{started} other nodes started while {node} held its place");
    rig.wait_for_phase(run, "Succeeded")
}

/// The server that made the admin's context, and was its only one: it must not be the only one that it asks.
fn the_first_server_leads_is_stopped_and_continued(rig: &Faults, run: &str) -> Result<()> {
    rig.lead("h1")?;
    the_leader_is_stopped_and_continued(rig, run, "h1")
}

fn another_server_leads_is_stopped_and_continued(rig: &Faults, run: &str) -> Result<()> {
    rig.lead("h3")?;
    the_leader_is_stopped_and_continued(rig, run, "h3")
}

fn the_leader_is_stopped_and_continued(rig: &Faults, run: &str, leader: &str) -> Result<()> {
    rig.start(run)?;
    rig.wait_for_a_start(run, 1)?;
    let stopped = rig.stop(leader)?;
    let other = HOSTS.iter().find(|host| **host != leader).context("three hosts")?;
    let deadline = Instant::now() + PATIENCE;
    while rig.leader_as_seen_from(other).is_none_or(|now| now == leader) {
        ensure!(Instant::now() < deadline, "nobody else leads");
    }
    drop(stopped);
    rig.wait_for_phase(run, "Succeeded")
}

/// Under `onNodeLost: AfterFence`: the node's guard kills its task, and only then another node starts.
fn a_node_is_cut_off_and_the_window_goes_on_after_its_fence(rig: &Faults, run: &str) -> Result<()> {
    rig.start_book("fenced", run)?;
    let mut node = rig.wait_for_a_start(run, 1)?;
    // Not h1: the admin asks there.
    let count = if node == "h1" { 2 } else { 1 };
    node = rig.wait_for_a_start(run, count)?;
    rig.lab.partition(&node)?;
    let went_on = rig.wait_for_a_start(run, count + 1);
    let alive = rig.lab.try_exec(&node, &["pgrep", "-f", "sleep 424[23]"])?.status.success();
    rig.lab.heal(&node)?;
    went_on?;
    ensure!(!alive, "{node}'s task is alive though another node has its place");
    // The node is lost, and one may be.
    rig.wait_for_phase(run, "Failed")?;
    let described = rig.ctl(&["describe", "run", run])?;
    ensure!(described.contains(&format!("{node} Lost")), "the node is not Lost:\n{described}");
    let ends = rig.marks()?.iter().filter(|m| m.run == run && m.word == "end").count();
    ensure!(ends == 2, "{ends} nodes came to their end, of the two that were heard");
    Ok(())
}

/// The cluster, with two books whose tasks leave marks.
struct Faults {
    rig: Rig,
}

/// A daemon that stands still.
struct Stopped<'r> {
    rig: &'r Rig,
    host: String,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.rig.signal(&self.host, "CONT") {
            println!("{} stays stopped: {error:#}", self.host);
        }
    }
}

impl std::ops::Deref for Faults {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl Faults {
    fn up() -> Result<Faults> {
        let rig = Rig::up("faults", "10.78.0", None)?;
        fs::write(rig.file("book.yaml"), books())?;
        rig.ctl(&["apply", "-f", "/shared/book.yaml"])?;
        Ok(Faults { rig })
    }

    fn start(&self, run: &str) -> Result<()> {
        self.start_book("rolling", run)
    }

    fn start_book(&self, book: &str, run: &str) -> Result<()> {
        // The former fault must be over: what is promised is to survive one at a time.
        self.settle()?;
        self.ctl(&["run", book, "--name", run]).map(drop)
    }

    /// Makes a host's server the leader: all others stand still until it is.
    fn lead(&self, host: &str) -> Result<()> {
        self.settle()?;
        let others = HOSTS.into_iter().filter(|other| *other != host);
        let stopped = others.map(|other| self.stop(other)).collect::<Result<Vec<_>>>()?;
        let deadline = Instant::now() + PATIENCE;
        while self.leader_as_seen_from(host).is_none_or(|leader| leader != host) {
            ensure!(Instant::now() < deadline, "{host} does not become the leader");
        }
        drop(stopped);
        Ok(())
    }

    /// Stops a host's daemon; it goes on when what this gives goes, however the scenario ends.
    fn stop(&self, host: &str) -> Result<Stopped<'_>> {
        self.signal(host, "STOP")?;
        Ok(Stopped { rig: &self.rig, host: host.to_owned() })
    }

    /// The node of the n-th start of the run.
    fn wait_for_a_start(&self, run: &str, n: usize) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let marks = self.marks()?;
            let mut starts = marks.iter().filter(|mark| mark.run == run && mark.word == "start");
            if let Some(mark) = starts.nth(n - 1) {
                return Ok(mark.node.clone());
            }
            ensure!(Instant::now() < deadline, "start {n} does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn marks(&self) -> Result<Vec<intervals::Mark>> {
        intervals::read(&self.rig.file("marks"))
    }

    fn judge(&self, run: &str) -> Result<()> {
        let marks = self.marks()?;
        // Whoever is lost was fenced: that its task was dead then, the scenario has seen.
        let described = self.ctl(&["describe", "run", run])?;
        let lost: Vec<&str> = HOSTS.into_iter().filter(|host| described.contains(&format!("{host} Lost"))).collect();
        intervals::never_more_than(&marks, run, 1, &lost)?;
        intervals::started_at_most(&marks, run, 1)
    }

    /// For the reader of a failed test.
    fn story(&self, run: &str) -> String {
        let mut text = self.rig.ctl(&["describe", "run", run]).unwrap_or_else(|error| format!("{error:#}"));
        for mark in self.marks().unwrap_or_default().iter().filter(|mark| mark.run == run) {
            text.push_str(&format!("{} {} {}\n", mark.at_ns, mark.word, mark.node));
        }
        text + &self.rig.journals()
    }
}

/// One whose nodes wait for each other whatever happens; and one that goes on without a node that is lost, whose work
/// takes longer there than anybody waits.
fn books() -> String {
    let mark = |word: &str| {
        format!("/opt/lockstep/lockstep-mark /shared/marks {word} ${{{{ run.name }}}} ${{{{ node.name }}}} work")
    };
    let book = |name: &str, options: &str, middle: &str| {
        format!(
            "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: {name}, namespace: default}}\n\
             spec:\n  targets: {{all: true}}\n  runOptions: {{{options}, timeout: 10m}}\n  tasks:\n    \
             - name: work\n      command.run:\n        shell: \"{} && {middle} && {}\"\n",
            mark("start"),
            mark("end")
        )
    };
    let rolling = book("rolling", "serialize: 1", &format!("sleep {TASK_SECONDS}"));
    // Who is cut off stays at it, and so does what it started in a session of its own; its way to the admin's host is
    // looked for.
    let options = "serialize: {count: 1, maxFailures: 1}, onNodeLost: AfterFence";
    let hears = "timeout 1 bash -c ': </dev/tcp/10.78.0.1/2379'";
    let away =
        format!("for i in 1 2 3 4 5 6 7 8; do {hears} || {{ setsid sleep 4243 & exec sleep 4242; }}; sleep 0.4; done");
    let config = "metadata: {apiVersion: v1alpha, kind: Config, name: cluster}\nspec: {runDefaults: {fence: 6s}}\n";
    [rolling, book("fenced", options, &away), config.to_owned()].join("---\n")
}
