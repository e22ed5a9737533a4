//! `lockstep dev`: a cluster on this machine. Every node is a real daemon with a folder of its own, in which `root`
//! stands for `/`. Nothing is simulated; only the machine is shared.

use super::daemon_program;
use crate::{
    cli::{DevCommand, Global},
    context::Session,
    error::{Error, Result},
};
use lockstep_apis::v1alpha::{CreateTokenRequest, StatusRequest, StatusResponse};
use std::{
    env, fs, io,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a daemon may take to be there.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a daemon may take to go after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// More servers than this only slow etcd down.
const MAX_SERVERS: u32 = 3;

pub(crate) fn dev(command: &DevCommand) -> Result<()> {
    match command {
        DevCommand::Up { nodes, folder, etcd, etcd_identity } => {
            let cluster = Cluster::at(folder.as_deref());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Error::Usage(format!("cannot start: {e}")))?;
            runtime.block_on(cluster.up(*nodes, &Etcd::new(etcd, etcd_identity.as_deref())))
        }
        DevCommand::Down { folder } => Cluster::at(folder.as_deref()).down(),
        DevCommand::Status { folder } => Cluster::at(folder.as_deref()).status(),
    }
}

/// A real etcd, if one is asked for.
struct Etcd {
    arguments: Vec<String>,
}

impl Etcd {
    fn new(endpoints: &[String], identity: Option<&Path>) -> Etcd {
        let mut arguments = Vec::new();
        if !endpoints.is_empty() {
            arguments.extend(["--etcd".to_owned(), endpoints.join(",")]);
            if let Some(folder) = identity {
                for (option, file) in [("--etcd-ca", "ca.pem"), ("--etcd-cert", "cert.pem"), ("--etcd-key", "key.pem")]
                {
                    arguments.extend([option.to_owned(), folder.join(file).display().to_string()]);
                }
            }
        }
        Etcd { arguments }
    }

    fn is_asked_for(&self) -> bool {
        !self.arguments.is_empty()
    }
}

struct Cluster {
    folder: PathBuf,
}

