//! A real `lockstepd` of this build, on loopback, in a folder of its own. It ends with its value.

use crate::etcd::EtcdCluster;
use anyhow::{Context, Result, bail, ensure};
use lockstep_apis::v1alpha::StatusRequest;
use lockstep_grpc::{
    channel::{self, ClientIdentity},
    cluster_admin_client::ClusterAdminClient,
};
use serde_json::Value;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tonic::transport::Channel;

/// How long a daemon may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One running daemon.
pub struct Daemon {
    folder: tempfile::TempDir,
    address: String,
    process: Child,
}

impl Daemon {
    /// Makes a cluster whose store is in etcd, and starts its first server.
    pub fn init_with_etcd(name: &str, etcd: &EtcdCluster) -> Result<Daemon> {
        let tls = etcd.tls();
        let file = |path: PathBuf| path.display().to_string();
        let store = [
            "--etcd",
            &etcd.endpoints().join(","),
            "--etcd-ca",
            &file(tls.ca),
            "--etcd-cert",
            &file(tls.certificate),
            "--etcd-key",
            &file(tls.key),
        ]
        .map(str::to_owned);
        Daemon::init(name, &store)
    }

    /// The same with the embedded store, or with other arguments of `lockstepd init`.
    pub fn init(name: &str, arguments: &[String]) -> Result<Daemon> {
        let folder = tempfile::tempdir()?;
        let context = folder.path().join("context.yaml").display().to_string();
        let arguments = [&["--context-file".to_owned(), context], arguments].concat();
        Daemon::make(folder, "init", name, &arguments)
    }

    /// Joins the cluster of this one, by a token that was made for the name; with further arguments of `lockstepd join`.
    pub fn join(&self, name: &str, token: &str, arguments: &[&str]) -> Result<Daemon> {
        let known = [token, "--server-address", &self.address];
        let arguments: Vec<String> = known.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        Daemon::make(tempfile::tempdir()?, "join", name, &arguments)
    }

    fn make(folder: tempfile::TempDir, command: &str, name: &str, arguments: &[String]) -> Result<Daemon> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        fs::create_dir(folder.path().join("root"))?;
        let program = program("lockstepd")?;
        let made = Command::new(&program)
            .args([command, "--name", name, "--listen", &address])
            .args(place(folder.path()))
            .args(arguments)
            .output()
            .with_context(|| format!("lockstepd {command}"))?;
        if !made.status.success() {
            bail!("lockstepd {command}: {}", String::from_utf8_lossy(&made.stderr));
        }
        let process = serve(&program, folder.path())?;
        Ok(Daemon { folder, address, process })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its folder: `state`, `root`, `log`, `context.yaml`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again after [`Daemon::kill`].
    pub fn start(&mut self) -> Result<()> {
        self.process = serve(&program("lockstepd")?, self.folder.path())?;
        Ok(())
    }

    /// The admin's identity, as `init` wrote it.
    pub fn admin_identity(&self) -> Result<ClientIdentity> {
        let text = fs::read_to_string(self.folder.path().join("context.yaml"))?;
        let found = lockstep_apis::manifest::decode_value("context", text.as_bytes())
            .map_err(|found| anyhow::anyhow!("the context: {found:?}"))?;
        let context: Value = (&found).into();
        let part = |name: &str| context[name].as_str().with_context(|| format!("the context has no {name}"));
        Ok(ClientIdentity::from_pem(part("ca")?, part("chain")?, part("key")?)?)
    }

    /// Waits until it answers its admin; not from within a runtime.
    pub fn wait_until_it_answers(&self) -> Result<()> {
        lockstep_daemon::identity::install_provider();
        tokio::runtime::Runtime::new()?.block_on(self.admin()).map(drop)
    }

    /// The admin's tool with these arguments; all that it said, if it ended well.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let done = Command::new(program("lockstep")?)
            .arg("--context")
            .arg(self.folder.path().join("context.yaml"))
            .args(arguments)
            .output()
            .context("lockstep")?;
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "lockstep {arguments:?}: {said}");
        Ok(said)
    }

    /// A channel of the admin, once the server answers on it.
    pub async fn admin(&self) -> Result<Channel> {
        let identity = self.admin_identity()?;
        let began = Instant::now();
        loop {
            let error = match channel::connect(std::slice::from_ref(&self.address), &identity).await {
                Ok(channel) => match ClusterAdminClient::new(channel.clone()).status(StatusRequest {}).await {
                    Ok(_) => return Ok(channel),
                    Err(status) => anyhow::anyhow!("{status}"),
                },
                Err(error) => anyhow::anyhow!("{error}"),
            };
            if began.elapsed() > START_LIMIT {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("the server does not answer: {error:#}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(program: &Path, folder: &Path) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
    let child = Command::new(program)
        .arg("serve")
        .args(place(folder))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("lockstepd serve")?;
    Ok(child)
}

fn place(folder: &Path) -> Vec<String> {
    [("--config", "lockstepd.yaml"), ("--state-folder", "state"), ("--root", "root")]
        .into_iter()
        .flat_map(|(option, name)| [option.to_owned(), folder.join(name).display().to_string()])
        .collect()
}

/// A program of this build. A test's own file lies in `target/<profile>/deps`, a program's beside what is sought.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built: run `make build` first"))
}
