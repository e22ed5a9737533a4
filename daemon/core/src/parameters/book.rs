//! The texts of all tasks of a book, parsed once for everything that is done with it: checked, compiled, run.

use std::sync::Arc;

use lockstep_apis::v1alpha::Task;

use super::{TaskTexts, WrongText};
use crate::template::TemplateCache;

/// The parsed texts of a list of tasks, in its order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BookTexts {
    texts: Arc<Vec<Result<Arc<TaskTexts>, Vec<WrongText>>>>,
}

impl BookTexts {
    /// Parses them; what is wrong is kept in its place.
    pub fn parse(tasks: &[Task]) -> Self {
        let mut cache = TemplateCache::new();
        let texts = tasks.iter().map(|task| TaskTexts::of_task(task, &mut cache).map(Arc::new)).collect();
        Self { texts: Arc::new(texts) }
    }

    /// The texts of the task with this number, or all that is wrong with them; `None` if there is no such task.
    pub fn of(&self, index: usize) -> Option<Result<&Arc<TaskTexts>, &[WrongText]>> {
        self.texts.get(index).map(|texts| texts.as_ref().map_err(Vec::as_slice))
    }

    /// How many tasks.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// No tasks.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}
