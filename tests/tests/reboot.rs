//! A Run reboots its nodes one after another, on hosts with a real systemd, and goes on after each: exactly once.

use anyhow::{Result, ensure};
use lockstep_tests::hosts::{Lab, LabOptions, programs};
use std::{
    fs,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(90);

const DAEMON: &str = "[Unit]
After=network.target
[Service]
ExecStart=/opt/lockstep/lockstepd serve
KillMode=process
Restart=always
RestartSec=200ms
[Install]
WantedBy=multi-user.target
";

/// Two nodes that reboot, one after the other; a third keeps the cluster.
const BOOK: &str = "metadata: {apiVersion: v1alpha, kind: TaskBook, name: kernel, namespace: default}
spec:
  targets: {nodes: [h2, h3]}
  runOptions: {serialize: {count: 1}}
  tasks:
    - {name: before, command.run: {shell: 'echo before >>/root/story'}}
    - {name: reboot, reboot.ifRequired: {}, timeout: 2m}
    - {name: after, command.run: {shell: 'echo \"after ${{ facts.bootId }}\" >>/root/story'}}
    - {name: not again, reboot.ifRequired: {}}
    - {name: tell, event.raise: {type: kernel/new, message: 'on ${{ node.name }}'}}
";

struct Hosts {
    lab: Lab,
    shared: tempfile::TempDir,
}

#[test]
fn a_run_goes_on_after_it_has_rebooted_its_nodes() -> Result<()> {
    let hosts = Hosts::up()?;
    let done = hosts.the_nodes_reboot_one_after_the_other();
    if done.is_err() {
        for host in ["h1", "h2", "h3"] {
            let log = hosts.lab.try_exec(host, &["journalctl", "--no-pager", "-u", "lockstepd", "-n", "30"]);
            println!(
                "--- {host}\n{}",
                log.map(|log| String::from_utf8_lossy(&log.stdout).into_owned()).unwrap_or_default()
            );
        }
    }
    done
}

impl Hosts {
    fn up() -> Result<Hosts> {
        let shared = tempfile::tempdir()?;
        let binds =
            [format!("{}:/opt/lockstep:ro", programs()?.display()), format!("{}:/shared", shared.path().display())];
        let lab = Lab::up(3, &LabOptions { name: "reboot", subnet: "10.87.0", binds: &binds, packages: None })?;
        let hosts = Hosts { lab, shared };
        let server = format!("{}:7400", hosts.lab.address(1));
        for (name, text) in [("lockstepd.service", DAEMON), ("book.yaml", BOOK)] {
            fs::write(hosts.shared.path().join(name), text)?;
        }
        let daemon = "/opt/lockstep/lockstepd";
        let init = [daemon, "init", "--name", "h1", "--listen", &server, "--context-file", "/shared/context.yaml"];
        hosts.lab.exec("h1", &init)?;
        hosts.serve("h1")?;
        hosts.until("the server answers", || Ok(hosts.ctl(&["status"]).is_ok()))?;
        for host in ["h2", "h3"] {
            let token = hosts.ctl(&["token", "create", "--node", host])?;
            let join = [daemon, "join", "--name", host, "--server-address", &server, token.trim()];
            hosts.lab.exec(host, &join)?;
            hosts.serve(host)?;
        }
        hosts.until("the nodes are ready", || Ok(hosts.ctl(&["status"])?.contains("3 of 3 ready")))?;
        Ok(hosts)
    }

    fn the_nodes_reboot_one_after_the_other(&self) -> Result<()> {
        self.ctl(&["apply", "-f", "/shared/book.yaml"])?;
        for host in ["h2", "h3"] {
            self.lab.exec(host, &["touch", "/run/reboot-required"])?;
        }
        self.ctl(&["run", "kernel", "--name", "new"])?;
        for (host, other) in [("h2", "h3"), ("h3", "h2")] {
            let before = self.boot_id(host)?;
            self.until(&format!("{host} goes down"), || Ok(!self.lab.is_up(host)?))?;
            ensure!(self.lab.is_up(other)?, "both are down at once");
            let nodes = self.ctl(&["get", "nodes"])?;
            ensure!(!nodes.contains("Unreachable"), "a node that reboots is missed:\n{nodes}");
            self.lab.start(host)?;
            self.until(&format!("{host} is back"), || Ok(self.boot_id(host).is_ok_and(|now| now != before)))?;
            self.until(&format!("{host} goes on"), || Ok(self.story(host)?.contains("after")))?;
            let story = format!("before\nafter {}\n", self.boot_id(host)?);
            ensure!(self.story(host)? == story, "{}", self.story(host)?);
        }
        self.until("the run ends", || {
            let run = self.ctl(&["get", "run", "new"])?;
            ensure!(!run.contains("Failed"), "{run}\n{}", self.ctl(&["describe", "run", "new"])?);
            Ok(run.contains("Succeeded"))
        })?;
        // Told by the nodes, each once.
        self.until("the nodes' events are there", || Ok(self.told()?.lines().count() >= 3))?;
        let told = self.told()?;
        ensure!(told.lines().count() == 3 && told.contains("on h2") && told.contains("on h3"), "{told}");
        Ok(())
    }

    fn told(&self) -> Result<String> {
        self.ctl(&["events", "--type", "raised/kernel/new"])
    }

    fn story(&self, host: &str) -> Result<String> {
        self.lab.exec(host, &["cat", "/root/story"])
    }

    fn boot_id(&self, host: &str) -> Result<String> {
        Ok(self.lab.exec(host, &["cat", "/proc/sys/kernel/random/boot_id"])?.trim().to_owned())
    }

    /// The daemon as a unit that is there after a reboot, too.
    fn serve(&self, host: &str) -> Result<()> {
        self.lab.exec(host, &["cp", "/shared/lockstepd.service", "/etc/systemd/system/"])?;
        self.lab.exec(host, &["systemctl", "daemon-reload"])?;
        self.lab.exec(host, &["systemctl", "enable", "--now", "lockstepd"]).map(drop)
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let argv = ["timeout", "20", "/opt/lockstep/lockstep", "--context", "/shared/context.yaml"];
        self.lab.exec("h1", &[&argv, arguments].concat())
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds()? {
            ensure!(Instant::now() < deadline, "waited in vain: {what}");
        }
        Ok(())
    }
}
