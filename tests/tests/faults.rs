//! Real faults on three isolated hosts: a real three-member etcd with mutual TLS, three real daemons under systemd.
//! The oracle is the monotonic log that the nodes' own tasks write; it knows nothing of Lockstep.

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::{
    etcd,
    hosts::{Lab, LabOptions, programs},
    intervals,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// Long enough for a fault to strike in the middle of it.
const TASK_SECONDS: u32 = 3;
/// A lease of the old leader, an election of etcd, and room for two busy processors.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts the run of that name, strikes, and sees how it ends.
type Scenario = fn(&Rig, &str) -> Result<()>;

#[test]
fn no_fault_breaks_a_promise() -> Result<()> {
    let rig = Rig::up()?;
    let scenarios: [(&str, Scenario); 6] = [
        ("leader-killed", the_leader_is_killed_in_mid_window),
        ("agent-killed", an_agent_is_killed_in_mid_task),
        ("executor-killed", an_executor_is_killed_in_mid_task),
        ("etcd-member-killed", an_etcd_member_is_killed),
        ("node-cut-off", a_node_is_cut_off_for_30_s_and_healed),
        ("leader-stopped", the_leader_is_stopped_and_continued),
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

fn the_leader_is_killed_in_mid_window(rig: &Rig, run: &str) -> Result<()> {
    rig.start(run)?;
    rig.wait_for_a_start(run, 1)?;
    rig.signal(&rig.leader()?, "KILL")?;
    rig.wait_for_phase(run, "Succeeded")
}

fn an_agent_is_killed_in_mid_task(rig: &Rig, run: &str) -> Result<()> {
    rig.start(run)?;
    let node = rig.wait_for_a_start(run, 1)?;
    rig.signal(&node, "KILL")?;
    rig.wait_for_phase(run, "Succeeded")
}

fn an_executor_is_killed_in_mid_task(rig: &Rig, run: &str) -> Result<()> {
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

fn an_etcd_member_is_killed(rig: &Rig, run: &str) -> Result<()> {
    rig.start(run)?;
    rig.wait_for_a_start(run, 1)?;
    rig.lab.exec("h2", &["systemctl", "kill", "-s", "KILL", "etcd"])?;
    // The unit is not restarted: the run must end with two of three members.
    rig.wait_for_phase(run, "Succeeded")?;
    rig.lab.exec("h2", &["systemctl", "restart", "etcd"])?;
    Ok(())
}

fn a_node_is_cut_off_for_30_s_and_healed(rig: &Rig, run: &str) -> Result<()> {
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

fn the_leader_is_stopped_and_continued(rig: &Rig, run: &str) -> Result<()> {
    rig.start(run)?;
    rig.wait_for_a_start(run, 1)?;
    let leader = rig.leader()?;
    rig.signal(&leader, "STOP")?;
    let other = HOSTS.iter().find(|host| **host != leader).context("three hosts")?;
    let deadline = Instant::now() + PATIENCE;
    while rig.leader_as_seen_from(other).is_none_or(|now| now == leader) {
        ensure!(Instant::now() < deadline, "nobody else leads");
    }
    rig.signal(&leader, "CONT")?;
    rig.wait_for_phase(run, "Succeeded")
}

/// Three hosts, an etcd, three daemons, one book.
struct Rig {
    lab: Lab,
    shared: tempfile::TempDir,
}

impl Rig {
    fn up() -> Result<Rig> {
        let shared = tempfile::tempdir()?;
        etcd::write_certificates(shared.path(), &["10.78.0.1", "10.78.0.2", "10.78.0.3"])?;
        let programs = programs()?;
        let etcd = etcd::find(&std::env::var_os("PATH").unwrap_or_default())?;
        let binds = [
            format!("{}:/opt/lockstep:ro", programs.display()),
            format!("{}:/usr/local/bin/etcd:ro", etcd.display()),
            format!("{}:/shared", shared.path().display()),
        ];
        let lab = Lab::up(3, &LabOptions { name: "faults", subnet: "10.78.0", binds: &binds })?;
        let rig = Rig { lab, shared };
        rig.start_etcd()?;
        rig.start_daemons()?;
        fs::write(rig.file("book.yaml"), book())?;
        rig.ctl(&["apply", "-f", "/shared/book.yaml"])?;
        Ok(rig)
    }

    fn start_etcd(&self) -> Result<()> {
        let cluster: Vec<String> = (1..=3).map(|n| format!("h{n}=https://{}:2380", self.lab.address(n))).collect();
        for n in 1..=3 {
            let (host, address) = (format!("h{n}"), self.lab.address(n));
            let (client, peer) = (format!("https://{address}:2379"), format!("https://{address}:2380"));
            let mut argv = unit("etcd", &["-p", "Restart=no"]);
            argv.extend(
                [
                    "/usr/local/bin/etcd",
                    "--name",
                    &host,
                    "--data-dir",
                    "/var/lib/etcd",
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ]
                .map(str::to_owned),
            );
            argv.extend(["--initial-cluster".to_owned(), cluster.join(",")]);
            for side in ["", "peer-"] {
                argv.push(format!("--{side}client-cert-auth"));
                for (option, file) in
                    [("trusted-ca-file", "ca.pem"), ("cert-file", "cert.pem"), ("key-file", "key.pem")]
                {
                    argv.extend([format!("--{side}{option}"), format!("/shared/{file}")]);
                }
            }
            self.exec(&host, &argv)?;
        }
        Ok(())
    }

    fn start_daemons(&self) -> Result<()> {
        let endpoints: Vec<String> = (1..=3).map(|n| format!("https://{}:2379", self.lab.address(n))).collect();
        let etcd = [
            "--etcd",
            &endpoints.join(","),
            "--etcd-ca",
            "/shared/ca.pem",
            "--etcd-cert",
            "/shared/cert.pem",
            "--etcd-key",
            "/shared/key.pem",
        ]
        .map(str::to_owned);
        let first = format!("{}:7400", self.lab.address(1));
        let mut init = daemon("init", "h1", &first);
        init.extend(["--context-file".into(), "/shared/context.yaml".into()]);
        init.extend(etcd);
        self.exec("h1", &init)?;
        self.exec("h1", &serve())?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.ctl(&["status"]) {
            ensure!(Instant::now() < deadline, "the first server does not answer: {error:#}");
        }
        for n in 2..=3 {
            let host = format!("h{n}");
            let token = self.ctl(&["token", "create", "--node", &host, "--server"])?;
            let mut join = daemon("join", &host, &format!("{}:7400", self.lab.address(n)));
            join.extend([token.trim().into(), "--server".into(), "--server-address".into(), first.clone()]);
            self.exec(&host, &join)?;
            self.exec(&host, &serve())?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.ctl(&["status"]).is_ok_and(|text| text.contains("3 of 3 ready")) {
            ensure!(Instant::now() < deadline, "the nodes do not become ready");
        }
        Ok(())
    }

    fn start(&self, run: &str) -> Result<()> {
        // The former fault must be over: what is promised is to survive one at a time.
        let deadline = Instant::now() + PATIENCE;
        while !self.ctl(&["status"]).is_ok_and(|text| text.contains("3 of 3 ready") && !text.contains("leader   none"))
        {
            ensure!(Instant::now() < deadline, "the cluster does not come back");
        }
        self.ctl(&["run", "rolling", "--name", run]).map(drop)
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut failure = String::new();
        // Like any admin's machine, it may ask another server when one is gone.
        for host in HOSTS {
            let mut argv = vec!["timeout", "10", "/opt/lockstep/lockstep", "--context", "/shared/context.yaml"];
            argv.extend(arguments);
            let done = self.lab.try_exec(host, &argv)?;
            if done.status.success() {
                return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
            }
            failure = said(&done);
        }
        bail!("lockstep {arguments:?}: {failure}")
    }

    fn exec(&self, host: &str, argv: &[String]) -> Result<()> {
        self.lab.exec(host, &argv.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    }

    fn signal(&self, host: &str, signal: &str) -> Result<()> {
        self.lab.exec(host, &["systemctl", "kill", "--kill-who=main", "-s", signal, "lockstepd"]).map(drop)
    }

    fn leader(&self) -> Result<String> {
        HOSTS.iter().find_map(|host| self.leader_as_seen_from(host)).context("nobody leads")
    }

    fn leader_as_seen_from(&self, host: &str) -> Option<String> {
        let argv = ["timeout", "10", "/opt/lockstep/lockstep", "--context", "/shared/context.yaml", "status"];
        let done = self.lab.try_exec(host, &argv).ok()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("leader   "))?.to_owned();
        HOSTS.contains(&name.as_str()).then_some(name)
    }

    fn phase(&self, run: &str) -> Result<String> {
        let text = self.ctl(&["get", "run", run, "-o", "json"])?;
        let run: serde_json::Value = serde_json::from_str(&text)?;
        let run = if run.is_array() { run[0].clone() } else { run };
        Ok(run["status"]["phase"].as_str().unwrap_or("Pending").to_owned())
    }

    fn wait_for_phase(&self, run: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.phase(run) {
                Ok(phase) if phase == wanted => return Ok(()),
                Ok(phase) if ["Succeeded", "Failed", "Cancelled"].contains(&phase.as_str()) => {
                    bail!("ended {phase}, wanted {wanted}")
                }
                other => ensure!(Instant::now() < deadline, "not {wanted} in {PATIENCE:?}: {other:?}"),
            }
        }
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
        intervals::read(&self.file("marks"))
    }

    fn judge(&self, run: &str) -> Result<()> {
        let marks = self.marks()?;
        intervals::never_more_than(&marks, run, 1, &[])?;
        intervals::started_at_most(&marks, run, 1)
    }

    /// For the reader of a failed test.
    fn story(&self, run: &str) -> String {
        let mut text = self.ctl(&["describe", "run", run]).unwrap_or_else(|error| format!("{error:#}"));
        for mark in self.marks().unwrap_or_default().iter().filter(|mark| mark.run == run) {
            text.push_str(&format!("{} {} {}\n", mark.at_ns, mark.word, mark.node));
        }
        for host in HOSTS {
            let log = self.lab.try_exec(host, &["journalctl", "--no-pager", "-u", "lockstepd", "-n", "40"]);
            text.push_str(&format!("--- {host}\n{}", log.map(|done| said(&done)).unwrap_or_default()));
        }
        text
    }

    fn file(&self, name: &str) -> PathBuf {
        self.shared.path().join(Path::new(name))
    }
}

fn book() -> String {
    let mark = |word: &str| {
        format!("/opt/lockstep/lockstep-mark /shared/marks {word} ${{{{ run.name }}}} ${{{{ node.name }}}} work")
    };
    format!(
        "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: rolling, namespace: default}}\n\
         spec:\n  targets: {{all: true}}\n  runOptions: {{serialize: 1, timeout: 10m}}\n  tasks:\n    \
         - name: work\n      command.run:\n        shell: \"{} && sleep {TASK_SECONDS} && {}\"\n",
        mark("start"),
        mark("end")
    )
}

/// A transient unit; only its main process is killed when it ends, so that executors live on.
fn unit(name: &str, options: &[&str]) -> Vec<String> {
    let mut argv: Vec<String> =
        ["systemd-run", "--quiet", "--unit", name, "-p", "KillMode=process"].map(str::to_owned).into();
    argv.extend(options.iter().map(|s| (*s).to_owned()));
    argv
}

fn serve() -> Vec<String> {
    let mut argv = unit("lockstepd", &["-p", "Restart=always", "-p", "RestartSec=200ms"]);
    argv.extend(["/opt/lockstep/lockstepd", "serve"].map(str::to_owned));
    argv
}

fn daemon(command: &str, name: &str, listen: &str) -> Vec<String> {
    ["/opt/lockstep/lockstepd", command, "--name", name, "--listen", listen].map(str::to_owned).into()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
