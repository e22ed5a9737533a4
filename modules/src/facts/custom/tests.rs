use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn program(&self, name: &str, lines: &str) {
        self.write(name, &format!("#!/bin/sh\n{lines}\n"), 0o755);
    }

    fn gather(&self, named: Option<&[&str]>) -> Custom {
        gather(&Host::open(None).unwrap(), self.folder.path().to_str().unwrap(), named)
    }

    /// The sentence about a file.
    fn fault(&self, file: &str) -> String {
        let custom = self.gather(None);
        custom.faults.get(file).and_then(Value::as_text).unwrap_or("no fault").to_owned()
    }
}

#[test]
fn files_and_programs_give_a_fact_each() {
    let bench = Bench::new();
    bench.write("rack.json", r#"{"row": 3, "power": ["a", "b"]}"#, 0o644);
    bench.write("site.yaml", "name: berlin\n", 0o600);
    bench.write("one.yml", "7", 0o644);
    bench.program("raid", "echo '{\"state\": \"clean\"}'; echo noise >&2");
    bench.program("kind.sh", "echo metal");
    bench.write(".hidden", "", 0o644);
    bench.write("rack.json~", "", 0o644);
    bench.write("rack.json.dpkg-old", "", 0o644);
    let found = bench.gather(None);
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    let at = |name: &str, key: &str| found.facts.get(name).and_then(|value| value.get(key)).cloned();
    assert_eq!(at("rack", "row"), Some(Value::from(3)));
    assert_eq!(at("site", "name"), Some(Value::text("berlin")));
    assert_eq!(at("raid", "state"), Some(Value::text("clean")));
    assert_eq!(found.facts.get("one"), Some(&Value::from(7)));
    assert_eq!(found.facts.get("kind"), Some(&Value::text("metal")));
    assert_eq!(found.facts.len(), 5);
}

#[test]
fn only_what_is_named_is_run() {
    let bench = Bench::new();
    bench.program("wanted", "echo 1");
    bench.program("other", &format!("touch {}/touched", bench.folder.path().display()));
    let found = bench.gather(Some(&["wanted"]));
    assert_eq!(found.facts.keys().collect::<Vec<_>>(), ["wanted"]);
    assert!(!bench.folder.path().join("touched").exists());
}

#[test]
fn a_bad_file_is_named_and_the_others_give_their_facts() {
    let bench = Bench::new();
    bench.write("good.json", "1", 0o644);
    bench.write("good.yaml", "2", 0o644);
    bench.write("broken.json", "{\n\"a\": }", 0o644);
    bench.write("open.json", "1", 0o666);
    bench.write("plain", "1", 0o644);
    bench.write("a-b.json", "1", 0o644);
    bench.write("long.json", &format!("\"{}\"", "x".repeat(MAX_BYTES as usize)), 0o644);
    bench.program("fails", "echo no disk >&2; exit 3");
    bench.program("floods", "yes | head -c 100000");
    bench.program("dies", "kill -9 $$");
    symlink("good.json", bench.folder.path().join("link.json")).unwrap();
    fs::create_dir(bench.folder.path().join("folder.json")).unwrap();
    let found = bench.gather(None);
    assert_eq!(found.facts.into_iter().collect::<Vec<_>>(), [("good".to_owned(), Value::from(1))]);
    for (file, part) in [
        ("good.yaml", "another file"),
        ("broken.json", "line 2"),
        ("open.json", "mode 0666"),
        ("plain", "no program"),
        ("a-b.json", "letters"),
        ("long.json", "more than 32 KiB"),
        ("fails", "the code 3: no disk"),
        ("floods", "prints more than"),
        ("dies", "signal 9"),
        ("link.json", "no regular file"),
        ("folder.json", "no regular file"),
    ] {
        let sentence = found.faults.get(file).and_then(Value::as_text).unwrap_or("no fault");
        assert!(sentence.contains(part), "{file}: {sentence}");
    }
}

#[test]
fn what_others_may_write_is_neither_read_nor_run() {
    let bench = Bench::new();
    bench.program("x", &format!("touch {}/touched", bench.folder.path().display()));
    fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(bench.fault("facts.d").contains("mode 0777"));
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(bench.folder.path().join("x"), Some(65534), None).unwrap();
        assert!(bench.fault("x").contains("65534"));
    }
    assert!(!bench.folder.path().join("touched").exists());
}

#[test]
fn all_together_are_bounded() {
    let bench = Bench::new();
    for number in 0..6 {
        bench.write(&format!("n{number}.json"), &format!("\"{}\"", "x".repeat(30_000)), 0o644);
    }
    let found = bench.gather(None);
    assert_eq!((found.facts.len(), found.faults.len()), (4, 2));
    for number in 0..=MAX_FILES {
        bench.write(&format!("m{number}.json"), "1", 0o644);
    }
    assert!(bench.fault("facts.d").contains("at most 64"));
}

#[test]
fn a_folder_that_is_not_there_gives_nothing() {
    let found = gather(&Host::open(None).unwrap(), "/nonexistent/facts.d", None);
    assert!(found.facts.is_empty() && found.faults.is_empty());
}

#[test]
fn below_a_root_folder_no_program_is_run() {
    let bench = Bench::new();
    fs::create_dir(bench.folder.path().join("f")).unwrap();
    bench.program("f/x", "true");
    bench.write("f/y.json", "1", 0o644);
    let found = gather(&Host::open(Some(bench.folder.path())).unwrap(), "/f", None);
    assert_eq!((found.facts.len(), found.faults.len()), (1, 1));
}

#[test]
fn a_program_that_takes_too_long_is_killed() {
    let bench = Bench::new();
    bench.program("slow", "sleep 600");
    let host = Host::open(None).unwrap();
    let folder = bench.folder.path().to_str().unwrap();
    let gathering = Gathering { host: &host, folder, until: Instant::now() + Duration::from_millis(50) };
    assert_eq!(gathering.one("slow", ""), Err("it did not end in time".to_owned()));
}
