//! Joining over real sockets, against a server made of the same parts as the real one and a real embedded store.

use super::*;
use crate::commands::init::{InitArguments, init};
use crate::identity::credentials::Credentials;
use crate::identity::join::{self as admission, Joining, ServerGrant};
use crate::identity::listener::{Connections, ListenAddress, TlsIdentity, listen};
use crate::identity::tokens::TokenRequest;
use crate::store::{self, Store};
use clap::Parser;
use lockstep_apis::keys;
use lockstep_apis::v1alpha::{AgentMessage, Cluster, Object, RenewRequest, RenewResponse, ServerMessage};
use lockstep_grpc::agents_server::{Agents, AgentsServer};
use prost::Message;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tonic::{Request, Response, Status, Streaming};

#[derive(clap::Parser)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    arguments: A,
}

fn parsed<A: clap::Args>(words: &[&str]) -> A {
    Line::<A>::try_parse_from([&["lockstepd"], words].concat()).unwrap().arguments
}

/// A server that admits; it loses so many answers first.
struct Admitting {
    ca: CertificateAuthority,
    store: Arc<dyn Store>,
    grant: Option<ServerGrant>,
    loses: AtomicU32,
    asked: AtomicU32,
}

#[tonic::async_trait]
impl Agents for Admitting {
    type AttachStream = tokio_stream::Empty<Result<ServerMessage, Status>>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let get = async |key| self.store.get(&key).await.unwrap().entry;
        let cluster = Cluster::decode(get(keys::cluster()).await.unwrap().value.as_slice()).unwrap();
        let token = get(admission::token_key(&request).unwrap()).await;
        let node = get(admission::node_key(&request).unwrap()).await;
        let joining = Joining {
            ca: &self.ca,
            cluster: &cluster,
            servers: &[],
            token: token.as_ref(),
            node: node.as_ref(),
            server: self.grant.as_ref(),
            now_ms: super::super::place::now_ms(),
        };
        let admission = admission::admit(&request, &joining).map_err(|e| Status::permission_denied(e.to_string()))?;
        if let Some(commit) = &admission.commit {
            self.store.commit(commit).await.unwrap();
        }
        if self.loses.load(Ordering::SeqCst) > 0 {
            self.loses.fetch_sub(1, Ordering::SeqCst);
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(Response::new(admission.response))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn attach(&self, _: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

struct Bench {
    folder: tempfile::TempDir,
    server: Arc<Admitting>,
    address: String,
}

impl Bench {
    async fn new(grant: Option<ServerGrant>) -> Self {
        crate::identity::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (config, state, context) = (path("first.yaml"), path("first"), path("context.yaml"));
        init(parsed::<InitArguments>(&[
            "--name",
            "n1",
            "--listen",
            "127.0.0.1:7400",
            "--config",
            &config,
            "--state-folder",
            &state,
            "--context-file",
            &context,
        ]))
        .await
        .unwrap();
        let settings = Settings::load(&Flags { config: config.into(), ..Flags::default() }).unwrap();
        let ca = CertificateAuthority::load(&settings.ca_folder()).unwrap();
        let leaf = Credentials::load(&settings.server_credentials(), ca.authority().clone()).unwrap();
        let store = store::open(settings.store.as_ref().unwrap()).await.unwrap();
        let wanted = [ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())];
        let incoming = listen(&wanted, &TlsIdentity::new(&leaf).unwrap(), &Connections::default()).await.unwrap();
        let address = incoming.addresses()[0].to_string();
        // What a further server gets is what this one has, with etcd's addresses in place of its embedded store.
        let grant = grant.map(|grant| ServerGrant {
            ca_files: files::read_folder(&settings.ca_folder()).unwrap().into_iter().collect(),
            sealing_keys: KeyRing::load(&settings.sealing_folder()).unwrap().export(),
            ..grant
        });
        let server = Arc::new(Admitting { ca, store, grant, loses: 0.into(), asked: 0.into() });
        let service = AgentsServer::from_arc(server.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { folder, server, address }
    }

    async fn token(&self, request: TokenRequest) -> String {
        let made = tokens::make(request, self.server.ca.authority().pin(), super::super::place::now_ms());
        let commit =
            lockstep_apis::commit::Commit::new().create(keys::token(&made.record.id), made.record.encode_to_vec());
        self.server.store.commit(&commit).await.unwrap();
        made.text.to_string()
    }

    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn join(&self, token: &str, name: &str, more: &[&str]) -> anyhow::Result<Settings> {
        let config = self.folder.path().join(format!("{name}.yaml")).display().to_string();
        let state = self.state(name).display().to_string();
        let words =
            [token, "--server-address", &self.address, "--name", name, "--config", &config, "--state-folder", &state];
        join(parsed::<JoinArguments>(&[&words, more].concat())).await?;
        Ok(Settings::load(&Flags { config: config.into(), ..Flags::default() })?)
    }

    /// That a failed attempt has left neither settings nor keys.
    fn assert_nothing_of(&self, name: &str) {
        assert!(!self.folder.path().join(format!("{name}.yaml")).exists());
        let left = std::fs::read_dir(self.state(name)).map_or(0, |entries| entries.count());
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn a_node_joins_with_a_token_and_the_token_is_used_up() {
    let bench = Bench::new(None).await;
    let token = bench.token(TokenRequest { labels: [("tier".into(), "web".into())].into(), ..TokenRequest::default() });
    let token = token.await;
    let settings = bench.join(&token, "web1", &[]).await.unwrap();
    assert_eq!((settings.roles.server, settings.roles.agent, settings.store.is_none()), (false, true, true));
    let authority = Authority::from_pem(&files::read_private_text(&settings.authority_file()).unwrap()).unwrap();
    let node = Credentials::load(&settings.node_credentials(), Arc::new(authority)).unwrap();
    let entry = bench.server.store.get(&keys::object("nodes", "", "web1")).await.unwrap().entry.unwrap();
    let object = Object::from_entry(&entry).unwrap().unwrap();
    assert_eq!((object.metadata().uuid.as_str(), node.identity().role), (node.identity().uid.as_str(), Role::Node));
    assert_eq!(object.metadata().labels["tier"], "web");
    assert_eq!(Membership::load(&settings.membership_file()).unwrap().servers, std::slice::from_ref(&bench.address));
    assert!(
        !settings.ca_folder().exists() && !settings.sealing_folder().exists(),
        "a node gets no keys of the cluster"
    );

    let problem = bench.join(&token, "web2", &[]).await.unwrap_err().to_string();
    assert!(problem.contains("the token is not valid"), "{problem}");
    bench.assert_nothing_of("web2");
    let again = bench.join(&token, "web1", &[]).await.unwrap_err().to_string();
    assert!(again.contains("nothing was changed"), "{again}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_makes_one_node() {
    let bench = Bench::new(None).await;
    bench.server.loses.store(2, Ordering::SeqCst);
    bench.join(&bench.token(TokenRequest::default()).await, "web1", &[]).await.unwrap();
    assert_eq!(bench.server.asked.load(Ordering::SeqCst), 3);
    let nodes = bench.server.store.list(&keys::object_prefix("nodes", None), store::Range::first(10)).await.unwrap();
    assert_eq!(nodes.entries.len(), 2);
}

#[tokio::test]
async fn a_server_under_another_ca_never_sees_the_secret() {
    let (ours, theirs) = (Bench::new(None).await, Bench::new(None).await);
    let token = theirs.token(TokenRequest::default()).await;
    let problem = ours.join(&token, "web1", &[]).await.unwrap_err().to_string();
    assert!(problem.contains("the token was not sent"), "{problem}");
    assert_eq!(ours.server.asked.load(Ordering::SeqCst), 0);
    ours.assert_nothing_of("web1");
}

#[tokio::test]
async fn a_further_server_gets_the_ca_the_sealing_keys_and_etcd() {
    let grant = ServerGrant {
        etcd_endpoints: vec!["https://10.0.0.9:2379".into()],
        etcd_files: ["ca.pem", "cert.pem", "key.pem"].map(|name| (name.to_owned(), name.as_bytes().to_vec())).into(),
        ..ServerGrant::default()
    };
    let bench = Bench::new(Some(grant)).await;
    let as_server = ["--server", "--listen", "127.0.0.1:7401"];
    let plain = bench.token(TokenRequest::default()).await;
    let problem = bench.join(&plain, "web1", &as_server).await.unwrap_err().to_string();
    assert!(problem.contains("the token is not valid"), "{problem}");
    bench.assert_nothing_of("web1");

    let token = bench.token(TokenRequest { server: true, ..TokenRequest::default() }).await;
    let settings = bench.join(&token, "web1", &as_server).await.unwrap();
    assert!(settings.roles.server && settings.roles.agent);
    let ca = CertificateAuthority::load(&settings.ca_folder()).unwrap();
    assert_eq!(ca.authority().root(), bench.server.ca.authority().root());
    KeyRing::load(&settings.sealing_folder()).unwrap();
    let server = Credentials::load(&settings.server_credentials(), ca.authority().clone()).unwrap();
    assert_eq!(server.identity().role, Role::Server);
    let Some(store::StoreSettings::Etcd(etcd)) = &settings.store else { panic!("not etcd") };
    assert_eq!(etcd.endpoints, ["https://10.0.0.9:2379"]);
    assert_eq!(std::fs::read(&etcd.tls.as_ref().unwrap().key).unwrap(), b"key.pem");
}

#[tokio::test]
async fn a_further_server_is_refused_while_the_store_is_embedded() {
    let bench = Bench::new(None).await;
    let token = bench.token(TokenRequest { server: true, ..TokenRequest::default() }).await;
    let problem =
        bench.join(&token, "web1", &["--server", "--listen", "127.0.0.1:7401"]).await.unwrap_err().to_string();
    assert!(problem.contains("etcd"), "{problem}");
    bench.assert_nothing_of("web1");
}
