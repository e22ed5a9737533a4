//! `git.checkout` from repositories of this test: as files, over HTTP and HTTPS by git's own http-backend, over ssh by a
//! real sshd.

mod servers;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Done, Outcome};
use tempfile::TempDir;

use crate::http::serve;
use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, names, text, trace};
use servers::{Sshd, backend};

/// A repository with a work tree, and the bare one that is served.
struct Origin {
    dir: TempDir,
}

impl Origin {
    fn new() -> Origin {
        let origin = Origin { dir: TempDir::new().unwrap() };
        origin.git(&["init", "-q", "-b", "main", "work"], "");
        origin.git(&["init", "-q", "--bare", "-b", "main", "web.git"], "");
        origin.write("app.conf", "one\n");
        origin.write("bin/run", "#!/bin/sh\n");
        fs::set_permissions(origin.work().join("bin/run"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        symlink("app.conf", origin.work().join("link")).unwrap();
        origin
    }

    /// Runs git beside the two, or in one of them, with this input.
    fn git(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(self.dir.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "git {arguments:?}");
        String::from_utf8(ended.stdout).unwrap().trim().to_owned()
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.work().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits all there is and pushes it.
    fn commit(&self) -> String {
        self.git(&["-C", "work", "add", "-A"], "");
        self.git(&["-C", "work", "commit", "-q", "-m", "x"], "");
        self.git(&["-C", "work", "push", "-q", "../web.git", "HEAD:main"], "");
        self.git(&["-C", "work", "rev-parse", "HEAD"], "")
    }

    /// A commit of one hand-made tree, as `mktree` reads it, on the branch `evil`.
    fn hostile(&self, tree: &str) {
        let tree = self.git(&["-C", "web.git", "mktree", "--missing"], tree);
        let commit = self.git(&["-C", "web.git", "commit-tree", "-m", "x", &tree], "");
        self.git(&["-C", "web.git", "update-ref", "refs/heads/evil", &commit], "");
    }

    fn blob(&self, content: &str) -> String {
        self.git(&["-C", "web.git", "hash-object", "-w", "--stdin"], content)
    }

    fn url(&self) -> String {
        format!("file://{}/web.git", self.dir.path().display())
    }
}

fn checkout(stage: &mut Stage, url: &str, more: &[(&'static str, Value)]) -> Done {
    let given = [("url", Value::text(url)), ("path", "/srv".into())];
    stage.perform_with("git.checkout", &Value::map(given.into_iter().chain(more.iter().cloned())))
}

/// All that a write would change below the directory.
fn traces(stage: &Stage, names: &[&str]) -> Vec<[i64; 7]> {
    names.iter().map(|name| trace(stage.path(name))).collect()
}

#[test]
fn a_checkout_converges_and_follows_its_branch() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let first = origin.commit();
    let url = origin.url();
    let more = [("owner", Value::from(7))];
    stage.diff = true;
    stage.check = true;
    let told = checkout(&mut stage, &url, &more);
    assert_changed(&told);
    assert!(stage.names().is_empty(), "a check leaves {:?}", stage.names());
    stage.check = false;
    let done = checkout(&mut stage, &url, &more);
    assert_eq!((&told.message, &told.diff, &told.result), (&done.message, &done.diff, &done.result));
    assert_eq!((text(&done, "commit"), text(&done, "before")), (first.as_str(), ""));
    assert_eq!(done.message, format!("{}: 4 made", &first[..12]));
    assert_eq!(names(&stage.dir.path().join("srv")), ["app.conf", "bin", "link"], "there is no .git");
    let found = fs::metadata(stage.path("srv/bin/run")).unwrap();
    assert_eq!((stage.read("srv/link"), found.mode() & 0o7777, found.uid()), ("one\n".into(), 0o755, 7));

    fs::write(stage.path("srv/own"), "stays").unwrap();
    let files = ["srv", "srv/app.conf", "srv/bin", "srv/bin/run", "srv/link"];
    let before = traces(&stage, &files);
    for check in [true, false] {
        stage.check = check;
        assert_ok(&checkout(&mut stage, &url, &more));
    }
    assert_eq!(before, traces(&stage, &files));

    origin.write("app.conf", "two\n");
    origin.write("new", "x");
    fs::remove_dir_all(origin.work().join("bin")).unwrap();
    let second = origin.commit();
    stage.check = true;
    let told = checkout(&mut stage, &url, &more);
    assert_eq!(stage.read("srv/app.conf"), "one\n");
    stage.check = false;
    let done = checkout(&mut stage, &url, &more);
    assert_eq!((&told.message, &told.diff, &told.result), (&done.message, &done.diff, &done.result));
    assert_eq!(done.message, format!("{} → {}: 1 made, 1 replaced, 2 removed", &first[..12], &second[..12]));
    assert_eq!(names(&stage.dir.path().join("srv")), ["app.conf", "link", "new", "own"]);
    assert_ok(&checkout(&mut stage, &url, &more));
    // Of what other tests have there at the moment, nothing is a store.
    let ours = format!(".lockstep-{}-", std::process::id());
    let is_left = |name: &String| name.starts_with(&ours) && std::env::temp_dir().join(name).join("objects").exists();
    assert!(!names(&std::env::temp_dir()).iter().any(is_left), "a check cleans up");
}

#[test]
fn a_commit_that_is_there_is_asked_of_nobody() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let (first, url) = (origin.commit(), origin.url());
    let at = |commit: &str| [("ref", Value::text(commit))];
    assert_changed(&checkout(&mut stage, &url, &at(&first)));
    origin.write("app.conf", "two\n");
    let second = origin.commit();
    assert_changed(&checkout(&mut stage, &url, &at(&second)));
    fs::rename(origin.dir.path().join("web.git"), origin.dir.path().join("gone")).unwrap();
    assert_ok(&checkout(&mut stage, &url, &at(&second)));
    fs::write(stage.path("srv/app.conf"), "").unwrap();
    fs::remove_file(stage.path("srv/app.conf")).unwrap();
    assert_changed(&checkout(&mut stage, &url, &at(&second)));
    assert_eq!(stage.read("srv/app.conf"), "two\n");
    assert_failed(&checkout(&mut stage, &url, &[]), "RepositoryNotFound");
    assert_failed(&checkout(&mut stage, &url, &at(&"1".repeat(40))), "RepositoryNotFound");
    assert_eq!(stage.read("srv/app.conf"), "two\n");
}

#[test]
fn what_somebody_else_changed_is_kept_unless_it_is_said() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let (first, url) = (origin.commit(), origin.url());
    fs::create_dir(stage.path("srv")).unwrap();
    fs::write(stage.path("srv/app.conf"), "mine\n").unwrap();
    let done = checkout(&mut stage, &url, &[]);
    assert_failed(&done, "LocalChanges");
    assert!(done.message.contains("app.conf") && done.message.contains("force"), "{}", done.message);
    assert_eq!(names(&stage.dir.path().join("srv")), ["app.conf"]);
    let force = [("force", Value::from(true))];
    assert_changed(&checkout(&mut stage, &url, &force));
    assert_eq!(stage.read("srv/app.conf"), "one\n");

    fs::write(stage.path("srv/bin/run"), "mine").unwrap();
    assert_failed(&checkout(&mut stage, &url, &[]), "LocalChanges");
    fs::remove_dir_all(origin.work().join("bin")).unwrap();
    origin.commit();
    assert_failed(&checkout(&mut stage, &url, &[]), "LocalChanges");
    assert_eq!(stage.read("srv/bin/run"), "mine");
    assert_changed(&checkout(&mut stage, &url, &force));
    assert_eq!(names(&stage.dir.path().join("srv")), ["app.conf", "link"]);

    // A link in the place of a directory is not gone through, not even by force.
    fs::create_dir(stage.path("etc")).unwrap();
    assert_changed(&checkout(&mut stage, &url, &[("ref", first.as_str().into())]));
    fs::remove_dir_all(stage.path("srv/bin")).unwrap();
    symlink("/etc", stage.path("srv/bin")).unwrap();
    assert_failed(&checkout(&mut stage, &url, &[("ref", first.as_str().into())]), "LocalChanges");
    assert_changed(&checkout(&mut stage, &url, &[("ref", first.as_str().into()), ("force", true.into())]));
    assert!(names(&stage.dir.path().join("etc")).is_empty());
    assert_eq!(stage.read("srv/bin/run"), "#!/bin/sh\n");
}

#[test]
fn files_and_directories_take_each_others_places() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let (first, url) = (origin.commit(), origin.url());
    assert_changed(&checkout(&mut stage, &url, &[]));
    fs::remove_file(origin.work().join("app.conf")).unwrap();
    fs::remove_file(origin.work().join("link")).unwrap();
    fs::remove_dir_all(origin.work().join("bin")).unwrap();
    origin.write("app.conf/a", "a");
    origin.write("bin", "b");
    origin.write("link/c", "c");
    let second = origin.commit();
    for commit in [&second, &first, &second] {
        let at = [("ref", Value::text(commit.as_str()))];
        assert_changed(&checkout(&mut stage, &url, &at));
        assert_ok(&checkout(&mut stage, &url, &at));
    }
    assert_eq!(
        (stage.read("srv/app.conf/a"), stage.read("srv/bin"), stage.read("srv/link/c")),
        ("a".into(), "b".into(), "c".into())
    );
}

#[test]
fn nothing_is_made_of_a_hostile_commit() {
    let origin = Origin::new();
    origin.commit();
    let url = origin.url();
    let (file, out) = (origin.blob("x"), origin.blob("/etc/passwd"));
    let (up, inside) = (origin.blob("../../etc"), origin.blob("d/x"));
    let commit = origin.git(&["-C", "work", "rev-parse", "HEAD"], "");
    let tree = origin.git(&["-C", "web.git", "mktree"], &format!("100644 blob {file}\tx\n"));
    let lfs =
        origin.blob(&format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 3\n", "0".repeat(64)));
    for (entries, reasons) in [
        (format!("120000 blob {out}\tlink\n"), &["UnsafeEntry"][..]),
        (format!("120000 blob {up}\tlink\n"), &["UnsafeEntry"]),
        (format!("160000 commit {commit}\tsub\n"), &["Submodule"]),
        // These git's own check may refuse before we see them.
        (format!("040000 tree {tree}\t.git\n"), &["UnsafeEntry", "BrokenRepository", "GitFailed"]),
        (format!("040000 tree {tree}\t.GIT\n"), &["UnsafeEntry", "BrokenRepository", "GitFailed"]),
        (format!("040000 tree {tree}\t..\n"), &["UnsafeEntry", "BrokenRepository", "GitFailed"]),
        (format!("100644 blob {file}\ta\rb\n"), &["UnsafeEntry"]),
        (format!("100644 blob {lfs}\tbig.bin\n"), &["LfsPointer"]),
    ] {
        origin.hostile(&entries);
        let mut stage = Stage::rooted();
        let done = checkout(&mut stage, &url, &[("ref", "evil".into())]);
        assert_eq!(done.outcome, Outcome::Failed, "{entries}: {}", done.message);
        assert!(reasons.contains(&text(&done, "reason")), "{entries}: {}", done.message);
        assert!(!Path::new(&stage.path("srv")).exists(), "{entries}");
    }
    // A link within is a link; a submodule can be left out.
    origin.hostile(&format!("120000 blob {inside}\tlink\n040000 tree {tree}\td\n160000 commit {commit}\tsub\n"));
    let mut stage = Stage::rooted();
    assert_changed(&checkout(&mut stage, &url, &[("ref", "evil".into()), ("skipSubmodules", true.into())]));
    assert_eq!(
        (names(&stage.dir.path().join("srv")), stage.read("srv/link")),
        (vec!["d".to_owned(), "link".to_owned()], "x".into())
    );
}

#[test]
fn no_hook_runs_and_what_was_cut_off_is_swept() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let (mark, url) = (stage.path("mark"), origin.url());
    origin.commit();
    assert_changed(&checkout(&mut stage, &url, &[]));
    let stores = stage.dir.path().join("var/cache/lockstep/git");
    let store = stores.join(&names(&stores)[0]);
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o700);
    for hook in ["post-checkout", "reference-transaction", "post-merge", "pre-auto-gc", "post-index-change"] {
        let path = store.join("hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\ntouch {mark}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::write(store.join("objects/pack/tmp_pack_x"), "left by a fetch that was killed").unwrap();
    for round in 0..20 {
        origin.write("app.conf", &format!("{round}\n"));
        origin.commit();
        assert_changed(&checkout(&mut stage, &url, &[]));
    }
    assert!(!Path::new(&mark).exists());
    let packs = names(&store.join("objects/pack"));
    assert!(!packs.contains(&"tmp_pack_x".to_owned()) && packs.len() < 40, "it does not grow for ever: {packs:?}");
    // Others who can write there could have anything checked out.
    fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert_failed(&checkout(&mut stage, &url, &[]), "UntrustedDirectory");
}

#[test]
fn size_is_bounded_on_the_way_and_in_the_tree() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    // What does not shrink is stopped while it comes; what does, when it is counted.
    let noise: String = (0..200_000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    origin.write("noise", &noise);
    origin.commit();
    let small = [("maxBytes", Value::from(100_000))];
    assert_failed(&checkout(&mut stage, &origin.url(), &small), "RepositoryTooLarge");
    fs::remove_file(origin.work().join("noise")).unwrap();
    origin.write("zeros", &"0".repeat(200_000));
    origin.commit();
    let mut stage = Stage::rooted();
    assert_failed(&checkout(&mut stage, &origin.url(), &small), "RepositoryTooLarge");
    assert!(!Path::new(&stage.path("srv")).exists());
}

#[test]
fn refs_are_told_apart_and_wrong_ones_are_named() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let first = origin.commit();
    origin.git(&["-C", "web.git", "tag", "-a", "-m", "x", "v1", &first], "");
    origin.write("app.conf", "two\n");
    let second = origin.commit();
    origin.git(&["-C", "web.git", "update-ref", "refs/heads/v1", &second], "");
    let url = origin.url();
    let mut at = |name: &str| checkout(&mut stage, &url, &[("ref", name.into())]);
    assert_failed(&at("v1"), "AmbiguousRef");
    assert_eq!(text(&at("refs/tags/v1"), "commit"), first);
    assert_eq!(text(&at("refs/heads/v1"), "commit"), second);
    assert_failed(&at("no-such"), "RefNotFound");
    assert_failed(&at(&first[..12]), "RefNotFound");
    assert_failed(&at(&"1".repeat(40)), "RefNotFound");
    let blob = origin.blob("x");
    assert_eq!(at(&blob).outcome, Outcome::Failed);
    let empty = Origin::new();
    assert_failed(&checkout(&mut stage, &empty.url(), &[]), "RefNotFound");
}

#[test]
fn over_http_only_a_commit_is_believed() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let first = origin.commit();
    let address = serve(backend(origin.dir.path().to_owned(), None));
    let url = format!("http://{address}/web.git");
    assert_failed(&checkout(&mut stage, &url, &[]), "InvalidParameters");
    let at = |commit: &str| ("ref", Value::text(commit));
    assert_failed(&checkout(&mut stage, &url, &[at(&first), ("password", "x".into())]), "InvalidParameters");
    assert_failed(&checkout(&mut stage, &url, &[at(&first), ("sshKey", "x".into())]), "InvalidParameters");
    assert_changed(&checkout(&mut stage, &url, &[at(&first)]));
    assert_ok(&checkout(&mut stage, &url, &[at(&first)]));
    assert_failed(&checkout(&mut stage, &url, &[at(&"1".repeat(40))]), "RefNotFound");
    let moved = format!("http://{address}/moved");
    origin.write("app.conf", "two\n");
    let second = origin.commit();
    assert_failed(&checkout(&mut stage, &moved, &[at(&second)]), "RedirectRefused");
    let missing = format!("http://{address}/none.git");
    assert_failed(&checkout(&mut stage, &missing, &[at(&second)]), "RepositoryNotFound");
    assert_failed(&checkout(&mut stage, "http://127.0.0.1:1/a", &[at(&second)]), "ConnectFailed");
    assert_eq!(stage.read("srv/app.conf"), "one\n");
}

