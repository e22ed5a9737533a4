//! `include`: the tasks of another book in the place of one, as a block is; its handlers behind all others. Knows books by
//! name; where they come from is the caller's.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{BlockPart, Include, Task, TaskBook, TaskBookSpec, Value, Violation, Within};
use lockstep_apis::violation::of_field;

use super::{At, MAX_DEPTH, Outer, Outline};
use crate::expression::Text;
use crate::references::Root;

/// Most tasks, and most blocks, that are laid out: behind so many a book is refused whatever follows.
const MAX_LAID_OUT: usize = 10_001;

/// Books that may be included.
#[derive(Clone, Debug, Default)]
pub struct Library<'t> {
    books: BTreeMap<&'t str, &'t TaskBook>,
    /// What is not in it is nowhere.
    is_whole: bool,
}

impl<'t> Library<'t> {
    /// Some books, of which there may be more elsewhere.
    pub fn some(books: impl IntoIterator<Item = &'t TaskBook>) -> Self {
        let named = |book: &'t TaskBook| Some((book.metadata.as_ref()?.name.as_str(), book));
        Self { books: books.into_iter().filter_map(named).collect(), is_whole: false }
    }

    /// All books that there are, as far as they are included.
    pub fn whole(books: impl IntoIterator<Item = &'t TaskBook>) -> Self {
        Self { is_whole: true, ..Self::some(books) }
    }
}

/// The names of the books that these tasks include themselves.
pub fn included_books(tasks: &[Task]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for task in tasks {
        names.extend(task.include.iter().map(|include| include.task_book.clone()));
        for inner in [&task.block, &task.rescue, &task.always] {
            names.extend(included_books(inner));
        }
    }
    names
}

/// One included book.
#[derive(Debug)]
pub(crate) struct Included<'t> {
    pub(crate) name: &'t str,
    pub(crate) book: &'t TaskBookSpec,
    /// Values of its inputs, as they are written.
    pub(crate) inputs: &'t BTreeMap<String, Value>,
    /// The path of the `include`.
    pub(crate) field: String,
    /// Whose inputs these values may read.
    pub(crate) outer: u32,
}

/// What in front of a field says that it is another book's.
const OF_BOOK: &str = "TaskBook/";

fn field_in(name: &str, below: &str) -> String {
    format!("{OF_BOOK}{name} {below}")
}

/// Puts the book that a field is in where files are named.
pub(crate) fn of_book(mut violation: Violation) -> Violation {
    if violation.field.starts_with(OF_BOOK)
        && let Some((book, field)) = violation.field.split_once(' ')
    {
        (violation.file, violation.field) = (book.to_owned(), field.to_owned());
    }
    violation
}

impl<'t> Outline<'t> {
    pub(super) fn include(
        &mut self,
        task: &'t Task,
        include: &'t Include,
        at: At<'t>,
        outer: &Outer<'t>,
        library: &Library<'t>,
    ) {
        let (index, options, apart) = self.open(task, &at, outer);
        let first = self.blocks[index].tasks.start;
        let name = include.task_book.as_str();
        let Some(book) = self.may_include(name, &at, outer, library) else { return };
        let field = at.field(".include");
        self.wrong.extend(inherited(&options).map(|below| {
            let message = format!("reads `inputs`, which are others in the book `{name}`: hand it over as an input");
            of_field("Reference", at.field(&below), message)
        }));
        self.included.push(Included { name, book, inputs: &include.inputs, field, outer: outer.scope });
        let place = Within { block: index as u32, part: BlockPart::Body.into() };
        let inside = Outer {
            within: [&outer.within[..], &[place]].concat(),
            options: Some(options),
            apart,
            scope: self.included.len() as u32,
            path: [&outer.path[..], &[name]].concat(),
        };
        for (inner, task) in book.tasks.iter().enumerate() {
            let at = At::In(field_in(name, &format!("spec.tasks[{inner}]")).into());
            self.add(task, at, &inside, library);
        }
        self.close(index, first, task);
    }

    /// The book, if it is there and may be placed here.
    fn may_include(
        &mut self,
        name: &str,
        at: &At<'t>,
        outer: &Outer<'t>,
        library: &Library<'t>,
    ) -> Option<&'t TaskBookSpec> {
        let field = || at.field(".include");
        if let Some(from) = outer.path.iter().position(|book| *book == name) {
            let chain: Vec<String> = outer.path[from..].iter().chain(&[name]).map(|book| format!("`{book}`")).collect();
            let message = format!("a book cannot include itself: {}", chain.join(" includes "));
            self.wrong.push(of_field("Cycle", field(), message));
            return None;
        }
        if outer.within.len() >= MAX_DEPTH {
            let message = format!("books and blocks go {MAX_DEPTH} deep at most: {}", outer.path.join(" includes "));
            self.wrong.push(of_field("TooDeep", field(), message));
            return None;
        }
        if self.tasks.len().max(self.blocks.len()) > MAX_LAID_OUT {
            return None;
        }
        let book = library.books.get(name).and_then(|book| book.spec.as_ref());
        self.is_partial |= book.is_none() && !library.is_whole;
        if book.is_none() && library.is_whole {
            let hint = match nearest(name, library.books.keys().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "apply it first".to_owned(),
            };
            let message = format!("there is no TaskBook `{name}` to include: {hint}");
            self.wrong.push(of_field("NotFoundReference", field(), message));
        }
        book
    }

    /// Behind all others, those of each included book, once for each place that it is included in.
    pub(super) fn add_included_handlers(&mut self) {
        let all: Vec<(&'t str, &'t TaskBookSpec)> = self.included.iter().map(|own| (own.name, own.book)).collect();
        for (scope, (name, book)) in (1..).zip(all) {
            for (index, task) in book.handlers.iter().enumerate() {
                let at = At::In(field_in(name, &format!("spec.handlers[{index}]")).into());
                self.add_handler(task, at, scope);
            }
        }
    }
}

/// Options that tasks of the included book would inherit, and that read the inputs of the book around it.
fn inherited(options: &Task) -> impl Iterator<Item = String> + '_ {
    let reads = |text: &str| Text::parse(text).is_ok_and(|text| text.references().uses(Root::Inputs));
    let environment = options.environment.iter().map(|(name, text)| (format!(".environment.{name}"), text));
    let others = [(".user", &options.user), (".workingDirectory", &options.working_directory)];
    let others = others.into_iter().map(|(field, text)| (field.to_owned(), text));
    environment.chain(others).filter(move |(_, text)| reads(text)).map(|(field, _)| field)
}
