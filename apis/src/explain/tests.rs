use super::*;

#[test]
fn a_field_says_its_type_default_range_and_sentence() {
    let found = topic("book.spec.tasks[3].timeout").unwrap();
    assert_eq!((found.path.as_str(), found.holds.as_str()), ("TaskBook.spec.tasks.timeout", "duration"));
    assert_eq!(found.notes, ["default 10m", "1ms to 7d"]);
    let priority = topic("Run.spec.priority").unwrap();
    assert_eq!(priority.notes, ["-1000 to 1000"]);
    assert_eq!(priority.text, "Higher goes first, -1000 to 1000.");
    let tasks = topic("taskbook.spec.tasks").unwrap();
    assert_eq!(tasks.notes, ["required", "1 to 10000 items"]);
    assert_eq!((tasks.holds.as_str(), tasks.heading), ("list of Task", "fields"));
}

#[test]
fn an_enums_words_are_members_with_their_sentences() {
    let found = topic("TaskBook.spec.runOptions.onFailure").unwrap();
    assert_eq!(found.holds, "StopNow | FinishWindow");
    let words: Vec<_> = found.members.iter().map(|m| (m.name.as_str(), m.text.as_str())).collect();
    assert_eq!(words[1], ("FinishWindow", "Judged when the window is done."));
}

#[test]
fn actions_are_found_by_name_by_family_and_through_a_task() {
    let found = topic("action.file.managed").unwrap();
    assert_eq!((found.path.as_str(), found.heading), ("file.managed", "parameters"));
    assert!(found.notes.contains(&"at most one of content, template".to_owned()), "{:?}", found.notes);
    assert_eq!(topic("file.managed").unwrap(), found);
    assert_eq!(topic("book.spec.tasks.file.managed").unwrap(), found);
    assert_eq!(topic("file.managed.validate.argv").unwrap().path, "file.managed.validate.argv");
    let family: Vec<String> = topic("action.file").unwrap().members.into_iter().map(|member| member.name).collect();
    assert!(family.iter().all(|name| name.starts_with("file.")) && family.len() >= 3, "{family:?}");
    assert_eq!(topic("action").unwrap().members.len(), params::actions().len());
}

#[test]
fn a_wrong_path_says_what_was_meant() {
    let wrong = |path: &str| topic(path).unwrap_err().to_string();
    assert!(wrong("TaksBook").starts_with("no kind `TaksBook`; did you mean `TaskBook`?"), "{}", wrong("TaksBook"));
    assert!(wrong("book.spec.taskz").contains("no field `taskz` in TaskBook.spec; did you mean `tasks`?"));
    assert!(wrong("book.tasks").contains("did you mean `spec.tasks`?"), "{}", wrong("book.tasks"));
    assert!(wrong("action.file.manage").contains("did you mean `file.managed`?"));
    assert!(wrong("file.managed.pth").contains("did you mean `path`?"));
    assert!(wrong("run.spec.priority.high").contains("`Run.spec.priority` has no fields"));
    for hostile in ["...", "[", "]", "book.[", "book..spec", "\u{1b}[2J", ".", "action."] {
        assert!(topic(hostile).is_err(), "{hostile:?}");
    }
}

#[test]
fn every_type_that_is_named_on_a_page_is_explained_on_one() {
    let pages = pages();
    let explained: Vec<&str> =
        pages.iter().flat_map(|page| page.topics.iter().map(|topic| topic.path.as_str())).collect();
    let named = pages.iter().flat_map(|page| &page.topics).flat_map(|topic| &topic.members).filter_map(|m| m.of);
    for of in named {
        assert_eq!(explained.iter().filter(|path| **path == of).count(), 1, "{of}");
        assert!(topic(of).is_ok(), "{of}");
    }
    assert_eq!(pages.len(), kinds::all().len() + 2);
}

#[test]
fn the_example_of_an_action_is_a_task_that_is_taken() {
    let mut shown = 0;
    for action in params::actions() {
        let example = topic(action.name).unwrap().example;
        if example.is_empty() {
            continue;
        }
        shown += 1;
        let task = example.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let book = format!(
            "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: a}}\nspec:\n  targets: {{all: true}}\n  tasks:\n  -\n{task}"
        );
        let taken = crate::manifest::decode("example.yaml", book.as_bytes(), None);
        assert!(taken.is_ok(), "{}: {:?}", action.name, taken.unwrap_err());
    }
    assert!(shown > 0);
}

#[test]
fn a_note_says_what_an_action_does_the_second_time() {
    let note = |action: &str| topic(action).unwrap().notes[0].clone();
    assert!(note("file.managed").contains("changes nothing"));
    assert!(note("service.restarted").contains("each time") && note("service.reloaded").contains("each time"));
    assert_eq!(note("http.request"), "changes nothing if method is GET or HEAD, else is Changed each time");
    assert_eq!(note("command.query"), "changes nothing");
}

#[test]
fn everything_that_may_be_written_is_explained() {
    let silent: Vec<String> = pages()
        .iter()
        .flat_map(|page| &page.topics)
        .flat_map(|topic| topic.members.iter().map(move |member| (topic, member)))
        .filter(|(_, member)| member.text.is_empty())
        .map(|(topic, member)| format!("{}.{}", topic.path, member.name))
        .collect();
    assert!(silent.is_empty(), "the protos have no comment for {}", silent.join(", "));
}
