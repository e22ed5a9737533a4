//! A real agent with real executors, against a server that says what the test tells it to.

mod events;
mod rebooting;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lockstep_apis::v1alpha::{
    self, AgentMessage, AttemptRef, CancelRequest, ClaimAnswer, CompiledTask, Hello, JoinRequest, JoinResponse, Offer,
    Outcome, OutputAnswer, RenewRequest, RenewResponse, Report, ReportAnswer, ServerMessage, Value, Welcome, Work,
    agent_message, server_message,
};
use lockstep_grpc::agents_server::{Agents, AgentsServer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::identity::Role;
use crate::identity::authority::CertificateAuthority;
use crate::identity::credentials::{FreshKey, authority_pem};
use crate::identity::listener::{Caller, Connections, ListenAddress, TlsIdentity, listen};
use crate::settings::Roles;

const PATIENCE: Duration = Duration::from_secs(20);
const FOLDER: &str = "LOCKSTEP_TEST_FOLDER";
const NODE: &str = "node-1";
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Not a claim: the body of every executor that the tests below start.
#[test]
fn executor_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let exit =
            lockstep_executor::segment::execute(Path::new(&folder), &lockstep_executor::segment::Options::default());
        std::process::exit(exit as i32);
    }
}

/// One session of an agent, seen from the server.
struct Peer {
    caller: Caller,
    heard: Streaming<AgentMessage>,
    say: mpsc::Sender<Result<ServerMessage, Status>>,
}

struct Fake {
    ca: Arc<CertificateAuthority>,
    sessions: mpsc::Sender<Peer>,
}

fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().unwrap().clone()
}

#[tonic::async_trait]
impl Agents for Fake {
    type AttachStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let identity = caller(&request).identity.unwrap();
        let renewed = crate::identity::join::renew(request.get_ref(), &identity, &self.ca, now_ms());
        renewed.map(Response::new).map_err(|e| Status::internal(e.to_string()))
    }

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (say, outgoing) = mpsc::channel(16);
        let peer = Peer { caller: caller(&request), heard: request.into_inner(), say };
        self.sessions.send(peer).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// A cluster of one fake server and one agent.
struct Bench {
    folder: tempfile::TempDir,
    settings: Settings,
    sessions: mpsc::Receiver<Peer>,
    /// What the next agent takes for the machine's boot.
    boot_id: String,
    agent: Option<Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    ended: JoinHandle<Result<(), AgentError>>,
}

impl Bench {
    async fn new() -> Self {
        Self::with_certificate_of(now_ms()).await
    }

    async fn with_certificate_of(issued_ms: u64) -> Self {
        crate::identity::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let state_folder = folder.path().join("state");
        let settings = Settings {
            name: "n1".into(),
            roles: Roles { server: false, agent: true },
            listeners: Vec::new(),
            advertise: Vec::new(),
            store: None,
            state_folder,
            log_level: "info".into(),
            root: "/".into(),
            file: folder.path().join("lockstepd.yaml"),
        };
        let ca = Arc::new(CertificateAuthority::create(&settings.ca_folder(), "c1", issued_ms).unwrap());
        let leaf = |role, uid: &str, at| {
            let key = FreshKey::generate().unwrap();
            let chain = ca.issue(key.request(), role, uid, "n1", at).unwrap();
            key.certified(chain, ca.authority().clone()).unwrap()
        };
        leaf(Role::Node, NODE, issued_ms).store(&settings.node_credentials()).unwrap();
        files::write_private(&settings.authority_file(), authority_pem(ca.authority()).as_bytes()).unwrap();
        let tls = TlsIdentity::new(&leaf(Role::Server, "s1", now_ms())).unwrap();
        let wanted = [ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())];
        let incoming = listen(&wanted, &tls, &Connections::default()).await.unwrap();
        let servers = vec![incoming.addresses()[0].to_string()];
        Membership { cluster_id: "c".into(), servers, incarnation: 1 }.store(&settings.membership_file()).unwrap();
        let (sender, sessions) = mpsc::channel(4);
        let service = AgentsServer::new(Fake { ca, sessions: sender });
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let mut bench = Self { folder, settings, sessions, boot_id: boot_id(), agent: None };
        bench.start();
        bench
    }

    fn start(&mut self) {
        let executor = self.folder.path().join("executor");
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n{FOLDER}=\"$2\" exec {} agent::tests::executor_process --exact --nocapture --test-threads=1\n",
            own.display()
        );
        std::fs::write(&executor, script).unwrap();
        std::fs::set_permissions(&executor, std::fs::Permissions::from_mode(0o700)).unwrap();
        let (stop, shutdown) = watch::channel(false);
        let (settings, boot_id) = (self.settings.clone(), self.boot_id.clone());
        let start = Start { settings, own_server: None, executor, boot_id, shutdown };
        self.agent = Some(Running { stop, ended: tokio::spawn(run(start)) });
    }

    async fn stop(&mut self) {
        let Running { stop, ended } = self.agent.take().unwrap();
        stop.send_replace(true);
        timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    }

    async fn peer(&mut self) -> Peer {
        timeout(PATIENCE, self.sessions.recv()).await.expect("the agent connects").unwrap()
    }

    /// The next session, greeted.
    async fn session(&mut self) -> (Peer, Hello) {
        let mut peer = self.peer().await;
        let hello = peer.hello().await;
        peer.welcome("c", 1).await;
        (peer, hello)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn folders(&self) -> usize {
        std::fs::read_dir(self.settings.segments_folder()).unwrap().count()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
    }
}

