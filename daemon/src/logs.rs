//! What tasks printed: one file per attempt below `<state>/logs/<run>/`, append-only. Knows files and numbers; not
//! what a Run is, nor who may read.
//!
//! # Guarantees
//! - Chunks of an attempt are kept in order of their numbers, each once, however often and however cut they are sent.
//! - A file that was cut by a crash is read up to the cut, and appended to from there.
//! - What [`LogStore::sync`] returned for is there after a power cut.
//!
//! # Caveats
//! - Who reads may see what is not on the disk yet.
//! - An agent that came from another server goes on with its numbers: what is before them is there.

mod syncing;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{OutputChunk, OutputRequest};
use lockstep_executor::frame;
use prost::Message;
use tokio::sync::watch;

use crate::identity::files;
use syncing::{Appended, Mark, Shared, Syncing};

/// Most bytes read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Open files; one that is not written to for long is closed.
const MAX_OPEN: usize = 512;

/// The log store of this server.
#[derive(Clone)]
pub struct LogStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    open: Mutex<HashMap<Attempt, Shared>>,
    syncing: Syncing,
    /// By Run: rises with each append, for those who follow.
    changed: Mutex<HashMap<String, watch::Sender<u64>>>,
}

/// Output that was written, and is not yet promised to be kept.
pub struct Written {
    file: Shared,
    /// The highest number that the attempt has here.
    number: u64,
}

/// What was read of an attempt's file.
#[derive(Debug, Default)]
pub struct Part {
    /// The chunks with their numbers.
    pub chunks: Vec<(u64, OutputChunk)>,
    /// Where to read on.
    pub next: u64,
    /// The node said that nothing follows.
    pub last: bool,
    /// There was more than is given.
    pub more: bool,
}

impl LogStore {
    /// Bytes that are free, and all, of the file system with its folder; of the nearest folder above while it is not made.
    pub fn room(&self) -> io::Result<(u64, u64)> {
        let mut folders = self.0.folder.ancestors();
        let folder = folders.find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let found = rustix::fs::statvfs(folder)?;
        Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
    }

