//! `archive.unpacked`: what is made of good archives, and that nothing is made of bad ones.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

use flate2::Compression;
use flate2::write::GzEncoder;
use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Done, Outcome};
use tar::{Builder, EntryType, Header};

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, trace};

/// An entry with exactly that name, which the library would refuse to write.
fn add(builder: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, link: &str, content: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    let fields = header.as_gnu_mut().unwrap();
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

pub(crate) fn archive(entries: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        add(&mut builder, name, *kind, link, content, 0o644);
    }
    builder.into_inner().unwrap()
}

pub(crate) fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A zip of entries with these names, modes and contents; of links, the target.
fn zip(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(mode & 0o7777);
        match mode & 0o170_000 {
            0o040_000 => writer.add_directory(*name, options).unwrap(),
            0o120_000 => writer.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap(),
            _ => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

/// A program with a directory, a link and a long name.
fn program() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, "app-1.0/", EntryType::Directory, "", b"", 0o777);
    add(&mut builder, "app-1.0/bin/app", EntryType::Regular, "", b"#!/bin/sh\n", 0o4777);
    add(&mut builder, "app-1.0/bin/latest", EntryType::Symlink, "../bin/app", b"", 0o777);
    add(&mut builder, "app-1.0/etc/", EntryType::Directory, "", b"", 0o750);
    add(&mut builder, "app-1.0/etc/app.conf", EntryType::Regular, "", &[b'x'; 200_000], 0o600);
    let mut long = Header::new_gnu();
    long.set_size(1);
    long.set_mode(0o644);
    builder.append_data(&mut long, format!("app-1.0/{}", "n".repeat(200)), &b"y"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn unpack(stage: &mut Stage, more: &[(&'static str, Value)]) -> Done {
    let given = [("source", Value::text("/a.tar")), ("path", "/opt".into())];
    stage.perform_with("archive.unpacked", &Value::map(given.into_iter().chain(more.iter().cloned())))
}

#[test]
fn an_archive_is_unpacked_once_and_what_was_changed_is_put_right() {
    for pack in [|bytes: &[u8]| bytes.to_vec(), zipped, xz] {
        let mut stage = Stage::rooted();
        stage.diff = true;
        let bytes = pack(&program());
        fs::write(stage.path("a.tar"), bytes).unwrap();
        let more = [("strip", 1.into()), ("owner", 7.into())];
        stage.check = true;
        let told = unpack(&mut stage, &more);
        assert_changed(&told);
        assert_eq!(stage.names(), ["a.tar"]);
        stage.check = false;
        let done = unpack(&mut stage, &more);
        assert_changed(&done);
        assert_eq!((done.message.as_str(), &done.diff), ("5 made", &told.diff));
        assert_eq!(stage.read("opt/bin/latest"), "#!/bin/sh\n");
        let stat = |stage: &Stage, name: &str| {
            let found = fs::metadata(stage.path(name)).unwrap();
            (found.mode() & 0o7777, found.uid())
        };
        assert_eq!(stat(&stage, "opt/bin/app"), (0o755, 7), "no set-id bit, not written by all");
        assert_eq!((stat(&stage, "opt/etc"), stat(&stage, "opt/etc/app.conf")), ((0o750, 7), (0o600, 7)));
        assert_eq!(stage.read(&format!("opt/{}", "n".repeat(200))), "y");
        fs::write(stage.path("opt/others"), "stays").unwrap();
        let files = ["opt", "opt/bin", "opt/bin/app", "opt/bin/latest", "opt/etc", "opt/etc/app.conf"];
        let before = files.map(|file| trace(stage.path(file)));
        assert_ok(&unpack(&mut stage, &more));
        assert_eq!(before, files.map(|file| trace(stage.path(file))));
        fs::write(stage.path("opt/bin/app"), "#!/bin/no\n").unwrap();
        fs::remove_file(stage.path("opt/bin/latest")).unwrap();
        std::os::unix::fs::chown(stage.path("opt/etc/app.conf"), Some(8), None).unwrap();
        assert_eq!(unpack(&mut stage, &more).message, "1 made, 1 replaced, 1 given other attributes");
        assert_ok(&unpack(&mut stage, &more));
        assert_eq!((stage.read("opt/bin/app"), stage.read("opt/others")), ("#!/bin/sh\n".into(), "stays".into()));
    }
}

#[test]
fn nothing_is_unpacked_of_an_archive_that_is_not_safe() {
    use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let first = ("good", Regular, "", &b"x"[..]);
    for entries in [
        [first, ("../evil", Regular, "", b"x")],
        [first, ("/evil", Regular, "", b"x")],
        [first, ("a/../../evil", Regular, "", b"x")],
        [first, ("evil", Symlink, "/etc", b"")],
        [first, ("evil", Symlink, "../..", b"")],
        [first, ("evil", Symlink, "a/../../..", b"")],
        [("evil", Symlink, "good", b""), ("evil/x", Regular, "", b"x")],
        [first, ("evil", Link, "good", b"")],
        [first, ("evil", Char, "", b"")],
        [first, ("evil", Block, "", b"")],
        [first, ("evil", Fifo, "", b"")],
        [first, first],
        [first, ("good", Directory, "", b"")],
    ] {
        let mut stage = Stage::rooted();
        fs::create_dir(stage.path("opt")).unwrap();
        fs::write(stage.path("a.tar"), archive(&entries)).unwrap();
        assert_failed(&unpack(&mut stage, &[]), "UnsafeEntry");
        assert_eq!(stage.names(), ["a.tar", "opt"]);
        assert_eq!(fs::read_dir(stage.path("opt")).unwrap().count(), 0, "{:?}", entries[1].0);
    }
}

#[test]
fn links_that_are_there_already_are_not_unpacked_through() {
    let mut stage = Stage::rooted();
    fs::create_dir_all(stage.path("opt")).unwrap();
    fs::create_dir_all(stage.path("etc")).unwrap();
    symlink("/etc", stage.path("opt/dir")).unwrap();
    fs::write(stage.path("a.tar"), archive(&[("dir/passwd", EntryType::Regular, "", b"x")])).unwrap();
    assert_failed(&unpack(&mut stage, &[]), "LinkInTheWay");
    assert_eq!(fs::read_dir(stage.path("etc")).unwrap().count(), 0);
    fs::remove_file(stage.path("opt/dir")).unwrap();
    symlink("/etc", stage.path("opt/passwd")).unwrap();
    fs::write(stage.path("a.tar"), archive(&[("passwd", EntryType::Regular, "", b"x")])).unwrap();
    assert_failed(&unpack(&mut stage, &[]), "WrongKind");
}

#[test]
fn bombs_and_what_is_no_archive_are_named_before_anything_is_written() {
    let mut stage = Stage::rooted();
    let source = stage.path("a.tar");
    let file = |content: &[u8]| archive(&[("file", EntryType::Regular, "", content)]);
    let mut huge_name = Builder::new(Vec::new());
    add(&mut huge_name, "././@LongLink", EntryType::GNULongName, "", &vec![b'n'; 2 << 20], 0o644);
    let good = file(b"");
    let cut = zipped(&file(&[b'x'; 10_000]));
    for (bytes, reason) in [
        (zipped(&file(&vec![0; 5 << 20])), "ArchiveTooLarge"),
        (huge_name.into_inner().unwrap(), "ArchiveTooLarge"),
        (b"\xfd7zXZ\0rest".to_vec(), "BrokenArchive"),
        (b"PK\x03\x04rest".to_vec(), "BrokenArchive"),
        (b"BZh91AY&SY".to_vec(), "UnknownFormat"),
        (b"\x28\xb5\x2f\xfdrest".to_vec(), "UnknownFormat"),
        (xz(&file(&vec![0; 5 << 20])), "ArchiveTooLarge"),
        (zip(&[("file", 0o100_644, &[0; 5 << 20])]), "ArchiveTooLarge"),
        (xz(&file(&[b'x'; 10_000]))[..80].to_vec(), "BrokenArchive"),
        (b"no archive at all, but long enough to be a header ".repeat(20), "BrokenArchive"),
        (cut[..cut.len() / 2].to_vec(), "BrokenArchive"),
        (Vec::new(), "EmptyArchive"),
    ] {
        fs::write(&source, bytes).unwrap();
        assert_failed(&unpack(&mut stage, &[("maxBytes", (4 << 20).into())]), reason);
        assert_eq!(stage.names(), ["a.tar"], "{reason}");
    }
    fs::write(&source, good).unwrap();
    assert_failed(
        &unpack(&mut stage, &[("checksum", format!("sha256:{}", "0".repeat(64)).into())]),
        "ChecksumMismatch",
    );
    assert_failed(&unpack(&mut stage, &[("strip", 1.into())]), "EmptyArchive");
    fs::remove_file(&source).unwrap();
    assert_failed(&unpack(&mut stage, &[]), "FileMissing");
    stage.check = true;
    assert_eq!(unpack(&mut stage, &[]).outcome, Outcome::Unpredicted);
}

#[test]
fn a_zip_is_unpacked_once_and_what_was_changed_is_put_right() {
    let mut stage = Stage::rooted();
    stage.diff = true;
    let bytes = zip(&[
        ("app-1.0/", 0o040_750, b""),
        ("app-1.0/bin/app", 0o104_755, b"#!/bin/sh\n"),
        ("app-1.0/bin/latest", 0o120_777, b"app"),
        ("app-1.0/etc/app.conf", 0o100_600, &[b'x'; 200_000]),
        ("app-1.0/\u{fc}", 0o100_644, b"y"),
    ]);
    fs::write(stage.path("a.tar"), bytes).unwrap();
    let more = [("strip", 1.into())];
    stage.check = true;
    let told = unpack(&mut stage, &more);
    assert_changed(&told);
    assert_eq!(stage.names(), ["a.tar"]);
    stage.check = false;
    let done = unpack(&mut stage, &more);
    assert_eq!((done.message.as_str(), &done.diff), ("4 made", &told.diff));
    assert_eq!((stage.read("opt/bin/latest"), stage.read("opt/\u{fc}")), ("#!/bin/sh\n".into(), "y".into()));
    let mode = |stage: &Stage, name: &str| fs::metadata(stage.path(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode(&stage, "opt/bin/app"), mode(&stage, "opt/etc/app.conf")), (0o755, 0o600));
    let files = ["opt", "opt/bin", "opt/bin/app", "opt/bin/latest", "opt/etc/app.conf"];
    let before = files.map(|file| trace(stage.path(file)));
    assert_ok(&unpack(&mut stage, &more));
    assert_eq!(before, files.map(|file| trace(stage.path(file))));
    fs::write(stage.path("opt/bin/app"), "#!/bin/no\n").unwrap();
    fs::remove_file(stage.path("opt/bin/latest")).unwrap();
    assert_eq!(unpack(&mut stage, &more).message, "1 made, 1 replaced");
    assert_ok(&unpack(&mut stage, &more));
}

#[test]
fn nothing_is_unpacked_of_a_zip_that_is_not_safe() {
    let first = ("good", 0o100_644, &b"x"[..]);
    let mut encrypted = zip(&[first]);
    // The flag is in the header and in the directory.
    for begin in [&b"PK\x03\x04"[..], b"PK\x01\x02"] {
        let at = encrypted.windows(4).position(|four| four == begin).unwrap();
        encrypted[at + if begin[2] == 3 { 6 } else { 8 }] |= 1;
    }
    // The second entry's header is said to be where the first one's is.
    let mut shared = zip(&[("good", 0o100_644, &[b'x'; 100]), ("evil", 0o100_644, &[b'x'; 100])]);
    let at = shared.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
    shared[at + 42..at + 46].fill(0);
    // It says that it holds one byte.
    let mut longer = zip(&[("good", 0o100_644, &[b'x'; 5000])]);
    for (begin, offset) in [(&b"PK\x03\x04"[..], 22), (b"PK\x01\x02", 24)] {
        let at = longer.windows(4).position(|four| four == begin).unwrap();
        longer[at + offset..at + offset + 4].copy_from_slice(&1u32.to_le_bytes());
    }
    let mut twice = zip(&[("good", 0o100_644, b"x"), ("evil", 0o100_644, b"y")]);
    for at in (0..twice.len() - 4).filter(|at| twice[*at..].starts_with(b"evil")).collect::<Vec<_>>() {
        twice[at..at + 4].copy_from_slice(b"good");
    }
    for (bytes, reasons) in [
        (zip(&[first, ("../evil", 0o100_644, b"x")]), &["UnsafeEntry"][..]),
        (zip(&[first, ("/evil", 0o100_644, b"x")]), &["UnsafeEntry"]),
        (zip(&[first, ("evil", 0o120_777, b"/etc")]), &["UnsafeEntry"]),
        (zip(&[first, ("evil", 0o120_777, b"../..")]), &["UnsafeEntry"]),
        (zip(&[("evil", 0o120_777, b"good"), ("evil/x", 0o100_644, b"x")]), &["UnsafeEntry"]),
        (encrypted, &["UnknownFormat"]),
        (shared, &["UnsafeEntry", "BrokenArchive"]),
        (longer, &["BrokenArchive", "Failed"]),
        (twice, &["UnsafeEntry"]),
        (zip(&[]), &["EmptyArchive"]),
    ] {
        let mut stage = Stage::rooted();
        fs::create_dir(stage.path("opt")).unwrap();
        fs::write(stage.path("a.tar"), bytes).unwrap();
        let done = unpack(&mut stage, &[]);
        let reason = done.result.get("reason").and_then(Value::as_text).unwrap_or_default();
        assert!(done.outcome == Outcome::Failed && reasons.contains(&reason), "{reasons:?}: {}", done.message);
        assert_eq!(stage.names(), ["a.tar", "opt"]);
        assert!(crate::stage::names(&stage.dir.path().join("opt")).is_empty(), "{reasons:?}: {}", done.message);
    }
}
