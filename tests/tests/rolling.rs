//! The rolling upgrade of examples/04-rolling-upgrade, as its readers will do it: a real service of a real package behind
//! a real balancer, on three isolated hosts, while somebody asks for it all the time. The oracle is what that somebody
//! was answered.

use anyhow::{Context, Result, ensure};
use lockstep_tests::{
    hosts::{folder, index_packages},
    rig::{HOSTS, PATIENCE, Rig, said},
    told::{TRACE, Told, nothing_was_written},
};
use std::{fs, path::Path, process::Command, time::Instant};

#[test]
fn an_upgrade_loses_no_request_and_a_broken_version_stops_at_the_canary() -> Result<()> {
    let shop = Shop::open()?;
    let upgraded = shop.steps();
    if let Err(error) = &upgraded {
        println!("{error:#}\n{}", shop.rig.journals());
    }
    upgraded
}

struct Shop {
    rig: Rig,
    packages: tempfile::TempDir,
}

impl Shop {
    fn open() -> Result<Shop> {
        let packages = tempfile::tempdir()?;
        let shop = Shop { rig: Rig::up("rolling", "10.83.0", Some(packages.path()))?, packages };
        shop.offer("1.0", 200)?;
        for host in HOSTS {
            shop.rig.ctl(&["label", "node", host, "role=web"])?;
        }
        for file in ["setup.yaml", "book.yaml"] {
            fs::copy(example().join(file), shop.rig.file(file)).context(file)?;
            shop.rig.ctl(&["apply", "-f", &format!("/shared/{file}")])?;
        }
        shop.ends("shop-setup", &[], "setup", "Succeeded")?;
        Ok(shop)
    }

    fn steps(&self) -> Result<()> {
        self.customers_come()?;
        self.the_leader_dies_in_the_middle_and_all_are_upgraded()?;
        self.a_broken_version_stops_at_the_canary()?;
        self.the_mended_version_goes_everywhere()?;
        self.a_host_that_was_down_is_done_by_retry()?;
        self.an_upgrade_to_what_is_there_changes_nothing()
    }

    fn the_leader_dies_in_the_middle_and_all_are_upgraded(&self) -> Result<()> {
        self.offer("1.1", 200)?;
        self.ends("shop", &["-i", "version=1.1", "--check"], "foretold", "Succeeded")?;
        self.start("shop", &["-i", "version=1.1"], "all")?;
        // The canary is done, the others are not.
        self.wait_until("one node has 1.1", || Ok(self.versions()?.contains(&"1.1".to_owned())))?;
        self.rig.signal(&self.rig.leader()?, "KILL")?;
        self.has_ended("all", "Succeeded")?;
        ensure!(self.versions()? == ["1.1"; 3], "{:?}", self.versions()?);
        self.told("foretold")?.holds_against(&self.told("all")?)?;
        self.every_customer_was_served()
    }

    fn a_broken_version_stops_at_the_canary(&self) -> Result<()> {
        self.rig.settle()?;
        self.offer("2.0", 500)?;
        self.ends("shop", &["-i", "version=2.0"], "broken", "Failed")?;
        let mut versions = self.versions()?;
        versions.sort();
        ensure!(versions == ["1.1", "1.1", "2.0"], "more than the canary was touched: {versions:?}");
        self.every_customer_was_served()
    }

    fn the_mended_version_goes_everywhere(&self) -> Result<()> {
        self.offer("2.1", 200)?;
        self.rig.ctl(&["rerun", "broken", "--name", "mended", "-i", "version=2.1"])?;
        self.has_ended("mended", "Succeeded")?;
        ensure!(self.versions()? == ["2.1"; 3], "{:?}", self.versions()?);
        self.every_customer_was_served()
    }

