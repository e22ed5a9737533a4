//! Books that include others, judged together with these: as they are, and as the request makes them. Judged by the cache:
//! what two writers at once make of two books is judged when a Run is admitted.

use lockstep_apis::keys;
use lockstep_apis::v1alpha::{ApplyAction, Object, TaskBook, object::Kind as K};
use lockstep_core::{Library, check, included_books};

use super::ObjectsApi;
use super::intake::Write;
use super::writing::numbered;
use crate::status::{Answer, Problem};

impl ObjectsApi {
    /// Refuses books that cannot be done with what they include: cycles, ids that are there twice, wrong inputs.
    pub(super) async fn judge_includes(&self, writes: &[Write]) -> Answer<()> {
        let changed = writes.iter().enumerate().filter(|(_, write)| write.action != ApplyAction::Unchanged);
        let including: Vec<(usize, &Write, &TaskBook)> = changed
            .filter_map(|(index, write)| Some((index, write, book_of(&write.object)?)))
            .filter(|(.., book)| book.spec.as_ref().is_some_and(|spec| !included_books(&spec.tasks).is_empty()))
            .collect();
        if including.is_empty() {
            return Ok(());
        }
        self.cache.catch_up(&*self.store).await?;
        let state = self.cache.read();
        let mut violations = Vec::new();
        for (index, write, book) in including {
            let namespace = &write.object.metadata().namespace;
            let prefix = keys::object_prefix("taskbooks", Some(namespace));
            let stored = state.objects(&prefix).filter_map(|(_, object)| book_of(object));
            let written = writes.iter().map(|write| &write.object);
            let written = written.filter(|object| object.metadata().namespace == *namespace).filter_map(book_of);
            let library = Library::whole(stored.chain(written));
            violations.extend(numbered(check::book_among(book, &library), index));
        }
        if violations.is_empty() { Ok(()) } else { Err(Problem::Violations(violations)) }
    }
}

fn book_of(object: &Object) -> Option<&TaskBook> {
    match &object.kind {
        Some(K::TaskBook(book)) => Some(book),
        _ => None,
    }
}
