//! `lockstep run --local` on an isolated host: the same executor and actions as the agent's, without a cluster.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use crate::hosts::{Lab, LabOptions, programs};

/// How long anything that a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One host, and a folder that it shares with the test as `/shared`.
pub struct LocalHost {
    lab: Lab,
    folder: tempfile::TempDir,
}

/// How a book ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code of `lockstep`.
    pub code: Option<i32>,
    /// All it printed.
    pub text: String,
}

impl LocalHost {
    /// Boots it.
    pub fn up(name: &str, subnet: &str, packages: Option<&Path>) -> Result<LocalHost> {
        let folder = tempfile::tempdir()?;
        let binds =
            [format!("{}:/opt/lockstep:ro", programs()?.display()), format!("{}:/shared", folder.path().display())];
        let lab = Lab::up(1, &LabOptions { name, subnet, binds: &binds, packages })?;
        Ok(LocalHost { lab, folder })
    }

    /// Runs a command in the host; its output if it succeeded.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        self.lab.exec("h1", argv)
    }

    /// Runs a command in the host, however it ends.
    pub fn try_exec(&self, argv: &[&str]) -> Result<Output> {
        self.lab.try_exec("h1", argv)
    }

    /// Writes a file that the host sees as `/shared/NAME`.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        fs::write(self.folder.path().join(name), content).context("the shared folder")
    }

    /// Does a book of one task, given in the book's own words.
    pub fn run(&self, task: &str, flags: &[&str]) -> Result<Ran> {
        self.prepare("book", task)?;
        let program = ["/opt/lockstep/lockstep", "run", "--local", "-f", "/shared/book.yaml"];
        let done = self.try_exec(&[&program, flags].concat())?;
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        Ok(Ran { code: done.status.code(), text })
    }

    /// Writes a book of one task as `/shared/NAME.yaml`.
    pub fn prepare(&self, name: &str, task: &str) -> Result<()> {
        let head = "metadata: {apiVersion: v1alpha, kind: TaskBook, name: local, namespace: default}";
        self.write(&format!("{name}.yaml"), &format!("{head}\nspec:\n  targets: {{all: true}}\n  tasks:\n  - {task}\n"))
    }

    /// Does the task, which must end well, having changed something.
    pub fn changes(&self, task: &str) -> Result<Ran> {
        let ran = self.run(task, &["--diff"])?;
        ensure!(ran.code == Some(0) && ran.text.contains("1 changed"), "{task} changed nothing: {ran:?}");
        Ok(ran)
    }

    /// Does the task, which must find all as it should be.
    pub fn is_ok(&self, task: &str) -> Result<()> {
        let ran = self.run(task, &[])?;
        ensure!(ran.code == Some(0) && ran.text.contains("1 ok"), "{task} is not converged: {ran:?}");
        Ok(())
    }

    /// A check of the task, which must say that it would change something, with these words.
    pub fn would_change(&self, task: &str, words: &str) -> Result<()> {
        let ran = self.run(task, &["--check"])?;
        ensure!(ran.code == Some(0) && ran.text.contains("1 would change"), "{task}: {ran:?}");
        ensure!(ran.text.contains(words), "{task} does not say {words:?}: {ran:?}");
        Ok(())
    }

    /// Does the task, which must fail with all these words.
    pub fn fails(&self, task: &str, words: &[&str]) -> Result<Ran> {
        let ran = self.run(task, &[])?;
        ensure!(ran.code != Some(0) && ran.text.contains("1 failed"), "{task} did not fail: {ran:?}");
        for word in words {
            ensure!(ran.text.contains(word), "{task} does not say {word:?}: {ran:?}");
        }
        Ok(ran)
    }

    /// Waits until the shell's condition is true in the host.
    pub fn wait_until(&self, condition: &str) -> Result<()> {
        let looped = format!("until {condition}; do sleep 0.05; done");
        let limit = PATIENCE.as_secs().to_string();
        let began = Instant::now();
        let done = self.try_exec(&["timeout", &limit, "sh", "-c", &looped])?;
        ensure!(done.status.success(), "not after {:?}: {condition}", began.elapsed());
        Ok(())
    }
}
