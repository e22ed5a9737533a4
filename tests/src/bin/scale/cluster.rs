//! The cluster under load: a real `lockstepd`, a real etcd, and what they cost.

use anyhow::{Context, Result, bail};
use lockstep_apis::{
    manifest,
    v1alpha::{
        ApplyRequest, CreateRequest, CreateTokenRequest, GetRequest, JoinRequest, Metadata, Object, ObjectRef, Run,
        RunPhase, RunSpec, StatusRequest, object,
    },
};
use lockstep_daemon::identity::credentials::FreshKey;
use lockstep_grpc::{
    agents_client::AgentsClient, channel::ClientIdentity, cluster_admin_client::ClusterAdminClient,
    objects_client::ObjectsClient, peer::Authority,
};
use lockstep_tests::{daemon::Daemon, etcd::EtcdCluster};
use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::transport::Channel;

const WAIT: Duration = Duration::from_secs(300);
/// Joins that are under way at once.
const JOINS: usize = 16;

/// What an agent got by joining.
pub(crate) struct Joined {
    pub(crate) uid: String,
    pub(crate) cluster_id: String,
    pub(crate) identity: ClientIdentity,
}

/// Counted by etcd since it started.
pub(crate) struct Writes {
    pub(crate) puts: u64,
    pub(crate) bytes: u64,
    pub(crate) revision: u64,
}

/// Seconds of processor time since the start.
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) etcd: f64,
}

pub(crate) struct Cluster {
    daemon: Daemon,
    etcd: EtcdCluster,
    metrics: String,
    admin: Channel,
}

