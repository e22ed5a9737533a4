//! Runs: counts, durations, tasks, handlers, and what keeps Runs apart.

use crate::table::{Row, TASKS, book, check, row, run, task};

#[test]
fn counts_durations_and_tasks_are_held_to_their_ranges() {
    let mut rows: Vec<Row> = Vec::new();
    for count in ["0", "-1", "0%", "101%", "\"33\"", "1.5"] {
        let text = book(&format!("runOptions: {{serialize: {count}}}\n{TASKS}"));
        rows.push(row("B29", text, "OutOfRange", (3, 27), "spec.runOptions.serialize"));
    }
    let list = book(&format!("runOptions: {{serialize: {{count: [1, 0]}}}}\n{TASKS}"));
    rows.push(row("B29 list", list, "OutOfRange", (3, 39), "spec.runOptions.serialize.count[1]"));
    let empty = book(&format!("runOptions: {{serialize: {{count: []}}}}\n{TASKS}"));
    rows.push(row("B29 empty", empty, "OutOfRange", (3, 35), "spec.runOptions.serialize.count"));
    for timeout in ["0", "-5s", "5", "1y", "1h1h", "99999999999h", "5 m", "PT5M", "8d", "0s", "[1h]"] {
        let reason = if timeout == "[1h]" { "TypeMismatch" } else { "Duration" };
        rows.push(row(
            "B31",
            book(&format!("runOptions: {{timeout: {timeout}}}\n{TASKS}")),
            reason,
            (3, 25),
            "spec.runOptions.timeout",
        ));
    }
    let gate = |gate: &str| book(&format!("runOptions: {{serialize: {{count: 1, gate: {gate}}}}}\n{TASKS}"));
    let looks = |rest: &str| gate(&format!("{{check: [{{id: a, command.query: {{argv: [x]}}}}], {rest}}}"));
    rows.extend([
        row("gate alone", gate("{}"), "Required", (3, 44), "spec.runOptions.serialize.gate.check"),
        row("gate empty", gate("{check: []}"), "OutOfRange", (3, 52), "spec.runOptions.serialize.gate.check"),
        row("gate misspelt", looks("soaks: 1s"), "UnknownField", (3, 91), "spec.runOptions.serialize.gate.soaks"),
        row(
            "gate limit",
            looks("retry: {limit: 0}"),
            "OutOfRange",
            (3, 106),
            "spec.runOptions.serialize.gate.retry.limit",
        ),
        row(
            "gate interval",
            looks("retry: {interval: 0s}"),
            "Duration",
            (3, 109),
            "spec.runOptions.serialize.gate.retry.interval",
        ),
        row(
            "throttle",
            task("time.sleep: 1s\n  delegateTo: {nodes: [a]}\n  throttle: 33"),
            "OutOfRange",
            (6, 15),
            "spec.tasks[0].throttle",
        ),
        row(
            "delegate nobody",
            task("time.sleep: 1s\n  delegateTo: {}"),
            "EmptySelector",
            (5, 17),
            "spec.tasks[0].delegateTo",
        ),
        row("gate soak", looks("soak: 2d"), "Duration", (3, 97), "spec.runOptions.serialize.gate.soak"),
    ]);
    let many = book(&format!("tasks:\n{}", "- {command.run: {argv: [a]}}\n".repeat(10_001)));
    rows.extend([
        row(
            "B30 two actions",
            task("command.run: {argv: [a]}\n  time.sleep: 1s"),
            "TwoActions",
            (5, 5),
            "spec.tasks[0]",
        ),
        row(
            "B30 action twice",
            task("command.run: {argv: [a]}\n  action: time.sleep"),
            "TwoActions",
            (5, 13),
            "spec.tasks[0]",
        ),
        row("B30 no action", task("name: nothing"), "NoAction", (4, 5), "spec.tasks[0]"),
        row("B30 block", task("block: [{time.sleep: 1s}]\n  time.sleep: 1s"), "TwoActions", (5, 5), "spec.tasks[0]"),
        row("B30 empty block", task("block: []"), "OutOfRange", (4, 12), "spec.tasks[0].block"),
        row("B30 in a block", task("block: [{name: a}]"), "NoAction", (4, 13), "spec.tasks[0].block[0]"),
        row(
            "result of a block",
            task("block: [{time.sleep: 1s}]\n  success: true"),
            "NoMatch",
            (5, 5),
            "spec.tasks[0].success",
        ),
        row(
            "rescue of nothing",
            task("time.sleep: 1s\n  rescue: [{time.sleep: 1s}]"),
            "NoMatch",
            (5, 5),
            "spec.tasks[0].rescue",
        ),
        row(
            "in a rescue",
            task("block: [{time.sleep: 1s}]\n  rescue: [{comand.run: {argv: [a]}}]"),
            "UnknownAction",
            (5, 15),
            "spec.tasks[0].rescue[0].comand.run",
        ),
        row("loop of a block", task("block: [{time.sleep: 1s}]\n  loop: [1]"), "NoMatch", (5, 5), "spec.tasks[0].loop"),
        row("limit alone", task("time.sleep: 1s\n  loopLimit: 5"), "NoMatch", (5, 5), "spec.tasks[0].loopLimit"),
        row(
            "limit",
            task("time.sleep: 1s\n  loop: [1]\n  loopLimit: 10001"),
            "OutOfRange",
            (6, 16),
            "spec.tasks[0].loopLimit",
        ),
        row("B30 no tasks", book("tasks: []"), "EmptyTaskBook", (3, 10), "spec.tasks"),
        row(
            "B30 absent",
            "metadata: {apiVersion: v1alpha, kind: TaskBook, name: a}",
            "EmptyTaskBook",
            (1, 1),
            "spec.tasks",
        ),
        row("B38 tasks", many, "TooLarge", (4, 5), "spec.tasks"),
        row("run of nothing", "metadata: {apiVersion: v1alpha, kind: Run, name: a}\nspec: {}", "OneOf", (2, 7), "spec"),
        row("run of both", run("tasks: [{time.sleep: 1s}]"), "OneOf", (3, 3), "spec"),
        row("priority", run("priority: 1001"), "OutOfRange", (4, 13), "spec.priority"),
        row("unknown action", task("comand.run: {argv: [a]}"), "UnknownAction", (4, 5), "spec.tasks[0].comand.run"),
        row(
            "unknown parameter",
            task("command.run: {arvg: [a]}"),
            "UnknownField",
            (4, 19),
            "spec.tasks[0].command.run.arvg",
        ),
        row(
            "bare expression",
            task("when: ${{ true }}\n  time.sleep: 1s"),
            "Expression",
            (4, 11),
            "spec.tasks[0].when",
        ),
        row(
            "enum",
            book(&format!("runOptions: {{onFailure: StopNwo}}\n{TASKS}")),
            "TypeMismatch",
            (3, 27),
            "spec.runOptions.onFailure",
        ),
        row(
            "pattern",
            book(&format!("inputs: {{a: {{type: string, pattern: \"(\"}}}}\n{TASKS}")),
            "Pattern",
            (3, 39),
            "spec.inputs.a.pattern",
        ),
        row("no retries", task("retries: 0\n  time.sleep: 1s"), "OutOfRange", (4, 14), "spec.tasks[0].retries"),
        row(
            "interval",
            task("retries: {interval: 25h}\n  time.sleep: 1s"),
            "Duration",
            (4, 25),
            "spec.tasks[0].retries.interval",
        ),
        row(
            "environment",
            task("environment: {1A: b}\n  time.sleep: 1s"),
            "InvalidName",
            (4, 19),
            "spec.tasks[0].environment.1A",
        ),
        row("include", task("include: base\n  time.sleep: 1s"), "TwoActions", (5, 5), "spec.tasks[0]"),
        row("include", task("include: {inputs: {}}"), "OneOf", (4, 14), "spec.tasks[0].include"),
        row("include", task("include: Base"), "InvalidName", (4, 14), "spec.tasks[0].include"),
        row("include", task("include: base\n  always: [{time.sleep: 1s}]"), "NoMatch", (5, 5), "spec.tasks[0].always"),
        row("tag", task("tags: [a, b c]\n  time.sleep: 1s"), "Pattern", (4, 15), "spec.tasks[0].tags[1]"),
        row("tag of a run", run("skipTags: -x"), "Pattern", (4, 13), "spec.skipTags"),
    ]);
    check(rows);
}

#[test]
fn what_keeps_runs_apart_is_checked_at_apply() {
    check(vec![
        row(
            "no key",
            book(&format!("concurrency: {{policy: Queue}}\n{TASKS}")),
            "Required",
            (3, 16),
            "spec.concurrency.key",
        ),
        row(
            "policy",
            book(&format!("concurrency: {{key: a, policy: Forbid}}\n{TASKS}")),
            "TypeMismatch",
            (3, 33),
            "spec.concurrency.policy",
        ),
        row(
            "mode",
            book(&format!("locks: [{{name: a, mode: Wrtie}}]\n{TASKS}")),
            "TypeMismatch",
            (3, 27),
            "spec.locks[0].mode",
        ),
        row(
            "too many locks",
            book(&format!("locks: [{}]\n{TASKS}", (0..17).map(|n| format!("l{n},")).collect::<String>())),
            "TooLarge",
            (3, 10),
            "spec.locks",
        ),
        row("text", book(&format!("concurrency: a\n{TASKS}")), "TypeMismatch", (3, 16), "spec.concurrency"),
    ]);
}
