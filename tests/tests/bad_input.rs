//! What a real server does with bad input that no tool of ours would send: a clear error, and nothing stored.
//! The text forms' own table is in `apis/tests/bad_input/`.

use anyhow::{Context, Result, ensure};
use lockstep_apis::{
    manifest,
    v1alpha::{
        ApplyRequest, CreateRequest, DeleteRequest, GetRequest, ListRequest, Metadata, Object, ObjectRef, Run,
        RunPhase, RunRequest, RunSpec, Targets, TaskBook, UpdateRequest, Violations, WatchRequest, object::Kind,
    },
};
use lockstep_grpc::{objects_client::ObjectsClient, runs_client::RunsClient};
use lockstep_tests::daemon::Daemon;
use prost::Message;
use std::time::{Duration, Instant};
use tonic::{Code, Status, transport::Channel};

const BOOK: &str = "
metadata: {apiVersion: v1alpha, kind: TaskBook, name: good, namespace: default}
spec:
  targets: {all: true}
  tasks: [{name: nothing, time.sleep: {duration: 1ms}}]
";

struct Cluster {
    admin: Channel,
    // Dropped last: the daemon ends with it.
    _daemon: Daemon,
}

impl Cluster {
    async fn start() -> Result<Cluster> {
        lockstep_daemon::identity::install_provider();
        let daemon = Daemon::init("s1", &[])?;
        Ok(Cluster { admin: daemon.admin().await?, _daemon: daemon })
    }

    fn objects(&self) -> ObjectsClient<Channel> {
        ObjectsClient::new(self.admin.clone())
    }

    fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.admin.clone())
    }

    async fn create(&self, object: Object) -> Result<Object, Status> {
        let request = CreateRequest { object: Some(object), dry_run: false };
        self.objects().create(request).await.map(tonic::Response::into_inner)
    }

    /// Everything a user can have made, as (kind, name, version).
    async fn stored(&self) -> Result<Vec<(String, String, String)>> {
        let mut found = Vec::new();
        for kind in ["Namespace", "NodeGroup", "Config", "TaskBook", "Run"] {
            let request = ListRequest { kind: kind.into(), limit: 5000, ..ListRequest::default() };
            for item in self.objects().list(request).await?.into_inner().items {
                let metadata = item.metadata();
                found.push((kind.to_owned(), metadata.name.clone(), metadata.resource_version.clone()));
            }
        }
        Ok(found)
    }

    async fn run(&self, name: &str) -> Result<Run> {
        let reference = ObjectRef { kind: "Run".into(), namespace: "default".into(), name: name.into() };
        match self.objects().get(GetRequest { r#ref: Some(reference) }).await?.into_inner().kind {
            Some(Kind::Run(run)) => Ok(run),
            other => anyhow::bail!("not a Run: {other:?}"),
        }
    }

    async fn ended(&self, name: &str) -> Result<Run> {
        let began = Instant::now();
        loop {
            let run = self.run(name).await?;
            let phase = run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase());
            if matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) {
                return Ok(run);
            }
            ensure!(began.elapsed() < Duration::from_secs(30), "{name} does not end: {:?}", run.status);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn book() -> TaskBook {
    let objects = manifest::decode("book.yaml", BOOK.as_bytes(), None).expect("a good book");
    match objects.into_iter().next().and_then(|object| object.kind) {
        Some(Kind::TaskBook(book)) => book,
        other => panic!("not a book: {other:?}"),
    }
}

fn changed(change: impl FnOnce(&mut TaskBook)) -> Object {
    let mut book = book();
    change(&mut book);
    Object { kind: Some(Kind::TaskBook(book)) }
}

fn run(name: &str, spec: RunSpec) -> Object {
    let metadata = Metadata {
        api_version: "v1alpha".into(),
        kind: "Run".into(),
        name: name.into(),
        namespace: "default".into(),
        ..Metadata::default()
    };
    Object { kind: Some(Kind::Run(Run { metadata: Some(metadata), spec: Some(spec), status: None })) }
}

fn of_book(book: &str) -> RunSpec {
    RunSpec { task_books: vec![book.into()], ..RunSpec::default() }
}

fn reasons(status: &Status) -> Vec<String> {
    let found = Violations::decode(status.details()).unwrap_or_default();
    found.violations.into_iter().map(|violation| violation.reason).collect()
}

type Change = fn(&mut TaskBook);

/// (what is wrong, the change of a good book, the reason that is told)
const OBJECTS: &[(&str, Change, &str)] = &[
    ("a name with a slash", |b| metadata(b).name = "a/b".into(), "InvalidName"),
    ("an upper-case name", |b| metadata(b).name = "A".into(), "InvalidName"),
    ("a name that walks up", |b| metadata(b).name = "..".into(), "InvalidName"),
    ("a name of 254 characters", |b| metadata(b).name = "a".repeat(254), "InvalidName"),
    ("no name", |b| metadata(b).name = String::new(), "Required"),
    ("a bad label", |b| drop(metadata(b).labels.insert("a b".into(), "c".into())), "InvalidLabel"),
    ("a label of ours", |b| drop(metadata(b).labels.insert("lockstep/x".into(), "c".into())), "InvalidLabel"),
    ("a bad selector", |b| targets(b).selector = "a in (".into(), "SelectorSyntax"),
    ("no targets", |b| spec(b).targets = Some(Targets::default()), "EmptySelector"),
    ("no tasks", |b| spec(b).tasks.clear(), "EmptyTaskBook"),
    ("an unknown action", |b| spec(b).tasks[0].action = "time.slep".into(), "UnknownAction"),
    ("a field of later", |b| spec(b).trust_facts = true, "NotYet"),
    ("an expression that is none", |b| spec(b).tasks[0].when = "1 +".into(), "Expression"),
    (
        "two tasks of one id",
        |b| spec(b).tasks = vec![spec(b).tasks[0].clone(), spec(b).tasks[0].clone()],
        "DuplicateId",
    ),
];

fn metadata(book: &mut TaskBook) -> &mut Metadata {
    book.metadata.as_mut().expect("a good book")
}

fn spec(book: &mut TaskBook) -> &mut lockstep_apis::v1alpha::TaskBookSpec {
    book.spec.as_mut().expect("a good book")
}

fn targets(book: &mut TaskBook) -> &mut Targets {
    spec(book).targets.as_mut().expect("a good book")
}

#[tokio::test]
async fn wrong_objects_are_refused_and_nothing_is_stored() -> Result<()> {
    let cluster = Cluster::start().await?;
    let before = cluster.stored().await?;
    for (what, change, reason) in OBJECTS {
        let refused = cluster.create(changed(change)).await.err().with_context(|| format!("{what} was accepted"))?;
        ensure!(refused.code() == Code::InvalidArgument, "{what}: {refused}");
        let told = reasons(&refused);
        ensure!(told.iter().any(|found| found == reason), "{what}: {told:?}, not {reason}: {refused}");
    }
    ensure!(cluster.stored().await? == before, "something was stored");
    Ok(())
}

#[tokio::test]
async fn one_bad_object_of_many_stores_none() -> Result<()> {
    let cluster = Cluster::start().await?;
    let before = cluster.stored().await?;
    let objects = vec![changed(|_| ()), changed(|b| metadata(b).name = "-bad".into())];
    let refused = cluster.objects().apply(ApplyRequest { objects, dry_run: false }).await.err().context("accepted")?;
    ensure!(refused.code() == Code::InvalidArgument, "{refused}");
    ensure!(cluster.stored().await? == before, "something was stored");
    Ok(())
}

#[tokio::test]
async fn versions_decide_who_writes() -> Result<()> {
    let cluster = Cluster::start().await?;
    let created = cluster.create(changed(|_| ())).await?;
    let twice = cluster.create(changed(|_| ())).await.err().context("created twice")?;
    ensure!(twice.code() == Code::AlreadyExists, "{twice}");

    let update = |version: &str, port: i64| {
        let version = version.to_owned();
        let object = changed(move |b| {
            metadata(b).resource_version = version;
            spec(b).variables.insert("port".into(), port.into());
        });
        let mut objects = cluster.objects();
        async move { objects.update(UpdateRequest { object: Some(object), dry_run: false }).await }
    };
    let without = update("", 1).await.err().context("an update without a version")?;
    ensure!(without.code() == Code::FailedPrecondition, "{without}");
    for junk in ["abc", "-1", "18446744073709551616"] {
        let refused = update(junk, 1).await.err().with_context(|| format!("version {junk}"))?;
        ensure!(refused.code() == Code::InvalidArgument, "{junk}: {refused}");
    }
    let version = created.metadata().resource_version.clone();
    let updated = update(&version, 2).await?.into_inner();
    ensure!(updated.metadata().generation == created.metadata().generation + 1, "a new spec is a new generation");
    let stale = update(&version, 3).await.err().context("an update of an old version")?;
    ensure!(stale.code() == Code::Aborted, "{stale}");
    ensure!(cluster.stored().await?.iter().filter(|(kind, ..)| kind == "TaskBook").count() == 1, "one book");
    Ok(())
}

#[tokio::test]
async fn the_same_again_is_no_change() -> Result<()> {
    let cluster = Cluster::start().await?;
    let apply = |object: Object| {
        let mut objects = cluster.objects();
        async move { objects.apply(ApplyRequest { objects: vec![object], dry_run: false }).await }
    };
    apply(changed(|_| ())).await?;
    let before = cluster.stored().await?;
    apply(changed(|_| ())).await?;
    ensure!(cluster.stored().await? == before, "an unchanged object was written");
    Ok(())
}

#[tokio::test]
async fn runs_that_cannot_be_are_refused_or_end_with_the_reason() -> Result<()> {
    let cluster = Cluster::start().await?;
    let missing = cluster.create(run("a", of_book("absent"))).await.err().context("a missing book")?;
    ensure!(missing.code() == Code::FailedPrecondition, "{missing}");
    ensure!(missing.message().contains("absent"), "the message does not name the book: {missing}");
    let neither = cluster.create(run("b", RunSpec::default())).await.err().context("neither book nor tasks")?;
    ensure!(neither.code() == Code::InvalidArgument, "{neither}");
    let origin = RunSpec { retry_of: "x".into(), ..of_book("good") };
    let forged = cluster.create(run("c", origin)).await.err().context("a field of the server")?;
    ensure!(forged.code() == Code::InvalidArgument, "{forged}");
    ensure!(cluster.stored().await?.iter().all(|(kind, ..)| kind != "Run"), "a refused Run was stored");

    cluster.create(changed(|_| ())).await?;
    let nobody = Targets { selector: "role=nobody".into(), ..Targets::default() };
    cluster.create(run("d", RunSpec { targets: Some(nobody), ..of_book("good") })).await?;
    let status = cluster.ended("d").await?.status.context("a status")?;
    ensure!(status.phase() == RunPhase::Failed && status.reason == "NoTargets", "{status:?}");
    let undeclared = [("speed".to_owned(), 3.into())].into();
    cluster.create(run("e", RunSpec { inputs: undeclared, ..of_book("good") })).await?;
    let status = cluster.ended("e").await?.status.context("a status")?;
    ensure!(status.phase() == RunPhase::Failed && status.message.contains("speed"), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn an_ended_run_cannot_be_cancelled_nor_a_live_one_retried_nor_a_spec_changed() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create(changed(|_| ())).await?;
    cluster.create(run("quick", of_book("good"))).await?;
    let ended = cluster.ended("quick").await?;
    ensure!(ended.status.as_ref().is_some_and(|s| s.phase() == RunPhase::Succeeded), "{:?}", ended.status);
    let request = |name: &str| RunRequest { namespace: "default".into(), name: name.into() };
    let refused = cluster.runs().cancel(request("quick")).await.err().context("cancelled an ended Run")?;
    ensure!(refused.code() == Code::FailedPrecondition, "{refused}");
    let unknown = cluster.runs().cancel(request("nobody")).await.err().context("cancelled nothing")?;
    ensure!(unknown.code() == Code::NotFound, "{unknown}");

    let slow = changed(|b| {
        metadata(b).name = "slow".into();
        spec(b).tasks[0].parameters = Some(serde_json::json!({"duration": "60s"}).into());
    });
    cluster.create(slow).await?;
    cluster.create(run("long", of_book("slow"))).await?;
    let refused = cluster.runs().retry(request("long")).await.err().context("retried a live Run")?;
    ensure!(refused.code() == Code::FailedPrecondition, "{refused}");
    let mut other = cluster.run("long").await?;
    other.spec.as_mut().context("a spec")?.priority = 7;
    let object = Some(Object { kind: Some(Kind::Run(other)) });
    let refused = cluster.objects().update(UpdateRequest { object, dry_run: false }).await.err().context("changed")?;
    ensure!(matches!(refused.code(), Code::InvalidArgument | Code::Aborted), "{refused}");
    cluster.runs().cancel(request("long")).await?;
    let ended = cluster.ended("long").await?;
    ensure!(ended.status.as_ref().is_some_and(|s| s.phase() == RunPhase::Cancelled), "{:?}", ended.status);
    Ok(())
}

#[tokio::test]
async fn watches_from_nowhere_are_told_so() -> Result<()> {
    let cluster = Cluster::start().await?;
    // A version that this store has not reached is of another store: expired, like one that is too old.
    for (version, wanted) in [("abc", Code::InvalidArgument), ("99999999", Code::OutOfRange)] {
        let request =
            WatchRequest { kind: "TaskBook".into(), resource_version: version.into(), ..WatchRequest::default() };
        let code = match cluster.objects().watch(request).await {
            Err(status) => status.code(),
            Ok(stream) => stream.into_inner().message().await.err().context("a watch from nowhere")?.code(),
        };
        ensure!(code == wanted, "{version}: {code:?}");
    }
    Ok(())
}

#[tokio::test]
async fn deletes_need_to_say_what() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create(changed(|_| ())).await?;
    let delete = |name: &str, selector: &str| {
        let reference = ObjectRef { kind: "TaskBook".into(), namespace: "default".into(), name: name.into() };
        let request = DeleteRequest { r#ref: Some(reference), selector: selector.into(), ..DeleteRequest::default() };
        let mut objects = cluster.objects();
        async move { objects.delete(request).await }
    };
    for (name, selector) in [("", ""), ("", "a in ("), ("../x", "")] {
        let refused = delete(name, selector).await.err().with_context(|| format!("{name:?} {selector:?}"))?;
        ensure!(matches!(refused.code(), Code::InvalidArgument | Code::NotFound), "{refused}");
    }
    ensure!(cluster.stored().await?.iter().any(|(_, name, _)| name == "good"), "the book is gone");
    delete("good", "").await?;
    let again = delete("good", "").await.err().context("deleted twice")?;
    ensure!(again.code() == Code::NotFound, "{again}");
    Ok(())
}
