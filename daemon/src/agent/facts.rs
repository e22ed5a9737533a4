//! The node's facts: gathered now and then and after work, sent when they changed. Knows when; what they are is in
//! `lockstep-modules`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::{EventSeverity, EventSpec, NodeEvent, Value};
use lockstep_modules::{FAULTS, Host};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::now_ms;
use super::outbox::Outbox;

/// Between two looks, if the server does not say.
const EVERY: Duration = Duration::from_secs(600);

/// Between two looks at the least, however much work ends.
const LEAST: Duration = Duration::from_secs(1);

/// A session's begin waits so long for the first facts; programs of `facts.d` may take longer.
const FIRST: Duration = Duration::from_secs(5);

/// What is known of this node's facts.
pub(super) struct Facts {
    root: PathBuf,
    outbox: Arc<Outbox>,
    worked: Arc<Notify>,
    every: Duration,
    looked: Option<Instant>,
    gathering: Option<JoinHandle<Option<Value>>>,
    /// What servers were told last.
    told: Option<Value>,
    /// Files of `facts.d` that give no facts, as they were told last.
    faults: BTreeMap<String, Value>,
}

impl Facts {
    pub(super) fn new(root: PathBuf, outbox: Arc<Outbox>) -> Self {
        Self {
            root,
            outbox,
            worked: Arc::default(),
            every: EVERY,
            looked: None,
            gathering: None,
            told: None,
            faults: BTreeMap::new(),
        }
    }

    /// To be told when work has ended.
    pub(super) fn worked(&self) -> Arc<Notify> {
        self.worked.clone()
    }

    /// How often to look, if the server says it.
    pub(super) fn look_every(&mut self, every: Option<Duration>) {
        self.every = every.unwrap_or(self.every);
    }

    /// The facts for the begin of a session: those of the last look, or of a first one if that does not take too long.
    pub(super) async fn known(&mut self) -> Option<Value> {
        if self.told.is_none() {
            let _ = timeout(FIRST, self.look()).await;
        }
        self.told.clone()
    }

    /// Waits until facts are others than were told. May be dropped at any point.
    pub(super) async fn changed(&mut self) -> Value {
        loop {
            if self.gathering.is_none() {
                let looked = self.looked.unwrap_or_else(Instant::now);
                tokio::select! {
                    () = sleep_until(looked + self.every) => {}
                    () = self.worked.notified() => sleep_until(looked + LEAST).await,
                }
            }
            if self.look().await
                && let Some(facts) = &self.told
            {
                return facts.clone();
            }
        }
    }

    /// Looks once; goes on with a look that was begun. Whether there is news.
    async fn look(&mut self) -> bool {
        let root = &self.root;
        let gathering = self.gathering.get_or_insert_with(|| {
            let root = root.clone();
            tokio::task::spawn_blocking(move || gather(&root))
        });
        let gathered = gathering.await.ok().flatten();
        self.gathering = None;
        self.looked = Some(Instant::now());
        let Some(gathered) = gathered.filter(|gathered| self.told.as_ref() != Some(gathered)) else { return false };
        self.tell_faults(&gathered);
        self.told = Some(gathered);
        true
    }

    /// One Event for each file of `facts.d` that has become bad, or bad in another way.
    fn tell_faults(&mut self, facts: &Value) {
        let faults = facts.get(FAULTS).and_then(Value::as_map).cloned().unwrap_or_default();
        for (file, why) in faults.iter().filter(|(file, why)| self.faults.get(*file) != Some(*why)) {
            let why = why.as_text().unwrap_or_default();
            tracing::warn!(file, why, "a file of facts.d gives no facts");
            let spec = EventSpec {
                r#type: "node/facts-refused".into(),
                severity: EventSeverity::Warning.into(),
                message: format!("the file {file} of facts.d gives no facts: {why}"),
                data: Some(Value::map([("file", Value::text(file.as_str()))])),
                at: Some(timestamp::from_ms(now_ms())),
                ..EventSpec::default()
            };
            self.outbox.tell(&NodeEvent { spec: Some(spec), ..NodeEvent::default() });
        }
        self.faults = faults;
    }
}

fn gather(root: &std::path::Path) -> Option<Value> {
    // The machine itself is no root folder: programs of `facts.d` are run only there.
    match Host::open((root != std::path::Path::new("/")).then_some(root)) {
        Ok(host) => Some(lockstep_modules::facts(&host, &[])),
        Err(problem) => {
            tracing::warn!(%problem, "facts could not be gathered");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn facts_are_told_when_they_changed_and_each_bad_file_once() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = root.path().join("etc/lockstep/facts.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("rack.json"), "{\"row\": 3}").unwrap();
        let outbox = Arc::new(Outbox::open(state.path()).unwrap());
        let mut facts = Facts::new(root.path().to_owned(), outbox.clone());
        let row = |facts: &Value| facts.get("custom")?.get("rack")?.get("row")?.as_integer();
        assert_eq!(row(&facts.known().await.unwrap()), Some(3));
        assert!(!facts.look().await, "nothing changed");
        std::fs::write(folder.join("rack.json"), "{\"row\": 4}").unwrap();
        facts.worked().notify_one();
        assert_eq!(row(&facts.changed().await), Some(4));
        std::fs::write(folder.join("bad.json"), "{").unwrap();
        assert!(facts.look().await && !facts.look().await);
        std::fs::write(folder.join("rack.json"), "{\"row\": 5}").unwrap();
        assert!(facts.look().await);
        let told: Vec<_> = outbox.batch().into_iter().filter_map(|event| event.spec).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].message.contains("bad.json"), "{}", told[0].message);
    }
}