impl Cluster {
    pub(crate) async fn start() -> Result<Cluster> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let metrics = format!("127.0.0.1:{port}");
        let etcd = EtcdCluster::start_with(
            1,
            &["--listen-metrics-urls", &format!("http://{metrics}"), "--quota-backend-bytes", "8589934592"],
        )
        .await?;
        let daemon = Daemon::init_with_etcd("s1", &etcd)?;
        let admin = daemon.admin().await?;
        Ok(Cluster { daemon, etcd, metrics, admin })
    }

    pub(crate) fn address(&self) -> &str {
        self.daemon.address()
    }

    /// New nodes, with tokens, as `lockstepd join` does it.
    pub(crate) async fn join(&self, numbers: Range<usize>) -> Result<Vec<Joined>> {
        let mut joins = tokio::task::JoinSet::new();
        let mut joined = Vec::new();
        for number in numbers {
            if joins.len() == JOINS {
                joined.push(joins.join_next().await.context("a join")???);
            }
            joins.spawn(join(self.admin.clone(), format!("sim{number:05}")));
        }
        while let Some(done) = joins.join_next().await {
            joined.push(done??);
        }
        Ok(joined)
    }

    pub(crate) async fn wait_for_ready(&self, nodes: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let status = ClusterAdminClient::new(self.admin.clone()).status(StatusRequest {}).await?.into_inner();
            // The server's own node is ready, too.
            if status.nodes_ready as usize > nodes {
                return Ok(());
            }
            if began.elapsed() > WAIT {
                bail!("{} of {nodes} nodes are ready", status.nodes_ready);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until the store has seen no write for a second.
    pub(crate) async fn wait_until_idle(&self) -> Result<()> {
        let mut before = self.store_writes().await?.puts;
        let began = Instant::now();
        while began.elapsed() < WAIT {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.store_writes().await?.puts;
            if now == before {
                return Ok(());
            }
            before = now;
        }
        bail!("the store does not come to rest: an idle agent must not write")
    }

    pub(crate) async fn apply_book(&self, name: &str, tasks: usize, windows: Option<&str>) -> Result<()> {
        let name = book_name(name);
        let mut text = format!(
            "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: {name}, namespace: default}}\nspec:\n  targets: {{selector: scale=sim}}\n"
        );
        if let Some(count) = windows {
            text.push_str(&format!("  runOptions: {{serialize: {{count: \"{count}\"}}}}\n"));
        }
        text.push_str("  tasks:\n");
        for n in 0..tasks {
            text.push_str(&format!("    - {{name: task {n}, command.run: {{argv: [/bin/true, \"{n}\"]}}}}\n"));
        }
        let objects = manifest::decode(&name, text.as_bytes(), None).map_err(|found| anyhow::anyhow!("{found:?}"))?;
        self.objects().apply(ApplyRequest { objects, dry_run: false }).await?;
        Ok(())
    }

    pub(crate) async fn run(&self, name: &str, size: usize) -> Result<()> {
        let run = Run {
            metadata: Some(Metadata {
                api_version: "v1alpha".into(),
                kind: "Run".into(),
                name: format!("{}-{size}", book_name(name)),
                namespace: "default".into(),
                ..Metadata::default()
            }),
            spec: Some(RunSpec { task_books: vec![book_name(name)], ..RunSpec::default() }),
            status: None,
        };
        let object = Some(Object { kind: Some(object::Kind::Run(run)) });
        self.objects().create(CreateRequest { object, dry_run: false }).await?;
        Ok(())
    }

    pub(crate) async fn wait_for_end(&self, name: &str, size: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let reference = ObjectRef {
                kind: "Run".into(),
                namespace: "default".into(),
                name: format!("{}-{size}", book_name(name)),
            };
            let object = self.objects().get(GetRequest { r#ref: Some(reference) }).await?.into_inner();
            let Some(object::Kind::Run(run)) = object.kind else { bail!("not a Run") };
            let status = run.status.unwrap_or_default();
            match status.phase() {
                RunPhase::Succeeded if status.nodes.as_ref().is_some_and(|n| n.ok as usize == size) => return Ok(()),
                RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => bail!("{name} ended as {status:?}"),
                _ if began.elapsed() > WAIT => bail!("{name} does not end: {status:?}"),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// What etcd has counted.
    pub(crate) async fn store_writes(&self) -> Result<Writes> {
        let text = lockstep_tests::http::get(&self.metrics, "/metrics").await?;
        let value = |name: &str| -> Result<u64> {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")))
                .with_context(|| format!("etcd has no {name}"))?;
            Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()? as u64)
        };
        Ok(Writes {
            puts: value("etcd_debugging_mvcc_put_total")?,
            bytes: value("etcd_network_client_grpc_received_bytes_total")?,
            revision: value("etcd_debugging_mvcc_current_revision")?,
        })
    }

    pub(crate) fn server_rss_bytes(&self) -> Result<u64> {
        lockstep_tests::process::rss_bytes(self.daemon.pid())
    }

    pub(crate) fn cpu_seconds(&self) -> Result<Cpu> {
        let etcd = self.etcd.pid(0).context("etcd runs")?;
        Ok(Cpu {
            server: lockstep_tests::process::cpu_seconds(self.daemon.pid())?,
            etcd: lockstep_tests::process::cpu_seconds(etcd)?,
        })
    }

    fn objects(&self) -> ObjectsClient<Channel> {
        ObjectsClient::new(self.admin.clone())
    }
}

async fn join(admin: Channel, name: String) -> Result<Joined> {
    let request = CreateTokenRequest {
        node_name: name.clone(),
        labels: [("scale".to_owned(), "sim".to_owned())].into(),
        ..CreateTokenRequest::default()
    };
    let text = ClusterAdminClient::new(admin.clone()).create_token(request).await?.into_inner().token;
    let token = lockstep_daemon::identity::tokens::parse(&text).map_err(|_| anyhow::anyhow!("not a token"))?;
    let key = FreshKey::generate()?;
    let answer = AgentsClient::new(admin)
        .join(JoinRequest {
            token_id: token.id.clone(),
            token_secret: token.secret.to_vec(),
            node_name: name,
            csr: key.request().to_vec(),
            ..JoinRequest::default()
        })
        .await?
        .into_inner();
    let authority = Authority::from_der(answer.ca_certificate.into())?;
    let credentials = key.certified(answer.certificate_chain, Arc::new(authority))?;
    Ok(Joined { uid: answer.node_uid, cluster_id: answer.cluster_id, identity: credentials.client()? })
}

fn book_name(run: &str) -> String {
    run.trim_end_matches('%').to_owned()
}
