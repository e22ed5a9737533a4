//! Parameters of actions: what is refused before it reaches a node. What a node refuses is in the modules' own tests.

use lockstep_apis::manifest;

use crate::table::{Row, at_part, check, row, task};

#[test]
fn parameters_of_modules_are_checked_at_apply() {
    let mut rows: Vec<Row> = Vec::new();
    let (long, part) = (format!("/{}", "a/".repeat(2048)), format!("/{}", "a".repeat(256)));
    for path in ["etc/motd", "", "/", "/a/../b", "/etc/", "//host", "/./a", &long, &part] {
        rows.push(row(
            "B47",
            task(&format!("file.managed: {{path: \"{path}\"}}")),
            "InvalidPath",
            (4, 26),
            "spec.tasks[0].file.managed.path",
        ));
    }
    for name in
        ["", "--reinstall", "foo;rm -rf /", "foo=", "=1", "a b", "a=1 b", "foo=-1", "a*", "a|b", "/tmp/x.deb", "a\\n"]
    {
        rows.push(row(
            "B55",
            task(&format!("package.installed: {{names: [\"{name}\"]}}")),
            "InvalidPackage",
            (4, 33),
            "spec.tasks[0].package.installed.names[0]",
        ));
    }
    for mode in ["999", "07777", "u+s", "", "44"] {
        let text = task(&format!("file.managed: {{path: /a, mode: \"{mode}\"}}"));
        rows.push(row("B50", text, "InvalidMode", (4, 36), "spec.tasks[0].file.managed.mode"));
    }
    rows.extend([
        row(
            "B51 both",
            task("file.managed: {path: /a, content: a, template: b}"),
            "OneOf",
            (4, 19),
            "spec.tasks[0].file.managed",
        ),
        row(
            "B51 no folder",
            task("file.managed: {path: /a, template: {file: ./x.hbs}}"),
            "NeedsFolder",
            (4, 47),
            "spec.tasks[0].file.managed.template.file",
        ),
        row(
            "B51 elsewhere",
            task("file.managed: {path: /a, template: {file: a/../../x}}"),
            "InvalidPath",
            (4, 47),
            "spec.tasks[0].file.managed.template.file",
        ),
        row(
            "B51 more than a file",
            task("file.managed: {path: /a, template: {file: x, mode: y}}"),
            "TypeMismatch",
            (4, 40),
            "spec.tasks[0].file.managed.template",
        ),
        row(
            "B51 checksum",
            task("file.managed: {path: /a, checksum: md5:00}"),
            "Checksum",
            (4, 40),
            "spec.tasks[0].file.managed.checksum",
        ),
        row("B52 empty", task("command.run: {argv: []}"), "OutOfRange", (4, 25), "spec.tasks[0].command.run.argv"),
        row(
            "B52 empty program",
            task("command.run: {argv: [\"\"]}"),
            "OutOfRange",
            (4, 26),
            "spec.tasks[0].command.run.argv",
        ),
        row("B52 text", task("command.run: {argv: ls -l}"), "TypeMismatch", (4, 25), "spec.tasks[0].command.run.argv"),
        row(
            "B52 number",
            task("command.run: {argv: [sleep, 5]}"),
            "TypeMismatch",
            (4, 33),
            "spec.tasks[0].command.run.argv[1]",
        ),
        row("B52 neither", task("command.run:"), "OneOf", (4, 5), "spec.tasks[0].command.run"),
        row("B52 both", task("command.run: {argv: [a], shell: a}"), "OneOf", (4, 18), "spec.tasks[0].command.run"),
        row(
            "required",
            task("file.directory: {mode: \"0755\"}"),
            "Required",
            (4, 21),
            "spec.tasks[0].file.directory.path",
        ),
        row(
            "unit",
            task("service.running: {name: --now}"),
            "InvalidUnit",
            (4, 29),
            "spec.tasks[0].service.running.name",
        ),
        row("unit", task("service.stopped: a/b"), "InvalidUnit", (4, 22), "spec.tasks[0].service.stopped"),
        row(
            "url",
            task("http.request: {url: \"https://u:p@h/\"}"),
            "InvalidURL",
            (4, 25),
            "spec.tasks[0].http.request.url",
        ),
        row(
            "url",
            task("http.request: {url: \"file:///etc/passwd\"}"),
            "InvalidURL",
            (4, 25),
            "spec.tasks[0].http.request.url",
        ),
        row(
            "method",
            task("http.request: {url: \"http://h/\", method: get}"),
            "Pattern",
            (4, 46),
            "spec.tasks[0].http.request.method",
        ),
        row(
            "B56 unsigned",
            task("package.repository: {name: r, uris: [\"https://h/\"], suites: [s], components: [c]}"),
            "OneOf",
            (4, 25),
            "spec.tasks[0].package.repository",
        ),
        row(
            "B56 key id",
            task("package.repository: {name: r, key: \"0xDEADBEEF\"}"),
            "Pattern",
            (4, 40),
            "spec.tasks[0].package.repository.key",
        ),
        row(
            "B56 injection",
            task("package.repository: {name: r, unsigned: true, uris: [\"https://h/\\nTrusted: yes\"]}"),
            "Pattern",
            (4, 58),
            "spec.tasks[0].package.repository.uris[0]",
        ),
        row("sleep", task("time.sleep: 5"), "Duration", (4, 17), "spec.tasks[0].time.sleep"),
    ]);
    check(rows);
}

