//! Rounds, looked up: medians of a contender under a load, and of two of them held side by side, round by round.

use super::round::Round;
use super::statistics::{Summary, summary};

/// All rounds of a run, in order.
#[derive(Clone, Debug)]
pub struct Results(pub Vec<Round>);

impl Results {
    /// The rounds of one row of the table.
    pub fn of<'a>(&'a self, contender: &'a str, load: &'a str) -> impl Iterator<Item = &'a Round> {
        self.0.iter().filter(move |round| round.contender == contender && round.load == load)
    }

    /// A figure of one row.
    #[must_use]
    pub fn summary(
        &self,
        contender: &str,
        load: &str,
        figure: impl Fn(&Round) -> f64,
    ) -> Option<Summary> {
        summary(self.of(contender, load).map(figure))
    }

    /// A figure of one row divided by that of another, of the same round each.
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

    /// The rows in the order in which they first ran.
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
