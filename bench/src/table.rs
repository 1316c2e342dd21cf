//! Several measurements of one thing, and how they stand in a table.

use std::fmt::Write;

/// Measurements of one cell, one for each round.
#[derive(Clone, Debug, Default)]
pub struct Cell(Vec<f64>);

impl Cell {
    /// One more, if it could be measured.
    pub fn add(&mut self, value: impl Into<Option<f64>>) {
        self.0.extend(value.into());
    }

    /// Median, minimum and maximum with so many decimals; a dash where nothing was measured.
    pub fn shown(&self, decimals: usize) -> String {
        let Some((min, median, max)) = self.spread() else {
            return "–".to_owned();
        };
        if self.0.len() == 1 {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }

    /// This median as a multiple of the other; a dash where one of them was not measured.
    pub fn ratio(&self, other: &Self) -> String {
        match (self.spread(), other.spread()) {
            (Some((_, ours, _)), Some((_, theirs, _))) if theirs > 0.0 => format!("{:.2}", ours / theirs),
            _ => "–".to_owned(),
        }
    }

    /// Minimum, median and maximum.
    fn spread(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, sorted[middle])
        } else {
            sorted[middle]
        };
        Some((*sorted.first()?, median, *sorted.last()?))
    }
}

/// A Markdown table; the first row is its head.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_its_median_between_its_extremes() {
        let mut cell = Cell::default();
        assert_eq!(cell.shown(0), "–");
        cell.add(3.0);
        assert_eq!(cell.shown(1), "3.0");
        cell.add(1.0);
        assert_eq!(cell.shown(1), "2.0 (1.0–3.0)");
        cell.add(9.0);
        assert_eq!(cell.shown(0), "3 (1–9)");
    }
    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let (mut ours, mut theirs) = (Cell::default(), Cell::default());
        assert_eq!(ours.ratio(&theirs), "–");
        for value in [1.0, 3.0, 100.0] {
            ours.add(value);
        }
        assert_eq!(ours.ratio(&theirs), "–");
        theirs.add(2.0);
        assert_eq!(ours.ratio(&theirs), "1.50");
        theirs = Cell::default();
        theirs.add(0.0);
        assert_eq!(ours.ratio(&theirs), "–");
    }
}
