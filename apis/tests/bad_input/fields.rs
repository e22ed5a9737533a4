//! Fields, kinds and types.

use crate::table::{TASKS, book, check, node, row, run, task};

#[test]
fn fields_kinds_and_types_that_are_not_ours_are_refused() {
    check(vec![
        row(
            "B9 mode",
            task("file.managed: {path: /a, mode: 0644}"),
            "AmbiguousMode",
            (4, 36),
            "spec.tasks[0].file.managed.mode",
        ),
        row(
            "B9 mode octal",
            task("file.managed: {path: /a, mode: 0o644}"),
            "AmbiguousMode",
            (4, 36),
            "spec.tasks[0].file.managed.mode",
        ),
        row("B9 null", task("user: ~\n  command.run: {argv: [a]}"), "TypeMismatch", (4, 11), "spec.tasks[0].user"),
        row("B9 float", task("user: 1e3\n  command.run: {argv: [a]}"), "TypeMismatch", (4, 11), "spec.tasks[0].user"),
        row(
            "B9 infinite",
            book(&format!("variables: {{a: .inf}}\n{TASKS}")),
            "OutOfRange",
            (3, 18),
            "spec.variables.a",
        ),
        row("B9 nan", book(&format!("variables: {{a: .NaN}}\n{TASKS}")), "OutOfRange", (3, 18), "spec.variables.a"),
        row("B10 misspelt", format!("{}sepc: {{}}\n", book(TASKS)), "UnknownField", (4, 1), "sepc"),
        row("B10 case", format!("{}Status: {{}}\n", book(TASKS)), "UnknownField", (4, 1), "Status"),
        row(
            "B10 deep",
            book("targts: {all: true}\ntasks: [{command.run: {argv: [id]}}]"),
            "UnknownField",
            (3, 3),
            "spec.targts",
        ),
        row(
            "B11 word",
            book(&format!("runOptions: {{serialize: two}}\n{TASKS}")),
            "TypeMismatch",
            (3, 27),
            "spec.runOptions.serialize",
        ),
        row("B11 list", book(&format!("variables: []\n{TASKS}")), "TypeMismatch", (3, 14), "spec.variables"),
        row(
            "B11 2^63",
            book(&format!("variables: {{a: 9223372036854775808}}\n{TASKS}")),
            "OutOfRange",
            (3, 18),
            "spec.variables.a",
        ),
        row("B11 1e400", book(&format!("variables: {{a: 1e400}}\n{TASKS}")), "OutOfRange", (3, 18), "spec.variables.a"),
        row(
            "B11 -1",
            book(&format!("targets: {{all: true, limit: -1}}\n{TASKS}")),
            "OutOfRange",
            (3, 31),
            "spec.targets.limit",
        ),
        row(
            "B11 1.5",
            book(&format!("targets: {{all: true, limit: 1.5}}\n{TASKS}")),
            "TypeMismatch",
            (3, 31),
            "spec.targets.limit",
        ),
        row(
            "B11 text",
            book(&format!("targets: {{all: \"yes\"}}\n{TASKS}")),
            "TypeMismatch",
            (3, 18),
            "spec.targets.all",
        ),
        row(
            "B12 kind",
            "metadata: {apiVersion: v1alpha, kind: TaksBook, name: a}",
            "NoMatch",
            (1, 39),
            "metadata.kind",
        ),
        row(
            "B12 version",
            "metadata: {apiVersion: v2, kind: Node, name: a}",
            "NoMatch",
            (1, 24),
            "metadata.apiVersion",
        ),
        row("B12 top level", "apiVersion: apps/v1\nkind: Node\nmetadata: {name: a}", "NoMatch", (1, 13), "apiVersion"),
        row("B12 nothing", "spec: {}", "NoMatch", (1, 1), "metadata.kind"),
        row("B12 name", "metadata: {apiVersion: v1alpha, kind: Node}", "Required", (1, 11), "metadata.name"),
        row("B15 status", format!("{}status: {{liveness: Ready}}\n", node("name: a")), "Immutable", (2, 1), "status"),
        row(
            "B15 created",
            node("name: a, createdAt: \"2026-01-02T03:04:05Z\""),
            "Immutable",
            (1, 54),
            "metadata.createdAt",
        ),
        row("B15 generation", node("name: a, generation: 7"), "Immutable", (1, 54), "metadata.generation"),
        row("B15 origin", run("origin: {type: User}"), "Immutable", (4, 3), "spec.origin"),
        row("B25 junk", node("name: a, resourceVersion: abc"), "ResourceVersion", (1, 71), "metadata.resourceVersion"),
        row(
            "B25 2^64",
            node("name: a, resourceVersion: \"18446744073709551616\""),
            "ResourceVersion",
            (1, 71),
            "metadata.resourceVersion",
        ),
        row(
            "B36 year",
            node("name: a, resourceVersion: \"1\", createdAt: \"0000-01-01T00:00:00Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
        row(
            "B36 year 10000",
            node("name: a, resourceVersion: \"1\", createdAt: \"10000-01-01T00:00:00Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
        row(
            "B36 day",
            node("name: a, resourceVersion: \"1\", createdAt: \"2026-02-30T00:00:00Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
        row(
            "B36 zone",
            node("name: a, resourceVersion: \"1\", createdAt: \"2026-01-01T00:00:00\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
        row(
            "B36 nanoseconds",
            node("name: a, resourceVersion: \"1\", createdAt: \"2026-01-01T00:00:00.99999999999Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
        row(
            "B36 leap",
            node("name: a, resourceVersion: \"1\", createdAt: \"2026-01-01T00:00:60Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
    ]);
}

#[test]
fn what_comes_later_is_refused_with_a_sentence() {
    check(vec![
        row("even false", book(&format!("trustFacts: false\n{TASKS}")), "NotYet", (3, 3), "spec.trustFacts"),
        row("include", task("include: {path: a}"), "NotYet", (4, 15), "spec.tasks[0].include.path"),
        row("run as", run("runAs: cleaner"), "NotYet", (4, 3), "spec.runAs"),
        row(
            "quota",
            "metadata: {apiVersion: v1alpha, kind: Namespace, name: a}\nspec: {quota: {}}",
            "NotYet",
            (2, 8),
            "spec.quota",
        ),
    ]);
}
