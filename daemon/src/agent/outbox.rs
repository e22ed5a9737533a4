//! The node's own Events until a server has stored them: a file each, named by its number, in the state folder. Knows
//! files and numbers; not sessions.
//!
//! # Guarantees
//! - What was taken in is on the disk, and stays until it is acknowledged, whoever is killed meanwhile.
//! - It is bounded: when it is full, the oldest goes. Its number is missing then among what is sent, by which the server
//!   counts what was lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use lockstep_apis::v1alpha::NodeEvent;
use prost::Message;
use tokio::sync::Notify;

use super::locked;
use crate::identity::files::{FileError, make_private_folder, write_private};

/// Most Events that wait: a day of one every minute and a half.
const MAX_EVENTS: usize = 1000;

/// Most bytes that they take.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Longest of one: its data, message and labels within the server's limits.
const MAX_EVENT_BYTES: u64 = 16 * 1024;

/// Most that are sent at once: what a server stores in one commit.
const MAX_BATCH: usize = 100;

/// Holds the highest number that was ever acknowledged or given: files alone would not say it once they are gone.
const LAST: &str = "last";

/// Events that wait.
pub(super) struct Outbox {
    folder: PathBuf,
    state: Mutex<State>,
    /// Something was taken in.
    pub(super) filled: Notify,
}

#[derive(Default)]
struct State {
    /// Highest number that was given.
    last: u64,
    /// Highest that was acknowledged.
    acknowledged: u64,
    /// Sizes by number.
    waiting: BTreeMap<u64, u64>,
}

impl Outbox {
    /// The outbox in this folder, with what an earlier agent left in it.
    pub(super) fn open(folder: &Path) -> Result<Self, FileError> {
        make_private_folder(folder)?;
        let failed = |problem| FileError { path: folder.to_owned(), problem };
        let mut state = State::default();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.parse::<u64>().ok()) {
                Some(number) => {
                    state.waiting.insert(number, entry.metadata().map_err(failed)?.len());
                }
                // Of a write that was cut.
                None if name.as_encoded_bytes().starts_with(b".") => drop(fs::remove_file(entry.path())),
                None => {}
            }
        }
        let noted = fs::read_to_string(folder.join(LAST)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        state.acknowledged = noted;
        state.last = state.waiting.last_key_value().map_or(noted, |(number, _)| noted.max(*number));
        // Acknowledged, and the agent ended before the files were gone.
        let settled: Vec<u64> = state.waiting.range(..=noted).map(|(number, _)| *number).collect();
        let outbox = Self { folder: folder.to_owned(), state: Mutex::new(state), filled: Notify::new() };
        settled.iter().for_each(|number| outbox.forget(&mut locked(&outbox.state), *number));
        Ok(outbox)
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        locked(&self.state).waiting.is_empty()
    }

    /// Takes an Event in.
    pub(super) fn tell(&self, event: &NodeEvent) {
        let bytes = event.encode_to_vec();
        self.admit(bytes.len() as u64, |path| write_private(path, &bytes).map_err(|error| error.problem));
    }

    /// Takes a file with an Event in; it is gone from where it was.
    pub(super) fn take(&self, file: &Path) {
        let size = fs::metadata(file).map_or(0, |metadata| metadata.len());
        self.admit(size, |path| {
            File::open(file)?.sync_data()?;
            fs::rename(file, path)?;
            File::open(&self.folder)?.sync_all()
        });
        // Still there only if it could not be kept: it was counted as lost, and is not to be counted again.
        let _ = fs::remove_file(file);
    }

    /// Gives the next number to what `put` brings into place. What cannot be kept has a number, too: it counts as lost.
    fn admit(&self, size: u64, put: impl FnOnce(&Path) -> io::Result<()>) {
        let mut state = locked(&self.state);
        state.last += 1;
        let number = state.last;
        if size > MAX_EVENT_BYTES {
            return tracing::error!(size, "an event of this node is too large; it is dropped");
        }
        self.make_room(&mut state, size);
        match put(&self.path(number)) {
            Ok(()) => {
                state.waiting.insert(number, size);
                self.filled.notify_one();
            }
            Err(problem) => tracing::error!(%problem, "an event of this node could not be kept; it is lost"),
        }
    }

    fn make_room(&self, state: &mut State, size: u64) {
        let mut dropped = 0_u32;
        while state.waiting.len() >= MAX_EVENTS || state.waiting.values().sum::<u64>() + size > MAX_BYTES {
            let Some((oldest, _)) = state.waiting.first_key_value().map(|(number, size)| (*number, *size)) else {
                break;
            };
            self.forget(state, oldest);
            dropped += 1;
        }
        if dropped > 0 {
            tracing::warn!(dropped, "the outbox of this node's events is full; the oldest are dropped");
        }
    }

    /// What is to be sent next, in order. A file that is no Event is dropped.
    pub(super) fn batch(&self) -> Vec<NodeEvent> {
        let mut state = locked(&self.state);
        let numbers: Vec<u64> = state.waiting.keys().take(MAX_BATCH).copied().collect();
        let mut batch = Vec::with_capacity(numbers.len());
        for number in numbers {
            let read = fs::read(self.path(number)).map_err(|error| error.to_string());
            let event = read.and_then(|bytes| NodeEvent::decode(bytes.as_slice()).map_err(|error| error.to_string()));
            match event {
                Ok(mut event) => {
                    event.spec.get_or_insert_default().number = number;
                    batch.push(event);
                }
                Err(problem) => {
                    tracing::error!(number, problem, "an event of this node cannot be read; it is dropped");
                    self.forget(&mut state, number);
                }
            }
        }
        batch
    }

    /// A server has stored everything up to this number. If that is more than we have given, we have lost count: what
    /// waits is numbered anew, above it.
    pub(super) fn acknowledged(&self, number: u64) {
        let mut state = locked(&self.state);
        if number <= state.acknowledged {
            return;
        }
        if number > state.last {
            tracing::warn!(number, last = state.last, "the node's events are numbered anew");
            state.last = number;
            for (old, size) in std::mem::take(&mut state.waiting) {
                let new = state.last + 1;
                match fs::rename(self.path(old), self.path(new)) {
                    Ok(()) => {
                        state.last = new;
                        state.waiting.insert(new, size);
                    }
                    Err(problem) => tracing::error!(%problem, "an event of this node is lost"),
                }
            }
        }
        let settled: Vec<u64> = state.waiting.range(..=number).map(|(number, _)| *number).collect();
        // First: a number must never be given twice, or the second would count as stored.
        if let Err(problem) = write_private(&self.folder.join(LAST), format!("{number}\n").as_bytes()) {
            // They are sent again, and answered with the same.
            return tracing::warn!(%problem, "what was acknowledged of this node's events could not be noted");
        }
        state.acknowledged = number;
        settled.iter().for_each(|number| self.forget(&mut state, *number));
    }

    fn forget(&self, state: &mut State, number: u64) {
        state.waiting.remove(&number);
        if let Err(problem) = fs::remove_file(self.path(number))
            && problem.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(number, %problem, "an event of this node stays in its folder");
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}"))
    }
}

