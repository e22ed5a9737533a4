//! What joining admits, and what it refuses.

use super::*;
use crate::identity::credentials::FreshKey;
use crate::identity::tokens::{NewToken, TokenRequest};
use lockstep_apis::commit::Operation;

const NOW: u64 = 1_800_000_000_000;

struct Fixture {
    _folder: tempfile::TempDir,
    ca: CertificateAuthority,
    cluster: Cluster,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(&folder.path().join("ca"), "c1", NOW).unwrap();
        Self { _folder: folder, ca, cluster: Cluster { cluster_id: "c".into(), ..Cluster::default() } }
    }

    fn token(&self, request: TokenRequest) -> NewToken {
        tokens::make(request, self.ca.authority().pin(), NOW)
    }

    fn admit(
        &self,
        request: &JoinRequest,
        token: Option<&Entry>,
        node: Option<&Entry>,
        now_ms: u64,
    ) -> Result<Admission, JoinError> {
        let (ca, cluster) = (&self.ca, &self.cluster);
        admit(request, &Joining { ca, cluster, servers: &[], token, node, server: None, now_ms })
    }
}

fn entry(key: Key, value: Vec<u8>) -> Entry {
    Entry { key, value, create_revision: 3, mod_revision: 7 }
}

fn stored(token: &NewToken) -> Entry {
    entry(keys::token(&token.record.id), token.record.encode_to_vec())
}

fn request(token: &NewToken, name: &str, key: &FreshKey) -> JoinRequest {
    let text = tokens::parse(&token.text).unwrap();
    JoinRequest {
        token_id: text.id,
        token_secret: text.secret.to_vec(),
        node_name: name.into(),
        csr: key.request().to_vec(),
        ..JoinRequest::default()
    }
}

/// What the commit wrote, as entries.
fn written(commit: &Commit, prefix: &str) -> Entry {
    let found = commit.operations.iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key.as_str().starts_with(prefix) => {
            Some(entry(key.clone(), value.clone()))
        }
        _ => None,
    });
    found.unwrap()
}

#[test]
fn a_token_admits_one_key_once_and_the_same_key_again() {
    let fixture = Fixture::new();
    let token = fixture.token(TokenRequest { labels: [("a".into(), "b".into())].into(), ..TokenRequest::default() });
    let (mine, other) = (FreshKey::generate().unwrap(), FreshKey::generate().unwrap());
    let asked = request(&token, "web1", &mine);
    let first = fixture.admit(&asked, Some(&stored(&token)), None, NOW).unwrap();
    let commit = first.commit.unwrap();
    assert!(commit.compares.contains(&Compare::ModRevision(token_key(&asked).unwrap(), 7)));
    assert!(commit.compares.contains(&Compare::Absent(node_key(&asked).unwrap())));
    let (used, node) = (written(&commit, "tokens/"), written(&commit, "objects/"));
    let object = Object::from_stored(kinds::named("Node").unwrap(), &node.value, 7).unwrap();
    assert_eq!(object.metadata().labels["a"], "b");

    let again = fixture.admit(&asked, Some(&used), Some(&node), NOW).unwrap();
    assert!(again.commit.is_none());
    assert_eq!(again.response.node_uid, first.response.node_uid);

    let thief = request(&token, "web1", &other);
    assert!(matches!(fixture.admit(&thief, Some(&used), Some(&node), NOW), Err(JoinError::Token)));
    assert!(matches!(fixture.admit(&asked, Some(&used), None, NOW), Err(JoinError::Token)), "its node was deleted");

    let credentials = mine.certified(first.response.certificate_chain, fixture.ca.authority().clone()).unwrap();
    assert_eq!(credentials.identity().role, Role::Node);
    assert_eq!(credentials.identity().uid, first.response.node_uid);
    assert_eq!(credentials.renew_at_ms(), NOW + 16 * 60 * 60 * 1000);
}

#[test]
fn every_fault_of_a_token_reads_the_same() {
    let fixture = Fixture::new();
    let key = FreshKey::generate().unwrap();
    let token = fixture.token(TokenRequest { node_name: "web1".into(), ..TokenRequest::default() });
    let good = request(&token, "web1", &key);
    let record = stored(&token);
    let wrong_secret = JoinRequest { token_secret: vec![0; 16], ..good.clone() };
    let wrong_name = JoinRequest { node_name: "web2".into(), ..good.clone() };
    let as_server = JoinRequest { server_csr: key.request().to_vec(), ..good.clone() };
    let texts = [
        fixture.admit(&good, None, None, NOW),
        fixture.admit(&good, Some(&record), None, token.record.expires_ms),
        fixture.admit(&wrong_secret, Some(&record), None, NOW),
        fixture.admit(&wrong_name, Some(&record), None, NOW),
        fixture.admit(&as_server, Some(&record), None, NOW),
    ]
    .map(|answer| answer.err().unwrap().to_string());
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert!(fixture.admit(&good, Some(&record), None, NOW).is_ok());
    assert!(token_key(&JoinRequest { token_id: "../cluster".into(), ..good }).is_err());
}