impl Peer {
    /// The next message that is no heartbeat.
    async fn next(&mut self) -> agent_message::Message {
        loop {
            let message = timeout(PATIENCE, self.heard.message()).await.expect("the agent says something");
            match message.unwrap().expect("the session goes on").message.unwrap() {
                agent_message::Message::Heartbeat(_) => {}
                other => return other,
            }
        }
    }

    async fn hello(&mut self) -> Hello {
        match self.next().await {
            agent_message::Message::Hello(hello) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    async fn claim(&mut self) -> AttemptRef {
        match self.next().await {
            agent_message::Message::Claim(claim) => claim.attempt.unwrap(),
            other => panic!("not a claim: {other:?}"),
        }
    }

    /// The next report; output is acknowledged meanwhile, and returned.
    async fn report(&mut self) -> (Report, String) {
        let mut printed = String::new();
        loop {
            match self.next().await {
                agent_message::Message::Report(request) => return (request.report.unwrap(), printed),
                agent_message::Message::Output(request) => printed.push_str(&self.keep(request).await),
                other => panic!("neither report nor output: {other:?}"),
            }
        }
    }

    async fn keep(&mut self, request: v1alpha::OutputRequest) -> String {
        let number = request.number - 1 + request.chunks.len() as u64;
        self.say(server_message::Message::Output(OutputAnswer { attempt: request.attempt, number })).await;
        request.chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned()).collect()
    }

    /// Output up to its end, acknowledged.
    async fn rest_of_output(&mut self) -> String {
        let mut printed = String::new();
        loop {
            match self.next().await {
                agent_message::Message::Output(request) => {
                    let last = request.last;
                    printed.push_str(&self.keep(request).await);
                    if last {
                        return printed;
                    }
                }
                other => panic!("not output: {other:?}"),
            }
        }
    }

    async fn say(&self, message: server_message::Message) {
        self.say.send(Ok(ServerMessage { message: Some(message) })).await.unwrap();
    }

    async fn welcome(&self, cluster_id: &str, incarnation: u64) {
        let welcome = Welcome { cluster_id: cluster_id.into(), incarnation, ..Welcome::default() };
        self.say(server_message::Message::Welcome(welcome)).await;
    }

    async fn offer(&self, attempt: &AttemptRef) {
        self.say(server_message::Message::Offer(Offer { attempt: Some(attempt.clone()) })).await;
    }

    async fn grant(&self, work: &Work) {
        let answer = ClaimAnswer { attempt: Some(reference(work)), work: Some(work.clone()), ..ClaimAnswer::default() };
        self.say(server_message::Message::Claim(answer)).await;
    }

    async fn stored(&self, work: &Work) {
        self.say(server_message::Message::Report(ReportAnswer { attempt: Some(reference(work)), stored: true })).await;
    }

    /// Offers, and grants the claim.
    async fn hand_over(&mut self, work: &Work) {
        self.offer(&reference(work)).await;
        assert_eq!(self.claim().await, reference(work));
        self.grant(work).await;
    }
}

fn reference(work: &Work) -> AttemptRef {
    AttemptRef::from(&segment::attempt_of(work))
}

fn work(attempt: u32, shell: String) -> Work {
    let task = CompiledTask {
        id: "t".into(),
        action: "command.run".into(),
        parameters: Some(Value::map([("shell", Value::text(shell))])),
        timeout_ms: 60_000,
        ..CompiledTask::default()
    };
    Work {
        run_uid: "run-1".into(),
        for_uid: NODE.into(),
        node_uid: NODE.into(),
        attempt,
        tasks: vec![task],
        grace_ms: 5000,
        output_limit_bytes: 1024 * 1024,
        ..Work::default()
    }
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.tasks.iter().map(|task| task.outcome()).collect()
}

#[tokio::test]
async fn an_offered_segment_is_claimed_done_reported_and_forgotten() {
    let mut bench = Bench::new().await;
    let (mut peer, hello) = bench.session().await;
    assert_eq!((hello.cluster_id.as_str(), hello.holding.len()), ("c", 0));
    assert!(hello.facts.unwrap().as_map().is_some_and(|facts| !facts.is_empty()));
    let work = work(1, "echo hi".into());
    peer.hand_over(&work).await;
    let (report, mut printed) = peer.report().await;
    assert_eq!((outcomes(&report), report.error.as_str()), (vec![Outcome::Changed], ""));
    assert_eq!(bench.folders(), 1, "kept until it is acknowledged");
    peer.stored(&work).await;
    printed.push_str(&peer.rest_of_output().await);
    assert_eq!(printed, "hi\n");
    bench.until("the folder goes", |bench| bench.folders() == 0).await;
}

#[tokio::test]
async fn repeated_offers_and_answers_start_nothing() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let count = bench.path("count");
    let first = work(1, format!("echo x >> {count}"));
    peer.hand_over(&first).await;
    peer.offer(&reference(&first)).await;
    peer.grant(&first).await;
    peer.report().await;
    peer.stored(&first).await;
    peer.rest_of_output().await;
    bench.until("the folder goes", |bench| bench.folders() == 0).await;
    peer.offer(&reference(&first)).await;
    peer.grant(&first).await;
    // Messages are in order: what comes next shows that nothing came of those before.
    let second = work(2, format!("echo y >> {count}"));
    peer.hand_over(&second).await;
    peer.report().await;
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\ny\n");
}

