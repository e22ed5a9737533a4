//! The seven verbs against an embedded store and the cache that follows it.

use futures::StreamExt;
use lockstep_apis::manifest;
use lockstep_apis::v1alpha::{ApplyAction, WatchEventType};
use tokio::task::JoinSet;
use tonic::Code;

use super::watching::Watching;
use super::*;
use crate::identity::{PeerIdentity, Role};
use crate::store::embedded::{Embedded, EmbeddedSettings};

struct Stage {
    api: ObjectsApi,
    _folder: tempfile::TempDir,
    _following: JoinSet<()>,
}

fn admin() -> PeerIdentity {
    let (uid, name) = ("u1".to_owned(), "admin".to_owned());
    PeerIdentity { role: Role::User, uid, trust_domain: "t".into(), name, not_after_ms: u64::MAX }
}

fn read(yaml: &str) -> Vec<Object> {
    manifest::decode("test.yaml", yaml.as_bytes(), Some("shop")).expect("a manifest that is right")
}

fn book(name: &str, text: &str) -> String {
    format!(
        "---\nmetadata: {{apiVersion: v1alpha, kind: TaskBook, name: {name}}}\n\
         spec: {{targets: {{all: true}}, tasks: [{{assert.that: {{conditions: [\"true\"], message: {text}}}}}]}}\n"
    )
}

const SHOP: &str = "metadata: {apiVersion: v1alpha, kind: Namespace, name: shop}\n";

