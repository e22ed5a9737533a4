//! Handshakes over real sockets: who gets in, and as whom.

use super::*;
use crate::identity::authority::CertificateAuthority;
use crate::identity::credentials::{Credentials, FreshKey};
use lockstep_grpc::channel::{ClientIdentity, connect, connect_pinned, connect_unix};
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

struct Cluster {
    folder: tempfile::TempDir,
    ca: CertificateAuthority,
    connections: Connections,
    callers: Arc<Mutex<Vec<Caller>>>,
    address: String,
}

impl Cluster {
    /// A CA, and a server that answers health checks and notes who asked.
    async fn new(trust_domain: &str) -> Self {
        crate::identity::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(&folder.path().join("ca"), trust_domain, now_ms()).unwrap();
        let (connections, callers) = (Connections::default(), Arc::new(Mutex::new(Vec::new())));
        let tls = TlsIdentity::new(&leaf(&ca, Role::Server, "s1", now_ms())).unwrap();
        let wanted =
            [ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()), ListenAddress::Unix(folder.path().join("run/socket"))];
        let incoming = listen(&wanted, &tls, &connections).await.unwrap();
        let address = incoming.addresses()[0].to_string();
        let seen = callers.clone();
        let (_, health) = tonic_health::server::health_reporter();
        let noting = tonic::service::interceptor::InterceptedService::new(health, move |request: tonic::Request<()>| {
            let caller = request.extensions().get::<Caller>().expect("every connection has one").clone();
            seen.lock().unwrap().push(caller);
            Ok(request)
        });
        tokio::spawn(Server::builder().add_service(noting).serve_with_incoming(incoming));
        Self { folder, ca, connections, callers, address }
    }

    async fn caller(&self, channel: Channel) -> Result<Caller, tonic::Status> {
        HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
        Ok(self.callers.lock().unwrap().last().unwrap().clone())
    }

    /// Calls with a client's identity; `None`: refused, at whatever point.
    async fn try_as(&self, identity: &ClientIdentity) -> Option<Caller> {
        let channel = connect(std::slice::from_ref(&self.address), identity).await.ok()?;
        self.caller(channel).await.ok()
    }
}

fn leaf(ca: &CertificateAuthority, role: Role, uid: &str, now_ms: u64) -> Credentials {
    let key = FreshKey::generate().unwrap();
    let chain = ca.issue(key.request(), role, uid, "name", now_ms).unwrap();
    key.certified(chain, ca.authority().clone()).unwrap()
}

#[tokio::test]
async fn a_caller_is_who_its_certificate_says() {
    let cluster = Cluster::new("c1").await;
    for role in Role::ALL {
        let caller = cluster.try_as(&leaf(&cluster.ca, role, "u1", now_ms()).client().unwrap()).await.unwrap();
        let identity = caller.identity.unwrap();
        assert_eq!((identity.role, identity.uid.as_str(), identity.trust_domain.as_str()), (role, "u1", "c1"));
        assert!(caller.address.is_some());
    }
}

#[tokio::test]
async fn another_cluster_or_an_ended_certificate_does_not_get_in() {
    let (ours, theirs) = (Cluster::new("c1").await, Cluster::new("c1").await);
    assert!(ours.try_as(&leaf(&theirs.ca, Role::User, "u1", now_ms()).client().unwrap()).await.is_none());
    let long_ago = now_ms() - 3 * 24 * 60 * 60 * 1000;
    assert!(ours.try_as(&leaf(&ours.ca, Role::Node, "u1", long_ago).client().unwrap()).await.is_none());
    // Their leaf, our CA as the one to trust: the server is fine, the client is not.
    let stranger = leaf(&theirs.ca, Role::Node, "u1", now_ms());
    let mixed = ClientIdentity::new(ours.ca.authority().clone(), stranger.chain().to_vec(), stranger.key()).unwrap();
    assert!(ours.try_as(&mixed).await.is_none());
    assert!(ours.callers.lock().unwrap().is_empty(), "no request got through");
}

