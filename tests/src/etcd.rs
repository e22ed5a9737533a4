//! A real etcd on loopback, with mutual TLS between members and to clients. Knows how to start, kill, stop and
//! continue its members; knows nothing of what is stored.
//!
//! Members end with the cluster's value, and with the test's process however that ends.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lockstep_daemon::store::etcd::{EtcdSettings, EtcdTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

/// An election at the usual timeouts takes 1 to 2.5 s; a start on a busy machine some more.
const READY: Duration = Duration::from_secs(60);

/// A cluster, and the folder that all of it is in.
pub struct EtcdCluster {
    folder: PathBuf,
    members: Vec<Member>,
    arguments: Vec<String>,
    /// Kills what is left and removes the folder when its standard input ends.
    guard: Child,
}

struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Member {
    fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client_port)
    }

    fn peer_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.peer_port)
    }
}

impl EtcdCluster {
    /// Starts so many members and waits until they have a leader.
    pub async fn start(members: usize) -> anyhow::Result<Self> {
        Self::start_with(members, &[]).await
    }

    /// The same, with more arguments to each member.
    pub async fn start_with(members: usize, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = find(&std::env::var_os("PATH").unwrap_or_default())?;
        let folder = tempfile::Builder::new().prefix("lockstep-etcd-").tempdir()?.keep();
        write_certificates(&folder, &["127.0.0.1", "localhost"])?;
        let guard = guard(&folder)?;
        let mut cluster = Self {
            folder,
            members: Vec::new(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            guard,
        };
        for index in 0..members {
            let name = format!("m{index}");
            let member = Member { name, client_port: free_port()?, peer_port: free_port()?, process: None };
            cluster.members.push(member);
        }
        for index in 0..members {
            cluster.spawn(index, &program)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// How a store opens it, with its keys below `root`.
    pub fn settings(&self, root: &str) -> EtcdSettings {
        EtcdSettings { endpoints: self.endpoints(), tls: Some(self.tls()), root: root.into() }
    }

    /// The URL of each member.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::client_url).collect()
    }

    /// A client's files.
    pub fn tls(&self) -> EtcdTls {
        EtcdTls {
            ca: self.folder.join("ca.pem"),
            certificate: self.folder.join("cert.pem"),
            key: self.folder.join("key.pem"),
        }
    }

    /// How many members the cluster has, dead ones too.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The process of a member, if it lives.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.members[index].process.as_ref().map(Child::id)
    }

    /// `kill -9` of a member.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        if let Some(mut process) = member.process.take() {
            process.kill()?;
            process.wait()?;
            std::fs::remove_file(self.folder.join(format!("{}.pid", member.name)))?;
        }
        Ok(())
    }

    /// Starts a killed member again, with its data.
    pub fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let program = find(&std::env::var_os("PATH").unwrap_or_default())?;
        self.spawn(index, &program)
    }

    /// Stops a member as if its machine stood still.
    pub fn pause(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::STOP)
    }

    /// Lets a paused member go on.
    pub fn resume(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::CONT)
    }

    fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let process = self.members[index].process.as_ref().context("the member is dead")?;
        Ok(kill_process(Pid::from_child(process), signal)?)
    }

    /// The index of the member that leads.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let begun = Instant::now();
        loop {
            for index in 0..self.members.len() {
                if let Ok((member, leader)) = self.status(index).await
                    && member == leader
                {
                    return Ok(index);
                }
            }
            if begun.elapsed() > READY {
                bail!("no member of etcd leads; its logs: {}", self.logs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all living members know the same leader.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let mut leaders = Vec::new();
            for index in (0..self.members.len()).filter(|index| self.members[*index].process.is_some()) {
                leaders.push(self.status(index).await.map(|(_, leader)| leader));
            }
            match leaders.first() {
                Some(Ok(first)) if *first != 0 && leaders.iter().all(|l| matches!(l, Ok(l) if l == first)) => {
                    return Ok(());
                }
                _ if begun.elapsed() > READY => {
                    bail!("etcd does not get ready: {leaders:?}; its logs: {}", self.logs())
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// (the member's id, its leader's id)
    async fn status(&self, index: usize) -> anyhow::Result<(u64, u64)> {
        use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
        let tls = self.tls();
        let identity = Identity::from_pem(std::fs::read(tls.certificate)?, std::fs::read(tls.key)?);
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(std::fs::read(tls.ca)?)).identity(identity);
        let options = ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(2));
        let mut client = Client::connect([self.members[index].client_url()], Some(options)).await?;
        let status = client.status().await?;
        Ok((status.header().context("no header")?.member_id(), status.leader()))
    }

    fn spawn(&mut self, index: usize, program: &Path) -> anyhow::Result<()> {
        let cluster: Vec<_> =
            self.members.iter().map(|member| format!("{}={}", member.name, member.peer_url())).collect();
        let member = &mut self.members[index];
        let in_folder = |name: &str| self.folder.join(name).into_os_string();
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{}.log", member.name)))?;
        let mut command = Command::new(program);
        command
            .arg("--name")
            .arg(&member.name)
            .arg("--data-dir")
            .arg(in_folder(&member.name))
            .args(["--listen-client-urls", &member.client_url(), "--advertise-client-urls", &member.client_url()])
            .args(["--listen-peer-urls", &member.peer_url(), "--initial-advertise-peer-urls", &member.peer_url()])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "lockstep"])
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000", "--log-level", "warn"]);
        for side in ["", "peer-"] {
            command
                .arg(format!("--{side}client-cert-auth"))
                .args([format!("--{side}trusted-ca-file").into(), in_folder("ca.pem")])
                .args([format!("--{side}cert-file").into(), in_folder("cert.pem")])
                .args([format!("--{side}key-file").into(), in_folder("key.pem")]);
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        std::fs::write(self.folder.join(format!("{}.pid", member.name)), process.id().to_string())?;
        member.process = Some(process);
        Ok(())
    }

    fn logs(&self) -> String {
        let tail = |member: &Member| {
            let log = std::fs::read_to_string(self.folder.join(format!("{}.log", member.name))).unwrap_or_default();
            log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
        };
        self.members.iter().map(tail).collect::<Vec<_>>().join("\n--\n")
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            if let Err(error) = self.kill(index) {
                eprintln!("a member of etcd was not killed: {error}");
            }
        }
        drop(self.guard.stdin.take());
        // It removes the folder; there is nothing to do about it if it cannot.
        let _ = self.guard.wait();
    }
}

