//! A book's tasks as they are done: one after another, each with the blocks that it is in and with what these say.
//! Knows what is written; judges nothing.

use std::borrow::Cow;

use lockstep_apis::v1alpha::{BlockPart, Task, TaskBook, Violation, Within};

mod include;

pub(crate) use include::{Included, of_book};
pub use include::{Library, included_books};

/// Blocks in blocks, at most.
pub(crate) const MAX_DEPTH: usize = 16;

/// A list of tasks, laid out.
#[derive(Debug, Default)]
pub(crate) struct Outline<'t> {
    /// In the order in which they are done; a task's index over the book is its position here.
    pub(crate) tasks: Vec<Leaf<'t>>,
    /// Positions of the tasks; behind them are the handlers.
    pub(crate) body: std::ops::Range<usize>,
    /// In the order in which they begin; a block's index is its position here. An `include` is a block, too.
    pub(crate) blocks: Vec<Block<'t>>,
    /// Books that are included, in order of place. What is read as `inputs` under one has its number here and 1 as scope;
    /// scope 0 are the Run's inputs.
    pub(crate) included: Vec<Included<'t>>,
    /// Tasks and handlers of a book that is not known here are missing.
    pub(crate) is_partial: bool,
    /// What is wrong with includes.
    pub(crate) wrong: Vec<Violation>,
}

/// One task with an action.
#[derive(Debug)]
pub(crate) struct Leaf<'t> {
    /// With the options of its blocks, but their `when`.
    pub(crate) task: Cow<'t, Task>,
    /// As it is written.
    pub(crate) written: &'t Task,
    at: At<'t>,
    /// The blocks that it is in, outermost first.
    pub(crate) within: Vec<Within>,
    /// Not every node of the window does it.
    pub(crate) apart: Option<Apart>,
    /// It is done when it is notified.
    pub(crate) handler: bool,
    /// Whose `inputs` it reads.
    pub(crate) scope: u32,
}

/// Why not every node of the window does a task: with what it is done together, by the same nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// It says so itself: it is done alone.
    Alone,
    /// A block that it is in says so.
    Block(u32),
}

/// One block.
#[derive(Debug)]
pub(crate) struct Block<'t> {
    pub(crate) task: &'t Task,
    at: At<'t>,
    /// The blocks that it is in, outermost first.
    pub(crate) within: Vec<Within>,
    /// Positions of its tasks.
    pub(crate) tasks: std::ops::Range<usize>,
    /// Whose `inputs` it reads.
    pub(crate) scope: u32,
}

/// Where something is written.
#[derive(Clone, Debug)]
enum At<'t> {
    Top(usize),
    Handler(usize),
    In(Cow<'t, str>),
}

impl At<'_> {
    fn field(&self, below: &str) -> String {
        match self {
            At::Top(index) => format!("spec.tasks[{index}]{below}"),
            At::Handler(index) => format!("spec.handlers[{index}]{below}"),
            At::In(path) => format!("{path}{below}"),
        }
    }
}

impl Leaf<'_> {
    /// The path of a field of the task.
    pub(crate) fn field(&self, below: &str) -> String {
        self.at.field(below)
    }
}

impl Block<'_> {
    /// The path of a field of the block.
    pub(crate) fn field(&self, below: &str) -> String {
        self.at.field(below)
    }
}

impl<'t> Outline<'t> {
    /// Lays out tasks and handlers of the book with this name ("": of a Run), with those of the books that they include.
    pub(crate) fn of(tasks: &'t [Task], handlers: &'t [Task], name: &'t str, library: &Library<'t>) -> Self {
        let mut outline = Outline { tasks: Vec::with_capacity(tasks.len() + handlers.len()), ..Outline::default() };
        let outer = Outer { path: vec![name], ..Outer::default() };
        for (index, task) in tasks.iter().enumerate() {
            outline.add(task, At::Top(index), &outer, library);
        }
        outline.body = 0..outline.tasks.len();
        for (index, task) in handlers.iter().enumerate() {
            outline.add_handler(task, At::Handler(index), 0);
        }
        outline.add_included_handlers();
        outline
    }

    /// Of a book.
    pub(crate) fn of_book(book: &'t TaskBook, library: &Library<'t>) -> Self {
        let name = book.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        book.spec.as_ref().map_or_else(Self::default, |spec| Self::of(&spec.tasks, &spec.handlers, name, library))
    }

    fn add_handler(&mut self, task: &'t Task, at: At<'t>, scope: u32) {
        let (within, apart, handler) = (Vec::new(), None, true);
        self.tasks.push(Leaf { task: Cow::Borrowed(task), written: task, at, within, apart, handler, scope });
    }