#[tokio::test]
async fn a_node_that_poses_as_server_is_refused_by_clients() {
    let cluster = Cluster::new("c1").await;
    let posing = TlsIdentity::new(&leaf(&cluster.ca, Role::Node, "n1", now_ms())).unwrap();
    let wanted = [ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())];
    let incoming = listen(&wanted, &posing, &Connections::default()).await.unwrap();
    let client = leaf(&cluster.ca, Role::User, "u1", now_ms()).client().unwrap();
    let problem = connect(&[incoming.addresses()[0].to_string()], &client).await.unwrap_err().to_string();
    assert!(problem.contains("the peer is a node, not a server"), "{problem}");
}

#[tokio::test]
async fn a_leaf_of_one_role_signed_for_another_is_refused() {
    let cluster = Cluster::new("c1").await;
    // The nodes' intermediate signs a certificate that says `user`: what a stolen intermediate could do.
    let folder = cluster.folder.path().join("ca");
    for extension in ["crt", "key"] {
        std::fs::copy(folder.join(format!("node.{extension}")), folder.join(format!("user.{extension}"))).unwrap();
    }
    let forger = CertificateAuthority::load(&folder).unwrap();
    let key = FreshKey::generate().unwrap();
    let chain = forger.issue(key.request(), Role::User, "u1", "x", now_ms()).unwrap();
    assert!(
        key.certified(chain, cluster.ca.authority().clone()).is_err_and(|e| e.to_string().contains("for that role"))
    );
}

#[tokio::test]
async fn a_joiner_without_certificate_is_nobody_and_checks_the_pin_first() {
    let cluster = Cluster::new("c1").await;
    let pinned = connect_pinned(&cluster.address, cluster.ca.authority().pin()).await.unwrap();
    assert_eq!(pinned.authority.root(), cluster.ca.authority().root());
    assert!(cluster.caller(pinned.channel).await.unwrap().identity.is_none());
    let problem = connect_pinned(&cluster.address, [0; 32]).await.err().unwrap().to_string();
    assert!(problem.contains("not the one that the token names"), "{problem}");
}

#[tokio::test]
async fn root_on_the_socket_is_a_user_and_the_socket_is_private() {
    use std::os::unix::fs::MetadataExt;
    let cluster = Cluster::new("c1").await;
    let path = cluster.folder.path().join("run/socket");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let identity = cluster.caller(connect_unix(&path).await.unwrap()).await.unwrap().identity.unwrap();
    assert_eq!(identity.role, Role::User);
    let tls = TlsIdentity::new(&leaf(&cluster.ca, Role::Server, "s2", now_ms())).unwrap();
    let second = listen(&[ListenAddress::Unix(path)], &tls, &Connections::default()).await;
    assert!(second.err().unwrap().to_string().contains("another daemon"));
}

#[tokio::test]
async fn who_is_no_longer_welcome_is_cut_off_at_once() {
    let cluster = Cluster::new("c1").await;
    let client = leaf(&cluster.ca, Role::Node, "n1", now_ms()).client().unwrap();
    let other = leaf(&cluster.ca, Role::Node, "n2", now_ms()).client().unwrap();
    let channels = (
        connect(std::slice::from_ref(&cluster.address), &client).await.unwrap(),
        connect(std::slice::from_ref(&cluster.address), &other).await.unwrap(),
    );
    let mut watch = HealthClient::new(channels.0).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    cluster.caller(channels.1.clone()).await.unwrap();
    assert_eq!(cluster.connections.cut(|identity| identity.uid == "n1"), 1);
    let ended = tokio::time::timeout(Duration::from_secs(5), watch.message()).await.expect("cut, not waiting");
    assert!(ended.is_err());
    cluster.caller(channels.1).await.unwrap();
}

#[tokio::test]
async fn nonsense_does_not_stop_the_listener() {
    use tokio::io::AsyncWriteExt;
    let cluster = Cluster::new("c1").await;
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0x16, 3, 1, 0xff, 0xff], b""] {
        let mut stream = TcpStream::connect(&cluster.address).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
    }
    assert!(cluster.try_as(&leaf(&cluster.ca, Role::User, "u1", now_ms()).client().unwrap()).await.is_some());
}

#[tokio::test]
async fn a_renewed_leaf_is_used_without_a_restart() {
    let cluster = Cluster::new("c1").await;
    let first = leaf(&cluster.ca, Role::Server, "s1", now_ms() - 23 * 60 * 60 * 1000);
    let tls = TlsIdentity::new(&first).unwrap();
    let before = tls.current.read().unwrap().cert[0].clone();
    let second = leaf(&cluster.ca, Role::Server, "s1", now_ms());
    tls.replace(&second).unwrap();
    let after = tls.current.read().unwrap().cert[0].clone();
    assert_eq!((before, after), (first.chain()[0].clone(), second.chain()[0].clone()));
}