/// The program, or the sentence that says how to get it.
pub fn find(path: &std::ffi::OsStr) -> anyhow::Result<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join("etcd")).find(|program| program.is_file()).context(
        "the tests of the store need the program etcd, which is not in PATH; on Debian and Ubuntu: \
         apt-get install etcd-server",
    )
}

/// A process of its own, so that it works after a panic, an abort or a kill of the tests: the kernel closes its input.
fn guard(folder: &Path) -> anyhow::Result<Child> {
    const SCRIPT: &str = r#"
        cat > /dev/null
        for pid in "$1"/*.pid; do [ -f "$pid" ] && kill -9 "$(cat "$pid")"; done
        rm -rf -- "$1"
    "#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not in our process group: an interrupt of the tests must not reach it first.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("cannot start sh")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// `ca.pem`, and one `cert.pem` and `key.pem` for members and clients alike: they serve tests only.
pub fn write_certificates(folder: &Path, names: &[&str]) -> anyhow::Result<()> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names)?.signed_by(&key, &ca)?;
    std::fs::write(folder.join("ca.pem"), ca.pem())?;
    std::fs::write(folder.join("cert.pem"), leaf.pem())?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_missing_etcd_is_named_with_its_package() {
        let error = super::find("/nonexistent".as_ref()).expect_err("not there");
        assert!(error.to_string().contains("etcd-server"), "{error}");
    }
}
