//! A subscription that was opened anew on a track of which groups are known: does it go on with
//! those, or does its publisher number its groups anew?

use crate::track::group::Likeness;

#[derive(Debug)]
pub(super) struct Trial {
    /// One past the highest group known.
    pub known_end: u64,
    /// Groups from here on were asked for, known or not.
    pub asked_from: u64,
    /// The newest group that is known, which a publisher that goes on may begin with.
    pub newest: Option<u64>,
    /// Readers are in the middle of the run that is known, and so a publisher that brings the same
    /// groups goes on with it. With nobody there it is as well to begin with whatever comes.
    pub is_read: bool,
    /// What has come belongs to the run that is known, as far as that can be told.
    pub is_proven: bool,
    /// Where the feed starts. Readers are told when it is known of which run.
    pub start: Option<u64>,
}

impl Trial {
    /// Whether the run that is known cannot have this end.
    pub fn ends_below(&self, end: u64) -> bool {
        !self.is_proven && end < self.known_end
    }

    /// Whether a group that comes begins another run, by what it has in common with the one that is
    /// held under its number.
    pub fn is_another(&self, sequence: u64, likeness: Likeness) -> bool {
        if sequence >= self.known_end {
            return false;
        }
        if sequence >= self.asked_from || self.is_proven {
            return likeness == Likeness::Differs;
        }
        match likeness {
            Likeness::Same => !self.is_read && self.newest != Some(sequence),
            Likeness::Unclear => !self.is_read,
            Likeness::Differs | Likeness::Unknown => true,
        }
    }
}