#[test]
fn parameters_of_edits_are_refused_before_they_reach_a_node() {
    check(vec![
        at_part("no line", "file.line: {path: /a}", "{", "Required", "spec.tasks[0].file.line.line"),
        at_part("no pattern", "file.line: {path: /a, absent: true}", "{", "Required", "spec.tasks[0].file.line.line"),
        at_part(
            "two lines",
            r#"file.line: {path: /a, line: "a\nb"}"#,
            "\"a",
            "Pattern",
            "spec.tasks[0].file.line.line",
        ),
        at_part(
            "pattern",
            "file.line: {path: /a, line: a, regexp: '('}",
            "'('",
            "Pattern",
            "spec.tasks[0].file.line.regexp",
        ),
        at_part(
            "drift",
            "file.line: {path: /a, line: a, regexp: '^b'}",
            "'^b'",
            "Pattern",
            "spec.tasks[0].file.line.regexp",
        ),
        at_part(
            "two places",
            "file.line: {path: /a, line: a, insertAfter: a, insertBefore: b}",
            "{",
            "OneOf",
            "spec.tasks[0].file.line",
        ),
        at_part(
            "near",
            "file.line: {path: /a, line: a, regex: a}",
            "regex:",
            "UnknownField",
            "spec.tasks[0].file.line.regex",
        ),
        at_part("no name", "file.block: {path: /a, content: a}", "{", "Required", "spec.tasks[0].file.block.name"),
        at_part(
            "both",
            "file.block: {path: /a, name: a, content: a, absent: true}",
            "{",
            "OneOf",
            "spec.tasks[0].file.block",
        ),
        at_part("nothing", "file.content: {path: /a}", "{", "OneOf", "spec.tasks[0].file.content"),
        at_part("nothing", "file.replaced: {path: /a}", "{", "Required", "spec.tasks[0].file.replaced.regexp"),
        at_part(
            "nothing",
            "file.replaced: {path: /a, regexp: ''}",
            "''",
            "Pattern",
            "spec.tasks[0].file.replaced.regexp",
        ),
        at_part("target", "file.symlink: {path: /a, target: ''}", "''", "Pattern", "spec.tasks[0].file.symlink.target"),
        at_part("path", "file.symlink: {path: a, target: b}", "a, ", "InvalidPath", "spec.tasks[0].file.symlink.path"),
    ]);
}

#[test]
fn parameters_of_accounts_are_refused_before_they_reach_a_node() {
    let found = manifest::decode("in.yaml", task("user.present: {name: a, password: hunter2}").as_bytes(), None);
    assert!(found.unwrap_err().iter().all(|violation| !violation.message.contains("hunter2")));
    check(vec![
        at_part("name", "user.present: {name: '-R'}", "'-R'", "Pattern", "spec.tasks[0].user.present.name"),
        at_part("name", "group.absent: 'a:b'", "'a:b'", "Pattern", "spec.tasks[0].group.absent"),
        at_part("B50 uid", "user.present: {name: a, uid: -1}", "-1", "OutOfRange", "spec.tasks[0].user.present.uid"),
        at_part(
            "B50 gid",
            "group.present: {name: a, gid: 4294967295}",
            "4294967295",
            "OutOfRange",
            "spec.tasks[0].group.present.gid",
        ),
        at_part(
            "B46",
            "user.present: {name: a, password: hunter2}",
            "hunter2",
            "InlineSecret",
            "spec.tasks[0].user.present.password",
        ),
        at_part(
            "shell",
            "user.present: {name: a, shell: bash}",
            "bash",
            "InvalidPath",
            "spec.tasks[0].user.present.shell",
        ),
        at_part(
            "day",
            "user.present: {name: a, expires: tomorrow}",
            "tomorrow",
            "Pattern",
            "spec.tasks[0].user.present.expires",
        ),
        at_part(
            "near",
            "user.present: {name: a, shel: /bin/sh}",
            "shel:",
            "UnknownField",
            "spec.tasks[0].user.present.shel",
        ),
    ]);
}

