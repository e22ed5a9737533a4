//! The cluster's CA with its keys, on servers only: a root, one intermediate for each role, and the leaves that those
//! issue. A leaf's identity is given by the caller of [`CertificateAuthority::issue`]; of a request only the key counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockstep_grpc::peer::{self, Authority, PeerError, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::files::{self, FileError};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Life of the root.
const ROOT_MS: u64 = 20 * 365 * DAY_MS;

/// Life of an intermediate.
const INTERMEDIATE_MS: u64 = 10 * 365 * DAY_MS;

/// Certificates begin this long before they are made, for peers whose clock is behind.
const BACKDATE_MS: u64 = HOUR_MS;

/// Longest common name that X.520 permits; longer names of nodes are cut, for they decide nothing.
const MAX_COMMON_NAME: usize = 64;

/// Longest request: a P-384 one has some 300 bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// How long a leaf lives from now on. Users renew by hand, so theirs live longer: see decision 0005.
pub fn leaf_life_ms(role: Role) -> u64 {
    match role {
        Role::Server | Role::Node => DAY_MS,
        Role::User => 30 * DAY_MS,
    }
}

/// Why the CA did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the CA's folder.
    #[error("the cluster's CA: {0}")]
    File(#[from] FileError),
    /// A file that is not what its name says.
    #[error("the cluster's CA: {file} is damaged: {problem}")]
    Damaged {
        /// Its name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The root's certificate.
    #[error("the cluster's CA: {0}")]
    Root(#[from] PeerError),
    /// The request for a certificate cannot be granted; the requester's fault.
    #[error("the certificate request is refused: {0}")]
    Request(&'static str),
    /// The certificate could not be made; ours.
    #[error("the certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
}

/// The CA with its keys. Shared: issuing changes nothing in it.
pub struct CertificateAuthority {
    authority: Arc<Authority>,
    intermediates: BTreeMap<Role, Intermediate>,
}

struct Intermediate {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a CA for a trust domain and writes it to a folder, certificates and keys as PEM.
    pub fn create(folder: &Path, trust_domain: &str, now_ms: u64) -> Result<Self, AuthorityError> {
        let root_key = KeyPair::generate()?;
        let root = ca_params("Lockstep root", trust_domain, None, now_ms, ROOT_MS)?;
        let root_certificate = root.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root, root_key);
        for role in Role::ALL {
            let key = KeyPair::generate()?;
            let params = ca_params(role.issuer_name(), trust_domain, Some(role), now_ms, INTERMEDIATE_MS)?;
            let certificate = params.signed_by(&key, &root_issuer)?;
            files::write_private(&folder.join(format!("{role}.key")), key.serialize_pem().as_bytes())?;
            files::write_private(&folder.join(format!("{role}.crt")), certificate.pem().as_bytes())?;
        }
        files::write_private(&folder.join("root.key"), root_issuer.key().serialize_pem().as_bytes())?;
        // Last: a folder with a root certificate is a whole CA.
        files::write_private(&folder.join("root.crt"), root_certificate.pem().as_bytes())?;
        Self::load(folder)
    }

    /// Reads a CA from its folder. The root's key is not read: nothing but making intermediates needs it.
    pub fn load(folder: &Path) -> Result<Self, AuthorityError> {
        let root = read_certificate(folder, "root.crt")?;
        let mut intermediates = BTreeMap::new();
        for role in Role::ALL {
            let certificate = read_certificate(folder, &format!("{role}.crt"))?;
            let file = format!("{role}.key");
            let damaged = |e: rcgen::Error| AuthorityError::Damaged { file: file.clone(), problem: e.to_string() };
            let text = files::read_private_text(&folder.join(&file))?;
            let key = KeyPair::from_pem(&text).map_err(damaged)?;
            let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(damaged)?;
            intermediates.insert(role, Intermediate { certificate, issuer });
        }
        Ok(Self { authority: Arc::new(Authority::from_der(root)?), intermediates })
    }

    /// What everyone may know of the CA.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Issues a leaf for the key of a PKCS #10 request (DER) that is signed with that key; all else in the request is
    /// ignored. Returns the chain, leaf first; a server's ends with the root, for joiners who only know its hash.
    /// Errors: [`AuthorityError::Request`] for a request that does not parse, does not prove its key, or has a key
    /// other than ECDSA P-256, P-384 or Ed25519.
    pub fn issue(
        &self,
        request: &[u8],
        role: Role,
        uid: &str,
        name: &str,
        now_ms: u64,
    ) -> Result<Vec<Vec<u8>>, AuthorityError> {
        let key = proven_key(request)?;
        let uri = peer::uri(self.authority.trust_domain(), role, uid);
        let mut params = dated(now_ms, leaf_life_ms(role));
        params.distinguished_name = named(name);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(Some(role));
        params.use_authority_key_identifier_extension = true;
        let intermediate = &self.intermediates[&role];
        let leaf = params.signed_by(&key, &intermediate.issuer)?;
        let mut chain = vec![leaf.der().to_vec(), intermediate.certificate.to_vec()];
        if role == Role::Server {
            chain.push(self.authority.root().to_vec());
        }
        Ok(chain)
    }
}

/// SHA-256 of the key in a request, if the request proves it: what tells one joiner from another.
pub fn request_fingerprint(request: &[u8]) -> Result<[u8; 32], AuthorityError> {
    Ok(super::sha256(proven_key(request)?.der_bytes()))
}

fn proven_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, AuthorityError> {
    if request.len() > MAX_REQUEST_BYTES {
        return Err(AuthorityError::Request("it is too long"));
    }
    let Ok(([], parsed)) = X509CertificationRequest::from_der(request) else {
        return Err(AuthorityError::Request("it is not PKCS #10 in DER"));
    };
    // The kind of key first: there is no use in verifying with one that we refuse.
    let weak = AuthorityError::Request("the key must be ECDSA P-256, ECDSA P-384 or Ed25519");
    let Ok(key) = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw) else {
        return Err(weak);
    };
    let strong = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    if !strong.contains(&key.algorithm()) {
        return Err(weak);
    }
    parsed.verify_signature().map_err(|_| AuthorityError::Request("it is not signed with its own key"))?;
    Ok(key)
}

fn ca_params(
    name: &str,
    trust_domain: &str,
    role: Option<Role>,
    now_ms: u64,
    life_ms: u64,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated(now_ms, life_ms);
    params.distinguished_name = named(name);
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.is_ca = match role {
        // Neither may make further CAs, but for the root, which makes the intermediates.
        None => IsCa::Ca(BasicConstraints::Constrained(1)),
        Some(_) => IsCa::Ca(BasicConstraints::Constrained(0)),
    };
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    if role.is_some() {
        params.extended_key_usages = usages(role);
        params.use_authority_key_identifier_extension = true;
    }
    Ok(params)
}

/// Users only ever call; servers and nodes are called as well, nodes by the peers that probe them.
fn usages(role: Option<Role>) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Some(Role::User) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        _ => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut cut = name.to_owned();
    cut.truncate(name.floor_char_boundary(MAX_COMMON_NAME));
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, cut);
    distinguished
}

fn dated(now_ms: u64, life_ms: u64) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_millis(now_ms.saturating_sub(BACKDATE_MS));
    params.not_after = epoch + Duration::from_millis(now_ms + life_ms);
    params
}

fn read_certificate(folder: &Path, file: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    let bytes = files::read_private(&folder.join(file))?;
    CertificateDer::from_pem_slice(&bytes)
        .map_err(|e| AuthorityError::Damaged { file: file.to_owned(), problem: e.to_string() })
}
