//! Store keys: the only place that formats or reads one.
//!
//! Keys use uids, never names, but for objects. A uid, a name and a kind hold no `/`, so a key splits without escapes.
//! Numbers that must sort are zero-padded.

use std::fmt;

/// A key or prefix of the store: bytes that are always UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's bytes, as the store sees them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Takes a key as the store returned it. Keys that are not UTF-8 were not written by us.
    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        std::str::from_utf8(bytes).ok().map(|text| Key(text.to_owned()))
    }

    fn parts(&self) -> Vec<&str> {
        self.0.split('/').collect()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// One attempt of one segment: the tail of assignment, claim, report and verdict keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Uid of the Run.
    pub run: String,
    /// Index of the segment in the Run's snapshot.
    pub segment: u32,
    /// Uid of the node whose work it is.
    pub for_node: String,
    /// Uid of the node that does it; the same unless delegated.
    pub node: String,
    /// From 1. 0 names a node that was never assigned, in verdicts only.
    pub attempt: u32,
}

impl From<&Attempt> for crate::v1alpha::AttemptRef {
    fn from(a: &Attempt) -> Self {
        Self {
            run_uid: a.run.clone(),
            segment: a.segment,
            for_uid: a.for_node.clone(),
            node_uid: a.node.clone(),
            attempt: a.attempt,
        }
    }
}

impl From<&crate::v1alpha::AttemptRef> for Attempt {
    fn from(a: &crate::v1alpha::AttemptRef) -> Self {
        Self {
            run: a.run_uid.clone(),
            segment: a.segment,
            for_node: a.for_uid.clone(),
            node: a.node_uid.clone(),
            attempt: a.attempt,
        }
    }
}

/// The four kinds of key that end in an [`Attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKey {
    /// `assignments/…`
    Assignment,
    /// `claims/…`
    Claim,
    /// `reports/…`
    Report,
    /// `verdicts/…`
    Verdict,
}

impl AttemptKey {
    const ALL: [(AttemptKey, &'static str); 4] = [
        (AttemptKey::Assignment, "assignments"),
        (AttemptKey::Claim, "claims"),
        (AttemptKey::Report, "reports"),
        (AttemptKey::Verdict, "verdicts"),
    ];

    /// The kind whose keys begin with the word.
    pub fn named(word: &str) -> Option<AttemptKey> {
        Self::ALL.into_iter().find(|(_, own)| *own == word).map(|(kind, _)| kind)
    }

    fn word(self) -> &'static str {
        match self {
            AttemptKey::Assignment => "assignments",
            AttemptKey::Claim => "claims",
            AttemptKey::Report => "reports",
            AttemptKey::Verdict => "verdicts",
        }
    }

    /// The key of one attempt.
    pub fn of(self, a: &Attempt) -> Key {
        Key(format!("{}/{}/{:06}/{}/{}/{:04}", self.word(), a.run, a.segment, a.for_node, a.node, a.attempt))
    }

    /// The prefix of all of one Run's keys of this kind.
    pub fn run_prefix(self, run: &str) -> Key {
        Key(format!("{}/{run}/", self.word()))
    }

    /// The prefix of all keys of this kind.
    pub fn prefix(self) -> Key {
        Key(format!("{}/", self.word()))
    }
}

/// What a key is: the inverse of the functions below.
#[allow(missing_docs, reason = "fields are the parts of the key in the comment above them")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// `objects/<kind>/<namespace>/<name>`; the namespace is empty for global kinds.
    Object { kind: String, namespace: String, name: String },
    /// `snapshots/<run>/<hash>`
    Snapshot { run: String, hash: String },
    /// `gates/<run>`
    Gate { run: String },
    /// `cursors/<run>`
    Cursor { run: String },
    /// `concurrency/<namespace>/<key>`; the key as users write it.
    Concurrency { namespace: String, key: String },
    /// An assignment, claim, report or verdict.
    Attempt { kind: AttemptKey, attempt: Attempt },
    /// `sessions/<node>`
    Session { node: String },
    /// `leader`
    Leader,
    /// `cluster`
    Cluster,
    /// `servers/<uid>`
    Server { uid: String },
    /// `tokens/<id>`
    Token { id: String },
    /// `events/<namespace>/<batch>`
    Events { namespace: String, batch: String },
    /// `eventmarks/<source>`
    EventMark { source: String },
    /// `picks/<namespace>/<name>`
    Pick { namespace: String, name: String },
}

/// Reads a key. `None`: not one of ours.
pub fn parse(key: &Key) -> Option<Parsed> {
    let own = |s: &str| s.to_owned();
    Some(match key.parts().as_slice() {
        ["objects", kind, namespace, name] => {
            Parsed::Object { kind: own(kind), namespace: own(namespace), name: own(name) }
        }
        ["snapshots", run, hash] => Parsed::Snapshot { run: own(run), hash: own(hash) },
        ["gates", run] => Parsed::Gate { run: own(run) },
        ["cursors", run] => Parsed::Cursor { run: own(run) },
        ["concurrency", namespace, key] => Parsed::Concurrency { namespace: own(namespace), key: unescaped(key)? },
        [word, run, segment, for_node, node, attempt] => {
            let (kind, _) = AttemptKey::ALL.into_iter().find(|(_, w)| w == word)?;
            Parsed::Attempt {
                kind,
                attempt: Attempt {
                    run: own(run),
                    segment: segment.parse().ok()?,
                    for_node: own(for_node),
                    node: own(node),
                    attempt: attempt.parse().ok()?,
                },
            }
        }
        ["sessions", node] => Parsed::Session { node: own(node) },
        ["leader"] => Parsed::Leader,
        ["cluster"] => Parsed::Cluster,
        ["servers", uid] => Parsed::Server { uid: own(uid) },
        ["tokens", id] => Parsed::Token { id: own(id) },
        ["events", namespace, batch] => Parsed::Events { namespace: own(namespace), batch: own(batch) },
        ["picks", namespace, name] => Parsed::Pick { namespace: own(namespace), name: own(name) },
        ["eventmarks", source] => Parsed::EventMark { source: own(source) },
        _ => return None,
    })
}

