//! Where a commit comes from: what never reaches the program git.

use lockstep_apis::manifest;

use crate::table::{Row, at_part, check, row, task};

#[test]
fn repositories_are_refused_before_they_reach_a_node() {
    let mut rows: Vec<Row> = Vec::new();
    for url in [
        "file://etc/passwd",
        "file:///a/../../etc",
        "ext::sh -c id",
        "-u./x",
        "--upload-pack=x",
        "ssh://-oProxyCommand=x/",
        "ssh://-oProxyCommand=x/a",
        "https://u:hunter2@h/a",
        "ssh://git:hunter2@h/a",
        "git@h:../..",
        "https://h/a\\nb",
        "https://gіthub.com/a",
        "https://169.254.169.254/latest/meta-data",
        "https://h/a/../b",
        "git://h/a",
    ] {
        let text = task(&format!("git.checkout: {{path: /a, url: \"{url}\"}}"));
        let found = manifest::decode("in.yaml", text.as_bytes(), None).unwrap_err();
        assert!(found.iter().all(|violation| !violation.message.contains("hunter2")), "{found:?}");
        rows.push(row("B67", text, "GitURL", (4, 35), "spec.tasks[0].git.checkout.url"));
    }
    let digits = "a".repeat(41);
    for name in ["--upload-pack=x", "refs/heads/..", "HEAD@{1}", "", "a b", "a^", "a:b", "a.lock", &digits] {
        let text = task(&format!("git.checkout: {{ref: \"{name}\", path: /a, url: 'https://h/a'}}"));
        rows.push(row("B68", text, "GitRef", (4, 25), "spec.tasks[0].git.checkout.ref"));
    }
    rows.extend([
        at_part(
            "B46 password",
            "git.checkout: {path: /a, url: 'https://h/a', password: hunter2}",
            "hunter2",
            "InlineSecret",
            "spec.tasks[0].git.checkout.password",
        ),
        at_part(
            "B46 key",
            "git.checkout: {path: /a, url: 'ssh://h/a', sshKey: '-----BEGIN'}",
            "'-----BEGIN'",
            "InlineSecret",
            "spec.tasks[0].git.checkout.sshKey",
        ),
    ]);
    check(rows);
}
