//! From the text of the settings file to [`Settings`]: collects everything that is wrong, with field paths.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lockstep_apis::{name, nearest};
use serde_json::{Map, Value};

use super::{DEFAULT_STATE_FOLDER, ListenAddress, Roles, Settings, StoreSettings, wrong_level};
use crate::store::embedded::EmbeddedSettings;
use crate::store::etcd::{EtcdSettings, EtcdTls};

/// Longest path of a unix socket that the kernel takes.
const MAX_SOCKET_PATH: usize = 107;

/// Reads the file's text. The error has a line for every mistake.
pub(super) fn parse(file: &Path, text: &str) -> Result<Settings, Vec<String>> {
    let mut reader = Reader { file: file.display().to_string(), problems: Vec::new() };
    let whole: Value = serde_saphyr::from_str(text).map_err(|e| vec![format!("{}: {e}", reader.file)])?;
    let settings = reader.settings(file, &whole);
    match reader.problems.is_empty() {
        true => Ok(settings),
        false => Err(reader.problems),
    }
}

struct Reader {
    file: String,
    problems: Vec<String>,
}

impl Reader {
    fn settings(&mut self, file: &Path, whole: &Value) -> Settings {
        let known = ["name", "roles", "listeners", "advertise", "store", "stateFolder", "logLevel", "root"];
        let empty = Map::new();
        let map = self.map("", whole, &known).unwrap_or(&empty);
        let name = self.name(map.get("name"));
        let state_folder = self.optional_path("stateFolder", map.get("stateFolder"), DEFAULT_STATE_FOLDER);
        Settings {
            name,
            roles: self.roles(map.get("roles")),
            listeners: self.listeners(map.get("listeners")),
            advertise: self.texts("advertise", map.get("advertise")),
            store: map.get("store").and_then(|store| self.store(store)),
            state_folder,
            log_level: map.get("logLevel").map_or_else(|| "info".into(), |level| self.log_level(level)),
            root: self.optional_path("root", map.get("root"), "/"),
            file: file.to_owned(),
        }
    }

    fn log_level(&mut self, value: &Value) -> String {
        let level = self.text("logLevel", value);
        if let Some(problem) = wrong_level(&level).filter(|_| !level.is_empty()) {
            self.wrong("logLevel", problem);
        }
        level
    }

    fn wrong(&mut self, field: &str, problem: impl std::fmt::Display) {
        let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
        self.problems.push(format!("{}: {place}{problem}", self.file));
    }