/// The prefix of every key.
pub fn everything() -> Key {
    Key(String::new())
}

/// All join tokens.
pub fn tokens() -> Key {
    Key("tokens/".into())
}

/// An object's key. `plural` is the kind's lower-case plural.
pub fn object(plural: &str, namespace: &str, name: &str) -> Key {
    Key(format!("objects/{plural}/{namespace}/{name}"))
}

/// All objects of a kind; of one namespace if given.
pub fn object_prefix(plural: &str, namespace: Option<&str>) -> Key {
    Key(match namespace {
        Some(namespace) => format!("objects/{plural}/{namespace}/"),
        None => format!("objects/{plural}/"),
    })
}

/// Everything under `objects/`.
pub fn objects() -> Key {
    Key("objects/".into())
}

/// One chunk of a Run's snapshot. `index` orders the chunks; `hash` is of the chunk's bytes.
pub fn snapshot_chunk(run: &str, index: u32, hash: &str) -> Key {
    Key(format!("snapshots/{run}/{index:04}-{hash}"))
}

/// All chunks of a Run's snapshot, in order.
pub fn snapshot_prefix(run: &str) -> Key {
    Key(format!("snapshots/{run}/"))
}

/// A Run's gate.
pub fn gate(run: &str) -> Key {
    Key(format!("gates/{run}"))
}

/// A Run's cursor.
pub fn cursor(run: &str) -> Key {
    Key(format!("cursors/{run}"))
}

/// All cursors.
pub fn cursors() -> Key {
    Key("cursors/".into())
}

/// Who has a concurrency key of a namespace, or waits for it. The key may be any text.
pub fn concurrency(namespace: &str, key: &str) -> Key {
    Key(format!("concurrency/{namespace}/{}", escaped(key)))
}

/// All concurrency keys of a namespace.
pub fn concurrency_prefix(namespace: &str) -> Key {
    Key(format!("concurrency/{namespace}/"))
}

/// Any text as one part of a key: `%2F` for what is no letter, digit, `-`, `_` or `.`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// The text that was escaped. `None`: it is not what [`escaped`] writes.
fn unescaped(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A node's session.
pub fn session(node: &str) -> Key {
    Key(format!("sessions/{node}"))
}

/// All sessions.
pub fn sessions() -> Key {
    Key("sessions/".into())
}

/// Who leads.
pub fn leader() -> Key {
    Key("leader".into())
}

/// What this store is.
pub fn cluster() -> Key {
    Key("cluster".into())
}

/// A server that is up.
pub fn server(uid: &str) -> Key {
    Key(format!("servers/{uid}"))
}

/// All servers that are up.
pub fn servers() -> Key {
    Key("servers/".into())
}

/// A join token.
pub fn token(id: &str) -> Key {
    Key(format!("tokens/{id}"))
}

/// A batch of events. Batches of one namespace sort by time.
pub fn events(namespace: &str, first_at_ms: u64, batch_id: &str) -> Key {
    Key(format!("events/{namespace}/{first_at_ms:015}-{batch_id}"))
}

/// All events; of one namespace if given.
pub fn events_prefix(namespace: Option<&str>) -> Key {
    Key(match namespace {
        Some(namespace) => format!("events/{namespace}/"),
        None => "events/".into(),
    })
}

/// Which nodes a sticky pick chose.
pub fn pick(namespace: &str, name: &str) -> Key {
    Key(format!("picks/{namespace}/{name}"))
}

/// The highest stored number of an event source.
pub fn event_mark(source: &str) -> Key {
    Key(format!("eventmarks/{source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back_as_what_it_was_made_from() {
        let attempt = Attempt { run: "r".into(), segment: 7, for_node: "f".into(), node: "n".into(), attempt: 2 };
        for (kind, _) in AttemptKey::ALL {
            assert_eq!(parse(&kind.of(&attempt)), Some(Parsed::Attempt { kind, attempt: attempt.clone() }));
            assert!(kind.of(&attempt).as_str().starts_with(kind.run_prefix("r").as_str()));
        }
        assert_eq!(
            parse(&object("nodes", "", "web1")),
            Some(Parsed::Object { kind: "nodes".into(), namespace: "".into(), name: "web1".into() })
        );
        assert_eq!(parse(&pick("s", "p")), Some(Parsed::Pick { namespace: "s".into(), name: "p".into() }));
        assert_eq!(parse(&gate("r")), Some(Parsed::Gate { run: "r".into() }));
        for key in ["web", "deploy a/b", "100%", "ü", "a%2Fb", ""] {
            let parsed = Parsed::Concurrency { namespace: "shop".into(), key: key.into() };
            assert_eq!(parse(&concurrency("shop", key)), Some(parsed), "{key}");
        }
        assert_eq!(parse(&Key("what/is/this".into())), None);
    }

    #[test]
    fn attempts_of_one_run_sort_by_segment_then_node_then_attempt() {
        let key = |segment, attempt| {
            AttemptKey::Claim.of(&Attempt { run: "r".into(), segment, for_node: "n".into(), node: "n".into(), attempt })
        };
        assert!(key(2, 1) < key(10, 1));
        assert!(key(2, 9) < key(2, 10));
    }
}
