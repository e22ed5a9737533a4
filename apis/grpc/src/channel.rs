//! Connections to servers: over TLS 1.3 with both ends verified, over the unix socket, or pinned for joining.
//! Knows which certificate is a server's; never the host name, which proves nothing here. Holds no logic of requests.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::addresses::Addresses;
use crate::peer::{Authority, PeerError, pin_of};

/// One address gets this long for name resolution, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// If an address has not answered by then, the next one is tried beside it: much longer than a handshake takes between
/// continents, and too short for somebody who waits to notice.
const HEAD_START: Duration = Duration::from_millis(300);

/// When a connection counts as dead.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A silent connection is asked for a sign of life this often,
    pub interval: Duration,
    /// and is dead if none comes within this.
    pub timeout: Duration,
}

/// Of daemons, which have thousands of connections and nobody who looks at the clock.
const PATIENT: Keepalive = Keepalive { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) };

/// Of a person who looks on: a server that hangs is left for another one within 4 s.
pub const ATTENTIVE: Keepalive = Keepalive { interval: Duration::from_secs(2), timeout: Duration::from_secs(2) };

/// Sent bytes that nobody acknowledges for this long end the connection: the sum of [`PATIENT`]'s two.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// A fixed name for TLS, which wants one; it is not sent and not checked.
const TLS_NAME: &str = "server.lockstep";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The identity cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The root certificate, or a pinned server's chain.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// No address was given.
    #[error("no server address is known")]
    NoAddress,
    /// None of the addresses led to a server of the cluster. Trying again may help.
    #[error("{0}")]
    Unreachable(String),
}

/// Who we are to servers, and by which CA we know them. Cheap to clone.
#[derive(Clone)]
pub struct ClientIdentity {
    authority: Arc<Authority>,
    config: Arc<ClientConfig>,
}

impl ClientIdentity {
    /// Takes CA certificate, chain (leaf first) and private key as PEM.
    /// Errors: text that is not PEM, a key of another certificate.
    pub fn from_pem(ca: &str, chain: &str, key: &str) -> Result<Self, ConnectError> {
        let problem = |what: &str, e: &dyn std::fmt::Display| ConnectError::Identity(format!("{what}: {e}"));
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| problem("the certificate chain is not PEM", &e))?;
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| problem("the private key is not PEM", &e))?;
        Self::new(Arc::new(Authority::from_pem(ca)?), chain, key)
    }

    /// Takes a chain (leaf first) and the leaf's key. Errors: a key of another certificate, an empty chain.
    pub fn new(
        authority: Arc<Authority>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, ConnectError> {
        let verifier = Arc::new(ServerVerifier(authority.clone()));
        let config = builder(verifier)?
            .with_client_auth_cert(chain, key)
            .map_err(|e| ConnectError::Identity(format!("certificate and key cannot be used: {e}")))?;
        Ok(Self { authority, config: Arc::new(finish(config)) })
    }

    /// The CA.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(verifier: Arc<dyn ServerCertVerifier>) -> Result<Builder, ConnectError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(PeerError::Chain)?;
    // rustls calls every verifier of one's own dangerous; ours is stricter than its own but for the host name.
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    // A resumed session would be the certificate of before.
    config.resumption = Resumption::disabled();
    config
}

/// Connects to the first address that leads to a server of our cluster, in the given order, each `host:port`. One that
/// does not answer costs 300 ms: then the next is tried beside it.
/// The channel connects again by itself, over the same addresses, when the connection is lost.
pub async fn connect(addresses: &[String], identity: &ClientIdentity) -> Result<Channel, ConnectError> {
    connect_with(&Addresses::new(addresses), identity.config.clone(), PATIENT).await
}

/// The same over addresses that others share: each connection, also a later one, goes over those that are known then,
/// and notes which one answered.
pub async fn connect_sharing(
    addresses: &Addresses,
    identity: &ClientIdentity,
    keepalive: Keepalive,
) -> Result<Channel, ConnectError> {
    connect_with(addresses, identity.config.clone(), keepalive).await
}

/// A channel that someone joins over, and the CA that it turned out to be under.
pub struct Pinned {
    /// To a server; verified.
    pub channel: Channel,
    /// Its root has the pinned hash.
    pub authority: Authority,
}

/// Connects without an identity of one's own to a server whose root certificate has the SHA-256 `pin`. Nothing has
/// been sent before that is verified.
pub async fn connect_pinned(address: &str, pin: [u8; 32]) -> Result<Pinned, ConnectError> {
    let verifier = Arc::new(PinVerifier { pin, root: OnceLock::new() });
    let config = finish(builder(verifier.clone())?.with_no_client_auth());
    let channel = connect_with(&Addresses::new(&[address.to_owned()]), Arc::new(config), PATIENT).await?;
    let root = verifier.root.get().expect("the handshake has verified a chain").clone();
    Ok(Pinned { channel, authority: Authority::from_der(root)? })
}

