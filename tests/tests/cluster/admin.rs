//! What an admin does in these tests: a cluster, books, Runs, and waiting for what must come.

use anyhow::{Context, Result, bail};
use lockstep_apis::manifest;
use lockstep_apis::v1alpha::{
    ApplyRequest, CreateRequest, LogsRequest, Metadata, Object, Run, RunPhase, RunRequest, RunSpec, WatchRequest,
    object,
};
use lockstep_grpc::cluster_admin_client::ClusterAdminClient;
use lockstep_grpc::objects_client::ObjectsClient;
use lockstep_grpc::runs_client::RunsClient;
use lockstep_tests::daemon::Daemon;
use std::time::Duration;
use tonic::transport::Channel;

/// For everything that must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Within the limit, or an error that says what did not come.
pub(crate) async fn within<T>(what: &str, coming: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(LIMIT, coming).await.with_context(|| format!("{what}: not within {LIMIT:?}"))?
}

pub(crate) struct Admin {
    pub(crate) daemon: Daemon,
    pub(crate) channel: Channel,
}

impl Admin {
    /// A cluster of one server, which is also the node `s1`.
    pub(crate) async fn start() -> Result<Admin> {
        lockstep_daemon::identity::install_provider();
        let daemon = Daemon::init("s1", &[])?;
        let channel = daemon.admin().await?;
        Ok(Admin { daemon, channel })
    }

    pub(crate) fn objects(&self) -> ObjectsClient<Channel> {
        ObjectsClient::new(self.channel.clone())
    }

    pub(crate) fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterAdminClient<Channel> {
        ClusterAdminClient::new(self.channel.clone())
    }

    /// Applies a book whose spec is this YAML.
    pub(crate) async fn book(&self, name: &str, spec: &str) -> Result<()> {
        let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!(
            "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: {name}, namespace: default}}\nspec:\n{indented}"
        );
        let objects = manifest::decode(name, text.as_bytes(), None).map_err(|found| anyhow::anyhow!("{found:?}"))?;
        self.objects().apply(ApplyRequest { objects, dry_run: false }).await?;
        Ok(())
    }

    /// Starts a Run of a book, under the book's name.
    pub(crate) async fn run(&self, book: &str) -> Result<Run> {
        let metadata = Metadata { name: book.into(), namespace: "default".into(), ..Metadata::default() };
        let spec = RunSpec { task_books: vec![book.into()], ..RunSpec::default() };
        let run = Run { metadata: Some(metadata), spec: Some(spec), status: None };
        let created = self.objects().create(CreateRequest { object: Some(run.into()), dry_run: false }).await?;
        as_run(created.into_inner())
    }

    /// The Run once it is in one of these phases.
    pub(crate) async fn phase(&self, name: &str, wanted: &[RunPhase]) -> Result<Run> {
        let mut seen = None;
        let coming = async {
            let request = WatchRequest {
                kind: "Run".into(),
                namespace: "default".into(),
                name: name.into(),
                ..WatchRequest::default()
            };
            let mut changes = self.objects().watch(request).await?.into_inner();
            while let Some(change) = changes.message().await? {
                let Some(object) = change.object else { continue };
                let run = as_run(object)?;
                if wanted.contains(&phase_of(&run)) {
                    return Ok(run);
                }
                seen = Some(run);
            }
            bail!("the watch ended")
        };
        let came = within(&format!("run {name} to be {wanted:?}"), coming).await;
        came.with_context(|| format!("it was {seen:?}"))
    }

    /// The Run once it has ended.
    pub(crate) async fn ended(&self, name: &str) -> Result<Run> {
        self.phase(name, &[RunPhase::Succeeded, RunPhase::Failed, RunPhase::Cancelled]).await
    }

    pub(crate) fn request(name: &str) -> RunRequest {
        RunRequest { namespace: "default".into(), name: name.into() }
    }

    /// All that the Run's tasks printed.
    pub(crate) async fn output(&self, name: &str, follow: bool) -> Result<String> {
        let request = LogsRequest { namespace: "default".into(), run: name.into(), follow, ..LogsRequest::default() };
        let mut lines = self.runs().logs(request).await?.into_inner();
        within("the end of the output", async {
            let mut text = String::new();
            while let Some(line) = lines.message().await? {
                text.push_str(&String::from_utf8_lossy(&line.chunk.unwrap_or_default().data));
            }
            Ok(text)
        })
        .await
    }
}

pub(crate) fn as_run(object: Object) -> Result<Run> {
    match object.kind {
        Some(object::Kind::Run(run)) => Ok(run),
        other => bail!("not a Run: {other:?}"),
    }
}

pub(crate) fn phase_of(run: &Run) -> RunPhase {
    run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase())
}
