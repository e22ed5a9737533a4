//! Runs that meet on a real server: concurrency keys, locks of Runs and of admins, poison, approval.

use crate::admin::{Admin, as_run, phase_of};
use anyhow::{Result, ensure};
use lockstep_apis::{
    duration,
    v1alpha::{
        AcquireLockRequest, ApproveRequest, ClearLockRequest, CreateRequest, GetRequest, ListRequest, LockMode,
        Metadata, ObjectRef, ReleaseLockRequest, Run, RunPhase, RunSpec, ShowLockRequest, object,
    },
};
use lockstep_grpc::locks_client::LocksClient;
use tonic::{Code, Status, transport::Channel};

const NAMESPACE: &str = "default";

/// A book that sleeps for so long.
fn sleeps(what: &str, time: &str) -> String {
    format!("{what}\ntargets: {{all: true}}\ntasks: [{{name: sleep, time.sleep: {{duration: {time}}}}}]")
}

impl Admin {
    async fn start_run(&self, book: &str, name: &str) -> Result<Run, Status> {
        let metadata = Metadata { name: name.into(), namespace: NAMESPACE.into(), ..Metadata::default() };
        let spec = RunSpec { task_books: vec![book.into()], ..RunSpec::default() };
        let run = Run { metadata: Some(metadata), spec: Some(spec), status: None };
        let request = CreateRequest { object: Some(run.into()), dry_run: false };
        let created = self.objects().create(request).await?.into_inner();
        as_run(created).map_err(|problem| Status::internal(problem.to_string()))
    }

    fn locks(&self) -> LocksClient<Channel> {
        LocksClient::new(self.channel.clone())
    }

    async fn show(&self, name: &str) -> Result<lockstep_apis::v1alpha::LockStatus> {
        let request = ShowLockRequest { namespace: NAMESPACE.into(), name: name.into() };
        Ok(self.locks().show(request).await?.into_inner().status.unwrap_or_default())
    }

    async fn event_types(&self) -> Result<Vec<String>> {
        let request = ListRequest { kind: "Event".into(), namespace: NAMESPACE.into(), ..ListRequest::default() };
        let events = self.objects().list(request).await?.into_inner().items.into_iter();
        let types = events.filter_map(|event| match event.kind {
            Some(object::Kind::Event(event)) => event.spec.map(|spec| spec.r#type),
            _ => None,
        });
        Ok(types.collect())
    }

    /// Returns when an event of this type is stored.
    async fn told(&self, r#type: &str) -> Result<()> {
        crate::admin::within(r#type, async {
            while !self.event_types().await?.iter().any(|told| told == r#type) {
                tokio::task::yield_now().await;
            }
            Ok(())
        })
        .await
    }
}