/// Connects to the daemon of this machine over its unix socket; it knows us by our uid.
pub async fn connect_unix(path: &Path) -> Result<Channel, ConnectError> {
    let path: PathBuf = path.to_owned();
    let shown = path.display().to_string();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(&path).await.map(TokioIo::new) }
    });
    endpoint(PATIENT).connect_with_connector(connector).await.map_err(|e| unreachable_by(&shown, &e))
}

async fn connect_with(
    addresses: &Addresses,
    config: Arc<ClientConfig>,
    keepalive: Keepalive,
) -> Result<Channel, ConnectError> {
    let known = addresses.list();
    if known.is_empty() {
        return Err(ConnectError::NoAddress);
    }
    let shown = known.join(", ");
    let addresses = addresses.clone();
    let connector = tower::service_fn(move |_| {
        let (addresses, tls) = (addresses.clone(), TlsConnector::from(config.clone()));
        async move { reach_any(&addresses, &tls).await.map(TokioIo::new) }
    });
    endpoint(keepalive).connect_with_connector(connector).await.map_err(|e| unreachable_by(&shown, &e))
}

fn endpoint(keepalive: Keepalive) -> Endpoint {
    // `http` because the connector, not tonic, does TLS.
    Endpoint::from_static("http://server.lockstep")
        .http2_keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(keepalive.timeout)
        .keep_alive_while_idle(true)
}

fn unreachable_by(shown: &str, error: &tonic::transport::Error) -> ConnectError {
    // What says something is at the end of the chain of sources.
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if error.source().is_none() {
        return ConnectError::Unreachable(format!("{shown}: {error}"));
    }
    ConnectError::Unreachable(deepest.to_string())
}

/// The first that answers as a server of ours. Those that are slower, or hang, are let go.
async fn reach_any(addresses: &Addresses, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let list = addresses.list();
    let mut waiting = list.iter().cloned().enumerate();
    let mut under_way = JoinSet::new();
    let mut problems = vec![String::new(); list.len()];
    loop {
        let last = match waiting.next() {
            Some((at, address)) => {
                let tls = tls.clone();
                under_way.spawn(async move { (at, reach_in_time(&address, &tls).await) });
                false
            }
            None => true,
        };
        let ended = match tokio::time::timeout(HEAD_START, under_way.join_next()).await {
            Err(_) if last => under_way.join_next().await,
            Err(_) => continue,
            Ok(ended) => ended,
        };
        match ended.transpose().map_err(io::Error::other)? {
            Some((at, Ok(stream))) => {
                addresses.answered(&list[at]);
                return Ok(stream);
            }
            Some((at, Err(problem))) => problems[at] = format!("{}: {problem}", list[at]),
            None => return Err(io::Error::other(problems.join("; "))),
        }
    }
}

async fn reach_in_time(address: &str, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    match tokio::time::timeout(CONNECT_TIMEOUT, reach(address, tls)).await {
        Ok(ended) => ended,
        Err(_) => Err(io::Error::other(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

async fn reach(address: &str, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    let name = ServerName::try_from(TLS_NAME).expect("a fixed, valid name");
    tls.connect(name, stream).await.map_err(plain)
}

/// A refusal of ours in its own words; rustls would print it for programmers.
fn plain(problem: io::Error) -> io::Error {
    let refusal = problem.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match refusal {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            io::Error::other(other.0.to_string())
        }
        _ => problem,
    }
}

/// Sets what every TCP connection of ours has: no delay of small writes, and an end when the peer has vanished.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    let user_timeout = u32::try_from(UNACKNOWLEDGED_TIMEOUT.as_millis()).expect("30,000");
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PATIENT.interval)?;
    sockopt::set_tcp_keepintvl(stream, PATIENT.timeout)?;
    sockopt::set_tcp_user_timeout(stream, user_timeout)?;
    Ok(())
}

fn refused(error: PeerError) -> rustls::Error {
    match error {
        PeerError::Chain(error) => error,
        other => rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(other)))),
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

/// Accepts servers of our cluster.
#[derive(Debug)]
struct ServerVerifier(Arc<Authority>);

/// Accepts servers of the cluster whose root has the pinned hash, and keeps that root.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    root: OnceLock<CertificateDer<'static>>,
}

impl PinVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PeerError> {
        let root = intermediates.iter().find(|certificate| pin_of(certificate) == self.pin).ok_or(PeerError::Pin)?;
        let authority = Authority::from_der(root.clone().into_owned())?;
        authority.verify_server(leaf, intermediates, now)?;
        self.root.get_or_init(|| authority.root().clone());
        Ok(())
    }
}

/// The parts of a verifier that are the same for both: TLS 1.3 signatures only.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_server(leaf, intermediates, now).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
