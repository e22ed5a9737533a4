//! Examples of several hosts: three servers with etcd, and a fourth node.

use anyhow::{Context, Result, ensure};
use lockstep_tests::{
    hosts::{fetch_packages, folder, index_packages, make_package},
    rig::{PATIENCE, Rig},
    told::{TRACE, Told, nothing_was_written},
};
use std::{cell::Cell, fs, path::Path, process::Command, time::Instant};

pub(crate) const EXAMPLES: [&str; 5] =
    ["01-lockstep", "07-three-tier", "08-kubeadm-join", "10-certificates", "13-security-updates"];

const HOSTS: [&str; 4] = ["h1", "h2", "h3", "h4"];

#[test]
fn examples_of_several_hosts_do_what_their_check_says_and_then_nothing() -> Result<()> {
    let cluster = Cluster::open()?;
    let first = cluster.converges("01-lockstep", "web", &[]);
    let done = first
        .and_then(|()| cluster.certificates())
        .and_then(|()| cluster.kubernetes())
        .and_then(|()| cluster.three_tiers())
        .and_then(|()| cluster.security_updates());
    if done.is_err() {
        println!("{}", cluster.rig.journals());
    }
    done
}

struct Cluster {
    rig: Rig,
    packages: tempfile::TempDir,
    /// Of the last Run's name.
    runs: Cell<u32>,
}

impl Cluster {
    fn open() -> Result<Cluster> {
        let packages = tempfile::tempdir()?;
        fetch_packages(packages.path(), &["postgresql", "python3-psycopg2"])?;
        index_packages(packages.path())?;
        let rig = Rig::up_with_agents("examples4", "10.86.0", Some(packages.path()), 1)?;
        Ok(Cluster { rig, packages, runs: Cell::new(0) })
    }

    fn three_tiers(&self) -> Result<()> {
        self.offer_notes("1.0")?;
        self.label(&["h1"], "tier=db")?;
        self.label(&["h2", "h3"], "tier=app")?;
        self.label(&["h4"], "tier=web")?;
        self.converges("07-three-tier", "notes", &["-i", "version=1.0"])?;
        self.rig.lab.exec("h1", &["curl", "-sSf", "-d", "buy milk", "http://h4/"])?;
        let served = || self.rig.lab.exec("h1", &["curl", "-sSf", "http://h4/"]);
        ensure!(served()? == "notes 1.0\nbuy milk\n", "{}", served()?);
        let password = self.rig.lab.exec("h1", &["cat", "/etc/notes.password"])?;
        self.offer_notes("1.1")?;
        let upgrade = self.run("notes", &["-i", "version=1.1"])?;
        ensure!(served()? == "notes 1.1\nbuy milk\n", "{}", served()?);
        for text in [self.rig.ctl(&["describe", "run", &upgrade])?, self.rig.ctl(&["logs", &upgrade])?] {
            ensure!(!text.contains(password.trim()), "the password is in the clear");
        }
        Ok(())
    }

    fn kubernetes(&self) -> Result<()> {
        for host in HOSTS {
            for name in ["kubeadm", "kubectl"] {
                let path = format!("/usr/local/bin/{name}");
                fs::copy(folder().join("tests/examples/kubeadm.sh"), self.rig.file(name))?;
                self.rig.lab.exec(host, &["cp", &format!("/shared/{name}"), &path])?;
            }
        }
        self.label(&["h1"], "role=control-plane")?;
        self.label(&["h2", "h3"], "role=worker")?;
        self.converges("08-kubeadm-join", "kubernetes", &[])?;
        ensure!(self.kubernetes_knows("nodes")? == ["h2", "h3"], "{:?}", self.kubernetes_knows("nodes")?);
        ensure!(self.kubernetes_knows("tokens")?.len() == 1, "a token is made only for who joins");

        self.label(&["h4"], "role=worker")?;
        let fourth = self.run("kubernetes", &[])?;
        ensure!(self.kubernetes_knows("nodes")? == ["h2", "h3", "h4"], "{:?}", self.kubernetes_knows("nodes")?);
        let told = self.rig.ctl(&["describe", "run", &fourth])?;
        let left_alone = |host| Told::read(&told).map(|told| !told.changes_on(host));
        ensure!(left_alone("h2")? && left_alone("h3")? && !left_alone("h4")?, "who has joined is left alone: {told}");
        let logs = self.rig.ctl(&["logs", &fourth])?;
        for token in self.kubernetes_knows("tokens")? {
            ensure!(!told.contains(&token) && !logs.contains(&token), "a token is in the clear");
        }
        Ok(())
    }