    /// A store in a folder, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Inner { folder, open: Mutex::default(), syncing: Syncing::default(), changed: Mutex::default() }))
    }

    /// Writes the chunks of a request that are new. They are kept for sure once [`LogStore::sync`] says so.
    pub fn append(&self, attempt: &Attempt, request: &OutputRequest) -> io::Result<Written> {
        let file = self.file(attempt)?;
        let mut appended = locked(&file);
        let mark = appended.mark();
        let first = request.number.max(1);
        let known = usize::try_from((mark.number + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let chunks = request.chunks.get(known..).unwrap_or_default();
        let ends = request.last && !mark.last;
        if chunks.is_empty() && !ends {
            drop(appended);
            return Ok(Written { file, number: mark.number.max(first - 1) });
        }
        let number = first.max(mark.number + 1);
        // Which attempt it is, the file's name says.
        let kept = OutputRequest { attempt: None, number, chunks: chunks.to_vec(), last: request.last };
        let mut bytes = Vec::with_capacity(kept.encoded_len() + 16);
        frame::push(&mut bytes, |buffer| kept.encode(buffer).expect("invariant: a vector has room"));
        let after = with(mark, &kept);
        appended.append(&bytes, after.number, after.last)?;
        drop(appended);
        if let Some(sender) = locked(&self.0.changed).get(&attempt.run) {
            sender.send_modify(|count| *count += 1);
        }
        Ok(Written { file, number: after.number })
    }

    /// Waits until what was written is on the disk, together with what others wait for. Returns the highest number that
    /// is kept. Errors: the disk failed; what was written since the last sync is to be sent again.
    pub async fn sync(&self, written: Written) -> io::Result<u64> {
        self.0.syncing.sync(&written.file).await?;
        Ok(written.number)
    }

    /// Tells when output of a Run comes.
    pub fn follow(&self, run: &str) -> watch::Receiver<u64> {
        let mut changed = locked(&self.0.changed);
        changed.retain(|_, sender| sender.receiver_count() > 0);
        changed.entry(run.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// The attempts of a Run that have output here, in order of segment, then of node.
    pub fn attempts(&self, run: &str) -> io::Result<Vec<Attempt>> {
        let entries = match fs::read_dir(self.0.folder.join(run)) {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut attempts = Vec::new();
        for entry in entries {
            attempts.extend(attempt_of(run, &entry?.file_name().to_string_lossy()));
        }
        attempts.sort();
        Ok(attempts)
    }

    /// Reads an attempt's output from a position, 0 or an earlier [`Part::next`]. Blocks on the disk.
    pub fn read(&self, attempt: &Attempt, from: u64) -> io::Result<Part> {
        let file = File::open(self.path(attempt))?;
        let mut bytes = vec![0; READ_BYTES];
        let mut filled = 0;
        let mut part = Part { next: from, ..Part::default() };
        loop {
            let read = file.read_at(&mut bytes[filled..], from + filled as u64)?;
            filled += read;
            let mut records = frame::Records::new(&bytes[..filled]);
            if read > 0 && filled < bytes.len() {
                continue;
            }
            for record in records.by_ref() {
                let kept = OutputRequest::decode(record).map_err(io::Error::other)?;
                part.last |= kept.last;
                part.chunks.extend((kept.number..).zip(kept.chunks));
            }
            part.next = from + records.position() as u64;
            if part.next == from && filled == bytes.len() {
                // One record is larger than the buffer.
                bytes.resize(bytes.len() * 2, 0);
                continue;
            }
            part.more = filled == bytes.len();
            return Ok(part);
        }
    }

    /// Forgets Runs that are gone. Blocks on the disk.
    pub fn keep_only(&self, known: impl Fn(&str) -> bool) -> io::Result<()> {
        locked(&self.0.open).retain(|attempt, _| known(&attempt.run));
        let entries = match fs::read_dir(&self.0.folder) {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if !known(&entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, attempt: &Attempt) -> PathBuf {
        let name = format!("{:06}.{}.{}.{:04}", attempt.segment, attempt.for_node, attempt.node, attempt.attempt);
        self.0.folder.join(&attempt.run).join(name)
    }

    fn file(&self, attempt: &Attempt) -> io::Result<Shared> {
        // Parts of a path that came over the wire.
        if ![&attempt.run, &attempt.for_node, &attempt.node].into_iter().all(|part| files::is_plain_name(part)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an attempt that cannot be one"));
        }
        let mut open = locked(&self.0.open);
        if let Some(file) = open.get(attempt) {
            return Ok(file.clone());
        }
        if open.len() >= MAX_OPEN {
            // Those in use stay with whoever uses them; the file says all that is needed to open it again.
            open.retain(|_, file| Arc::strong_count(file) > 1);
        }
        let file = Arc::new(Mutex::new(open_file(self.path(attempt))?));
        open.insert(attempt.clone(), file.clone());
        Ok(file)
    }
}

/// How far a file goes with one more record; its bytes are not counted.
fn with(mark: Mark, kept: &OutputRequest) -> Mark {
    let number = mark.number.max(kept.number.max(1) - 1 + kept.chunks.len() as u64);
    Mark { number, last: mark.last | kept.last, ..mark }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a file, and cuts off what a crash left behind its last whole record.
fn open_file(path: PathBuf) -> io::Result<Appended> {
    if let Some(folder) = path.parent() {
        files::make_private_folder(folder).map_err(|error| error.problem)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    let bytes = fs::read(&path)?;
    let mut records = frame::Records::new(&bytes);
    let decoded = records.by_ref().filter_map(|record| OutputRequest::decode(record).ok());
    let mark = decoded.fold(Mark::default(), |mark, kept| with(mark, &kept));
    let end = records.position() as u64;
    file.set_len(end)?;
    Appended::new(file, path, Mark { end, ..mark })
}

fn attempt_of(run: &str, name: &str) -> Option<Attempt> {
    let mut parts = name.split('.');
    let attempt = Attempt {
        run: run.to_owned(),
        segment: parts.next()?.parse().ok()?,
        for_node: parts.next()?.to_owned(),
        node: parts.next()?.to_owned(),
        attempt: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(attempt)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    impl LogStore {
        fn keep(&self, attempt: &Attempt, request: &OutputRequest) -> io::Result<u64> {
            self.append(attempt, request).map(|written| written.number)
        }
    }

    fn attempt() -> Attempt {
        Attempt { run: "r".into(), segment: 2, for_node: "n".into(), node: "n".into(), attempt: 1 }
    }

    fn request(number: u64, text: &str) -> OutputRequest {
        let chunk = OutputChunk { data: text.as_bytes().to_vec(), ..OutputChunk::default() };
        OutputRequest { attempt: None, number, chunks: vec![chunk], last: false }
    }

    fn text(part: &Part) -> String {
        part.chunks.iter().map(|(_, chunk)| String::from_utf8_lossy(&chunk.data).into_owned()).collect()
    }

    fn several(number: u64, texts: &[&str]) -> OutputRequest {
        let chunks = texts.iter().flat_map(|text| request(0, text).chunks).collect();
        OutputRequest { chunks, ..request(number, "") }
    }

    #[test]
    fn what_is_sent_again_in_other_pieces_is_kept_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().join("logs"));
        assert_eq!(logs.keep(&attempt(), &several(1, &["a", "b"])).unwrap(), 2);
        assert_eq!(logs.keep(&attempt(), &several(1, &["a"])).unwrap(), 2);
        assert_eq!(logs.keep(&attempt(), &several(2, &["b", "c"])).unwrap(), 3);
        let part = logs.read(&attempt(), 0).unwrap();
        assert_eq!(text(&part), "abc");
        assert_eq!(part.chunks.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(text(&logs.read(&attempt(), part.next).unwrap()), "");
        assert_eq!(logs.attempts("r").unwrap(), [attempt()]);
        let again = LogStore::new(folder.path().join("logs"));
        assert_eq!(again.keep(&attempt(), &several(3, &["c", "d"])).unwrap(), 4);
        assert_eq!(text(&again.read(&attempt(), part.next).unwrap()), "d");
    }

    #[test]
    fn an_agent_that_comes_from_another_server_goes_on_and_ends_once() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().to_owned());
        assert_eq!(logs.keep(&attempt(), &request(6, "f")).unwrap(), 6);
        let end = OutputRequest { chunks: Vec::new(), last: true, ..request(7, "") };
        assert_eq!(logs.keep(&attempt(), &end).unwrap(), 6);
        let part = logs.read(&attempt(), 0).unwrap();
        assert!(part.last);
        logs.keep(&attempt(), &end).unwrap();
        assert_eq!(logs.read(&attempt(), part.next).unwrap().next, part.next);
        let other = Attempt { attempt: 2, ..attempt() };
        assert_eq!(logs.keep(&other, &end).unwrap(), 6, "all that it has was kept elsewhere");
    }

    #[test]
    fn a_tail_that_was_cut_anywhere_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().to_owned());
        logs.keep(&attempt(), &request(1, "a")).unwrap();
        let path = logs.path(&attempt());
        let first = fs::metadata(&path).unwrap().len();
        logs.keep(&attempt(), &request(2, "b")).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in first..whole.len() as u64 {
            fs::write(&path, &whole[..cut as usize]).unwrap();
            let again = LogStore::new(folder.path().to_owned());
            assert_eq!(text(&again.read(&attempt(), 0).unwrap()), "a", "cut at {cut}");
            assert_eq!(again.keep(&attempt(), &request(2, "b")).unwrap(), 2);
            assert_eq!(text(&again.read(&attempt(), 0).unwrap()), "ab", "cut at {cut}");
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
        // A block that was given to the file and never written.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0; 100]).unwrap();
        let again = LogStore::new(folder.path().to_owned());
        assert_eq!(again.keep(&attempt(), &request(3, "c")).unwrap(), 3);
        assert_eq!(text(&again.read(&attempt(), 0).unwrap()), "abc");
    }

    #[tokio::test]
    async fn what_is_synced_is_numbered_and_what_is_sent_again_is_synced_already() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().to_owned());
        for (number, kept) in [(1, 1), (2, 2), (1, 2)] {
            let written = logs.append(&attempt(), &request(number, "a")).unwrap();
            assert_eq!(logs.sync(written).await.unwrap(), kept);
        }
    }

    #[test]
    fn large_output_is_read_in_parts_and_gone_runs_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().to_owned());
        let long = "x".repeat(600_000);
        for number in 1..=4 {
            logs.keep(&attempt(), &request(number, &long)).unwrap();
        }
        let (mut from, mut bytes) = (0, 0);
        loop {
            let part = logs.read(&attempt(), from).unwrap();
            bytes += text(&part).len();
            from = part.next;
            if !part.more {
                break;
            }
        }
        assert_eq!(bytes, 2_400_000);
        logs.keep_only(|run| run != "r").unwrap();
        assert!(logs.attempts("r").unwrap().is_empty());
    }

    #[test]
    fn names_from_the_wire_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().join("logs"));
        for bad in ["..", "a/b", ""] {
            let attempt = Attempt { run: bad.into(), ..attempt() };
            assert!(logs.keep(&attempt, &request(1, "x")).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn who_follows_is_woken() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().to_owned());
        let mut following = logs.follow("r");
        logs.keep(&attempt(), &request(1, "a")).unwrap();
        following.changed().await.unwrap();
    }
}
