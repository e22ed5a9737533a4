//! Our own leaf: key and chain in one file, so that a crash never leaves a key without its certificate.
//! Knows how to make a request for a new one and when it is time; not whom to ask.

use std::path::Path;
use std::sync::Arc;

use lockstep_grpc::channel::{ClientIdentity, ConnectError};
use lockstep_grpc::peer::{Authority, PeerError, PeerIdentity};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::files::{self, FileError};

/// Why a leaf cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Its file.
    #[error("our certificate: {0}")]
    File(#[from] FileError),
    /// Not what it should be.
    #[error("our certificate {file}: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// Not one of our CA's.
    #[error("our certificate: {0}")]
    Peer(#[from] PeerError),
    /// The key could not be made.
    #[error("our key could not be made: {0}")]
    Key(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("our certificate: {0}")]
    Tls(#[from] ConnectError),
}

/// A key made here that nobody has certified yet.
pub struct FreshKey {
    pair: KeyPair,
    request: Vec<u8>,
}

impl FreshKey {
    /// Makes an ECDSA P-256 key and a PKCS #10 request for it.
    pub fn generate() -> Result<Self, CredentialsError> {
        let pair = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&pair)?.der().to_vec();
        Ok(Self { pair, request })
    }

    /// The request, DER. It says nothing but the key.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Joins the key with the chain that was issued for it (DER, leaf first).
    /// Errors: a chain that is not of the CA, or certifies another key.
    pub fn certified(self, chain: Vec<Vec<u8>>, authority: Arc<Authority>) -> Result<Credentials, CredentialsError> {
        let key = Zeroizing::new(self.pair.serialize_der());
        Credentials::new(chain.into_iter().map(CertificateDer::from).collect(), key, authority)
    }
}

/// A leaf with its key: who this process is.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    authority: Arc<Authority>,
    identity: PeerIdentity,
}

impl Credentials {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<Vec<u8>>,
        authority: Arc<Authority>,
    ) -> Result<Self, CredentialsError> {
        let (leaf, rest) = chain.split_first().ok_or(PeerError::Malformed("there is none"))?;
        let identity = authority.identify(leaf, rest)?;
        let credentials = Self { chain, key, authority, identity };
        // Also checks that key and certificate belong together.
        credentials.client()?;
        Ok(credentials)
    }

    /// Reads key and chain from their file.
    pub fn load(path: &Path, authority: Arc<Authority>) -> Result<Self, CredentialsError> {
        let text = Zeroizing::new(files::read_private(path)?);
        let damaged = |problem: String| CredentialsError::Damaged { file: path.display().to_string(), problem };
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| damaged(format!("the certificates are not PEM: {e}")))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|e| damaged(format!("no private key: {e}")))?;
        Self::new(chain, Zeroizing::new(key.secret_pkcs8_der().to_vec()), authority)
    }

    /// Writes key and chain to their file, 0600, replacing what is there at once.
    pub fn store(&self, path: &Path) -> Result<(), CredentialsError> {
        let mut text = self.key_pem();
        text.push_str(&self.chain_pem());
        Ok(files::write_private(path, text.as_bytes())?)
    }

    /// Who we are.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// The CA.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", &self.key))
    }

    /// For connections to servers.
    pub fn client(&self) -> Result<ClientIdentity, CredentialsError> {
        Ok(ClientIdentity::new(self.authority.clone(), self.chain.clone(), self.key())?)
    }

    /// When to ask for the next leaf: at two thirds of `life_ms`, counted back from the end.
    pub fn renew_at_ms(&self) -> u64 {
        let life_ms = super::authority::leaf_life_ms(self.identity.role);
        self.identity.not_after_ms.saturating_sub(life_ms / 3)
    }

    /// Whether the leaf has ended.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.identity.not_after_ms
    }
}

/// The CA certificate as PEM.
pub fn authority_pem(authority: &Authority) -> String {
    pem("CERTIFICATE", authority.root())
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
