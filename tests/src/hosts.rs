//! Isolated hosts on this machine: a thin face on `hosts/hosts.sh`. Needs root, and says so.
//! A lab is taken down when its value is dropped, whatever the test did.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A set of hosts `h1`, `h2`, … on a network of their own.
pub struct Lab {
    name: String,
    subnet: String,
}

/// What a lab is made with.
pub struct LabOptions<'a> {
    /// 1 to 16 of a-z, 0-9: labs of different names do not meet.
    pub name: &'a str,
    /// First three octets of the hosts' addresses.
    pub subnet: &'a str,
    /// `source:destination[:ro]`, shown in every host.
    pub binds: &'a [String],
    /// A folder of `.deb` files that is the hosts' only package source.
    pub packages: Option<&'a Path>,
}

impl Lab {
    /// Boots `count` hosts; the first time on a machine it builds their Debian tree.
    pub fn up(count: u32, options: &LabOptions<'_>) -> Result<Lab> {
        if !rustix::process::geteuid().is_root() {
            bail!("isolated hosts need root: run this test as root, or with sudo");
        }
        let lab = Lab { name: options.name.to_owned(), subnet: options.subnet.to_owned() };
        let done = lab
            .script()
            .args(["up", &count.to_string()])
            .env("LAB_BIND", options.binds.join(","))
            .env("LAB_REPO", options.packages.unwrap_or(Path::new("")))
            .output()
            .context("tests/hosts/hosts.sh")?;
        if !done.status.success() {
            bail!("hosts.sh up: {}", text(&done));
        }
        Ok(lab)
    }

    /// The address of host `n`.
    pub fn address(&self, n: u32) -> String {
        format!("{}.{n}", self.subnet)
    }

    /// Runs a command in a host; its output if it succeeded.
    pub fn exec(&self, host: &str, argv: &[&str]) -> Result<String> {
        let done = self.try_exec(host, argv)?;
        if !done.status.success() {
            bail!("{host}: {argv:?}: {}: {}", done.status, text(&done));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Runs a command in a host, however it ends.
    pub fn try_exec(&self, host: &str, argv: &[&str]) -> Result<Output> {
        self.script().arg("exec").arg(host).args(argv).stdin(Stdio::null()).output().context("hosts.sh exec")
    }

    /// Cuts a host off, both ways: its packets vanish.
    pub fn partition(&self, host: &str) -> Result<()> {
        self.simple(&["partition", host])
    }

    /// Undoes [`Lab::partition`].
    pub fn heal(&self, host: &str) -> Result<()> {
        self.simple(&["heal", host])
    }

    /// Whether a host runs: one that has shut itself down does not, until it is started. A command in a host that is
    /// going down may hang; this does not.
    pub fn is_up(&self, host: &str) -> Result<bool> {
        Ok(self.script().args(["pid", host]).output().context("hosts.sh pid")?.status.success())
    }

    /// Pulls a host's plug.
    pub fn stop(&self, host: &str) -> Result<()> {
        self.simple(&["stop", host])
    }

    /// Boots a stopped host from its disk.
    pub fn start(&self, host: &str) -> Result<()> {
        self.simple(&["start", host])
    }

    fn simple(&self, arguments: &[&str]) -> Result<()> {
        let done = self.script().args(arguments).output().context("hosts.sh")?;
        if !done.status.success() {
            bail!("hosts.sh {arguments:?}: {}", text(&done));
        }
        Ok(())
    }

    fn script(&self) -> Command {
        let mut command = Command::new(folder().join("hosts/hosts.sh"));
        command.env("LAB_NAME", &self.name).env("LAB_SUBNET", &self.subnet);
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os("LOCKSTEP_KEEP_LAB").is_none() {
            let _ = self.script().arg("down").output();
        }
    }
}

/// Makes a tiny package in the folder; `depends` is what it needs, `postinst` a shell script that its installation runs.
pub fn make_package(folder: &Path, name: &str, version: &str, depends: &str, postinst: &str) -> Result<()> {
    script_on(folder, "mkdeb", &[name, version, depends], postinst)
}

/// Puts real packages of Debian into the folder, with all that they need beyond the hosts' tree.
pub fn fetch_packages(folder: &Path, names: &[&str]) -> Result<()> {
    script_on(folder, "fetch", names, "")
}

/// Makes the folder a repository of the packages in it; to be done again after each change.
pub fn index_packages(folder: &Path) -> Result<()> {
    script_on(folder, "repo", &[], "")
}

fn script_on(folder: &Path, verb: &str, arguments: &[&str], postinst: &str) -> Result<()> {
    let mut command = Command::new(self::folder().join("hosts/hosts.sh"));
    let done = command.arg(verb).arg(folder).args(arguments).env("LAB_POSTINST", postinst).output()?;
    if !done.status.success() {
        bail!("hosts.sh {verb}: {}", text(&done));
    }
    Ok(())
}

/// The folder of this crate.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The folder with the programs that were built with this test.
pub fn programs() -> Result<PathBuf> {
    let daemon = crate::daemon::program("lockstepd")?;
    crate::daemon::program("lockstep")?;
    Ok(daemon.parent().context("a program lies in a folder")?.to_owned())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