#[tokio::test]
async fn a_report_is_sent_again_until_it_is_acknowledged() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let work = work(1, "echo hi".into());
    peer.hand_over(&work).await;
    let (first, _) = peer.report().await;
    drop(peer);
    let (mut peer, hello) = bench.session().await;
    assert_eq!(hello.holding, [reference(&work)]);
    let (second, _) = peer.report().await;
    assert_eq!(first, second);
    peer.stored(&work).await;
    peer.rest_of_output().await;
    bench.until("the folder goes", |bench| bench.folders() == 0).await;
}

#[tokio::test]
async fn an_unanswered_claim_is_asked_again_and_a_refused_one_is_not() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let (lost, refused) = (work(1, "true".into()), work(2, "true".into()));
    for work in [&lost, &refused] {
        peer.offer(&reference(work)).await;
        peer.claim().await;
    }
    let no = ClaimAnswer { attempt: Some(reference(&refused)), refused: "paused".into(), ..ClaimAnswer::default() };
    peer.say(server_message::Message::Claim(no)).await;
    let again = ClaimAnswer { attempt: Some(reference(&lost)), again: true, ..ClaimAnswer::default() };
    peer.say(server_message::Message::Claim(again)).await;
    assert_eq!(peer.claim().await, reference(&lost), "asked again, for the outcome was not known");
    drop(peer);
    let (mut peer, hello) = bench.session().await;
    assert!(hello.holding.is_empty());
    assert_eq!(peer.claim().await, reference(&lost));
    // What was refused may be offered again.
    peer.offer(&reference(&refused)).await;
    assert_eq!(peer.claim().await, reference(&refused));
}

#[tokio::test]
async fn an_executor_outlives_its_agent_and_the_next_one_reports() {
    let mut bench = Bench::new().await;
    let (mut peer, first) = bench.session().await;
    let (begun, go) = (bench.path("begun"), bench.path("go"));
    let work = work(1, format!("echo x >> {begun}; while [ ! -e {go} ]; do sleep 0.01; done; echo done"));
    peer.hand_over(&work).await;
    bench.until("the task begins", |_| Path::new(&begun).exists()).await;
    bench.stop().await;
    drop(peer);
    bench.start();
    let (mut peer, second) = bench.session().await;
    assert_ne!(first.instance, second.instance);
    assert_eq!(second.holding, [reference(&work)]);
    std::fs::write(&go, "").unwrap();
    let (report, mut printed) = peer.report().await;
    assert_eq!(outcomes(&report), [Outcome::Changed]);
    peer.stored(&work).await;
    printed.push_str(&peer.rest_of_output().await);
    assert_eq!((printed.as_str(), std::fs::read_to_string(&begun).unwrap().as_str()), ("done\n", "x\n"));
}

#[tokio::test]
async fn a_report_that_an_earlier_agent_could_not_send_is_sent() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let work = work(1, "echo hi".into());
    peer.hand_over(&work).await;
    let (first, _) = peer.report().await;
    bench.stop().await;
    drop(peer);
    bench.start();
    let (mut peer, _) = bench.session().await;
    assert_eq!(peer.report().await.0, first);
}

