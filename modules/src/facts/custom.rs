//! Facts of the node's own: what the files of a folder say, and what its programs print. Knows the rules of that folder.
//!
//! # Guarantees
//! - Only what root, or the user that this program runs as, alone may write is read or run.
//! - A file that breaks a rule gives no fact and a sentence; the others give theirs.
//! - Bounded: in files, bytes and time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lockstep_apis::manifest;
use lockstep_apis::v1alpha::Value;

use crate::action::{Cancel, Stream};
use crate::host::{Command, Content, Ending, Host, HostError, Kind, Place, Seen, Stop, Stopped};

/// Where they are.
pub(super) const FOLDER: &str = "/etc/lockstep/facts.d";

/// Most files that are looked at.
const MAX_FILES: usize = 64;

/// Longest file, and longest output of a program.
const MAX_BYTES: u64 = 32 * 1024;

/// All of them together, so that a node's status stays small.
const MAX_TOTAL_BYTES: usize = 128 * 1024;

/// Longest name, and longest sentence about a file.
const MAX_NAME: usize = 63;
const MAX_SENTENCE: usize = 256;

/// For one program, and for all.
const ONE_TIMEOUT: Duration = Duration::from_secs(10);
const ALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Files that are read; any other must be a program.
const DATA: [&str; 3] = ["json", "yaml", "yml"];

/// What programs find there; nothing else.
const ENVIRONMENT: [(&str, &str); 2] =
    [("LANG", "C.UTF-8"), ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];

/// What the folder gives.
#[derive(Debug, Default)]
pub(super) struct Custom {
    /// By the file's name up to its first dot.
    pub(super) facts: BTreeMap<String, Value>,
    /// By the file's whole name: what is wrong with it.
    pub(super) faults: BTreeMap<String, Value>,
}

/// Reads the folder; only the facts that are named, or all. A folder that is not there has no files.
pub(super) fn gather(host: &Host, folder: &str, named: Option<&[&str]>) -> Custom {
    let mut custom = Custom::default();
    let names = match files(host, folder) {
        Ok(names) => names,
        Err(sentence) => {
            custom.faults.insert("facts.d".to_owned(), cut(sentence).into());
            return custom;
        }
    };
    let gathering = Gathering { host, folder, until: Instant::now() + ALL_TIMEOUT };
    let mut left = MAX_TOTAL_BYTES;
    for file in names {
        let (name, extension) = file.split_once('.').unwrap_or((&file, ""));
        if named.is_some_and(|named| !named.contains(&name)) {
            continue;
        }
        let found = match check_name(name) {
            Ok(()) if custom.facts.contains_key(name) => Err(format!("another file gives the fact {name}")),
            Ok(()) => gathering.one(&file, extension),
            Err(sentence) => Err(sentence),
        };
        match found {
            Ok(value) if value.size() > left => {
                let sentence = format!("all facts together have more than {} KiB", MAX_TOTAL_BYTES / 1024);
                custom.faults.insert(file, sentence.into());
            }
            Ok(value) => {
                left -= value.size();
                custom.facts.insert(name.to_owned(), value);
            }
            Err(sentence) => drop(custom.faults.insert(file, cut(sentence).into())),
        }
    }
    custom
}

/// The names of its files. Hidden ones and those that editors and packages leave behind are none.
fn files(host: &Host, folder: &str) -> Result<Vec<String>, String> {
    let missing = |error: &HostError| error.is_something_missing();
    let place = match host.place(folder, false) {
        Err(error) if missing(&error) => return Ok(Vec::new()),
        place => place.map_err(|error| error.to_string())?,
    };
    let Some(seen) = place.look().map_err(|error| error.to_string())? else { return Ok(Vec::new()) };
    if seen.kind != Kind::Directory {
        return Err("it is no directory".to_owned());
    }
    check_owner(host, &seen)?;
    let names = host.names(folder, usize::MAX).map_err(|error| error.to_string())?.unwrap_or_default();
    let left_behind = |name: &String| name.starts_with('.') || name.ends_with('~') || name.contains(".dpkg-");
    let names: Vec<String> = names.into_iter().filter(|name| !left_behind(name)).collect();
    match names.len() > MAX_FILES {
        true => Err(format!("it has {} files; at most {MAX_FILES} are read", names.len())),
        false => Ok(names),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let is_name = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= MAX_NAME;
    match is_name {
        true => Ok(()),
        false => Err("up to its first dot, the name must be a letter, then letters, digits and `_`".to_owned()),
    }
}

fn check_owner(host: &Host, seen: &Seen) -> Result<(), String> {
    if seen.uid != 0 && seen.uid != host.euid() {
        return Err(format!("it belongs to the user {}, not to root", seen.uid));
    }
    match seen.mode & 0o022 {
        0 => Ok(()),
        _ => Err(format!("others than its owner may write it (mode {:04o})", seen.mode)),
    }
}

struct Gathering<'h> {
    host: &'h Host,
    folder: &'h str,
    until: Instant,
}