#[test]
fn a_further_server_needs_etcd_and_a_token_for_servers() {
    let fixture = Fixture::new();
    let (key, server_key) = (FreshKey::generate().unwrap(), FreshKey::generate().unwrap());
    let token = fixture.token(TokenRequest { server: true, ..TokenRequest::default() });
    let mut asked = request(&token, "web1", &key);
    asked.server_csr = server_key.request().to_vec();
    let record = stored(&token);
    assert!(matches!(fixture.admit(&asked, Some(&record), None, NOW), Err(JoinError::Embedded)));

    let grant = ServerGrant { etcd_endpoints: vec!["e".into()], ..ServerGrant::default() };
    let (ca, cluster) = (&fixture.ca, &fixture.cluster);
    let joining =
        Joining { ca, cluster, servers: &[], token: Some(&record), node: None, server: Some(&grant), now_ms: NOW };
    assert!(matches!(admit(&asked, &joining), Err(JoinError::Addresses)));
    asked.addresses = vec!["10.0.0.2:7480".into()];
    let material = admit(&asked, &joining).unwrap().response.server.unwrap();
    let credentials = server_key.certified(material.certificate_chain, ca.authority().clone()).unwrap();
    assert_eq!(credentials.identity().role, Role::Server);
    assert_eq!(credentials.identity().uid, material.server_uid);
}

#[test]
fn an_existing_node_is_not_taken_over() {
    let fixture = Fixture::new();
    let key = FreshKey::generate().unwrap();
    let token = fixture.token(TokenRequest::default());
    let node = Object::from(new_node("web1", "u", &BTreeMap::new(), NOW));
    let there = entry(node.key(), node.to_stored());
    let answer = fixture.admit(&request(&token, "web1", &key), Some(&stored(&token)), Some(&there), NOW);
    assert!(matches!(answer, Err(JoinError::NodeExists(name)) if name == "web1"));
    assert!(matches!(node_key(&request(&token, "Web_1", &key)), Err(JoinError::Name(..))));
}

#[test]
fn a_request_gives_nothing_but_a_strong_proven_key() {
    let fixture = Fixture::new();
    let issue = |request: &[u8]| fixture.ca.issue(request, Role::Node, "u", "web1", NOW);
    // A request that asks for a server's name and to be a CA.
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["server.lockstep".into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let greedy = params.serialize_request(&pair).unwrap().der().to_vec();
    let chain: Vec<_> = issue(&greedy).unwrap().into_iter().map(rustls::pki_types::CertificateDer::from).collect();
    let identity = fixture.ca.authority().identify(&chain[0], &chain[1..]).unwrap();
    assert_eq!((identity.role, identity.uid.as_str()), (Role::Node, "u"));

    let mut forged = FreshKey::generate().unwrap().request().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for wrong in [forged, Vec::new(), vec![0x30; 5000], [greedy, vec![0]].concat(), WEAK_RSA_1024.to_vec()] {
        assert!(matches!(issue(&wrong), Err(AuthorityError::Request(_))));
    }
}

#[test]
fn renewing_keeps_who_one_is_and_needs_a_living_certificate() {
    let fixture = Fixture::new();
    let key = FreshKey::generate().unwrap();
    let chain = fixture.ca.issue(key.request(), Role::User, "u1", "admin", NOW).unwrap();
    let credentials = key.certified(chain, fixture.ca.authority().clone()).unwrap();
    let next = FreshKey::generate().unwrap();
    let asked = RenewRequest { csr: next.request().to_vec() };
    let later = credentials.identity().not_after_ms - 1;
    let answer = renew(&asked, credentials.identity(), &fixture.ca, later).unwrap();
    let renewed = next.certified(answer.certificate_chain, fixture.ca.authority().clone()).unwrap();
    assert_eq!(renewed.identity().uid, "u1");
    assert_eq!(renewed.identity().role, Role::User);
    assert!(matches!(renew(&asked, credentials.identity(), &fixture.ca, later + 1), Err(JoinError::NotRenewable)));
}

/// A request with an RSA key of 1,024 bits, correctly signed; by `openssl req -new -newkey rsa:1024 -subj /CN=x`.
const WEAK_RSA_1024: &[u8] = include_bytes!("weak_rsa_1024.der");