#[test]
fn over_https_certificate_and_password_are_looked_at() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let first = origin.commit();
    let wanted = format!("Basic {}", STANDARD.encode("bot:s3cret"));
    let (address, ca) = crate::http::serve_tls_plainly(backend(origin.dir.path().to_owned(), Some(wanted)));
    stage.write("ca.pem", &ca);
    let url = format!("https://{address}/web.git");
    let given = |password: &str| {
        [("caFile", Value::text("/ca.pem")), ("username", "bot".into()), ("password", password.into())]
    };
    assert_failed(&checkout(&mut stage, &url, &given("wrong")), "AuthenticationFailed");
    assert_failed(&checkout(&mut stage, &url, &given("s3cret")[..1]), "AuthenticationFailed");
    assert_failed(&checkout(&mut stage, &url, &given("s3cret")[1..]), "TLSFailed");
    // No argument, environment or file of git's holds it.
    stage.printed.clear();
    let done = checkout(&mut stage, &url, &given("s3cret"));
    assert_changed(&done);
    assert_eq!(text(&done, "commit"), first);
    assert_ok(&checkout(&mut stage, &url, &given("s3cret")));
    let token = STANDARD.encode("bot:s3cret");
    let found = Command::new("grep").args(["-rlE", &format!("s3cret|{token}")]).arg(stage.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the secret is on no disk");
    let printed: Vec<u8> = stage.printed.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(!String::from_utf8_lossy(&printed).contains("s3cret"));
}

