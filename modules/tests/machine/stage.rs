//! A temporary folder, and a short way to do actions in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Cancel, Done, Host, Outcome, Scope, Stream, Unsynced, action};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    pub(crate) host: Host,
    pub(crate) check: bool,
    pub(crate) diff: bool,
    pub(crate) sensitive: bool,
    pub(crate) user: Option<&'static str>,
    pub(crate) working_directory: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) grace: Duration,
    pub(crate) cancel: Cancel,
    pub(crate) printed: Vec<(Stream, Vec<u8>)>,
    pub(crate) unsynced: Unsynced,
    /// Gets an empty line for each chunk that was printed.
    pub(crate) heard: Option<fs::File>,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        Stage::with(TempDir::new().unwrap(), None)
    }

    /// Paths are below the folder, which stands for the machine.
    pub(crate) fn rooted() -> Stage {
        let dir = TempDir::new().unwrap();
        let root = dir.path().to_owned();
        Stage::with(dir, Some(&root))
    }

    fn with(dir: TempDir, root: Option<&Path>) -> Stage {
        Stage {
            host: Host::open(root).unwrap(),
            dir,
            check: false,
            diff: false,
            sensitive: false,
            user: None,
            working_directory: None,
            timeout: None,
            environment: BTreeMap::new(),
            grace: Duration::from_secs(10),
            cancel: Cancel::new().unwrap(),
            printed: Vec::new(),
            unsynced: Unsynced::new(),
            heard: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }

    pub(crate) fn perform<const N: usize>(&mut self, name: &str, parameters: [(&str, Value); N]) -> Done {
        self.perform_with(name, &Value::map(parameters))
    }

    pub(crate) fn perform_with(&mut self, name: &str, parameters: &Value) -> Done {
        let (printed, heard) = (&mut self.printed, &mut self.heard);
        let mut output = |stream: Stream, bytes: &[u8]| {
            printed.push((stream, bytes.to_vec()));
            if let Some(heard) = heard {
                heard.write_all(b"\n").unwrap();
            }
        };
        let mut scope = Scope {
            host: &self.host,
            unsettled: false,
            check: self.check,
            diff: self.diff,
            sensitive: self.sensitive,
            environment: &self.environment,
            user: self.user,
            working_directory: self.working_directory.as_deref(),
            timeout: self.timeout,
            cancel: &self.cancel,
            grace: self.grace,
            output: &mut output,
            unsynced: &mut self.unsynced,
        };
        action(name).unwrap().perform(parameters, &mut scope)
    }

    /// `file.managed` with a path in the folder and this content.
    pub(crate) fn manage(&mut self, name: &str, content: &str) -> Done {
        let path = self.path(name);
        self.perform("file.managed", [("path", path.into()), ("content", content.into())])
    }

    pub(crate) fn run(&mut self, argv: &[&str]) -> Done {
        self.perform("command.run", [("argv", list(argv))])
    }

    pub(crate) fn shell(&mut self, line: &str) -> Done {
        self.perform("command.run", [("shell", line.into())])
    }
}

pub(crate) fn list(words: &[&str]) -> Value {
    Value::list(words.iter().copied().map(Value::text))
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// All that a write would change of a file.
pub(crate) fn trace(path: impl AsRef<Path>) -> [i64; 7] {
    let found = fs::symlink_metadata(path).unwrap();
    let (inode, mode) = (found.ino() as i64, i64::from(found.mode()));
    [inode, mode, i64::from(found.uid()), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()]
}

#[track_caller]
pub(crate) fn assert_ok(done: &Done) {
    assert_eq!(done.outcome, Outcome::Ok, "{}", done.message);
}

#[track_caller]
pub(crate) fn assert_changed(done: &Done) {
    assert_eq!(done.outcome, Outcome::Changed, "{}", done.message);
}

#[track_caller]
pub(crate) fn assert_failed(done: &Done, reason: &str) {
    let found = done.result.get("reason").and_then(Value::as_text).unwrap_or_default();
    assert_eq!((done.outcome, found), (Outcome::Failed, reason), "{}", done.message);
    assert!(done.message.len() <= 256);
}

pub(crate) fn text<'a>(done: &'a Done, key: &str) -> &'a str {
    done.result.get(key).and_then(Value::as_text).unwrap_or_default()
}

/// A mount that ends with the test.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Mounted {
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Mounted(at.to_owned())
    }

    pub(crate) fn bind(from: &Path, at: &Path) -> Mounted {
        rustix::mount::mount_bind(from, at).unwrap();
        Mounted(at.to_owned())
    }

    pub(crate) fn make_read_only(&self) {
        rustix::mount::mount_remount(&self.0, MountFlags::RDONLY, "").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}
