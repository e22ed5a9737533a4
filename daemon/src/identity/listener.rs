//! Takes connections and says who is at the other end: TLS 1.3 over TCP, and the unix socket. Yields a stream for
//! tonic whose connections carry a [`Caller`]. Knows certificates and limits; never requests or what one may do.
//!
//! # Guarantees
//! - No error of a connection, and no lack of file descriptors, ends the stream.
//! - A handshake takes 10 s at most. Who shows no certificate is cut off after a minute, and there are never more than
//!   [`MAX_ANONYMOUS`] of those, so that they cannot keep out who has one.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::task::AtomicWaker;
use lockstep_grpc::channel;
use lockstep_grpc::peer::{Authority, PeerIdentity, Role};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls::{client::danger::HandshakeSignatureValid, pki_types::CertificateDer, pki_types::UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::credentials::Credentials;

/// For TLS, from the first byte on.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections without a certificate live this long: enough for one Join.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(60);

/// Most connections without a certificate, those in the handshake among them.
pub const MAX_ANONYMOUS: usize = 256;

/// Most connections with one: 10,000 agents, those that connect anew before their old connection is dead, and users.
pub const MAX_CONNECTIONS: usize = 24_000;

/// Accepted connections that wait for tonic to take them.
const QUEUE: usize = 64;

/// Out of descriptors or memory: wait for some to come back. First and longest pause.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TLS over TCP. Port 0: any free one.
    Tcp(SocketAddr),
    /// A unix socket; made 0600.
    Unix(PathBuf),
}

/// Why nobody can be listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Our own certificate.
    #[error("the server's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Who calls, as the connection proves it. An extension of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// By certificate, or by uid on the unix socket. `None`: nobody known.
    pub identity: Option<PeerIdentity>,
    /// Where a TCP connection came from.
    pub address: Option<SocketAddr>,
    /// Number of the connection, never used again by this process.
    pub connection: u64,
}

/// Our certificate as TLS uses it; can be replaced while connections are open.
#[derive(Debug)]
pub struct TlsIdentity {
    current: RwLock<Arc<CertifiedKey>>,
    authority: Arc<Authority>,
}

impl TlsIdentity {
    /// Takes the server's leaf.
    pub fn new(credentials: &Credentials) -> Result<Arc<Self>, ListenError> {
        let current = RwLock::new(certified(credentials)?);
        Ok(Arc::new(Self { current, authority: credentials.authority().clone() }))
    }

    /// New connections get the renewed leaf; those that are open stay.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), ListenError> {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified(credentials)?;
        Ok(())
    }

    /// TLS 1.3 only; a client certificate is asked for, and verified if given.
    fn config(self: &Arc<Self>) -> Result<ServerConfig, ListenError> {
        let provider = Arc::new(ring::default_provider());
        let chain = WebPkiClientVerifier::builder_with_provider(self.authority.roots(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let verifier = Arc::new(ClientVerifier { chain, authority: self.authority.clone() });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would bring back a certificate that has been refused or has ended since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

fn certified(credentials: &Credentials) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let provider: CryptoProvider = ring::default_provider();
    CertifiedKey::from_der(credentials.chain().to_vec(), credentials.key(), &provider).map(Arc::new)
}

impl ResolvesServerCert for TlsIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// rustls' own verifier for signatures and dates, then ours for what the identity says.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    authority: Arc<Authority>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let refused = |e| CertificateError::Other(rustls::OtherError(Arc::new(e)));
        self.authority.identify(leaf, intermediates).map_err(refused)?;
        Ok(verified)
    }

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
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The connections that are open, to cut those of who is no longer welcome. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<u64, Open>>>);

/// One that is open: whose, and how to end it.
struct Open {
    identity: Option<PeerIdentity>,
    cut: Weak<Cut>,
}

impl Connections {
    /// Ends every connection whose identity the predicate names. Returns how many.
    pub fn cut(&self, unwelcome: impl Fn(&PeerIdentity) -> bool) -> usize {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = open.values().filter(|open| open.identity.as_ref().is_some_and(&unwelcome));
        named.filter_map(|open| open.cut.upgrade()).map(|cut| cut.now()).count()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&self, number: u64, identity: Option<PeerIdentity>) -> Arc<Cut> {
        let cut = Arc::new(Cut::default());
        let entry = Open { identity, cut: Arc::downgrade(&cut) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, entry);
        cut
    }