#[test]
fn over_ssh_both_keys_are_looked_at() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    let first = origin.commit();
    let server = Sshd::start();
    let url = format!("ssh://root@127.0.0.1:{}{}/web.git", server.port, origin.dir.path().display());
    let known = |key: &str| {
        let words: Vec<String> = server.read(key).split(' ').take(2).map(str::to_owned).collect();
        Value::from(format!("[127.0.0.1]:{} {}", server.port, words.join(" ")))
    };
    let given = |key: &str, host: &str| [("sshKey", Value::from(server.read(key))), ("knownHosts", known(host))];
    assert_failed(&checkout(&mut stage, &url, &given("user", "stranger.pub")), "HostKeyUnknown");
    assert_failed(&checkout(&mut stage, &url, &given("stranger", "host.pub")), "AuthenticationFailed");
    assert_failed(&checkout(&mut stage, &url, &given("user", "host.pub")[..1]), "HostKeyUnknown");
    assert!(!Path::new(&stage.path("srv")).exists());
    let done = checkout(&mut stage, &url, &given("user", "host.pub"));
    assert_changed(&done);
    assert_eq!((text(&done, "commit"), stage.read("srv/link")), (first.as_str(), "one\n".into()));
    assert_ok(&checkout(&mut stage, &url, &given("user", "host.pub")));
}

#[test]
fn who_does_not_answer_is_not_waited_for_longer_than_asked() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/a", silent.local_addr().unwrap());
    let mut stage = Stage::rooted();
    stage.timeout = Some(Duration::from_millis(200));
    assert_failed(&checkout(&mut stage, &url, &[]), "TimedOut");
    stage.cancel.throw();
    assert_eq!(checkout(&mut stage, &url, &[]).outcome, Outcome::Cancelled);
}

#[test]
fn a_node_without_git_says_so() {
    let (origin, mut stage) = (Origin::new(), Stage::rooted());
    origin.commit();
    stage.environment.insert("PATH".into(), stage.path("bin"));
    assert_failed(&checkout(&mut stage, &origin.url(), &[]), "GitMissing");
}