impl Cluster {
    fn at(folder: Option<&Path>) -> Cluster {
        let folder = folder.map(Path::to_owned).unwrap_or_else(|| {
            let base = env::var_os("XDG_STATE_HOME").map(PathBuf::from).unwrap_or_else(|| {
                Path::new(&env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".local/state")
            });
            base.join("lockstep/dev")
        });
        // The daemons are told absolute paths: they do not run where we do.
        Cluster { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    fn node(&self, n: u32) -> Node {
        Node { name: format!("n{n}"), folder: self.folder.join(format!("n{n}")) }
    }

    fn context(&self) -> PathBuf {
        self.folder.join("context.yaml")
    }

    /// The nodes that were made, in order.
    fn nodes(&self) -> Vec<Node> {
        (1..).map(|n| self.node(n)).take_while(|node| node.folder.is_dir()).collect()
    }

    async fn up(&self, count: u32, etcd: &Etcd) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(|e| Error::File(self.folder.clone(), e))?;
        let first = self.node(1);
        if !first.config().is_file() {
            first.make_folders()?;
            let context = self.context().display().to_string();
            first.daemon("init", &[&["--context-file".to_owned(), context], etcd.arguments.as_slice()].concat())?;
        }
        first.start()?;
        self.wait(|_| true).await?;
        let address = first.address()?;
        for n in 2..=count {
            let node = self.node(n);
            if !node.config().is_file() {
                node.make_folders()?;
                let server = etcd.is_asked_for() && n <= MAX_SERVERS;
                let token = self.token(&node.name, server).await?;
                let mut arguments = vec![token, "--server-address".to_owned(), address.clone()];
                if server {
                    arguments.push("--server".into());
                }
                node.daemon("join", &arguments)?;
            }
            node.start()?;
        }
        let status = self.wait(|status| status.nodes_ready >= count).await?;
        println!(
            "{} nodes are up in {}, {} of them servers; store: {}",
            status.nodes_ready,
            self.folder.display(),
            status.servers.len(),
            status.store
        );
        println!("export LOCKSTEP_CONTEXT={}", self.context().display());
        Ok(())
    }

    fn down(&self) -> Result<()> {
        let nodes = self.nodes();
        for node in nodes.iter().rev() {
            node.stop()?;
        }
        if !nodes.is_empty() {
            for node in &nodes {
                remove(&node.folder)?;
            }
            fs::remove_file(self.context()).or_else(ignore_missing).map_err(|e| Error::File(self.context(), e))?;
            // Other things may be in the folder: they are not ours.
            let _ = fs::remove_dir(&self.folder);
        }
        println!("{} nodes stopped and removed", nodes.len());
        Ok(())
    }

    fn status(&self) -> Result<()> {
        let nodes = self.nodes();
        if nodes.is_empty() {
            println!("no cluster in {}; `lockstep dev up` makes one", self.folder.display());
            return Ok(());
        }
        for node in nodes {
            let state = match node.process() {
                Some(pid) => format!("running, process {pid}"),
                None => "stopped".into(),
            };
            println!("{}  {}  {state}", node.name, node.address().unwrap_or_else(|_| "-".into()));
        }
        println!("export LOCKSTEP_CONTEXT={}", self.context().display());
        Ok(())
    }

    async fn session(&self) -> Result<Session> {
        Session::open(&Global { context: Some(self.context().display().to_string()), namespace: None }).await
    }

    async fn token(&self, node: &str, server: bool) -> Result<String> {
        let request = CreateTokenRequest { node_name: node.to_owned(), server, ..CreateTokenRequest::default() };
        Ok(self.session().await?.cluster().create_token(request).await?.into_inner().token)
    }

    /// Waits until a server answers and what it says will do.
    async fn wait(&self, enough: impl Fn(&StatusResponse) -> bool) -> Result<StatusResponse> {
        let began = Instant::now();
        loop {
            let answer = match self.session().await {
                Ok(session) => session
                    .cluster()
                    .status(StatusRequest {})
                    .await
                    .map(tonic::Response::into_inner)
                    .map_err(Error::from),
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(status) if enough(&status) => return Ok(status),
                Ok(status) => Error::Unreachable(format!("{} of {} nodes are ready", status.nodes_ready, status.nodes)),
                Err(error) => error,
            };
            if began.elapsed() > START_LIMIT {
                eprintln!("the daemons' own words are in {}/n*/log", self.folder.display());
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Node {
    name: String,
    folder: PathBuf,
}

impl Node {
    fn config(&self) -> PathBuf {
        self.folder.join("lockstepd.yaml")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn address_file(&self) -> PathBuf {
        self.folder.join("address")
    }

    fn address(&self) -> Result<String> {
        fs::read_to_string(self.address_file()).map_err(|e| Error::File(self.address_file(), e))
    }

    /// The node's own `/`, with the folders that every machine has, and an address.
    fn make_folders(&self) -> Result<()> {
        for folder in ["root/etc", "root/run", "root/tmp", "root/var", "state"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder).map_err(|e| Error::File(folder, e))?;
        }
        let unusable = |e| Error::File(self.address_file(), e);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(unusable)?;
        fs::write(self.address_file(), free.to_string()).map_err(unusable)
    }

    fn daemon(&self, command: &str, arguments: &[String]) -> Result<()> {
        let program = daemon_program();
        let done = Command::new(&program)
            .arg(command)
            .args(arguments)
            .args(["--name", &self.name, "--listen", &self.address()?])
            .arg("--config")
            .arg(self.config())
            .arg("--state-folder")
            .arg(self.folder.join("state"))
            .arg("--root")
            .arg(self.folder.join("root"))
            .output()
            .map_err(|e| Error::File(program, e))?;
        if done.status.success() {
            return Ok(());
        }
        // A half-made node would be taken for a made one the next time.
        remove(&self.folder)?;
        eprint!("{}", String::from_utf8_lossy(&done.stderr));
        Err(Error::Child(done.status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
    }

    fn start(&self) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        let log = self.folder.join("log");
        let opened = fs::OpenOptions::new().create(true).append(true).open(&log);
        let output = opened.and_then(|file| Ok((file.try_clone()?, file))).map_err(|e| Error::File(log, e))?;
        let program = daemon_program();
        let child = Command::new(&program)
            .arg("serve")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(output.0)
            .stderr(output.1)
            .process_group(0)
            .spawn()
            .map_err(|e| Error::File(program, e))?;
        let started = started_at(child.id()).unwrap_or_default();
        fs::write(self.pid_file(), format!("{} {started}", child.id())).map_err(|e| Error::File(self.pid_file(), e))
    }

    fn stop(&self) -> Result<()> {
        let Some(pid) = self.process() else { return Ok(()) };
        signal(pid, rustix::process::Signal::TERM);
        let began = Instant::now();
        while self.process().is_some() {
            if began.elapsed() > STOP_LIMIT {
                signal(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The daemon's process, if it is the one that was started: process ids come round again.
    fn process(&self) -> Option<u32> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        let (pid, started) = text.split_once(' ')?;
        let pid = pid.parse().ok()?;
        (started_at(pid)? == started.trim()).then_some(pid)
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have gone by itself meanwhile.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// When the kernel started the process, in ticks since boot; nothing if it is gone or a zombie.
fn started_at(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    (!matches!(*fields.first()?, "Z" | "X")).then(|| fields.get(19).map(|s| (*s).to_owned()))?
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).or_else(ignore_missing).map_err(|e| Error::File(folder.to_owned(), e))
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
