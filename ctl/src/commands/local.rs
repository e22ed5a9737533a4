//! `lockstep run --local`: a book on this machine, without a daemon. Prints what the executor tells; decides nothing.

use super::{lint, run};
use crate::{
    cli::Run as Arguments,
    error::{Error, Result},
    manifests,
    render::{describe, safe},
};
use lockstep_apis::v1alpha::{
    CompiledTask, Object, Outcome, OutputChunk, OutputStream, TaskBook, TaskReport, object::Kind,
};
use lockstep_core::{Library, check, parameters::BookTexts};
use lockstep_executor::local::{self, LocalError, LocalEvent, LocalOutcome, LocalRun};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// What a task printed, of which the end is kept until it is known whether anybody needs it.
const KEPT_OUTPUT_BYTES: usize = 16 * 1024;

pub(crate) fn run(arguments: &Arguments, namespace: &str) -> Result<()> {
    let (book, library, texts) = book(arguments, namespace)?;
    let local = LocalRun {
        inputs: run::inputs(&arguments.spec.inputs, &book)?,
        set: run::set(&arguments.spec.set)?,
        tags: arguments.spec.tags.clone(),
        skip_tags: arguments.spec.skip_tags.clone(),
        root: arguments.root.clone(),
        check: arguments.check,
        diff: arguments.diff,
        book,
        library,
        texts: Some(texts),
    };
    let cancel = local::cancelled_by_signals().map_err(|e| Error::Usage(format!("signals cannot be watched: {e}")))?;
    let mut printer =
        Printer { out: io::BufWriter::new(io::stdout()), quiet: arguments.quiet, output: BTreeMap::new() };
    let outcome = local::run(&local, &cancel, &mut |event| printer.take(event)).map_err(refused)?;
    printer.summary(&outcome, arguments.check);
    // Whoever read us may have gone, as `head` does: the work is done all the same.
    let _ = printer.out.flush();
    // The process ends here: taking a large book apart first would take as long as some of its tasks.
    std::mem::forget(local);
    if outcome.succeeded { Ok(()) } else { Err(Error::RunFailed) }
}

/// The one book of the files, with those that it may include and the texts of its tasks, which checking it has parsed.
fn book(arguments: &Arguments, namespace: &str) -> Result<(TaskBook, Vec<TaskBook>, BookTexts)> {
    let mut books = Vec::new();
    for object in manifests::read_paths(&arguments.files, false, namespace)? {
        match object.kind {
            Some(Kind::TaskBook(book)) => books.push(book),
            _ => {
                let violations = lint::violations(&object, &Library::default());
                if !violations.is_empty() {
                    return Err(Error::Invalid(manifests::located(&object, violations)));
                }
            }
        }
    }
    let wanted = arguments.book.as_deref();
    let name = |book: &TaskBook| book.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
    let meant: Vec<usize> =
        (0..books.len()).filter(|at| wanted.is_none_or(|wanted| name(&books[*at]) == wanted)).collect();
    let at = match meant.as_slice() {
        [at] => *at,
        [] => {
            return Err(Error::Usage(match wanted {
                Some(wanted) => format!("the files hold no TaskBook {wanted}"),
                None => "the files hold no TaskBook".into(),
            }));
        }
        several => {
            let names = several.iter().map(|at| name(&books[*at])).collect::<Vec<_>>().join(", ");
            return Err(Error::Usage(format!("the files hold several books: name one of {names}")));
        }
    };
    let library = Library::whole(&books);
    let texts = BookTexts::of_book(&books[at], &library);
    for (index, book) in books.iter().enumerate() {
        let violations = match index == at {
            true => check::book_parsed(book, &library, &texts),
            false => check::book_among(book, &library),
        };
        if !violations.is_empty() {
            return Err(Error::Invalid(manifests::located(&Object::from(book.clone()), violations)));
        }
    }
    let book = books.swap_remove(at);
    Ok((book, books, texts))
}

fn refused(error: LocalError) -> Error {
    match error {
        LocalError::Refused { violations, .. } if !violations.is_empty() => Error::Invalid(violations),
        LocalError::Root { source } => Error::Usage(format!("--root cannot be used: {source}")),
        LocalError::Signals { source } => Error::Usage(format!("signals cannot be watched: {source}")),
        LocalError::Refused { message, .. } => Error::Usage(message),
    }
}

struct Printer<W: Write> {
    out: W,
    quiet: bool,
    /// The end of what running tasks printed.
    output: BTreeMap<u32, Vec<u8>>,
}

impl<W: Write> Printer<W> {
    fn take(&mut self, event: LocalEvent<'_>) {
        match event {
            LocalEvent::Started(_) => {}
            LocalEvent::Output(task, chunk) => self.keep(task, chunk),
            LocalEvent::Ended(task, report) => self.ended(task, report),
        }
    }

    fn keep(&mut self, task: &CompiledTask, chunk: &OutputChunk) {
        if chunk.stream() == OutputStream::Diff {
            for line in String::from_utf8_lossy(&chunk.data).lines() {
                let _ = writeln!(self.out, "    {}", safe(line, 2000));
            }
            return;
        }
        let output = self.output.entry(task.index).or_default();
        output.extend_from_slice(&chunk.data);
        if output.len() > 2 * KEPT_OUTPUT_BYTES {
            output.drain(..output.len() - KEPT_OUTPUT_BYTES);
        }
    }

    fn ended(&mut self, task: &CompiledTask, report: &TaskReport) {
        let output = self.output.remove(&task.index).unwrap_or_default();
        let went_well = matches!(report.outcome(), Outcome::Ok | Outcome::Skipped);
        if self.quiet && (went_well || report.outcome() == Outcome::Changed) {
            return;
        }
        let message =
            if report.message.is_empty() { String::new() } else { format!(": {}", safe(&report.message, 256)) };
        let _ = writeln!(
            self.out,
            "{:<11} {:>9}  {}{message}",
            describe::outcome(report),
            describe::took(report),
            safe(&task.name, 120)
        );
        if matches!(report.outcome(), Outcome::Failed | Outcome::Cancelled) {
            for line in String::from_utf8_lossy(&output).lines() {
                let _ = writeln!(self.out, "    {}", safe(line, 2000));
            }
        }
        // A command may take long: what is done already is to be seen.
        if !self.quiet {
            let _ = self.out.flush();
        }
    }

    fn summary(&mut self, outcome: &LocalOutcome, check: bool) {
        let count = |wanted| outcome.count(wanted);
        let mut parts = Vec::new();
        let changed = if check { "would change" } else { "changed" };
        for (n, word) in [
            (count(Outcome::Ok), "ok"),
            (count(Outcome::Changed), changed),
            (count(Outcome::Skipped), "skipped"),
            (count(Outcome::Unpredicted), "not predictable"),
            (count(Outcome::Failed) - outcome.ignored(), "failed"),
            (outcome.ignored(), "failed and ignored"),
            (count(Outcome::Cancelled), "cancelled"),
            (outcome.not_reached, "not reached"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {word}"));
            }
        }
        let tasks = u32::try_from(outcome.tasks.len() + outcome.not_reached).unwrap_or(u32::MAX);
        let _ = writeln!(self.out, "{}: {}", crate::render::plural(tasks, "task"), parts.join(", "));
    }
}
