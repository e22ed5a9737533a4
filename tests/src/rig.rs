//! A whole cluster on isolated hosts: a real three-member etcd with mutual TLS and three real daemons under systemd.
//! Knows how to start it, speak to it and hurt it; judges nothing.

use crate::{
    etcd,
    hosts::{Lab, LabOptions, programs},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

/// The hosts; each is a node, a server and an etcd member.
pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// A lease of the old leader, an election of etcd, and room for two busy processors.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Three hosts, an etcd, three daemons, and a folder that all hosts share.
pub struct Rig {
    /// The hosts.
    pub lab: Lab,
    shared: tempfile::TempDir,
    nodes: u32,
}

impl Rig {
    /// Boots the hosts and returns when all nodes are ready. `lab` names them, `subnet` is their network's first three
    /// octets; `packages` is a folder of `.deb` files that is their only package source.
    pub fn up(lab: &str, subnet: &str, packages: Option<&Path>) -> Result<Rig> {
        Rig::up_with_agents(lab, subnet, packages, 0)
    }

    /// The same with further hosts, `h4` and so on, that are nodes only.
    pub fn up_with_agents(lab: &str, subnet: &str, packages: Option<&Path>, agents: u32) -> Result<Rig> {
        let nodes = 3 + agents;
        let shared = tempfile::tempdir()?;
        let addresses = [1, 2, 3].map(|n| format!("{subnet}.{n}"));
        etcd::write_certificates(shared.path(), &addresses.each_ref().map(String::as_str))?;
        let programs = programs()?;
        let etcd = etcd::find(&std::env::var_os("PATH").unwrap_or_default())?;
        let binds = [
            format!("{}:/opt/lockstep:ro", programs.display()),
            format!("{}:/usr/local/bin/etcd:ro", etcd.display()),
            format!("{}:/shared", shared.path().display()),
        ];
        let lab = Lab::up(nodes, &LabOptions { name: lab, subnet, binds: &binds, packages })?;
        let rig = Rig { lab, shared, nodes };
        rig.start_etcd()?;
        rig.start_daemons()?;
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
        self.start_daemon("h1")?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.ctl(&["status"]) {
            ensure!(Instant::now() < deadline, "the first server does not answer: {error:#}");
        }
        for n in 2..=self.nodes {
            self.join(n, &first)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.ctl(&["status"]).is_ok_and(|text| self.all_are_ready(&text)) {
            ensure!(Instant::now() < deadline, "the nodes do not become ready");
        }
        Ok(())
    }

    /// Joins host `n`, as a server if it has an etcd member.
    fn join(&self, n: u32, first: &str) -> Result<()> {
        let host = format!("h{n}");
        let server: &[&str] = if HOSTS.contains(&host.as_str()) { &["--server"] } else { &[] };
        let token = self.ctl(&[&["token", "create", "--node", &host], server].concat())?;
        let mut join = daemon("join", &host, &format!("{}:7400", self.lab.address(n)));
        join.extend([token.trim().to_owned(), "--server-address".to_owned(), first.to_owned()]);
        join.extend(server.iter().map(|&flag| flag.to_owned()));
        self.exec(&host, &join)?;
        self.start_daemon(&host)
    }

    fn all_are_ready(&self, status: &str) -> bool {
        status.contains(&format!("{0} of {0} ready", self.nodes))
    }

    /// Starts a host's daemon, as a unit of systemd that is restarted when it dies.
    pub fn start_daemon(&self, host: &str) -> Result<()> {
        self.exec(host, &serve())
    }

    /// Waits until a former fault is over: every node ready, and somebody leads.
    pub fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.ctl(&["status"]).is_ok_and(|text| self.all_are_ready(&text) && !text.contains("leader   none")) {
            ensure!(Instant::now() < deadline, "the cluster does not come back");
        }
        Ok(())
    }

    /// The admin's tool, with the first host that answers.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut failure = String::new();
        // Like any admin's machine, it may ask another server when one is gone.
        for host in HOSTS {
            let done = self.ctl_on(host, "10", arguments)?;
            if done.status.success() {
                return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
            }
            failure = said(&done);
        }
        bail!("lockstep {arguments:?}: {failure}")
    }

    /// The admin's tool on one host, however it ends; killed after so many seconds.
    pub fn ctl_on(&self, host: &str, seconds: &str, arguments: &[&str]) -> Result<Output> {
        let argv = ["timeout", seconds, "/opt/lockstep/lockstep", "--context", "/shared/context.yaml"];
        self.lab.try_exec(host, &[&argv, arguments].concat())
    }

    fn exec(&self, host: &str, argv: &[String]) -> Result<()> {
        self.lab.exec(host, &argv.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    }

    /// Sends a signal to a host's daemon.
    pub fn signal(&self, host: &str, signal: &str) -> Result<()> {
        self.lab.exec(host, &["systemctl", "kill", "--kill-who=main", "-s", signal, "lockstepd"]).map(drop)
    }

    /// Who leads.
    pub fn leader(&self) -> Result<String> {
        HOSTS.iter().find_map(|host| self.leader_as_seen_from(host)).context("nobody leads")
    }

    /// Who leads, says this host.
    pub fn leader_as_seen_from(&self, host: &str) -> Option<String> {
        let argv = ["timeout", "10", "/opt/lockstep/lockstep", "--context", "/shared/context.yaml", "status"];
        let done = self.lab.try_exec(host, &argv).ok()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("leader   "))?.to_owned();
        HOSTS.contains(&name.as_str()).then_some(name)
    }

    /// The Run's phase.
    pub fn phase(&self, run: &str) -> Result<String> {
        let text = self.ctl(&["get", "run", run, "-o", "json"])?;
        let run: serde_json::Value = serde_json::from_str(&text)?;
        let run = if run.is_array() { run[0].clone() } else { run };
        Ok(run["status"]["phase"].as_str().unwrap_or("Pending").to_owned())
    }

    /// Waits until the Run has the phase; an error if it ends otherwise.
    pub fn wait_for_phase(&self, run: &str, wanted: &str) -> Result<()> {
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

    /// The daemons' own words, for the reader of a failed test.
    pub fn journals(&self) -> String {
        let mut text = String::new();
        for host in HOSTS {
            let log = self.lab.try_exec(host, &["journalctl", "--no-pager", "-u", "lockstepd", "-n", "40"]);
            text.push_str(&format!("--- {host}\n{}", log.map(|done| said(&done)).unwrap_or_default()));
        }
        text
    }

    /// A file of the folder that is `/shared` on every host.
    pub fn file(&self, name: &str) -> PathBuf {
        self.shared.path().join(Path::new(name))
    }
}

/// A transient unit; only its main process is killed when it ends, so that executors live on.
fn unit(name: &str, options: &[&str]) -> Vec<String> {
    let mut argv: Vec<String> =
        ["systemd-run", "--quiet", "--unit", name, "-p", "KillMode=process", "-p", "Delegate=yes"]
            .map(str::to_owned)
            .into();
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

/// All that a command said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