    fn a_host_that_was_down_is_done_by_retry(&self) -> Result<()> {
        self.offer("2.2", 200)?;
        self.rig.lab.exec("h3", &["systemctl", "stop", "lockstepd"])?;
        self.start("shop", &["-i", "version=2.2"], "two")?;
        self.wait_until("two nodes have 2.2", || Ok(self.versions()? == ["2.2", "2.2", "2.1"]))?;
        // Down before the Run was admitted, it is skipped; just now, it is waited for until somebody says otherwise.
        self.wait_until("the others are through", || {
            let text = self.rig.ctl(&["describe", "run", "two"])?;
            // Those to which the same happened share a line.
            let changed = |host: &str| {
                let mut nodes = text.lines().filter(|line| !line.starts_with("    ") && line.contains(" Changed"));
                nodes.any(|line| line.split(' ').any(|word| word == host))
            };
            Ok(changed("h1") && changed("h2"))
        })?;
        if self.rig.phase("two")? != "Succeeded" {
            self.rig.ctl(&["cancel", "two"])?;
            self.has_ended("two", "Cancelled")?;
        }
        self.rig.start_daemon("h3")?;
        self.rig.settle()?;
        let retried = said(&self.rig.ctl_on("h1", "60", &["retry", "two", "--wait"])?);
        ensure!(self.versions()? == ["2.2"; 3], "{:?}\n{retried}", self.versions()?);
        self.every_customer_was_served()
    }

    fn an_upgrade_to_what_is_there_changes_nothing(&self) -> Result<()> {
        let traces =
            || -> Result<Vec<_>> { HOSTS.iter().map(|host| self.rig.lab.exec(host, &["sh", "-c", TRACE])).collect() };
        let before = traces()?;
        let again = said(&self.rig.ctl_on("h1", "60", &["run", "shop", "-i", "version=2.2", "--wait"])?);
        ensure!(again.contains("3 nodes: 3 ok"), "{again}");
        before.iter().zip(&traces()?).try_for_each(|(before, after)| nothing_was_written(before, after))
    }

    /// Puts a version into the hosts' package source.
    fn offer(&self, version: &str, status: u16) -> Result<()> {
        let made = Command::new(example().join("package.sh"))
            .args([Path::new(version), self.packages.path(), Path::new(&status.to_string())])
            .status()
            .context("package.sh")?;
        ensure!(made.success(), "package.sh: {made}");
        index_packages(self.packages.path())
    }

    fn start(&self, book: &str, flags: &[&str], run: &str) -> Result<()> {
        self.rig.ctl(&[&["run", book, "--name", run], flags].concat()).map(drop)
    }

    fn ends(&self, book: &str, flags: &[&str], run: &str, phase: &str) -> Result<()> {
        self.start(book, flags, run)?;
        self.has_ended(run, phase)
    }

    fn has_ended(&self, run: &str, phase: &str) -> Result<()> {
        let ended = self.rig.wait_for_phase(run, phase);
        ended.with_context(|| self.rig.ctl(&["describe", "run", run]).unwrap_or_default())
    }

    fn told(&self, run: &str) -> Result<Told> {
        Told::read(&self.rig.ctl(&["describe", "run", run])?)
    }

    /// The version that each host serves.
    fn versions(&self) -> Result<Vec<String>> {
        let of = |host: &&str| self.rig.lab.exec(host, &["dpkg-query", "-W", "-f=${Version}", "shop"]);
        HOSTS.iter().map(of).collect()
    }

    /// Somebody asks through the balancer, one request after another, until the hosts go.
    fn customers_come(&self) -> Result<()> {
        let ask = "while :; do curl -s -o /dev/null -m 5 -w '%{http_code}\\n' http://h1/ >>/shared/answers; done";
        self.rig.lab.exec("h2", &["systemd-run", "--quiet", "--unit", "customers", "sh", "-c", ask])?;
        self.wait_until("the first customers were served", || Ok(self.answers()?.len() > 20))
    }

    fn answers(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.rig.file("answers")).unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn every_customer_was_served(&self) -> Result<()> {
        let answers = self.answers()?;
        let failed: Vec<_> = answers.iter().enumerate().filter(|(_, code)| *code != "200").collect();
        ensure!(failed.is_empty(), "{} of {} requests failed: {:?}", failed.len(), answers.len(), &failed[..1]);
        println!("{} requests, none failed", answers.len());
        Ok(())
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so()? {
            ensure!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        }
        Ok(())
    }
}

fn example() -> std::path::PathBuf {
    folder().join("../examples/04-rolling-upgrade")
}