    /// A map that has only known keys.
    fn map<'v>(&mut self, field: &str, value: &'v Value, known: &[&str]) -> Option<&'v Map<String, Value>> {
        let Some(map) = value.as_object() else {
            self.wrong(field, format!("must be a map with some of {}", known.join(", ")));
            return None;
        };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let hint = match nearest::nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known are {}", known.join(", ")),
            };
            let path = if field.is_empty() { key.to_string() } else { format!("{field}.{key}") };
            self.wrong(&path, format!("is not known; {hint}"));
        }
        Some(map)
    }

    fn text(&mut self, field: &str, value: &Value) -> String {
        match value {
            Value::String(text) if !text.is_empty() => text.clone(),
            _ => {
                self.wrong(field, "must be a text that is not empty");
                String::new()
            }
        }
    }

    fn texts(&mut self, field: &str, value: Option<&Value>) -> Vec<String> {
        match value {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(n, item)| self.text(&format!("{field}[{n}]"), item)).collect()
            }
            Some(_) => {
                self.wrong(field, "must be a list of texts");
                Vec::new()
            }
        }
    }

    fn name(&mut self, value: Option<&Value>) -> String {
        let Some(value) = value else {
            self.wrong("name", "is missing; it is the node's name");
            return String::new();
        };
        let text = self.text("name", value);
        if let (false, Err(rule)) = (text.is_empty(), name::check(&text)) {
            self.wrong("name", format!("{text:?}: {rule}"));
        }
        text
    }

    fn optional_path(&mut self, field: &str, value: Option<&Value>, default: &str) -> PathBuf {
        value.map_or_else(|| PathBuf::from(default), |value| PathBuf::from(self.text(field, value)))
    }

    fn roles(&mut self, value: Option<&Value>) -> Roles {
        let Some(value) = value else { return Roles { server: false, agent: true } };
        let words = self.texts("roles", Some(value));
        for (n, word) in words.iter().enumerate().filter(|(_, word)| !["server", "agent", ""].contains(&word.as_str()))
        {
            self.wrong(&format!("roles[{n}]"), format!("{word:?} is neither server nor agent"));
        }
        let has = |word: &str| words.iter().any(|given| given == word);
        if words.is_empty() {
            self.wrong("roles", "must name server, agent or both");
        }
        Roles { server: has("server"), agent: has("agent") }
    }

    fn listeners(&mut self, value: Option<&Value>) -> Vec<ListenAddress> {
        let items = match value {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.wrong("listeners", "must be a list of {address: IP:PORT} or {socket: PATH}");
                return Vec::new();
            }
        };
        items.iter().enumerate().filter_map(|(n, item)| self.listener(&format!("listeners[{n}]"), item)).collect()
    }

    fn listener(&mut self, field: &str, value: &Value) -> Option<ListenAddress> {
        let map = self.map(field, value, &["address", "socket"])?;
        match (map.get("address"), map.get("socket")) {
            (Some(address), None) => self.address(&format!("{field}.address"), address).map(ListenAddress::Tcp),
            (None, Some(socket)) => {
                let path = PathBuf::from(self.text(&format!("{field}.socket"), socket));
                if !path.is_absolute() || path.as_os_str().len() > MAX_SOCKET_PATH {
                    let problem = format!("must be an absolute path of at most {MAX_SOCKET_PATH} bytes");
                    self.wrong(&format!("{field}.socket"), problem);
                }
                Some(ListenAddress::Unix(path))
            }
            _ => {
                self.wrong(field, "must have exactly one of address and socket");
                None
            }
        }
    }

    fn address(&mut self, field: &str, value: &Value) -> Option<SocketAddr> {
        let text = self.text(field, value);
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => self.wrong(field, "port 0 would be another one with each start"),
            Ok(address) => return Some(address),
            Err(_) if text.is_empty() => {}
            Err(_) => self.wrong(field, format!("{text:?} is not IP:PORT, such as 0.0.0.0:7400 or [::]:7400")),
        }
        None
    }

    fn store(&mut self, value: &Value) -> Option<StoreSettings> {
        let map = self.map("store", value, &["embedded", "etcd"])?;
        match (map.get("embedded"), map.get("etcd")) {
            (Some(embedded), None) => {
                let map = self.map("store.embedded", embedded, &["path"])?;
                let Some(path) = map.get("path") else {
                    self.wrong("store.embedded.path", "is missing; it is the store's file");
                    return None;
                };
                Some(StoreSettings::Embedded(EmbeddedSettings::new(self.text("store.embedded.path", path))))
            }
            (None, Some(etcd)) => self.etcd(etcd),
            _ => {
                self.wrong("store", "must have exactly one of embedded and etcd");
                None
            }
        }
    }

    fn etcd(&mut self, value: &Value) -> Option<StoreSettings> {
        let map = self.map("store.etcd", value, &["endpoints", "prefix", "ca", "cert", "key"])?;
        let endpoints = self.texts("store.etcd.endpoints", map.get("endpoints"));
        if endpoints.is_empty() {
            self.wrong("store.etcd.endpoints", "must name at least one, such as https://10.0.0.1:2379");
        }
        let tls = match ["ca", "cert", "key"].map(|name| map.get(name)) {
            [None, None, None] => None,
            [Some(ca), Some(cert), Some(key)] => Some(EtcdTls {
                ca: self.text("store.etcd.ca", ca).into(),
                certificate: self.text("store.etcd.cert", cert).into(),
                key: self.text("store.etcd.key", key).into(),
            }),
            _ => {
                self.wrong("store.etcd", "ca, cert and key go together: give all three, or none");
                None
            }
        };
        let root = map.get("prefix").map_or_else(|| EtcdSettings::ROOT.into(), |p| self.text("store.etcd.prefix", p));
        Some(StoreSettings::Etcd(EtcdSettings { endpoints, tls, root }))
    }
}