impl Gathering<'_> {
    fn one(&self, file: &str, extension: &str) -> Result<Value, String> {
        let path = format!("{}/{file}", self.folder);
        let place = self.host.place(&path, false).map_err(|error| error.to_string())?;
        let seen = place.look().map_err(|error| error.to_string())?.ok_or("it is gone")?;
        if seen.kind != Kind::File {
            return Err("it is no regular file".to_owned());
        }
        check_owner(self.host, &seen)?;
        let bytes = match DATA.contains(&extension) {
            true => self.read(&place, &seen)?,
            false if seen.mode & 0o100 == 0 => {
                return Err("it ends neither with .json, .yaml nor .yml, and is no program (mode 0755)".to_owned());
            }
            false => self.run(&path)?,
        };
        // JSON is YAML; a file's own extension tells which of the two is meant.
        let source = if extension == "json" { "facts.json" } else { "facts.yaml" };
        manifest::decode_value(source, &bytes).map_err(|violations| {
            let first = violations.first();
            first.map_or_else(String::new, |first| format!("line {}: {}", first.line, first.message))
        })
    }

    fn read(&self, place: &Place, seen: &Seen) -> Result<Vec<u8>, String> {
        match self.host.content(place, seen, MAX_BYTES).map_err(|error| error.to_string())? {
            Content::Read(bytes) => Ok(bytes),
            Content::TooLong => Err(format!("it has more than {} KiB", MAX_BYTES / 1024)),
            Content::Changed => Err("it changed while it was read".to_owned()),
        }
    }

    /// What a program prints. It may ask for its own time, and must change nothing.
    fn run(&self, path: &str) -> Result<Vec<u8>, String> {
        if self.host.root().is_some() {
            return Err("programs are not run where a root folder stands for the machine".to_owned());
        }
        let cancel = Cancel::new().map_err(|error| error.to_string())?;
        let deadline = self.until.min(Instant::now() + ONE_TIMEOUT);
        let command = Command {
            argv: vec![path],
            environment: ENVIRONMENT.into(),
            directory: "/",
            login: None,
            umask: Some(0o077),
            stdin: None,
            file: None,
        };
        let stop = Stop { cancel: &cancel, deadline: Some(deadline), grace: Duration::ZERO };
        let (mut printed, mut complaint) = (Vec::new(), Vec::new());
        let mut reader = |stream: Stream, bytes: &[u8]| {
            let (kept, limit) = match stream {
                Stream::Stdout => (&mut printed, MAX_BYTES as usize + 1),
                Stream::Stderr => (&mut complaint, MAX_SENTENCE),
            };
            kept.extend_from_slice(&bytes[..bytes.len().min(limit - kept.len())]);
        };
        let ended = self.host.run(&command, &stop, &mut reader).map_err(|fault| fault.to_string())?;
        match (ended.stopped, ended.ending) {
            (Some(Stopped::TimedOut), _) => Err("it did not end in time".to_owned()),
            (None, Ending::Exit(0)) if printed.len() as u64 > MAX_BYTES => {
                Err(format!("it prints more than {} KiB", MAX_BYTES / 1024))
            }
            (None, Ending::Exit(0)) => Ok(printed),
            (_, Ending::Exit(code)) => {
                let complaint = String::from_utf8_lossy(&complaint);
                let last = complaint.lines().next().map_or(String::new(), |line| format!(": {line}"));
                Err(format!("it ends with the code {code}{last}"))
            }
            (_, Ending::Signal { number, .. }) => Err(format!("it ends by the signal {number}")),
            (_, Ending::Unresponsive) => Err("it cannot be killed".to_owned()),
        }
    }
}

fn cut(mut sentence: String) -> String {
    sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE));
    sentence
}

#[cfg(test)]
mod tests;
