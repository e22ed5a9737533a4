//! The reference, page by page: what is written about which type on which page.

use std::collections::{BTreeMap, BTreeSet};

use super::{Topic, comment, kind_notes, of_message};
use crate::{
    descriptor::{self, Message, Type},
    kinds, params,
};

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Without an ending: `taskbook`, `types`, `actions`.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What is below the heading.
    pub text: String,
    /// Rules of the whole.
    pub notes: Vec<String>,
    /// In order; the path of each is a type's or an action's name.
    pub topics: Vec<Topic>,
}

/// A page for each kind with the types that only it holds, one for the types of several, one for the actions.
pub fn pages() -> Vec<Page> {
    let users = users();
    let table = descriptor::table();
    let topics = |on: &str, without: &str| -> Vec<Topic> {
        let ours = table.messages.iter().filter(|message| message.name != without);
        let ours = ours.filter(|message| users.get(message.name.as_str()).is_some_and(|by| page_of(by) == on));
        ours.map(|message| of_message(message, &message.name)).collect()
    };
    let mut pages: Vec<Page> = kinds::all()
        .iter()
        .map(|kind| Page {
            name: kind.name.to_lowercase(),
            title: kind.name.to_owned(),
            text: comment(kind.name),
            notes: kind_notes(kind),
            topics: topics(kind.name, kind.name),
        })
        .collect();
    pages.push(Page {
        name: "types".into(),
        title: "Types of several kinds".into(),
        text: "What more than one kind holds.".into(),
        notes: Vec::new(),
        topics: topics(SEVERAL, ""),
    });
    let mut actions: Vec<Topic> =
        params::actions().iter().map(|action| of_message(action.message, action.name)).collect();
    actions.extend(topics(ACTIONS, "").into_iter().filter(|topic| topic.heading == "fields"));
    pages.push(Page {
        name: "actions".into(),
        title: "Actions".into(),
        text:
            "What tasks do: the key of a task is the action's name, its value the parameters. `${{ }}` may stand for \
               any text, number or list in them, but in CEL and Handlebars, which are languages of their own."
                .into(),
        notes: Vec::new(),
        topics: actions,
    });
    pages
}

/// Types that kinds and actions hold, without the kinds themselves and the actions' parameters.
pub(super) fn types() -> Vec<&'static Message> {
    let users = users();
    let named = |message: &&Message| users.contains_key(message.name.as_str()) && message.rules.action.is_empty();
    descriptor::table().messages.iter().filter(named).collect()
}

const ACTIONS: &str = "actions";
const SEVERAL: &str = "several";

fn page_of<'u>(users: &BTreeSet<&'u str>) -> &'u str {
    match users.len() {
        1 => users.first().copied().unwrap_or(SEVERAL),
        _ => SEVERAL,
    }
}

/// Every message that users meet, and the pages that need it.
fn users() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut found = BTreeMap::new();
    for kind in kinds::all() {
        visit(descriptor::table().message(kind.name), kind.name, &mut found);
    }
    for action in params::actions() {
        visit(action.message, ACTIONS, &mut found);
    }
    found
}

fn visit(message: &'static Message, user: &'static str, found: &mut BTreeMap<&'static str, BTreeSet<&'static str>>) {
    if !found.entry(&message.name).or_default().insert(user) {
        return;
    }
    for field in &message.fields {
        if let Type::Message(index) = field.ty {
            visit(&descriptor::table().messages[index], user, found);
        }
    }
}
