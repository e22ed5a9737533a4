//! A cluster of one node, and a shell whose only program is `lockstep`.

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::{
    daemon::{Daemon, program},
    etcd::EtcdCluster,
};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// For everything that must come.
const LIMIT: Duration = Duration::from_secs(20);

/// A book that changes nothing.
pub(crate) const BOOK: &str = r#"
metadata: {apiVersion: v1alpha, kind: TaskBook, name: web, namespace: default, labels: {tier: front}}
spec:
  targets: {all: true}
  tasks:
    - {name: hello, command.query: {argv: [echo, hello]}}
"#;

/// The server `s1`, which is also the only node.
pub(crate) struct Shell {
    daemon: Daemon,
}

/// What one command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shell {
    /// Once the server answers and its node is ready.
    pub(crate) fn start() -> Result<Shell> {
        Shell::over(Daemon::init("s1", &[])?)
    }

    /// The same, and its store is in etcd.
    pub(crate) fn start_with_etcd(etcd: &EtcdCluster) -> Result<Shell> {
        Shell::over(Daemon::init_with_etcd("s1", etcd)?)
    }

    fn over(daemon: Daemon) -> Result<Shell> {
        daemon.wait_until_it_answers()?;
        let shell = Shell { daemon };
        shell.until(&["get", "node", "s1", "-o", "jsonpath={.status.liveness}"], |said| said.out == "Ready\n")?;
        Ok(shell)
    }

    /// A further node, once it is ready; with `--server` in the options it is a server, too.
    pub(crate) fn join(&self, name: &str, options: &[&str]) -> Result<Daemon> {
        let token = self.ok(&[&["token", "create", "--node", name], options].concat())?;
        let daemon = self.daemon.join(name, token.trim(), options)?;
        self.until(&["get", "node", name, "-o", "jsonpath={.status.liveness}"], |said| said.out == "Ready\n")?;
        Ok(daemon)
    }

    /// The server.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// A command, whatever its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Said> {
        said(self.command(arguments)?.output()?)
    }

    /// A command that must end well; what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments)?;
        ensure!(said.code == 0, "lockstep {arguments:?}: {said:?}");
        Ok(said.out)
    }

    /// The command again and again, until what it says will do.
    pub(crate) fn until(&self, arguments: &[&str], enough: impl Fn(&Said) -> bool) -> Result<Said> {
        let began = Instant::now();
        loop {
            let said = self.run(arguments)?;
            if enough(&said) {
                return Ok(said);
            }
            if began.elapsed() > LIMIT {
                bail!("lockstep {arguments:?} still says {said:?}");
            }
        }
    }

    /// A file in the cluster's folder, with this text.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.daemon.folder().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// `web`, applied.
    pub(crate) fn book(&self) -> Result<()> {
        let file = self.file("web.yaml", BOOK)?;
        self.ok(&["apply", "-f", &file])?;
        Ok(())
    }

    /// A command that is not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("lockstep")?);
        command
            .args(arguments)
            .env("LOCKSTEP_CONTEXT", self.context())
            .env("HOME", self.daemon.folder())
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        Ok(command)
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.daemon.folder().join("context.yaml")
    }
}

pub(crate) fn said(output: Output) -> Result<Said> {
    Ok(Said {
        code: output.status.code().context("ended by a signal")?,
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

/// Columns with single blanks between them; ages become `AGE`, and this build's version `VERSION`.
pub(crate) fn plain(text: &str) -> String {
    let word = |word: &str| -> String {
        let is_age = word.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|n| n.parse::<u32>().is_ok());
        match word {
            _ if is_age => "AGE".into(),
            env!("CARGO_PKG_VERSION") => "VERSION".into(),
            other => other.to_owned(),
        }
    };
    text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}
