//! `artifact.installed` against a server of this test.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Done, Outcome};
use ring::digest::{SHA256, digest};
use tar::EntryType;

use crate::archives::{archive, zipped};
use crate::http::serve;
use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, text, trace};

/// A server that answers every request with what it has now, and counts them.
#[derive(Clone)]
struct Shop {
    address: String,
    has: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Shop {
    fn open() -> Shop {
        let (has, asked) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (answer, count) = (Arc::clone(&has), Arc::clone(&asked));
        let address = serve(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            answer.lock().unwrap().clone()
        });
        Shop { address, has, asked }
    }

    fn has(&self, body: &[u8]) {
        self.answers("200 OK", body.len(), body);
    }

    fn answers(&self, status: &str, length: usize, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        *self.has.lock().unwrap() = [head.as_bytes(), body].concat();
    }

    fn was_asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn install(&self, stage: &mut Stage, content: &[u8], version: &str, more: &[(&'static str, Value)]) -> Done {
        let given = [
            ("url", Value::from(format!("http://{}/app?token=hidden", self.address))),
            ("checksum", sum(content).into()),
            ("path", "/opt".into()),
            ("version", version.into()),
        ];
        stage.perform_with("artifact.installed", &Value::map(given.into_iter().chain(more.iter().cloned())))
    }
}

fn sum(content: &[u8]) -> String {
    let digits: String = digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// Checks, does, and does again.
fn converges(stage: &mut Stage, shop: &Shop, content: &[u8], version: &str, more: &[(&'static str, Value)]) -> Done {
    stage.diff = true;
    stage.check = true;
    let (before, asked) = (stage.names(), shop.was_asked());
    let told = shop.install(stage, content, version, more);
    assert_changed(&told);
    assert_eq!((stage.names(), shop.was_asked()), (before, asked), "a check neither writes nor fetches");
    stage.check = false;
    let done = shop.install(stage, content, version, more);
    assert_eq!((&told.message, &told.diff, &told.result), (&done.message, &done.diff, &done.result));
    let (before, asked) = (trace(stage.path("opt/current")), shop.was_asked());
    for check in [true, false] {
        stage.check = check;
        assert_ok(&shop.install(stage, content, version, more));
    }
    assert_eq!((trace(stage.path("opt/current")), shop.was_asked()), (before, asked));
    done
}

#[test]
fn a_version_is_fetched_once_and_switched_to() {
    let (shop, mut stage) = (Shop::open(), Stage::rooted());
    shop.has(b"one");
    let done = converges(&mut stage, &shop, b"one", "1.0", &[("owner", 7.into())]);
    assert_eq!(done.message, format!("1.0 fetched from {}; current → 1.0", shop.address));
    assert_eq!(text(&done, "version"), "1.0");
    let found = fs::metadata(stage.path("opt/current/app")).unwrap();
    assert_eq!((stage.read("opt/current/app"), found.mode() & 0o7777, found.uid()), ("one".into(), 0o755, 7));
    let before = trace(stage.path("opt/1.0/app"));
    shop.has(b"two");
    let done = converges(&mut stage, &shop, b"two", "2.0", &[("owner", 7.into())]);
    assert_eq!(done.message, format!("2.0 fetched from {}; current 1.0 → 2.0", shop.address));
    assert_eq!((stage.read("opt/current/app"), trace(stage.path("opt/1.0/app"))), ("two".into(), before));
    // Back to what is there already: nobody is asked.
    let asked = shop.was_asked();
    assert_eq!(shop.install(&mut stage, b"one", "1.0", &[("owner", 7.into())]).message, "current 2.0 → 1.0");
    assert_eq!((shop.was_asked(), stage.read("opt/current/app")), (asked, "one".into()));
    // What was changed is put right, attributes without fetching.
    let mode = [("owner", 7.into()), ("mode", "0700".into())];
    assert_eq!(shop.install(&mut stage, b"one", "1.0", &mode).message, "1.0 given other attributes");
    assert_eq!(shop.was_asked(), asked);
    fs::write(stage.path("opt/1.0/app"), "spoilt").unwrap();
    shop.has(b"one");
    assert_changed(&shop.install(&mut stage, b"one", "1.0", &mode));
    assert_eq!(stage.read("opt/1.0/app"), "one");
}

#[test]
fn a_version_is_made_ready_without_being_used() {
    let (shop, mut stage) = (Shop::open(), Stage::rooted());
    shop.has(b"one");
    let staged = [("current", false.into())];
    assert_changed(&shop.install(&mut stage, b"one", "1.0", &staged));
    assert_ok(&shop.install(&mut stage, b"one", "1.0", &staged));
    assert!(fs::symlink_metadata(stage.path("opt/current")).is_err());
    assert_eq!(shop.install(&mut stage, b"one", "1.0", &[]).message, "current → 1.0");
}

#[test]
fn what_does_not_come_as_promised_leaves_everything_as_it_was() {
    let (shop, mut stage) = (Shop::open(), Stage::rooted());
    let states: [(&str, usize, &[u8], &str); 4] = [
        ("200 OK", 3, b"bad", "ChecksumMismatch"),
        ("404 Not Found", 3, b"one", "UnexpectedStatus"),
        ("200 OK", 100, b"one", "BadAnswer"),
        ("200 OK", 30, &[b'x'; 30], "BodyTooLong"),
    ];
    let more = [("maxBytes", 20.into())];
    for (status, length, body, reason) in states {
        shop.answers(status, length, body);
        let done = shop.install(&mut stage, b"one", "1.0", &more);
        assert_failed(&done, reason);
        assert!(!done.message.contains("hidden"), "{}", done.message);
        assert!(stage.names().is_empty(), "{reason} leaves {:?}", stage.names());
    }
    shop.has(b"one");
    assert_changed(&shop.install(&mut stage, b"one", "1.0", &more));
    for (status, length, body, reason) in states {
        shop.answers(status, length, body);
        assert_failed(&shop.install(&mut stage, b"new", "1.1", &more), reason);
        assert_eq!(crate::stage::names(&stage.dir.path().join("opt")), ["1.0", "current"], "{reason}");
        assert_eq!(stage.read("opt/current/app"), "one");
    }
}

#[test]
fn an_archive_is_unpacked_before_it_is_switched_to_and_put_right_without_fetching() {
    let (shop, mut stage) = (Shop::open(), Stage::rooted());
    let of = |name: &str, content: &[u8]| zipped(&archive(&[(name, EntryType::Regular, "", content)]));
    let (one, evil) = (of("app-1/bin/app", b"one"), of("../../evil", b"x"));
    let unpack = [("unpack", true.into()), ("strip", 1.into())];
    shop.has(&one);
    converges(&mut stage, &shop, &one, "1.0", &unpack);
    assert_eq!(stage.read("opt/current/bin/app"), "one");
    let asked = shop.was_asked();
    fs::write(stage.path("opt/1.0/bin/app"), "spoilt").unwrap();
    let done = shop.install(&mut stage, &one, "1.0", &unpack);
    assert_eq!((done.outcome, done.message.as_str()), (Outcome::Changed, "1.0: 1 replaced"));
    assert_eq!((stage.read("opt/1.0/bin/app"), shop.was_asked()), ("one".into(), asked));
    shop.has(&evil);
    assert_failed(&shop.install(&mut stage, &evil, "1.1", &unpack), "UnsafeEntry");
    assert_eq!(stage.read("opt/current/bin/app"), "one");
    assert_eq!(fs::read_link(stage.path("opt/current")).unwrap().to_str(), Some("1.0"));
    assert_eq!(stage.names(), ["opt"]);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
    let (shop, mut stage) = (Shop::open(), Stage::rooted());
    for (version, more) in [
        ("current", &[][..]),
        ("../1", &[]),
        (".1", &[]),
        ("1.0", &[("unpack", true.into()), ("name", "app".into())]),
        ("1.0", &[("name", "a/b".into())]),
        ("1.0", &[("name", "..".into())]),
        ("1.0", &[("maxBytes", 0.into())]),
    ] {
        assert_failed(&shop.install(&mut stage, b"one", version, more), "InvalidParameters");
    }
    assert_eq!((shop.was_asked(), stage.names().len()), (0, 0));
    fs::create_dir_all(stage.path("opt/current")).unwrap();
    assert_failed(&shop.install(&mut stage, b"one", "1.0", &[]), "WrongKind");
    assert_eq!(shop.was_asked(), 0);
}