    fn remove(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

/// Wakes whoever reads from a connection and tells it that it is over.
#[derive(Default)]
struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
}

impl Cut {
    fn now(&self) {
        self.done.store(true, Ordering::Release);
        self.reader.wake();
    }
}

/// An open connection for tonic.
pub struct Connection {
    io: Io,
    caller: Caller,
    cut: Arc<Cut>,
    connections: Connections,
    _permit: OwnedSemaphorePermit,
    _expiry: Option<tokio::task::JoinHandle<()>>,
}

enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.remove(self.caller.connection);
        if let Some(expiry) = &self._expiry {
            expiry.abort();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl Connection {
    fn check(&self) -> io::Result<()> {
        match self.cut.done.load(Ordering::Acquire) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut: the peer is no longer welcome")),
            false => Ok(()),
        }
    }
}

/// Calls the same method on whichever kind of stream it is.
macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Tls(stream) => {
                let $io = Pin::new(stream.as_mut());
                $call
            }
            Io::Unix(stream) => {
                let $io = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.cut.reader.register(cx.waker());
        self.check()?;
        each!(self, io => io.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        each!(self, io => io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        each!(self, io => io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

/// Connections as they come. Dropping it stops listening; connections that were taken stay.
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    addresses: Vec<SocketAddr>,
    sockets: Vec<PathBuf>,
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// The TCP addresses that are listened on, with the real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // The next daemon would also remove it; this is only tidier.
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// Listens on all addresses. All or none: an address that cannot be had is an error.
pub async fn listen(
    addresses: &[ListenAddress],
    identity: &Arc<TlsIdentity>,
    connections: &Connections,
) -> Result<Incoming, ListenError> {
    let (sender, ready) = mpsc::channel(QUEUE);
    let door = Arc::new(Door {
        tls: TlsAcceptor::from(Arc::new(identity.config()?)),
        authority: identity.authority.clone(),
        connections: connections.clone(),
        known: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        anonymous: Arc::new(Semaphore::new(MAX_ANONYMOUS)),
        sender,
    });
    let mut incoming = Incoming { ready, addresses: Vec::new(), sockets: Vec::new(), _accepting: JoinSet::new() };
    for address in addresses {
        match address {
            ListenAddress::Tcp(address) => {
                let bind = |source| ListenError::Bind { address: address.to_string(), source };
                let listener = TcpListener::bind(address).await.map_err(bind)?;
                incoming.addresses.push(listener.local_addr().map_err(bind)?);
                incoming._accepting.spawn(accept_tcp(listener, door.clone()));
            }
            ListenAddress::Unix(path) => {
                let listener = bind_unix(path).await?;
                incoming.sockets.push(path.clone());
                incoming._accepting.spawn(accept_unix(listener, door.clone()));
            }
        }
    }
    Ok(incoming)
}

async fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| ListenError::Bind { address: path.display().to_string(), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers there")));
    }
    if let Some(folder) = path.parent() {
        super::files::make_private_folder(folder).map_err(|e| failed(e.problem))?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// What every accept loop shares.
struct Door {
    tls: TlsAcceptor,
    authority: Arc<Authority>,
    connections: Connections,
    known: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    sender: mpsc::Sender<Connection>,
}

async fn accept_tcp(listener: TcpListener, door: Arc<Door>) {
    let mut handshakes = JoinSet::new();
    let mut pause = PAUSE;
    loop {
        // Before accepting: who waits in the kernel's queue costs us nothing.
        let Ok(permit) = door.anonymous.clone().acquire_owned().await else { return };
        while handshakes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = PAUSE;
                handshakes.spawn(shake_hands(door.clone(), stream, address, permit));
            }
            Err(problem) => rest(&problem, &mut pause).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, door: Arc<Door>) {
    let mut pause = PAUSE;
    loop {
        let Ok(permit) = door.known.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                pause = PAUSE;
                let identity = local_identity(&stream, &door.authority);
                door.hand_over(Io::Unix(stream), identity, None, permit).await;
            }
            Err(problem) => rest(&problem, &mut pause).await,
        }
    }
}

/// The peer's fault (it went away) costs no pause; ours (no descriptors, no memory) does, longer each time.
async fn rest(problem: &io::Error, pause: &mut Duration) {
    if problem.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(%problem, "cannot accept connections; trying again");
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(MAX_PAUSE);
}

/// Root, or whoever the daemon itself runs as, is an admin here; others are nobody.
fn local_identity(stream: &UnixStream, authority: &Authority) -> Option<PeerIdentity> {
    let uid = stream.peer_cred().ok()?.uid();
    let ours = rustix::process::geteuid().as_raw();
    (uid == 0 || uid == ours).then(|| PeerIdentity {
        role: Role::User,
        uid: format!("uid-{uid}"),
        trust_domain: authority.trust_domain().to_owned(),
        name: format!("uid {uid} of this machine"),
        not_after_ms: u64::MAX,
    })
}

async fn shake_hands(door: Arc<Door>, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
    if let Err(problem) = channel::tune(&stream) {
        tracing::debug!(%address, %problem, "a connection ended at once");
        return;
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, door.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(problem)) => return tracing::debug!(%address, %problem, "a TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "a TLS handshake took too long"),
    };
    let identity = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => None,
        Some([leaf, rest @ ..]) => match door.authority.identify(leaf, rest) {
            Ok(identity) => Some(identity),
            Err(problem) => return tracing::debug!(%address, %problem, "a certificate was refused"),
        },
    };
    let permit = match identity.is_some() {
        false => permit,
        true => match door.known.clone().try_acquire_owned() {
            Ok(known) => known,
            Err(_) => return tracing::warn!(%address, "a connection was refused: there are {MAX_CONNECTIONS}"),
        },
    };
    door.hand_over(Io::Tls(Box::new(stream)), identity, Some(address), permit).await;
}

impl Door {
    async fn hand_over(
        &self,
        io: Io,
        identity: Option<PeerIdentity>,
        address: Option<SocketAddr>,
        permit: OwnedSemaphorePermit,
    ) {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let connection = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let cut = self.connections.add(connection, identity.clone());
        let expiry = identity.is_none().then(|| {
            let cut = cut.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ANONYMOUS_LIFE).await;
                cut.now();
            })
        });
        let caller = Caller { identity, address, connection };
        let connections = self.connections.clone();
        let connection = Connection { io, caller, cut, connections, _permit: permit, _expiry: expiry };
        // An error means that nobody serves any more; the connection ends with it.
        let _ = self.sender.send(connection).await;
    }
}

#[cfg(test)]
mod tests;
