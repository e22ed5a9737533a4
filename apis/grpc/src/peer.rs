//! Who is at the other end of a connection: reads an identity out of a certificate, and says whether our CA made it.
//! Both ends use this one file, so that they cannot differ. Knows certificates; never keys, sockets or the store.
//!
//! The tree of trust: a root, whose SAN names the trust domain; under it one intermediate for each [`Role`]; under
//! those the leaves, each with exactly one SAN, the URI `spiffe://<trust domain>/{server|node|user}/<uid>`.
//! Invariant: an identity's role is also the role of the intermediate that signed it.

use std::fmt;
use std::sync::Arc;

use lockstep_apis::v1alpha;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// Longest uid or trust domain in an identity.
const MAX_PART_BYTES: usize = 253;

/// What a peer is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Has the store and answers requests.
    Server,
    /// Does work.
    Node,
    /// A person or program that administers.
    User,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Server, Role::Node, Role::User];

    /// The word in an identity's URI and in file names.
    pub fn word(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Node => "node",
            Role::User => "user",
        }
    }

    /// The common name of the intermediate that signs this role.
    pub fn issuer_name(self) -> &'static str {
        match self {
            Role::Server => "Lockstep servers",
            Role::Node => "Lockstep nodes",
            Role::User => "Lockstep users",
        }
    }

    fn from_word(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.word() == word)
    }
}

impl From<Role> for v1alpha::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Server => v1alpha::Role::Server,
            Role::Node => v1alpha::Role::Node,
            Role::User => v1alpha::Role::User,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An identity, as a verified certificate states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it is.
    pub role: Role,
    /// Which one; never used again for another.
    pub uid: String,
    /// The cluster's trust domain.
    pub trust_domain: String,
    /// The common name: for people and logs, decides nothing.
    pub name: String,
    /// When the certificate ends, in milliseconds since the epoch. A request after it is refused, however old the
    /// connection is.
    pub not_after_ms: u64,
}

impl PeerIdentity {
    /// How people read who did something, in gates, verdicts, locks and events: the name, else all of it.
    pub fn words(&self) -> String {
        if self.name.is_empty() { self.to_string() } else { self.name.clone() }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.uid)
    }
}

/// Why a certificate is not one of ours.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not a certificate, or one that nobody of ours would make.
    #[error("the certificate is malformed: {0}")]
    Malformed(&'static str),
    /// The URI does not name an identity.
    #[error("the certificate's identity {0:?} is not spiffe://<trust domain>/<server|node|user>/<uid>")]
    Uri(String),
    /// Of another cluster.
    #[error("the certificate is of the trust domain {found:?}, ours is {ours:?}")]
    TrustDomain {
        /// In the certificate.
        found: String,
        /// Of our root.
        ours: String,
    },
    /// Signed by the intermediate of another role, or by none.
    #[error("the certificate says {0} but was not signed by the cluster's CA for that role")]
    Issuer(Role),
    /// Another role than the connection is for.
    #[error("the peer is a {found}, not a {expected}")]
    Role {
        /// In the certificate.
        found: Role,
        /// Asked for.
        expected: Role,
    },
    /// No chain to our root, expired, or not to be used so.
    #[error("the certificate does not verify against the cluster's CA: {0}")]
    Chain(#[from] rustls::Error),
    /// No certificate of the chain has the hash that the token names.
    #[error("the server's CA is not the one that the token names: wrong address, or somebody in between")]
    Pin,
    /// Text that should hold a PEM certificate.
    #[error("not a PEM certificate: {0}")]
    Pem(String),
}

/// Writes an identity's URI.
pub fn uri(trust_domain: &str, role: Role, uid: &str) -> String {
    format!("spiffe://{trust_domain}/{role}/{uid}")
}

/// Whether a text may be a uid in an identity: 1 to 253 of letters, digits, `-`, `_`, `.`, beginning with a letter
/// or digit. No escapes, so no two texts name the same.
pub fn is_uid(text: &str) -> bool {
    text.len() <= MAX_PART_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether a text may be a trust domain: as a uid, in lower case.
pub fn is_trust_domain(text: &str) -> bool {
    is_uid(text) && !text.bytes().any(|b| b.is_ascii_uppercase())
}

fn parse_uri(text: &str) -> Option<(&str, Role, &str)> {
    let rest = text.strip_prefix("spiffe://")?;
    let mut parts = rest.split('/');
    let (trust_domain, role, uid) = (parts.next()?, Role::from_word(parts.next()?)?, parts.next()?);
    (parts.next().is_none() && is_trust_domain(trust_domain) && is_uid(uid)).then_some((trust_domain, role, uid))
}

/// The cluster's CA, as one who has only its certificate knows it.
#[derive(Debug)]
pub struct Authority {
    root: CertificateDer<'static>,
    trust_domain: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Authority {
    /// Takes the root certificate. Errors: not a CA certificate, or without a trust domain.
    pub fn from_der(root: CertificateDer<'static>) -> Result<Self, PeerError> {
        let parsed = parse(&root)?;
        if !parsed.is_ca() {
            return Err(PeerError::Malformed("it is not a CA"));
        }
        let uri = single_uri(&parsed)?;
        let trust_domain = uri
            .strip_prefix("spiffe://")
            .filter(|domain| is_trust_domain(domain))
            .ok_or(PeerError::Malformed("the CA does not name a trust domain"))?
            .to_owned();
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        Ok(Self { root, trust_domain, roots: Arc::new(roots), provider: Arc::new(ring::default_provider()) })
    }

    /// Takes the root certificate as PEM.
    pub fn from_pem(text: &str) -> Result<Self, PeerError> {
        let root = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| PeerError::Pem(e.to_string()))?;
        Self::from_der(root)
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The trust domain that all identities of the cluster are in.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// For a rustls verifier of client certificates.
    pub fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    /// Our only cryptography.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// SHA-256 of the root: what a join token pins.
    pub fn pin(&self) -> [u8; 32] {
        pin_of(&self.root)
    }

    /// Verifies what a server presented, and that it is one.
    pub fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, PeerError> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let identity = self.identify(leaf, intermediates)?;
        match identity.role {
            Role::Server => Ok(identity),
            found => Err(PeerError::Role { found, expected: Role::Server }),
        }
    }

    /// Reads the identity of a chain whose signatures and dates are verified already, and checks all that rustls does
    /// not know: the URI, the trust domain, and that the role's own intermediate signed it.
    pub fn identify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<PeerIdentity, PeerError> {
        let parsed = parse(leaf)?;
        if parsed.is_ca() {
            return Err(PeerError::Malformed("it is a CA's"));
        }
        let uri = single_uri(&parsed)?;
        let (trust_domain, role, uid) = parse_uri(&uri).ok_or_else(|| PeerError::Uri(uri.clone()))?;
        if trust_domain != self.trust_domain {
            return Err(PeerError::TrustDomain { found: trust_domain.to_owned(), ours: self.trust_domain.clone() });
        }
        // The root makes nothing but the three intermediates, and those cannot make CAs: the name tells them apart.
        // With a single intermediate in the chain, it is the one that the signatures were verified through.
        let mut others = intermediates.iter().filter(|certificate| **certificate != self.root);
        let (Some(intermediate), None) = (others.next(), others.next()) else { return Err(PeerError::Issuer(role)) };
        let intermediate = parse(intermediate)?;
        let signed = parsed.issuer().as_raw() == intermediate.subject().as_raw();
        if !signed || common_name(intermediate.subject()) != Some(role.issuer_name()) {
            return Err(PeerError::Issuer(role));
        }
        Ok(PeerIdentity {
            role,
            uid: uid.to_owned(),
            trust_domain: trust_domain.to_owned(),
            name: common_name(parsed.subject()).unwrap_or_default().to_owned(),
            not_after_ms: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0) * 1000,
        })
    }
}

/// When a certificate counts, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub from_ms: u64,
    /// Until then.
    pub until_ms: u64,
}