fn named(kind: &str, name: &str) -> ObjectRef {
    let namespace = if kinds::find(kind).unwrap().namespaced { "shop" } else { "" };
    ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() }
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(&EmbeddedSettings::new(folder.path().join("s"))).await.unwrap());
        let cache = Cache::load(&*store).await.unwrap();
        let (outbox, telling) = Outbox::new(store.clone(), cache.clone(), "server/s".into());
        let mut following = JoinSet::new();
        let (followed, from) = (cache.clone(), store.clone());
        following.spawn(async move { followed.follow(&*from).await });
        following.spawn(telling.store_all());
        Self { api: ObjectsApi::new(store, cache, outbox), _folder: folder, _following: following }
    }

    async fn with_shop() -> Self {
        let stage = Self::new().await;
        stage.apply(SHOP).await.unwrap();
        stage
    }

    async fn write(&self, objects: Vec<Object>, how: How) -> Answer<Vec<(Object, ApplyAction)>> {
        self.api.write(objects, how, &admin(), false).await
    }

    async fn apply(&self, yaml: &str) -> Answer<Vec<(Object, ApplyAction)>> {
        self.write(read(yaml), How::Apply).await
    }

    async fn delete(&self, reference: ObjectRef) -> Answer<DeleteResponse> {
        self.api.remove(DeleteRequest { r#ref: Some(reference), ..DeleteRequest::default() }).await
    }

    async fn list(&self, request: ListRequest) -> ListResponse {
        listing::list(&*self.api.store, &request).await.unwrap()
    }

    async fn watch(
        &self,
        kind: &str,
        version: &str,
    ) -> Answer<impl futures::Stream<Item = Result<WatchEvent, Status>>> {
        let request = WatchRequest { kind: kind.into(), resource_version: version.into(), ..WatchRequest::default() };
        let watching = Watching::open(self.api.store.clone(), self.api.cache.clone(), &request).await?;
        Ok(Box::pin(watching.into_stream()))
    }
}

fn code<T>(answer: Answer<T>) -> Code {
    answer.err().map_or(Code::Ok, |problem| Status::from(problem).code())
}

fn violations<T>(answer: Answer<T>) -> Vec<String> {
    match answer.err() {
        Some(Problem::Violations(found) | Problem::Missing(found)) => {
            found.into_iter().map(|violation| format!("{} {}", violation.object, violation.reason)).collect()
        }
        other => panic!("no violations: {other:?}"),
    }
}

#[tokio::test]
async fn apply_creates_changes_and_leaves_alone() {
    let stage = Stage::with_shop().await;
    let made = stage.apply(&book("web", "one")).await.unwrap().remove(0);
    assert_eq!((made.1, made.0.metadata().generation), (ApplyAction::Created, 1));
    let same = stage.apply(&book("web", "one")).await.unwrap().remove(0);
    assert_eq!((same.1, &same.0), (ApplyAction::Unchanged, &made.0));
    let changed = stage.apply(&book("web", "two")).await.unwrap().remove(0);
    assert_eq!((changed.1, changed.0.metadata().generation), (ApplyAction::Configured, 2));
    assert_eq!(changed.0.metadata().uuid, made.0.metadata().uuid);
    let mut labelled = changed.0.clone();
    labelled.metadata_mut().labels.insert("team".into(), "a".into());
    let labelled = stage.write(vec![labelled], How::Apply).await.unwrap().remove(0);
    assert_eq!((labelled.1, labelled.0.metadata().generation), (ApplyAction::Configured, 2));
    assert_eq!(stage.api.read(&named("TaskBook", "web")).await.unwrap(), labelled.0);
}

#[tokio::test]
async fn books_are_judged_with_what_they_include() {
    let stage = Stage::with_shop().await;
    let including = |name: &str, of: &str| {
        format!(
            "---\nmetadata: {{apiVersion: v1alpha, kind: TaskBook, name: {name}}}\n\
             spec: {{targets: {{all: true}}, tasks: [{{name: of {name}, include: {of}}}]}}\n"
        )
    };
    assert_eq!(violations(stage.apply(&including("web", "base")).await), ["0 NotFoundReference"]);
    // In one request they may be in any order.
    stage.apply(&(including("web", "base") + &book("base", "x"))).await.unwrap();
    assert_eq!(violations(stage.apply(&including("base", "web")).await), ["0 Cycle"]);
    let wrong = including("other", "{taskBook: base, inputs: {x: 1}}");
    assert_eq!(violations(stage.apply(&wrong).await), ["0 UnknownInput"]);
}

#[tokio::test]
async fn a_request_is_stored_whole_or_not_at_all() {
    let stage = Stage::with_shop().await;
    let mut objects = read(&(book("good", "x") + &book("bad", "y")));
    objects[1].metadata_mut().name = "Not A Name".into();
    assert_eq!(violations(stage.write(objects, How::Apply).await), ["1 InvalidName"]);
    let elsewhere =
        read(&(book("good", "x") + &book("lost", "y").replace("name: lost", "name: lost, namespace: shpo")));
    assert_eq!(violations(stage.write(elsewhere, How::Apply).await), ["1 NotFoundReference"]);
    assert_eq!(code(stage.api.read(&named("TaskBook", "good")).await), Code::NotFound);
    let twice = read(&(book("good", "x") + &book("good", "y")));
    assert_eq!(violations(stage.write(twice, How::Apply).await), ["1 Duplicate"]);
    // What a request makes itself, its other objects may rely on.
    let together = format!("{}{}", SHOP.replace("shop", "pub"), book("inn", "x").replace("inn", "inn, namespace: pub"));
    assert_eq!(stage.apply(&together).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_update_says_what_it_is_based_on() {
    let stage = Stage::with_shop().await;
    let first = stage.apply(&book("web", "one")).await.unwrap().remove(0).0;
    let blind = read(&book("web", "two"));
    assert_eq!(code(stage.write(blind, How::Update).await), Code::FailedPrecondition);
    stage.apply(&book("web", "two")).await.unwrap();
    assert_eq!(code(stage.write(vec![first.clone()], How::Update).await), Code::Aborted);
    assert_eq!(code(stage.write(vec![first.clone()], How::Apply).await), Code::Aborted);
    assert_eq!(violations(stage.write(vec![first], How::Create).await), ["0 Immutable"]);
    assert_eq!(code(stage.write(read(&book("web", "x")), How::Create).await), Code::AlreadyExists);
    stage.delete(named("TaskBook", "web")).await.unwrap();
    assert_eq!(code(stage.write(read(&book("web", "x")), How::Update).await), Code::NotFound);
}

#[tokio::test]
async fn of_many_who_write_at_once_each_is_counted() {
    let stage = Stage::with_shop().await;
    let writers = (0..4).map(|n| {
        let (api, objects) = (stage.api.clone(), read(&book("web", &format!("text-{n}"))));
        async move { api.write(objects, How::Apply, &admin(), false).await.unwrap() }
    });
    futures::future::join_all(writers).await;
    assert_eq!(stage.api.read(&named("TaskBook", "web")).await.unwrap().metadata().generation, 4);
}

#[tokio::test]
async fn users_write_neither_events_nor_nodes_nor_runs_of_no_book() {
    let stage = Stage::with_shop().await;
    let event = "metadata: {apiVersion: v1alpha, kind: Event, name: e, namespace: shop}\nspec: {type: a/b}\n";
    let node = "metadata: {apiVersion: v1alpha, kind: Node, name: n}\n";
    let run = "metadata: {apiVersion: v1alpha, kind: Run, name: r, namespace: shop}\nspec: {taskBooks: [webserevr]}\n";
    stage.apply(&book("webserver", "x")).await.unwrap();
    assert_eq!(violations(stage.apply(event).await), ["0 NotWritable"]);
    assert_eq!(violations(stage.apply(node).await), ["0 NotWritable"]);
    let problem = stage.apply(run).await.unwrap_err();
    assert!(problem.to_string().contains("did you mean `webserver`?"), "{problem}");
    let made = stage.apply(&run.replace("webserevr", "webserver")).await.unwrap().remove(0).0;
    let Some(lockstep_apis::v1alpha::object::Kind::Run(made)) = made.kind else { panic!("a run") };
    assert_eq!(made.spec.unwrap().origin.unwrap().name, "admin");
}

#[tokio::test]
async fn pages_of_a_list_are_one_revision() {
    let stage = Stage::with_shop().await;
    let books: String = (0..5).map(|n| book(&format!("b{n}"), "x")).collect();
    stage.apply(&books).await.unwrap();
    let request = ListRequest { kind: "tb".into(), limit: 2, ..ListRequest::default() };
    let first = stage.list(request.clone()).await;
    stage.delete(named("TaskBook", "b3")).await.unwrap();
    let (mut names, mut page) = (Vec::new(), first.clone());
    loop {
        names.extend(page.items.iter().map(|object| object.metadata().name.clone()));
        assert_eq!(page.resource_version, first.resource_version);
        if page.continue_token.is_empty() {
            break;
        }
        page = stage.list(ListRequest { continue_token: page.continue_token, ..request.clone() }).await;
    }
    assert_eq!(names, ["b0", "b1", "b2", "b3", "b4"]);
    assert_eq!(stage.list(ListRequest { limit: 0, ..request }).await.items.len(), 4);
}

#[tokio::test]
async fn a_watch_from_a_lists_version_sees_each_change_once() {
    let stage = Stage::with_shop().await;
    stage.apply(&book("web", "one")).await.unwrap();
    let listed = stage.list(ListRequest { kind: "TaskBook".into(), ..ListRequest::default() }).await;
    let mut present = stage.watch("TaskBook", "").await.unwrap();
    let mut watch = stage.watch("TaskBook", &listed.resource_version).await.unwrap();
    stage.apply(&book("web", "two")).await.unwrap();
    stage.apply(&book("web", "two")).await.unwrap();
    stage.delete(named("TaskBook", "web")).await.unwrap();
    let mut versions = Vec::new();
    for expected in [WatchEventType::Modified, WatchEventType::Deleted] {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.r#type(), expected);
        versions.push(event.resource_version.parse::<u64>().unwrap());
    }
    assert!(versions[0] < versions[1]);
    for expected in [WatchEventType::Added, WatchEventType::Modified, WatchEventType::Deleted] {
        assert_eq!(present.next().await.unwrap().unwrap().r#type(), expected);
    }
    let future = (versions[1] + 1000).to_string();
    assert_eq!(code(stage.watch("TaskBook", &future).await), Code::OutOfRange);
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it_and_takes_nothing_more() {
    let stage = Stage::with_shop().await;
    let books: String = (0..60).map(|n| book(&format!("b{n}"), "x")).collect();
    stage.apply(&books).await.unwrap();
    stage.delete(named("Namespace", "shop")).await.unwrap();
    assert_eq!(code(stage.api.read(&named("Namespace", "shop")).await), Code::NotFound);
    assert!(stage.list(ListRequest { kind: "TaskBook".into(), ..ListRequest::default() }).await.items.is_empty());
    assert_eq!(violations(stage.apply(&book("late", "x")).await), ["0 NotFoundReference"]);
    // Cut off half-way: closed, and gone on with by whoever leads.
    stage.apply(SHOP).await.unwrap();
    stage.apply(&book("web", "x")).await.unwrap();
    let entry = stage.api.store.get(&keys::object("namespaces", "", "shop")).await.unwrap().entry.unwrap();
    stage.api.close(&decode(&entry).unwrap(), &entry).await.unwrap();
    assert_eq!(code(stage.apply(&book("late", "x")).await), Code::FailedPrecondition);
    stage.api.cache.catch_up(&*stage.api.store).await.unwrap();
    finish_deletions(&stage.api).await;
    assert_eq!(code(stage.api.read(&named("Namespace", "shop")).await), Code::NotFound);
}

#[tokio::test]
async fn a_run_that_has_not_ended_stays() {
    let stage = Stage::with_shop().await;
    stage.apply(&book("web", "x")).await.unwrap();
    let run = "metadata: {apiVersion: v1alpha, kind: Run, name: r, namespace: shop}\nspec: {taskBooks: [web]}\n";
    stage.apply(run).await.unwrap();
    assert_eq!(code(stage.delete(named("Run", "r")).await), Code::FailedPrecondition);
    assert_eq!(code(stage.delete(named("Namespace", "shop")).await), Code::FailedPrecondition);
    let again = run.replace("r,", "r, labels: {a: b},");
    assert_eq!(stage.apply(&again).await.unwrap()[0].1, ApplyAction::Configured);
    let other = run.replace("[web]", "[web], priority: 5");
    assert_eq!(violations(stage.apply(&other).await), ["0 Immutable"]);
}

#[tokio::test]
async fn names_of_a_request_never_become_other_keys() {
    let stage = Stage::with_shop().await;
    for name in ["", "a/b", "../x", "A"] {
        assert_eq!(code(stage.api.read(&named("TaskBook", name)).await), Code::InvalidArgument, "{name:?}");
    }
    let unknown = stage.api.read(&ObjectRef { kind: "TaksBook".into(), ..named("TaskBook", "x") }).await.unwrap_err();
    assert!(unknown.to_string().contains("did you mean `TaskBook`?"));
}

fn keyed_book(policy: &str) -> String {
    format!(
        "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: web}}\n\
         spec:\n  inputs: {{region: {{type: string, default: eu}}}}\n  \
         concurrency: {{key: \"deploy/${{{{ inputs.region }}}}\", policy: {policy}}}\n  targets: {{all: true}}\n  \
         tasks: [{{assert.that: {{conditions: [\"true\"]}}}}]\n"
    )
}

fn run_of_web(name: &str, spec: &str) -> String {
    format!("---\nmetadata: {{apiVersion: v1alpha, kind: Run, name: {name}}}\nspec: {{taskBooks: [web]{spec}}}\n")
}

/// Their names, with what was done, or the code.
async fn created_at_once(stage: &Stage, count: usize) -> Vec<String> {
    let creating = (0..count).map(|n| {
        let (api, objects) = (stage.api.clone(), read(&run_of_web(&format!("r{n}"), "")));
        async move {
            match api.write(objects, How::Create, &admin(), false).await {
                Ok(written) => format!("{:?} {}", written[0].1, written[0].0.metadata().name),
                Err(problem) => format!("{:?}", Status::from(problem).code()),
            }
        }
    });
    futures::future::join_all(creating).await
}

#[tokio::test]
async fn of_creators_at_once_with_one_key_exactly_one_wins() {
    for (policy, other) in [("Refuse", "FailedPrecondition"), ("Join", "Unchanged")] {
        let stage = Stage::with_shop().await;
        stage.apply(&keyed_book(policy)).await.unwrap();
        let answers = created_at_once(&stage, 12).await;
        let made: Vec<&String> = answers.iter().filter(|answer| answer.starts_with("Created")).collect();
        assert_eq!(made.len(), 1, "{policy}: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.starts_with(other)).count(), 11, "{policy}: {answers:?}");
        let runs = stage.list(ListRequest { kind: "Run".into(), ..ListRequest::default() }).await.items;
        assert_eq!(runs.len(), 1);
        if policy == "Join" {
            let winner = made[0].replace("Created", "Unchanged");
            assert!(answers.iter().all(|answer| *answer == winner || answer == made[0]), "{answers:?}");
        }
    }
}

#[tokio::test]
async fn of_replacing_runs_created_at_once_all_but_the_last_are_cancelled() {
    let stage = Stage::with_shop().await;
    stage.apply(&keyed_book("Replace")).await.unwrap();
    let answers = created_at_once(&stage, 8).await;
    assert!(answers.iter().all(|answer| answer.starts_with("Created")), "{answers:?}");
    stage.api.cache.catch_up(&*stage.api.store).await.unwrap();
    let state = stage.api.cache.read();
    let open = state.world().runs().filter(|run| !run.is_cancelled()).count();
    assert_eq!(open, 1);
}

#[tokio::test]
async fn a_key_is_of_its_inputs_and_kept_in_the_run() {
    let stage = Stage::with_shop().await;
    stage.apply(&keyed_book("Refuse")).await.unwrap();
    let first = stage.apply(&run_of_web("r", "")).await.unwrap().remove(0).0;
    let Some(lockstep_apis::v1alpha::object::Kind::Run(first)) = first.kind else { panic!("a run") };
    assert_eq!(first.spec.unwrap().concurrency.unwrap().key, "deploy/eu");
    stage.apply(&run_of_web("us", ", inputs: {region: us}")).await.unwrap();
    let refused = stage.apply(&run_of_web("eu", ", inputs: {region: eu}")).await.unwrap_err();
    assert_eq!(refused.to_string(), "the run r has the concurrency key `deploy/eu`; wait for it, or cancel it");
    let unknown = stage.apply(&run_of_web("x", ", inputs: {regoin: us}")).await;
    assert_eq!(violations(unknown), ["0 UnknownInput"]);
    let two = run_of_web("a", ", inputs: {region: ap}") + &run_of_web("b", ", inputs: {region: ap}");
    assert_eq!(violations(stage.apply(&two).await), ["1 Duplicate"]);
    // Together with its book.
    let both = keyed_book("Refuse").replace("name: web", "name: app") + &run_of_web("z", "").replace("[web]", "[app]");
    assert_eq!(code(stage.apply(&both).await), Code::FailedPrecondition);
}
