//! The texts of all tasks of a book, parsed once for everything that is done with it: checked, compiled, run.

use std::sync::Arc;

use lockstep_apis::v1alpha::TaskBook;

use super::{BlockWhen, TaskTexts, WrongText};
use crate::expression::{Expression, SyntaxError};
use crate::outline::{Block, Library, Outline};
use crate::template::TemplateCache;

/// The condition of a block, if it has one.
type Condition = Result<Option<Arc<Expression>>, SyntaxError>;

/// The parsed texts of tasks and handlers, by the tasks' indices over the book. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BookTexts {
    texts: Arc<Vec<Result<Arc<TaskTexts>, Vec<WrongText>>>>,
    conditions: Arc<Vec<Condition>>,
}

impl BookTexts {
    /// Parses those of a book, with what it includes; what is wrong is kept in its place.
    pub fn of_book(book: &TaskBook, library: &Library<'_>) -> Self {
        Self::of_outline(&Outline::of_book(book, library))
    }

    pub(crate) fn of_outline(outline: &Outline<'_>) -> Self {
        let mut cache = TemplateCache::new();
        let conditions: Vec<Condition> = outline.blocks.iter().map(condition).collect();
        let texts = outline.tasks.iter().map(|leaf| {
            let conditions = leaf.within.iter().filter_map(|place| {
                // What is wrong is the block's.
                let when = conditions[place.block as usize].as_ref().ok()?.clone()?;
                Some(BlockWhen { scope: outline.blocks[place.block as usize].scope, when })
            });
            let conditions = conditions.collect();
            TaskTexts::in_blocks(&leaf.task, conditions, &mut cache).map(Arc::new)
        });
        Self { texts: Arc::new(texts.collect()), conditions: Arc::new(conditions) }
    }

    /// Whether these are the texts of as many tasks.
    pub fn fits(&self, book: &TaskBook, library: &Library<'_>) -> bool {
        self.texts.len() == Outline::of_book(book, library).tasks.len()
    }

    /// The texts of the task with this index, or all that is wrong with them; `None` if there is no such task.
    pub fn of(&self, index: usize) -> Option<Result<&Arc<TaskTexts>, &[WrongText]>> {
        self.texts.get(index).map(|texts| texts.as_ref().map_err(Vec::as_slice))
    }

    /// The condition of the block with this index.
    pub(crate) fn condition_of(&self, block: usize) -> Option<&Condition> {
        self.conditions.get(block)
    }
}

fn condition(block: &Block<'_>) -> Condition {
    let when = block.task.when.as_str();
    (!when.is_empty()).then(|| Expression::parse(when).map(Arc::new)).transpose()
}
