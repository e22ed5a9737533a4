//! The catalogue of bad input: every number of its sections on documents, names and references, Runs and time, and
//! modules has a test that is named here, or a reason why it cannot have one yet.

use std::{collections::BTreeSet, fs, path::Path};

/// Where a number is tested.
enum Shown {
    /// By tests, each a file of the project and a function in it. In tables of `apis` the rows are named after the number.
    By(&'static [(&'static str, &'static str)]),
    /// Nothing takes such input yet.
    NotYet(&'static str),
}

use Shown::{By, NotYet};

const DOCUMENTS: &str = "apis/tests/bad_input/documents.rs";
const FIELDS: &str = "apis/tests/bad_input/fields.rs";
const NAMES: &str = "apis/tests/bad_input/names.rs";
const RUNS: &str = "apis/tests/bad_input/runs.rs";
const ACTIONS: &str = "apis/tests/bad_input/actions.rs";
const SERVER: &str = "tests/tests/bad_input.rs";
const MEETING: &str = "tests/tests/cluster/meeting.rs";
const FAULTS: &str = "modules/tests/machine/faults.rs";
const COMMANDS: &str = "modules/tests/machine/commands.rs";
const FILES: &str = "modules/tests/machine/files.rs";

const NO_TEXT: &str = "documents_that_are_no_text_or_no_yaml_are_refused";
const BOMBS: &str = "bombs_are_refused_before_they_cost_anything";
const TYPES: &str = "fields_kinds_and_types_that_are_not_ours_are_refused";
const SYNTAX: &str = "names_labels_and_selectors_are_held_to_their_syntax";
const RANGES: &str = "counts_durations_and_tasks_are_held_to_their_ranges";
const MODULES: &str = "parameters_of_modules_are_checked_at_apply";
const SCHEDULES: &str = "no kind makes Runs on a schedule";

/// Number, what it is about, and where it is tested.
const CATALOGUE: &[(u32, &str, Shown)] = &[
    (1, "nothing in it", By(&[(DOCUMENTS, NO_TEXT)])),
    (
        2,
        "encodings",
        By(&[
            (DOCUMENTS, NO_TEXT),
            (DOCUMENTS, "a_byte_order_mark_is_dropped_and_the_violation_names_both_lines_of_a_key"),
        ]),
    ),
    (3, "tabs, quotes, escapes", By(&[(DOCUMENTS, NO_TEXT)])),
    (4, "a key twice", By(&[(DOCUMENTS, NO_TEXT)])),
    (5, "aliases", By(&[(DOCUMENTS, BOMBS)])),
    (6, "depth", By(&[(DOCUMENTS, BOMBS)])),
    (7, "tags", By(&[(DOCUMENTS, NO_TEXT)])),
    (8, "one bad document of many", By(&[(DOCUMENTS, NO_TEXT), (SERVER, "one_bad_object_of_many_stores_none")])),
    (
        9,
        "what YAML 1.1 read otherwise",
        By(&[(FIELDS, TYPES), (DOCUMENTS, "wrong_yaml_1_1_readings_are_plain_text_here")]),
    ),
    (10, "unknown fields", By(&[(FIELDS, TYPES)])),
    (11, "wrong types, numbers out of range", By(&[(FIELDS, TYPES)])),
    (12, "unknown kinds", By(&[(FIELDS, TYPES)])),
    (13, "size", By(&[(DOCUMENTS, BOMBS)])),
    (14, "JSON that is none", By(&[(DOCUMENTS, NO_TEXT)])),
    (
        15,
        "what users may not set",
        By(&[(FIELDS, TYPES), (SERVER, "an_ended_run_cannot_be_cancelled_nor_a_live_one_retried_nor_a_spec_changed")]),
    ),
    (16, "names", By(&[(NAMES, SYNTAX), (SERVER, "wrong_objects_are_refused_and_nothing_is_stored")])),
    (17, "names that a schedule makes longer", NotYet(SCHEDULES)),
    (18, "labels", By(&[(NAMES, SYNTAX)])),
    (19, "selectors", By(&[(NAMES, SYNTAX)])),
    (20, "nobody is meant", By(&[(NAMES, SYNTAX), (SERVER, "runs_that_cannot_be_are_refused_or_end_with_the_reason")])),
    (21, "references to what is not there", By(&[(SERVER, "runs_that_cannot_be_are_refused_or_end_with_the_reason")])),
    (
        22,
        "circles of references",
        By(&[
            ("daemon/core/src/compile/tests/include.rs", "a_cycle_of_includes_is_refused_with_the_whole_chain"),
            ("daemon/core/src/check/tests/ordering.rs", "every_cycle_and_every_unknown_name_is_told_at_once"),
            ("daemon/src/server/objects/tests.rs", "books_are_judged_with_what_they_include"),
        ]),
    ),
    (23, "references into other namespaces", NotYet("no field refers to another namespace")),
    (24, "roles", NotYet("roles come with certificates; no object gives one")),
    (25, "versions", By(&[(FIELDS, TYPES), (SERVER, "versions_decide_who_writes")])),
    (26, "watches from nowhere", By(&[(SERVER, "watches_from_nowhere_are_told_so")])),
    (27, "a name twice", By(&[(SERVER, "versions_decide_who_writes")])),
    (28, "patches", NotYet("there is no patch: objects are applied and updated whole")),
    (29, "counts", By(&[(RUNS, RANGES)])),
    (30, "tasks that are none", By(&[(RUNS, RANGES)])),
    (31, "durations", By(&[(RUNS, RANGES)])),
    (32, "cron expressions", By(&[(ACTIONS, "parameters_of_the_machine_are_refused_before_they_reach_a_node")])),
    (33, "times that never come", By(&[(ACTIONS, "parameters_of_the_machine_are_refused_before_they_reach_a_node")])),
    (34, "time zones", NotYet(SCHEDULES)),
    (35, "deadlines and histories of schedules", NotYet(SCHEDULES)),
    (36, "timestamps", By(&[(FIELDS, TYPES)])),
    (
        37,
        "what a Run's state does not allow",
        By(&[
            (MEETING, "b37_what_a_runs_state_does_not_allow_is_refused"),
            (SERVER, "an_ended_run_cannot_be_cancelled_nor_a_live_one_retried_nor_a_spec_changed"),
        ]),
    ),
    (
        38,
        "too many tasks, too long loops",
        By(&[(RUNS, RANGES), ("daemon/core/src/check/tests.rs", "mistakes_in_loops_are_named")]),
    ),
    (
        47,
        "paths",
        By(&[
            (ACTIONS, MODULES),
            (FAULTS, "all_actions_refuse_bad_paths_and_places_alike"),
            (FAULTS, "kernel_switches_and_devices_are_not_files"),
        ]),
    ),
    (
        48,
        "what is at the path",
        By(&[
            (FAULTS, "what_is_no_regular_file_is_named_and_left"),
            (FAULTS, "an_immutable_file_is_named_as_such"),
            (FAULTS, "a_read_only_file_system_is_named_as_such"),
            (FAULTS, "a_file_that_is_mounted_over_is_not_replaced"),
        ]),
    ),
    (
        49,
        "what is on the way",
        By(&[
            (FAULTS, "all_actions_refuse_bad_paths_and_places_alike"),
            (FAULTS, "links_that_others_can_change_are_not_followed"),
            (FILES, "parents_are_made_when_asked_for"),
            ("modules/tests/machine/owners.rs", "what_the_owner_may_not_is_not_done_though_we_are_root"),
        ]),
    ),
    (
        50,
        "modes and owners",
        By(&[(ACTIONS, MODULES), (FAULTS, "bad_modes_and_unknown_owners_are_found_before_anything_is_written")]),
    ),
    (51, "content", By(&[(ACTIONS, MODULES), (FILES, "the_checksum_is_compared_before_anything_is_written")])),
    (
        52,
        "commands that do not start",
        By(&[
            (ACTIONS, MODULES),
            (COMMANDS, "a_command_that_cannot_start_says_why"),
            (COMMANDS, "what_a_shell_could_not_start_is_an_exit_code"),
        ]),
    ),
    (
        53,
        "how commands end, and what they print",
        By(&[
            (COMMANDS, "an_exit_code_and_a_signal_are_told_apart"),
            (COMMANDS, "much_output_is_streamed_and_its_result_bounded"),
        ]),
    ),
    (
        54,
        "users that nothing runs as",
        By(&[("modules/src/host/accounts.rs", "nobody_runs_as_a_user_that_expired_or_was_closed")]),
    ),
    (
        55,
        "names and states of packages",
        By(&[(ACTIONS, MODULES), ("modules/src/package/apt.rs", "every_unknown_name_is_told")]),
    ),
    (
        56,
        "repositories",
        By(&[(ACTIONS, MODULES), ("modules/src/package/repository.rs", "unsigned_is_said_in_as_many_words")]),
    ),
    (
        57,
        "a PackageKit that answers nonsense",
        By(&[("modules/src/host/packagekit.rs", "nonsense_is_a_fault_of_the_backend")]),
    ),
];

#[test]
fn every_number_is_tested_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut wrong = Vec::new();
    for (number, what, shown) in CATALOGUE {
        let By(tests) = shown else {
            let NotYet(why) = shown else { unreachable!("there are two") };
            assert!(why.len() > 20, "B{number}, {what}: say why");
            continue;
        };
        for (file, function) in *tests {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            if !text.contains(&format!("fn {function}(")) {
                wrong.push(format!("B{number}, {what}: {file} has no {function}"));
            }
        }
        let of_apis: Vec<&str> = tests.iter().map(|(file, _)| *file).filter(|file| file.starts_with("apis/")).collect();
        let has_row = |file: &&str| {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            ["\"", " "].iter().any(|end| text.contains(&format!("\"B{number}{end}")))
        };
        if !of_apis.is_empty() && !of_apis.iter().any(has_row) {
            wrong.push(format!("B{number}, {what}: no row is named after it in {of_apis:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_catalogue_has_every_number_of_its_sections_once() {
    let listed: Vec<u32> = CATALOGUE.iter().map(|(number, ..)| *number).collect();
    let sections: BTreeSet<u32> = (1..=38).chain(47..=57).collect();
    assert_eq!(listed, sections.into_iter().collect::<Vec<u32>>());
}