/// A chain with any SANs and basic constraints, truly signed by the nodes' intermediate.
fn odd_chain(cluster: &Cluster, sans: &[&str], is_ca: bool) -> (Vec<CertificateDer<'static>>, rcgen::KeyPair) {
    use rustls::pki_types::pem::PemObject;
    let folder = cluster.folder.path().join("ca");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let issuer_key = rcgen::KeyPair::from_pem(&read("node.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("node.crt"), issuer_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = sans.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    if is_ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let leaf = params.signed_by(&key, &issuer).unwrap();
    (vec![leaf.der().clone(), CertificateDer::from_pem_slice(read("node.crt").as_bytes()).unwrap()], key)
}

#[tokio::test]
async fn an_identity_is_one_uri_of_our_trust_domain_in_a_leaf() {
    let cluster = Cluster::new("c1").await;
    let accepts = async |sans: &[&str], is_ca| {
        let (chain, key) = odd_chain(&cluster, sans, is_ca);
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let client = ClientIdentity::new(cluster.ca.authority().clone(), chain, key).unwrap();
        cluster.try_as(&client).await.is_some()
    };
    assert!(accepts(&["spiffe://c1/node/n1"], false).await, "what is wrong below is the only thing wrong");
    for sans in [
        &["spiffe://c1/node/n1", "spiffe://c1/node/n2"][..],
        &["spiffe://c1/node/n1", "https://example.org"],
        &["spiffe://c2/node/n1"],
        &["spiffe://c1/user/n1"],
        &["spiffe://c1/server/n1"],
        &["spiffe://c1/node/"],
        &["spiffe://c1/node/%2e%2e"],
        &[],
    ] {
        assert!(!accepts(sans, false).await, "{sans:?}");
    }
    assert!(!accepts(&["spiffe://c1/node/n1"], true).await, "a CA as a leaf");
}

#[tokio::test]
async fn more_strangers_than_there_is_room_for_keep_nobody_out_for_long() {
    let cluster = Cluster::new("c1").await;
    // Silent ones that hold every place of the handshake. When they go, the next is served.
    let mut silent = Vec::new();
    for _ in 0..MAX_ANONYMOUS {
        silent.push(TcpStream::connect(&cluster.address).await.unwrap());
    }
    let client = leaf(&cluster.ca, Role::User, "u1", now_ms()).client().unwrap();
    // The client is polled first: it connects while all places are taken.
    let meanwhile = async move { drop(silent) };
    let (served, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(9), cluster.try_as(&client)), meanwhile);
    assert!(served.expect("sooner than a handshake may take").is_some());
}

const FEW_DESCRIPTORS: &str = "LOCKSTEP_TEST_FEW_DESCRIPTORS";

/// In a process of its own, for the limit is a process's: every descriptor is taken, then given back.
#[tokio::test]
async fn a_listener_without_descriptors_is_one_again_when_there_are_some() {
    if std::env::var_os(FEW_DESCRIPTORS).is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "identity::listener::tests::a_listener_without_descriptors_is_one_again_when_there_are_some";
        let mut child = tokio::process::Command::new(own);
        child.args([name, "--exact", "--test-threads=1"]).env(FEW_DESCRIPTORS, "1").kill_on_drop(true);
        let ended = tokio::time::timeout(Duration::from_secs(60), child.output()).await.expect("it ends").unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        return;
    }
    use rustix::process::{Resource, Rlimit, setrlimit};
    let cluster = Cluster::new("c1").await;
    let client = leaf(&cluster.ca, Role::User, "u1", now_ms()).client().unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    // One descriptor stays free for the socket that waits; the listener then has none to accept it with.
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    taken.pop();
    let waiting = TcpStream::connect(&cluster.address).await.unwrap();
    assert!(std::fs::File::open("/dev/null").is_err(), "the listener could have accepted");
    // Long enough for accept to have failed at least once.
    tokio::time::sleep(PAUSE).await;
    drop((taken, waiting));
    assert!(cluster.try_as(&client).await.is_some());
}