/// The validity of the first certificate of a chain, PEM. Errors: there is none.
pub fn validity_of_pem(chain: &str) -> Result<Validity, PeerError> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|e| PeerError::Pem(e.to_string()))?;
    let parsed = parse(&leaf)?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0) * 1000;
    let validity = parsed.validity();
    Ok(Validity { from_ms: ms(validity.not_before.timestamp()), until_ms: ms(validity.not_after.timestamp()) })
}

/// SHA-256 of a certificate.
pub fn pin_of(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut pin = [0; 32];
    pin.copy_from_slice(::ring::digest::digest(&::ring::digest::SHA256, certificate).as_ref());
    pin
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(PeerError::Malformed("bytes follow it")),
        Err(_) => Err(PeerError::Malformed("not X.509")),
    }
}

fn single_uri(certificate: &X509Certificate<'_>) -> Result<String, PeerError> {
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        _ => return Err(PeerError::Malformed("no subject alternative name, or several extensions of it")),
    };
    match names.as_slice() {
        [GeneralName::URI(uri)] => Ok((*uri).to_owned()),
        _ => Err(PeerError::Malformed("it must have exactly one subject alternative name, a URI")),
    }
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name().next().and_then(|attribute| attribute.as_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_spelling() {
        assert_eq!(parse_uri("spiffe://c1/node/0190-a"), Some(("c1", Role::Node, "0190-a")));
        for wrong in [
            "spiffe://c1/node/",
            "spiffe://c1/node",
            "spiffe://c1//a",
            "spiffe://c1/node/a/",
            "spiffe://c1/node/a/b",
            "spiffe://c1/node/a%2eb",
            "spiffe://c1/node/%2e%2e",
            "spiffe://c1/node/..",
            "spiffe://c1/Node/a",
            "spiffe://C1/node/a",
            "spiffe:///node/a",
            "https://c1/node/a",
            "spiffe://c1/node/a?x",
            "spiffe://c1/node/a#x",
            "spiffe://u@c1/node/a",
            "spiffe://c1:1/node/a",
            "spiffe://c1/admin/a",
        ] {
            assert_eq!(parse_uri(wrong), None, "{wrong}");
        }
        assert!(!is_uid(&"a".repeat(MAX_PART_BYTES + 1)));
    }
}
