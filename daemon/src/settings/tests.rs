//! What the settings file may say.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn load(text: &str, flags: Flags) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lockstepd.yaml");
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    Settings::load(&Flags { config, ..flags })
}

const SERVER: &str = "\
name: web1
roles: [server, agent]
listeners:
  - address: 0.0.0.0:7400
  - socket: /run/lockstep/lockstepd.sock
advertise: [10.0.0.1:7400]
store:
  embedded: {path: /var/lib/lockstep/store.redb}
";

#[test]
fn what_is_written_reads_back_as_the_same() {
    let tls = EtcdTls { ca: "/e/ca".into(), certificate: "/e/cert".into(), key: "/e/key".into() };
    let mut settings = load(SERVER, Flags::default()).unwrap();
    for store in [settings.store.clone(), Some(etcd(vec!["https://e:1".into()], Some(tls))), None] {
        settings.roles.server = store.is_some();
        settings.store = store;
        settings.root = "/tmp/a: b".into();
        let mut again = load(&settings.to_yaml(), Flags::default()).unwrap();
        again.file.clone_from(&settings.file);
        assert_eq!(again, settings);
    }
}

#[test]
fn flags_override_the_file() {
    let flags = Flags {
        state_folder: Some("/s".into()),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        log_level: Some("debug".into()),
        ..Flags::default()
    };
    let settings = load(SERVER, flags).unwrap();
    assert_eq!(settings.state_folder, Path::new("/s"));
    assert_eq!(settings.log_level, "debug");
    assert_eq!(
        settings.listeners,
        [ListenAddress::Unix(DEFAULT_SOCKET.into()), ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())]
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    let text = "\
nmae: web1
roles: [server, boss]
listeners: [{address: 'localhost:7400'}, {address: '1.2.3.4:0'}, {address: '1.2.3.4:70000'}, {socket: run.sock}, {}]
store: {etcd: {endpoints: [], ca: /ca}}
logLevel: 5
";
    let SettingsError::Problems(problems) = load(text, Flags::default()).unwrap_err() else { panic!("other error") };
    let all = problems.join("\n");
    for expected in [
        "nmae: is not known; did you mean \"name\"?",
        "name: is missing",
        "roles[1]: \"boss\" is neither",
        "listeners[0].address: \"localhost:7400\" is not IP:PORT",
        "listeners[1].address: port 0",
        "listeners[2].address: \"1.2.3.4:70000\" is not",
        "listeners[3].socket: must be an absolute path",
        "listeners[4]: must have exactly one",
        "store.etcd.endpoints: must name at least one",
        "store.etcd: ca, cert and key go together",
        "logLevel: must be a text",
    ] {
        assert!(all.contains(expected), "{expected:?} is not in\n{all}");
    }
    assert_eq!(problems.len(), 11, "{all}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let nowhere = load("name: a\nroles: [server]\n", Flags::default()).unwrap_err().to_string();
    assert!(
        nowhere.contains("store: a server needs one") && nowhere.contains("listeners: a server needs"),
        "{nowhere}"
    );
    let twice = SERVER.replace("socket: /run/lockstep/lockstepd.sock", "address: 0.0.0.0:7400");
    assert!(load(&twice, Flags::default()).unwrap_err().to_string().contains("listeners[1]"));
    let relative = Flags { root: Some("here".into()), ..Flags::default() };
    assert!(load(SERVER, relative).unwrap_err().to_string().contains("root: \"here\" is not an absolute path"));
}

#[test]
fn a_file_that_others_may_write_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, SERVER).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o622)).unwrap();
    let flags = Flags { config, ..Flags::default() };
    assert!(Settings::load(&flags).unwrap_err().to_string().contains("chmod go-w"));
    let none = Flags { config: folder.path().join("none"), ..Flags::default() };
    assert!(Settings::load(&none).unwrap_err().to_string().contains("lockstepd init"));
}