fn acquire(name: &str) -> AcquireLockRequest {
    AcquireLockRequest {
        namespace: NAMESPACE.into(),
        name: name.into(),
        mode: LockMode::Write.into(),
        ttl: Some(duration::to_proto(60_000)),
        reason: "disks are swapped".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrency_key_decides_what_a_second_run_gets() -> Result<()> {
    let admin = Admin::start().await?;
    for policy in ["Refuse", "Join", "Replace", "Queue"] {
        let key = format!("concurrency: {{key: {}, policy: {policy}}}", policy.to_lowercase());
        admin.book(&policy.to_lowercase(), &sleeps(&key, "20s")).await?;
    }
    let refused = (admin.start_run("refuse", "first").await?, admin.start_run("refuse", "second").await.unwrap_err());
    assert_eq!(refused.1.code(), Code::FailedPrecondition);
    assert!(refused.1.message().contains("run first has the concurrency key `refuse`"), "{}", refused.1.message());

    admin.start_run("join", "asked").await?;
    let joined = admin.start_run("join", "again").await?;
    assert_eq!(joined.metadata.unwrap_or_default().name, "asked");

    admin.runs().cancel(Admin::request("first")).await?;
    admin.ended("first").await?;
    admin.runs().cancel(Admin::request("asked")).await?;
    admin.ended("asked").await?;
    admin.start_run("replace", "old").await?;
    admin.phase("old", &[RunPhase::Running]).await?;
    admin.start_run("replace", "new").await?;
    let old = admin.ended("old").await?;
    assert_eq!(phase_of(&old), RunPhase::Cancelled);
    let status = old.status.unwrap_or_default();
    assert!(status.message.ends_with("with run new"), "{}", status.message);
    let new = admin.phase("new", &[RunPhase::Running]).await?;
    let (began, ended) = (new.status.unwrap_or_default().started_at, status.finished_at);
    ensure!(began.map(|at| (at.seconds, at.nanos)) >= ended.map(|at| (at.seconds, at.nanos)), "{began:?} {ended:?}");
    admin.runs().cancel(Admin::request("new")).await?;
    admin.ended("new").await?;

    admin.start_run("queue", "q1").await?;
    admin.phase("q1", &[RunPhase::Running]).await?;
    admin.start_run("queue", "q2").await?;
    let waiting = admin.phase("q2", &[RunPhase::Waiting]).await?.status.unwrap_or_default();
    assert_eq!((waiting.reason.as_str(), waiting.waiting_for[0].behind.as_str()), ("ConcurrencyKey", "run/q1"));
    admin.runs().cancel(Admin::request("q1")).await?;
    admin.phase("q2", &[RunPhase::Running]).await?;
    admin.runs().cancel(Admin::request("q2")).await?;
    admin.ended("q2").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_holds_keeps_runs_waiting_and_says_who_and_why() -> Result<()> {
    let admin = Admin::start().await?;
    admin.book("web", &sleeps("locks: [shop]", "1ms")).await?;
    let lock = admin.locks().acquire(acquire("shop")).await?.into_inner();
    assert!(lock.status.unwrap_or_default().holders.is_empty());
    admin.start_run("web", "r").await?;
    let waiting = admin.phase("r", &[RunPhase::Waiting]).await?.status.unwrap_or_default();
    assert!(waiting.message.contains("holds the lock shop until"), "{}", waiting.message);
    assert!(waiting.message.ends_with("disks are swapped"), "{}", waiting.message);
    let release = ReleaseLockRequest { namespace: NAMESPACE.into(), name: "shop".into(), owner: String::new() };
    admin.locks().release(release.clone()).await?;
    assert_eq!(phase_of(&admin.ended("r").await?), RunPhase::Succeeded);
    assert_eq!(admin.locks().release(release).await.unwrap_err().code(), Code::FailedPrecondition);
    for told in ["lock/acquired", "lock/released"] {
        admin.told(told).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_leaves_poison_that_only_clearing_lifts() -> Result<()> {
    let admin = Admin::start().await?;
    let fails = "locks: [{name: shop, poison: true}]\ntargets: {all: true}\n\
                 tasks: [{name: fail, assert.that: {conditions: [\"false\"]}}]";
    admin.book("fails", fails).await?;
    admin.book("web", &sleeps("locks: [shop]", "1ms")).await?;
    admin.start_run("fails", "f").await?;
    assert_eq!(phase_of(&admin.ended("f").await?), RunPhase::Failed);
    let poison = admin.show("shop").await?.poison.unwrap_or_default();
    assert_eq!(poison.run, "f");
    admin.start_run("web", "r").await?;
    let waiting = admin.phase("r", &[RunPhase::Waiting]).await?.status.unwrap_or_default();
    assert_eq!((waiting.reason.as_str(), waiting.waiting_for[0].behind.as_str()), ("LockPoisoned", "run/f"));
    admin.told("lock/poisoned").await?;
    let clear = ClearLockRequest { namespace: NAMESPACE.into(), name: "shop".into() };
    admin.locks().clear(clear.clone()).await?;
    assert_eq!(phase_of(&admin.ended("r").await?), RunPhase::Succeeded);
    assert_eq!(admin.locks().clear(clear).await.unwrap_err().code(), Code::FailedPrecondition);
    let reference = ObjectRef { kind: "Lock".into(), namespace: NAMESPACE.into(), name: "shop".into() };
    crate::admin::within("the lock to go with its use", async {
        let get = || GetRequest { r#ref: Some(reference.clone()) };
        while admin.objects().get(get()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_approval_and_keeps_by_whom() -> Result<()> {
    let admin = Admin::start().await?;
    admin.book("web", &sleeps("approval: {required: true}", "1ms")).await?;
    admin.start_run("web", "r").await?;
    let waiting = admin.phase("r", &[RunPhase::AwaitingApproval]).await?.status.unwrap_or_default();
    assert_eq!(waiting.reason, "AwaitingApproval");
    let approve = |name: &str, reason: &str| ApproveRequest {
        namespace: NAMESPACE.into(),
        name: name.into(),
        reason: reason.into(),
    };
    let long = admin.runs().approve(approve("r", &"x".repeat(1025))).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    admin.runs().approve(approve("r", "looked at")).await?;
    let status = admin.ended("r").await?.status.unwrap_or_default();
    let approval = status.approval.clone().unwrap_or_default();
    assert_eq!((status.phase(), approval.reason.as_str()), (RunPhase::Succeeded, "looked at"));
    ensure!(approval.at.is_some() && !approval.by.is_empty() && !approval.by_uid.is_empty());
    admin.told("run/approved").await
}

#[tokio::test(flavor = "multi_thread")]
async fn b37_what_a_runs_state_does_not_allow_is_refused() -> Result<()> {
    let admin = Admin::start().await?;
    admin.book("quick", &sleeps("", "1ms")).await?;
    admin.book("two", &sleeps("approval: {twoPersons: true}", "1ms")).await?;
    admin.start_run("quick", "done").await?;
    admin.ended("done").await?;
    let finished = admin.runs().cancel(Admin::request("done")).await.unwrap_err();
    assert_eq!(finished.code(), Code::FailedPrecondition, "cancel a finished run");
    admin.start_run("two", "going").await?;
    admin.phase("going", &[RunPhase::AwaitingApproval]).await?;
    let running = admin.runs().retry(Admin::request("going")).await.unwrap_err();
    assert_eq!(running.code(), Code::FailedPrecondition, "retry what has not ended");
    let own = ApproveRequest { namespace: NAMESPACE.into(), name: "going".into(), reason: String::new() };
    let own = admin.runs().approve(own).await.unwrap_err();
    assert_eq!(own.code(), Code::PermissionDenied, "approve one's own run: {own:?}");
    admin.runs().cancel(Admin::request("going")).await?;
    admin.ended("going").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_cannot_be_are_refused_and_change_nothing() -> Result<()> {
    let admin = Admin::start().await?;
    let wrong = [
        (AcquireLockRequest { name: "No Name".into(), ..acquire("x") }, Code::InvalidArgument),
        (AcquireLockRequest { ttl: None, ..acquire("x") }, Code::InvalidArgument),
        (AcquireLockRequest { ttl: Some(duration::to_proto(604_800_001)), ..acquire("x") }, Code::InvalidArgument),
        (AcquireLockRequest { reason: String::new(), ..acquire("x") }, Code::InvalidArgument),
        (AcquireLockRequest { reason: "x".repeat(1025), ..acquire("x") }, Code::InvalidArgument),
        (AcquireLockRequest { namespace: "nowhere".into(), ..acquire("x") }, Code::NotFound),
    ];
    for (request, code) in wrong {
        let refused = admin.locks().acquire(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{request:?}: {refused:?}");
    }
    assert_eq!(admin.show("x").await?, Default::default());
    Ok(())
}