    fn kubernetes_knows(&self, what: &str) -> Result<Vec<String>> {
        let folder = self.rig.file("kubernetes").join(what);
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn certificates(&self) -> Result<()> {
        self.label(&["h1"], "ca=yes")?;
        self.label(&["h2", "h3"], "tls=yes")?;
        self.converges("10-certificates", "certificates", &[])?;
        let ask = "openssl s_client -connect h2:443 -servername h2 -verify_hostname h2 -verify_return_error </dev/null \
                   2>/dev/null | openssl x509 -noout -serial";
        let served = || self.rig.lab.exec("h3", &["sh", "-c", ask]);
        let first = served()?;
        ensure!(first.starts_with("serial="), "h3 trusts h2 by the system's store: {first}");
        self.run("certificates", &["-i", "days=100"])?;
        ensure!(served()? != first, "the certificate is new and served");
        Ok(())
    }

    fn security_updates(&self) -> Result<()> {
        self.label(&["h4"], "updates=auto")?;
        self.rig.lab.exec("h4", &["systemctl", "enable", "--quiet", "--now", "ssh"])?;
        self.offer_core("1.0", "")?;
        self.rig.lab.exec("h4", &["sh", "-c", "apt-get -qq update && apt-get -qqy install core"])?;
        self.offer_core("1.1", "touch /run/reboot-required")?;
        let boot = || self.rig.lab.exec("h4", &["cat", "/proc/sys/kernel/random/boot_id"]);
        let first = boot()?;
        self.apply("13-security-updates")?;
        self.run("updates", &["--check"])?;
        self.rig.ctl(&["run", "updates", "--name", "reboots"])?;
        let deadline = Instant::now() + PATIENCE;
        while self.rig.lab.is_up("h4")? {
            ensure!(
                Instant::now() < deadline,
                "h4 does not go down: {}",
                self.rig.ctl(&["describe", "run", "reboots"])?
            );
        }
        // What is plugged in comes up again by itself.
        self.rig.lab.start("h4")?;
        self.rig.start_daemon("h4")?;
        self.rig.wait_for_phase("reboots", "Succeeded")?;
        ensure!(
            self.rig.lab.exec("h4", &["dpkg-query", "-W", "-f=${Version}", "core"])? == "1.1",
            "core is not updated"
        );
        let second = boot()?;
        ensure!(second != first, "it was rebooted");
        self.told(&self.run("updates", &[])?)?.changes_nothing()?;
        ensure!(boot()? == second, "nothing asks for a second reboot");
        Ok(())
    }

    /// Puts a version of a package that is at the bottom of all into the hosts' package source.
    fn offer_core(&self, version: &str, postinst: &str) -> Result<()> {
        make_package(self.packages.path(), "core", version, "", postinst)?;
        index_packages(self.packages.path())
    }

    /// A check says what the run does, the run changes something, the next one nothing.
    fn converges(&self, example: &str, book: &str, flags: &[&str]) -> Result<()> {
        self.apply(example)?;
        let before = self.traces()?;
        let checked = self.told(&self.run(book, &[flags, &["--check"]].concat())?)?;
        self.nothing_was_written(&before).with_context(|| format!("{example}: the check"))?;
        let first = self.told(&self.run(book, flags)?)?;
        checked.holds_against(&first).context(example.to_owned())?;
        ensure!(first.changes(), "{example}: nothing changed");
        let before = self.traces()?;
        let again = self.told(&self.run(book, flags)?)?;
        again.changes_nothing().with_context(|| format!("{example}: the second run"))?;
        self.nothing_was_written(&before).with_context(|| format!("{example}: the second run"))
    }

    fn apply(&self, example: &str) -> Result<()> {
        fs::write(self.rig.file("book.yaml"), super::text(example, "book.yaml")?)?;
        self.rig.ctl(&["apply", "-f", "/shared/book.yaml"]).map(drop)
    }

    fn traces(&self) -> Result<Vec<String>> {
        HOSTS.iter().map(|host| self.rig.lab.exec(host, &["sh", "-c", TRACE])).collect()
    }

    fn nothing_was_written(&self, before: &[String]) -> Result<()> {
        let after = self.traces()?;
        HOSTS.iter().zip(before.iter().zip(&after)).try_for_each(|(host, (before, after))| {
            nothing_was_written(before, after).with_context(|| (*host).to_owned())
        })
    }

    /// Runs the book; the name of the Run, which has succeeded.
    fn run(&self, book: &str, flags: &[&str]) -> Result<String> {
        self.runs.set(self.runs.get() + 1);
        let name = format!("{book}-{}", self.runs.get());
        self.rig.ctl(&[&["run", book, "--name", &name], flags].concat())?;
        let told = || self.rig.ctl(&["describe", "run", &name]).unwrap_or_default();
        self.rig.wait_for_phase(&name, "Succeeded").with_context(|| format!("{name} {flags:?}\n{}", told()))?;
        Ok(name)
    }

    fn told(&self, run: &str) -> Result<Told> {
        let text = self.rig.ctl(&["describe", "run", run])?;
        println!("{run}{}", text.split_once("\nnodes:").map_or(text.as_str(), |(_, nodes)| nodes));
        Told::read(&text)
    }

    fn label(&self, hosts: &[&str], label: &str) -> Result<()> {
        self.rig.ctl(&[&["label", "node"], hosts, &[label]].concat()).map(drop)
    }

    /// Puts a version of the application into the hosts' package source.
    fn offer_notes(&self, version: &str) -> Result<()> {
        let made = Command::new(folder().join("../examples/07-three-tier/package.sh"))
            .args([Path::new(version), self.packages.path()])
            .status()
            .context("package.sh")?;
        ensure!(made.success(), "package.sh: {made}");
        index_packages(self.packages.path())
    }
}