#[test]
fn parameters_of_the_machine_are_refused_before_they_reach_a_node() {
    let cron = |schedule: &str| format!("cron.entry: {{name: a, command: b, schedule: '{schedule}'}}");
    let wrong = "* * * *|0 0 * * * *|0 0 0 * * * *|60 * * * *|* 24 * * *|0 0 0 * *|0 0 * * 8|*/0 * * * *|5-1 * * * *\
                 |1,,2 * * * *|@evry 5m|@dayly|? * * * *|0 0 L * *|0 0 W * *|0 0 * * 5#3|TZ=UTC * * * * *|* * * * mon-sun";
    let never = "0 0 31 2 *|0 0 30 2 *";
    let table = [("B32", wrong), ("B33", never)];
    let mut rows: Vec<Row> = table
        .iter()
        .flat_map(|(number, bad)| bad.split('|').map(move |bad| (*number, bad)))
        .map(|(number, bad)| at_part(number, &cron(bad), "'", "Schedule", "spec.tasks[0].cron.entry.schedule"))
        .collect();
    rows.extend([
        at_part(
            "no schedule",
            "cron.entry: {name: a, command: b}",
            "{",
            "Required",
            "spec.tasks[0].cron.entry.schedule",
        ),
        at_part("name", "cron.entry: {name: a.b, absent: true}", "a.b", "Pattern", "spec.tasks[0].cron.entry.name"),
        at_part("name", "sysctl.set: {name: ../x, value: '1'}", "../x", "Pattern", "spec.tasks[0].sysctl.set.name"),
        at_part("number", "sysctl.set: {name: a.b, value: 1}", "1}", "TypeMismatch", "spec.tasks[0].sysctl.set.value"),
        at_part("name", "hostname.set: -a", "-a", "Pattern", "spec.tasks[0].hostname.set"),
        at_part(
            "option",
            "mount.present: {path: /a, source: -o, type: b}",
            "-o",
            "Pattern",
            "spec.tasks[0].mount.present.source",
        ),
        at_part(
            "blank",
            "mount.present: {path: /a, source: b, type: c d}",
            "c d",
            "Pattern",
            "spec.tasks[0].mount.present.type",
        ),
        at_part("path", "mount.unmounted: data", "data", "InvalidPath", "spec.tasks[0].mount.unmounted"),
    ]);
    check(rows);
}

#[test]
fn parameters_of_archives_are_refused_before_they_reach_a_node() {
    let field = "spec.tasks[0].archive.unpacked.strip";
    check(vec![
        at_part("source", "archive.unpacked: {path: /a}", "{", "Required", "spec.tasks[0].archive.unpacked.source"),
        at_part(
            "path",
            "archive.unpacked: {path: a, source: /b}",
            "a, ",
            "InvalidPath",
            "spec.tasks[0].archive.unpacked.path",
        ),
        at_part("strip", "archive.unpacked: {path: /a, source: /b, strip: -1}", "-1", "OutOfRange", field),
        at_part("near", "archive.unpaked: {path: /a}", "archive", "UnknownAction", "spec.tasks[0].archive.unpaked"),
    ]);
}

#[test]
fn parameters_of_scripts_and_waits_are_refused_before_they_reach_a_node() {
    check(vec![
        at_part("B52 neither", "command.script: {args: [a]}", "{", "OneOf", "spec.tasks[0].command.script"),
        at_part("B52 both", "command.script: {script: a, template: b}", "{", "OneOf", "spec.tasks[0].command.script"),
        at_part(
            "B52 text",
            "command.script: {script: a, args: b}",
            "b}",
            "TypeMismatch",
            "spec.tasks[0].command.script.args",
        ),
        at_part("nothing", "wait.for: {interval: 1s}", "{", "OneOf", "spec.tasks[0].wait.for"),
        at_part("port", "wait.for: {port: 65536}", "65536", "OutOfRange", "spec.tasks[0].wait.for.port"),
        at_part("both", "wait.for: {port: 1, path: /a}", "{", "OneOf", "spec.tasks[0].wait.for"),
        at_part("fast", "wait.for: {port: 1, interval: 1ms}", "1ms", "Duration", "spec.tasks[0].wait.for.interval"),
        at_part("empty", "debug.print: {}", "{", "Required", "spec.tasks[0].debug.print.message"),
        at_part("near", "debug.pint: a", "debug", "UnknownAction", "spec.tasks[0].debug.pint"),
    ]);
}

#[test]
fn what_a_task_raises_is_checked_before_it_reaches_a_node() {
    let long = format!("event.raise: {{type: a, message: {}}}", "x".repeat(1025));
    check(vec![
        at_part("type", "event.raise: Deploy done", "Deploy", "Pattern", "spec.tasks[0].event.raise"),
        at_part(
            "severity",
            "event.raise: {type: a, severity: Warn}",
            "Warn",
            "TypeMismatch",
            "spec.tasks[0].event.raise.severity",
        ),
        at_part("message", &long, "xxx", "TooLarge", "spec.tasks[0].event.raise.message"),
        at_part("nothing", "event.raise: {severity: Info}", "{", "Required", "spec.tasks[0].event.raise.type"),
        at_part("refresh", "facts.refresh: {all: true}", "all", "UnknownField", "spec.tasks[0].facts.refresh.all"),
        at_part("reboot", "reboot.now: {argv: reboot}", "reboot}", "TypeMismatch", "spec.tasks[0].reboot.now.argv"),
        at_part("near", "reboot.nwo: {}", "reboot", "UnknownAction", "spec.tasks[0].reboot.nwo"),
    ]);
}
