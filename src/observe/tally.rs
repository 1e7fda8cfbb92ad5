//! How often each of some words was the reason. There are few of them, and all are the program's own.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    rows: Vec<(&'static str, u64)>,
}

impl Tally {
    /// With these words, none of which has come yet: whoever reads the first value of a row sees it rise.
    pub fn of(words: impl IntoIterator<Item = &'static str>) -> Tally {
        Tally { rows: words.into_iter().map(|word| (word, 0)).collect() }
    }

    pub fn note(&mut self, word: &'static str) {
        self.note_times(word, 1);
    }

    pub fn note_times(&mut self, word: &'static str, times: u64) {
        match self.rows.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += times,
            None => self.rows.push((word, times)),
        }
    }

    pub fn add(&mut self, other: &Tally) {
        for (word, count) in other.rows() {
            self.note_times(word, count);
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.rows.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_rows_from_the_begin_or_from_the_first_time() {
        let mut tally = Tally::of(["late", "large"]);
        tally.note("large");
        tally.note("lost");
        let mut sum = Tally::of(["late"]);
        sum.note("late");
        sum.add(&tally);
        assert_eq!(tally.rows().collect::<Vec<_>>(), [("late", 0), ("large", 1), ("lost", 1)]);
        assert_eq!(sum.rows().collect::<Vec<_>>(), [("late", 1), ("large", 1), ("lost", 1)]);
    }
}
