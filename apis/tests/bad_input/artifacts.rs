//! Where a release comes from, and what it is.

use crate::table::{at_part, check};

#[test]
fn artifacts_are_refused_before_they_reach_a_node() {
    let given = |more: &str| {
        let sum = "0".repeat(64);
        format!("artifact.installed: {{url: 'https://h/a', checksum: 'sha256:{sum}', path: /opt/a, {more}}}")
    };
    check(vec![
        at_part("no version", &given(""), "{", "Required", "spec.tasks[0].artifact.installed.version"),
        at_part(
            "B47 version",
            &given("version: '../1'"),
            "'../1'",
            "Pattern",
            "spec.tasks[0].artifact.installed.version",
        ),
        at_part(
            "B47 name",
            &given("version: '1', name: a/b"),
            "a/b",
            "Pattern",
            "spec.tasks[0].artifact.installed.name",
        ),
        at_part(
            "B51 no checksum",
            "artifact.installed: {url: 'https://h/a', path: /opt/a, version: '1'}",
            "{",
            "Required",
            "spec.tasks[0].artifact.installed.checksum",
        ),
        at_part(
            "B51 checksum",
            "artifact.installed: {url: 'https://h/a', path: /opt/a, version: '1', checksum: md5:0}",
            "md5:0",
            "Checksum",
            "spec.tasks[0].artifact.installed.checksum",
        ),
        at_part(
            "scheme",
            "artifact.installed: {url: 'ftp://h/a', path: /opt/a, version: '1', checksum: x}",
            "'ftp",
            "InvalidURL",
            "spec.tasks[0].artifact.installed.url",
        ),
    ]);
}
