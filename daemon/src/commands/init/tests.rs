//! What `init` leaves behind, and what it refuses to touch.

use super::*;
use crate::identity::Authority;
use crate::store::Range;
use clap::Parser;
use lockstep_grpc::channel::ClientIdentity;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    init: InitArguments,
}

fn arguments(folder: &Path) -> InitArguments {
    let path = |name: &str| folder.join(name).display().to_string();
    let (config, state, root, context) = (path("lockstepd.yaml"), path("state"), path("root"), path("context.yaml"));
    let line = [
        "init",
        "--name",
        "n1",
        "--listen",
        "127.0.0.1:7400",
        "--config",
        &config,
        "--state-folder",
        &state,
        "--root",
        &root,
        "--context-file",
        &context,
    ];
    Line::try_parse_from(line).unwrap().init
}

/// Everything in a folder, with its content.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all.extend(everything(&entry));
        } else {
            all.insert(entry.clone(), std::fs::read(&entry).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn a_cluster_is_whole_private_and_made_only_once() {
    let folder = tempfile::tempdir().unwrap();
    init(arguments(folder.path())).await.unwrap();

    let settings = Settings::load(&Flags { config: folder.path().join("lockstepd.yaml"), ..Flags::default() }).unwrap();
    let ca = CertificateAuthority::load(&settings.ca_folder()).unwrap();
    let authority =
        Arc::new(Authority::from_pem(&files::read_private_text(&settings.authority_file()).unwrap()).unwrap());
    assert_eq!(authority.root(), ca.authority().root());
    let node = Credentials::load(&settings.node_credentials(), authority.clone()).unwrap();
    let server = Credentials::load(&settings.server_credentials(), authority).unwrap();
    assert_eq!((node.identity().role, server.identity().role), (Role::Node, Role::Server));
    KeyRing::load(&settings.sealing_folder()).unwrap();
    for path in everything(folder.path()).keys() {
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o077, 0, "{}", path.display());
    }

    let store = store::open(settings.store.as_ref().unwrap()).await.unwrap();
    let found = store.list(&keys::objects(), Range::first(100)).await.unwrap().entries;
    let names: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(
        names,
        ["objects/configs//cluster", "objects/namespaces//default", "objects/namespaces//system", "objects/nodes//n1"]
    );
    let object = Object::from_entry(&found[3]).unwrap().unwrap();
    assert_eq!(object.metadata().uuid, node.identity().uid);
    let cluster = Cluster::decode(store.get(&keys::cluster()).await.unwrap().entry.unwrap().value.as_slice()).unwrap();
    assert_eq!((cluster.trust_domain.as_str(), cluster.incarnation), ("lockstep", 1));
    assert_eq!(Membership::load(&settings.membership_file()).unwrap().cluster_id, cluster.cluster_id);
    drop(store);

    let before = everything(folder.path());
    let again = init(arguments(folder.path())).await.unwrap_err().to_string();
    assert!(again.contains("nothing was changed") && again.contains("lockstepd serve"), "{again}");
    assert!(everything(folder.path()) == before, "the second init changed something");
}

#[tokio::test]
async fn the_context_is_an_identity_that_the_tool_can_use() {
    let folder = tempfile::tempdir().unwrap();
    init(arguments(folder.path())).await.unwrap();
    let text = std::fs::read_to_string(folder.path().join("context.yaml")).unwrap();
    let context: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let part = |name: &str| context[name].as_str().unwrap();
    ClientIdentity::from_pem(part("ca"), part("chain"), part("key")).unwrap();
    assert_eq!((part("name"), context["servers"][0].as_str().unwrap()), ("lockstep", "127.0.0.1:7400"));
}

#[tokio::test]
async fn a_failed_init_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = arguments(folder.path());
    // Found out last, when all else is written.
    arguments.etcd = vec!["not a url\u{0}".into()];
    init(arguments).await.unwrap_err();
    let left = everything(folder.path());
    assert!(left.is_empty(), "{:?}", left.keys());
}
