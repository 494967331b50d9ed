//! Results of all rounds: medians of one row, and ratios of two rows round by round.

use super::round::Round;
use super::statistics::{Summary, summary};

/// All rounds of a run, in order.
#[derive(Clone, Debug)]
pub struct Results(pub Vec<Round>);

impl Results {
    /// Returns the rounds of one row of the table.
    pub fn of<'a>(&'a self, contender: &'a str, load: &'a str) -> impl Iterator<Item = &'a Round> {
        self.0.iter().filter(move |round| round.contender == contender && round.load == load)
    }

    /// Summarises a figure of one row.
    #[must_use]
    pub fn summary(
        &self,
        contender: &str,
        load: &str,
        figure: impl Fn(&Round) -> f64,
    ) -> Option<Summary> {
        summary(self.of(contender, load).map(figure))
    }

    /// Summarises the ratio of a figure of two rows, paired by round.
    #[must_use]
    pub fn ratio(
        &self,
        (contender, load): (&str, &str),
        (other, other_load): (&str, &str),
        figure: impl Fn(&Round) -> f64,
    ) -> Option<Summary> {
        let pairs = self.of(contender, load).zip(self.of(other, other_load));
        summary(pairs.map(|(one, other)| figure(one) / figure(other)))
    }

    /// Returns the rows in the order of their first run.
    #[must_use]
    pub fn rows(&self) -> Vec<(&str, &'static str)> {
        let mut rows: Vec<(&str, &'static str)> = Vec::new();
        for round in &self.0 {
            let row = (round.contender.as_str(), round.load);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows
    }
}