    /// The handlers, with their positions.
    pub(crate) fn handlers(&self) -> impl Iterator<Item = (usize, &Leaf<'t>)> {
        self.tasks.iter().enumerate().skip(self.body.end)
    }

    fn add(&mut self, task: &'t Task, at: At<'t>, outer: &Outer<'t>, library: &Library<'t>) {
        if let Some(include) = &task.include {
            return self.include(task, include, at, outer, library);
        }
        if task.block.is_empty() || outer.within.len() >= MAX_DEPTH {
            let within = outer.within.clone();
            let own = task.run_once || task.targets.is_some();
            let apart = if own { Some(Apart::Alone) } else { outer.apart };
            let merged = match &outer.options {
                Some(options) => Cow::Owned(with_options(task, options)),
                None => Cow::Borrowed(task),
            };
            let scope = outer.scope;
            return self.tasks.push(Leaf { task: merged, written: task, at, within, apart, handler: false, scope });
        }
        let (index, options, apart) = self.open(task, &at, outer);
        let first = self.blocks[index].tasks.start;
        let within = outer.within.clone();
        let parts = [
            ("block", BlockPart::Body, &task.block),
            ("rescue", BlockPart::Rescue, &task.rescue),
            ("always", BlockPart::Always, &task.always),
        ];
        for (word, part, tasks) in parts {
            let place = Within { block: index as u32, part: part.into() };
            let inside = Outer {
                within: [&within[..], &[place]].concat(),
                options: Some(options.clone()),
                apart,
                scope: outer.scope,
                path: outer.path.clone(),
            };
            for (inner, task) in tasks.iter().enumerate() {
                self.add(task, At::In(at.field(&format!(".{word}[{inner}]")).into()), &inside, library);
            }
        }
        self.close(index, first, task);
    }

    /// Begins a block: its index, its options, and who does it.
    fn open(&mut self, task: &'t Task, at: &At<'t>, outer: &Outer<'t>) -> (usize, Task, Option<Apart>) {
        let (index, first) = (self.blocks.len(), self.tasks.len());
        let (within, scope) = (outer.within.clone(), outer.scope);
        self.blocks.push(Block { task, at: at.clone(), within, tasks: first..first, scope });
        let own = task.run_once || task.targets.is_some();
        let apart = if own { Some(Apart::Block(index as u32)) } else { outer.apart };
        (index, options_of(task, outer.options.as_ref()), apart)
    }

    fn close(&mut self, index: usize, first: usize, task: &Task) {
        self.blocks[index].tasks.end = self.tasks.len();
        // A barrier before the block is one before its first task.
        if let Some(leaf) = self.tasks.get_mut(first).filter(|_| task.sync) {
            leaf.task.to_mut().sync = true;
        }
    }
}

/// What surrounds a task.
#[derive(Default)]
struct Outer<'t> {
    within: Vec<Within>,
    options: Option<Task>,
    apart: Option<Apart>,
    scope: u32,
    /// The books that it is in, outermost first.
    path: Vec<&'t str>,
}

/// A block's options with those of the one around it: a task of which only options count.
fn options_of(block: &Task, outer: Option<&Task>) -> Task {
    let own = Task {
        timeout: block.timeout,
        ignore_errors: block.ignore_errors,
        tags: block.tags.clone(),
        notify: block.notify.clone(),
        targets: block.targets.clone(),
        run_once: block.run_once,
        sensitive: block.sensitive,
        environment: block.environment.clone(),
        user: block.user.clone(),
        working_directory: block.working_directory.clone(),
        on_interrupt: block.on_interrupt,
        ..Task::default()
    };
    outer.map_or(own.clone(), |outer| with_options(&own, outer))
}

/// A task with the options of what it is in, as far as it does not give its own.
fn with_options(task: &Task, outer: &Task) -> Task {
    let given = |own: &String, outer: &String| if own.is_empty() { outer.clone() } else { own.clone() };
    let mut environment = outer.environment.clone();
    environment.extend(task.environment.clone());
    let mut notify = outer.notify.clone();
    notify.extend(task.notify.iter().filter(|name| !outer.notify.contains(name)).cloned());
    let mut tags = outer.tags.clone();
    tags.extend(task.tags.iter().filter(|tag| !outer.tags.contains(tag)).cloned());
    Task {
        timeout: task.timeout.or(outer.timeout),
        ignore_errors: task.ignore_errors || outer.ignore_errors,
        tags,
        notify,
        targets: task.targets.clone().or_else(|| outer.targets.clone()),
        run_once: task.run_once || outer.run_once,
        sensitive: task.sensitive || outer.sensitive,
        environment,
        user: given(&task.user, &outer.user),
        working_directory: given(&task.working_directory, &outer.working_directory),
        on_interrupt: if task.on_interrupt == 0 { outer.on_interrupt } else { task.on_interrupt },
        ..task.clone()
    }
}