#[cfg(test)]
mod tests {
    use lockstep_apis::v1alpha::EventSpec;

    use super::*;

    fn event(message: &str) -> NodeEvent {
        let spec = EventSpec { r#type: "node/x".into(), message: message.into(), ..EventSpec::default() };
        NodeEvent { spec: Some(spec), ..NodeEvent::default() }
    }

    /// Number and message of each that is sent next.
    fn next(outbox: &Outbox) -> Vec<(u64, String)> {
        let told = outbox.batch().into_iter().filter_map(|event| event.spec);
        told.map(|spec| (spec.number, spec.message)).collect()
    }

    #[test]
    fn what_waits_survives_and_numbers_go_on_after_all_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        outbox.tell(&event("a"));
        outbox.tell(&event("b"));
        let outbox = Outbox::open(folder.path()).unwrap();
        assert_eq!(next(&outbox), [(1, "a".to_owned()), (2, "b".to_owned())]);
        outbox.acknowledged(1);
        assert_eq!(next(&outbox), [(2, "b".to_owned())]);
        outbox.acknowledged(2);
        outbox.acknowledged(2);
        let outbox = Outbox::open(folder.path()).unwrap();
        assert!(outbox.is_empty());
        outbox.tell(&event("c"));
        assert_eq!(next(&outbox), [(3, "c".to_owned())]);
    }

    #[test]
    fn a_file_is_taken_in_whole_and_is_gone_from_where_it_was() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outbox = Outbox::open(folder.path()).unwrap();
        let file = other.path().join("0000");
        fs::write(&file, event("a").encode_to_vec()).unwrap();
        outbox.take(&file);
        assert!(!file.exists());
        assert_eq!(next(&outbox), [(1, "a".to_owned())]);
    }

    #[test]
    fn when_it_is_full_the_oldest_go_and_their_numbers_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        let large = event(&"x".repeat(MAX_EVENT_BYTES as usize - 100));
        for _ in 0..=MAX_BYTES / MAX_EVENT_BYTES + 10 {
            outbox.tell(&large);
        }
        let state = locked(&outbox.state);
        let (first, count) = (*state.waiting.first_key_value().unwrap().0, state.waiting.len() as u64);
        assert!(first > 1 && first + count == state.last + 1, "first {first}, {count} of {}", state.last);
        assert!(state.waiting.values().sum::<u64>() <= MAX_BYTES);
        assert!(!outbox.path(1).exists());
    }

    #[test]
    fn one_that_is_too_large_or_unreadable_leaves_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        outbox.tell(&event(&"x".repeat(MAX_EVENT_BYTES as usize)));
        outbox.tell(&event("b"));
        outbox.tell(&event("c"));
        fs::write(outbox.path(2), [0xff; 3]).unwrap();
        assert_eq!(next(&outbox), [(3, "c".to_owned())]);
        assert!(!outbox.path(2).exists());
    }

    #[test]
    fn a_node_that_lost_count_numbers_on_from_what_the_server_has() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        outbox.tell(&event("a"));
        outbox.acknowledged(7);
        assert_eq!(next(&outbox), [(8, "a".to_owned())]);
        let outbox = Outbox::open(folder.path()).unwrap();
        outbox.tell(&event("b"));
        assert_eq!(next(&outbox), [(8, "a".to_owned()), (9, "b".to_owned())]);
    }
}
