//! Rows in columns: aligned, and still aligned when rows come later. Knows text, not objects.

use super::screen::{Colour, Screen};

/// Between columns.
const GAP: usize = 3;

/// Rows under headings; columns as wide as what they have held so far.
pub(crate) struct Grid {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
    screen: Screen,
}

impl Grid {
    /// An empty grid.
    pub(crate) fn new(headings: impl IntoIterator<Item = impl Into<String>>, screen: Screen) -> Grid {
        let headings: Vec<String> = headings.into_iter().map(Into::into).collect();
        let widths = headings.iter().map(|heading| heading.chars().count()).collect();
        Grid { headings, rows: Vec::new(), widths, screen }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = cell.chars().count().max(*width);
        }
        self.rows.push(row);
    }

    /// The headings' line.
    pub(crate) fn heading(&self) -> String {
        self.line(&self.headings, |_, cell| self.screen.bold(cell))
    }

    /// The rows since the last call. Columns stay as wide as they were, so later rows stand below earlier ones.
    pub(crate) fn take_rows(&mut self) -> String {
        let rows = std::mem::take(&mut self.rows);
        rows.iter().map(|row| self.line(row, |heading, cell| self.screen.paint(cell, colour(heading, cell)))).collect()
    }

    fn line(&self, cells: &[String], paint: impl Fn(&str, &str) -> String) -> String {
        let mut line = String::new();
        let mut pending = 0;
        for ((cell, heading), width) in cells.iter().zip(&self.headings).zip(&self.widths) {
            if !cell.is_empty() {
                line.extend(std::iter::repeat_n(' ', pending));
                line.push_str(&paint(heading, cell));
                pending = 0;
            }
            pending += GAP + width.saturating_sub(cell.chars().count());
        }
        line.push('\n');
        line
    }
}

/// States in their colours; nothing else is coloured.
fn colour(heading: &str, cell: &str) -> Option<Colour> {
    if !matches!(heading, "STATUS" | "PHASE" | "SEVERITY" | "STATE") {
        return None;
    }
    let word = cell.split([',', ' ']).next().unwrap_or_default();
    match word {
        "Failed" | "Lost" | "Unreachable" | "Critical" | "Interrupted" => Some(Colour::Red),
        "Succeeded" | "Ready" | "Ok" => Some(Colour::Green),
        "Running" | "Working" | "Changed" => Some(Colour::Cyan),
        "Paused" | "Cancelling" | "Waiting" | "AwaitingApproval" | "Warning" | "Terminating" | "Cancelled" => {
            Some(Colour::Yellow)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn rows_that_come_later_stand_in_the_same_columns() {
        let mut grid = Grid::new(["NAME", "STATUS"], Screen::plain());
        grid.push(row(&["a-long-name", "Ready"]));
        assert_eq!(grid.heading(), "NAME          STATUS\n");
        assert_eq!(grid.take_rows(), "a-long-name   Ready\n");
        grid.push(row(&["b", "Lost"]));
        assert_eq!(grid.take_rows(), "b             Lost\n");
        grid.push(row(&["c", ""]));
        assert_eq!(grid.take_rows(), "c\n");
    }

    #[test]
    fn colour_is_for_states_and_counts_for_no_width() {
        let mut grid = Grid::new(["PHASE", "BOOK"], Screen::coloured());
        grid.push(row(&["Failed (x)", "Failed"]));
        assert_eq!(grid.take_rows(), "\x1b[31mFailed (x)\x1b[0m   Failed\n");
    }
}