#[tokio::test]
async fn a_cancel_stops_what_runs_also_when_it_comes_before_the_work() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let begun = bench.path("begun");
    let running = work(1, format!("echo x > {begun}; sleep 60"));
    peer.hand_over(&running).await;
    // Written, not only made: the cancel may come between the two.
    bench.until("the task begins", |_| std::fs::read_to_string(&begun).is_ok_and(|text| text == "x\n")).await;
    let cancel =
        |work: &Work| server_message::Message::Cancel(CancelRequest { attempt: Some(reference(work)), grace_ms: 1000 });
    peer.say(cancel(&running)).await;
    assert_eq!(outcomes(&peer.report().await.0), [Outcome::Cancelled]);
    peer.stored(&running).await;
    peer.rest_of_output().await;

    let early = work(2, format!("echo y > {begun}"));
    peer.offer(&reference(&early)).await;
    peer.claim().await;
    peer.say(cancel(&early)).await;
    peer.grant(&early).await;
    assert!(outcomes(&peer.report().await.0).iter().all(|outcome| *outcome == Outcome::Cancelled));
    assert_eq!(std::fs::read_to_string(&begun).unwrap(), "x\n");
}

#[tokio::test]
async fn what_an_earlier_process_claimed_is_reported_and_never_begun() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let touched = bench.path("touched");
    let work = work(1, format!("touch {touched}"));
    peer.offer(&reference(&work)).await;
    peer.claim().await;
    let refused = "an earlier process of this node claimed it".to_owned();
    let answer = ClaimAnswer { attempt: Some(reference(&work)), work: Some(work.clone()), refused, again: false };
    peer.say(server_message::Message::Claim(answer)).await;
    assert_eq!(outcomes(&peer.report().await.0), [Outcome::Interrupted]);
    drop(peer);
    let (mut peer, _) = bench.session().await;
    assert_eq!(outcomes(&peer.report().await.0), [Outcome::Interrupted], "until it is acknowledged");
    peer.stored(&work).await;
    peer.offer(&reference(&work)).await;
    peer.hand_over(&self::work(2, "true".into())).await;
    peer.report().await;
    assert!(!Path::new(&touched).exists());
}

#[tokio::test]
async fn one_state_folder_has_one_agent() {
    let bench = Bench::new().await;
    let (_stop, shutdown) = watch::channel(false);
    bench.until("the first is there", |bench| bench.settings.state_folder.join("agent.lock").exists()).await;
    let (settings, executor) = (bench.settings.clone(), this_program());
    let start = Start { settings, own_server: None, executor, boot_id: boot_id(), shutdown };
    assert!(matches!(run(start).await, Err(AgentError::Busy(_))));
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_is_reported() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    std::fs::remove_dir_all(bench.settings.segments_folder()).unwrap();
    std::fs::write(bench.settings.segments_folder(), "in the way").unwrap();
    let work = work(1, "true".into());
    peer.hand_over(&work).await;
    let (report, _) = peer.report().await;
    assert!(report.tasks.is_empty() && report.error.contains("could not be made"), "{}", report.error);
}

#[tokio::test]
async fn a_server_of_another_or_an_older_cluster_gets_no_work_done() {
    let mut bench = Bench::new().await;
    for (cluster, incarnation) in [("other", 9), ("c", 0)] {
        let mut peer = bench.peer().await;
        peer.hello().await;
        peer.welcome(cluster, incarnation).await;
        peer.offer(&reference(&work(1, "true".into()))).await;
        let rest = timeout(PATIENCE, peer.heard.message()).await.expect("the agent leaves");
        assert!(!matches!(rest, Ok(Some(_))), "the agent says nothing more: {rest:?}");
    }
    // And work for another node is not taken either.
    let (mut peer, _) = bench.session().await;
    peer.offer(&AttemptRef { node_uid: "node-2".into(), ..reference(&work(1, "true".into())) }).await;
    peer.offer(&AttemptRef { run_uid: "../../etc".into(), ..reference(&work(1, "true".into())) }).await;
    peer.offer(&reference(&work(3, "true".into()))).await;
    assert_eq!(peer.claim().await.attempt, 3);
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_and_used_at_once() {
    let issued_ms = now_ms() - 17 * HOUR_MS;
    let mut bench = Bench::with_certificate_of(issued_ms).await;
    let (peer, _) = bench.session().await;
    let identity = peer.caller.identity.clone().unwrap();
    assert_eq!((identity.role, identity.uid.as_str()), (Role::Node, NODE));
    assert!(identity.not_after_ms > issued_ms + 24 * HOUR_MS, "the session is with the new one");
}
