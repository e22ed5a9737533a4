//! The core is pure by what it depends on: nothing that waits, tells the time, draws lots, or touches files and
//! networks is in its dependency tree.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "looks at the core from outside")]

use std::process::Command;

/// Names of packages, a trailing `*` for all that begin so. `uuid` may be there without what makes one: that would
/// bring `getrandom`.
const BANNED: &[&str] = &[
    "tokio",
    "tokio-*",
    "mio",
    "async-*",
    "futures",
    "futures-*",
    "smol",
    "tonic",
    "tonic-*",
    "tower",
    "hyper",
    "hyper-*",
    "h2",
    "reqwest",
    "socket2",
    "rustls",
    "rustls-*",
    "openssl*",
    "chrono",
    "chrono-*",
    "time",
    "jiff",
    "jiff-*",
    "iana-time-zone",
    "rand",
    "rand_*",
    "getrandom",
    "fastrand",
    "redb",
    "etcd-client",
    "rustix",
    "nix",
    "tempfile",
    "walkdir",
    "notify",
    "sysinfo",
    "tracing-subscriber",
    "signal-hook",
    "signal-hook-*",
];

#[test]
fn nothing_that_acts_is_in_the_dependency_tree() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = Command::new(cargo)
        .args(["tree", "-p", "lockstep-core", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("cargo tree prints text");
    let packages: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains(&"lockstep-apis"), "this is no dependency tree: {tree}");
    let banned = |package: &&str| {
        BANNED.iter().any(|banned| match banned.strip_suffix('*') {
            Some(start) => package.starts_with(start),
            None => package == banned,
        })
    };
    let found: Vec<&str> = packages.into_iter().filter(|package| banned(package)).collect();
    assert!(found.is_empty(), "the core depends on {found:?}");
}
