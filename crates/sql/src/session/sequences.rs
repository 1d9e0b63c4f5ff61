//! The numbers that a session was given of sequences: what `currval` and `lastval` answer. They go with the session
//! wherever it runs, and are not taken back by a rollback.
//!
//! Bounds: one number for each sequence, and no more than [`COUNT_MAX`] of them; what was used longest ago is forgotten.

use crate::gateway::frame::SequenceValue;

/// Sequences of which a session's number is kept.
const COUNT_MAX: usize = 4096;

/// In a list of changes: all that was given before is forgotten. No object has this number.
const FORGOTTEN: SequenceValue = SequenceValue { sequence: 0, value: 0, is_next: false };

/// Puts a number into a list in the order of use, the last used last; `setval` leaves the order alone.
pub(crate) fn note(values: &mut Vec<SequenceValue>, given: SequenceValue) {
    if given == FORGOTTEN {
        values.clear();
        return;
    }
    let known = values.iter().position(|known| known.sequence == given.sequence);
    match known {
        Some(place) if !given.is_next => {
            if let Some(known) = values.get_mut(place) {
                known.value = given.value;
            }
        }
        Some(place) if place + 1 == values.len() => {
            if let Some(known) = values.get_mut(place) {
                *known = given;
            }
        }
        Some(place) => {
            values.remove(place);
            values.push(given);
        }
        None => {
            if values.len() >= COUNT_MAX {
                values.remove(usize::from(values.first() == Some(&FORGOTTEN)));
            }
            // What was only set comes before all that was taken, so that the last one is what `lastval` means.
            let first = usize::from(values.first() == Some(&FORGOTTEN));
            let place = if given.is_next { values.len() } else { first };
            values.insert(place, given);
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct SequenceValues {
    /// In the order of use by `nextval`.
    values: Vec<SequenceValue>,
    /// What has changed since the gateway was told.
    changed: Vec<SequenceValue>,
}

impl SequenceValues {
    /// Those of a session that ran elsewhere.
    #[must_use]
    pub fn of_moved_session(values: &[SequenceValue]) -> Self {
        Self { values: values.to_vec(), changed: Vec::new() }
    }

    /// The number that was given last of a sequence.
    #[must_use]
    pub fn value(&self, sequence: u32) -> Option<i64> {
        self.values.iter().rev().find(|known| known.sequence == sequence).map(|known| known.value)
    }

    /// The sequence of which a number was taken last.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.values.last().filter(|last| last.is_next).map(|last| last.sequence)
    }

    /// A number was given.
    pub fn note(&mut self, sequence: u32, value: i64, is_next: bool) {
        let given = SequenceValue { sequence, value, is_next };
        note(&mut self.values, given);
        note(&mut self.changed, given);
    }

    /// What has changed since it was taken last.
    #[must_use]
    pub fn changes(&self) -> Vec<SequenceValue> {
        self.changed.clone()
    }

    /// Takes what has changed.
    pub fn take_changes(&mut self) -> Vec<SequenceValue> {
        std::mem::take(&mut self.changed)
    }

    /// DISCARD SEQUENCES.
    pub fn clear(&mut self) {
        self.values.clear();
        self.changed = vec![FORGOTTEN];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lastval_is_of_the_sequence_that_was_advanced_last() {
        let mut values = SequenceValues::default();
        assert_eq!((values.last(), values.value(1)), (None, None));
        values.note(1, 5, false);
        assert_eq!((values.last(), values.value(1)), (None, Some(5)));
        values.note(2, 1, true);
        values.note(1, 6, true);
        assert_eq!(values.last(), Some(1));
        values.note(2, 9, false);
        assert_eq!((values.last(), values.value(2)), (Some(1), Some(9)));
        let moved = SequenceValues::of_moved_session(&values.values);
        assert_eq!((moved.last(), moved.value(2), moved.value(1)), (Some(1), Some(9), Some(6)));
    }

    #[test]
    fn changes_told_one_by_one_give_the_same_list() {
        let (mut here, mut there) = (SequenceValues::default(), Vec::new());
        for round in 0..40_i64 {
            let sequence = u32::try_from(round * 7 % 5).unwrap();
            here.note(sequence, round, round % 3 != 0);
            if round % 4 == 0 {
                for given in here.take_changes() {
                    note(&mut there, given);
                }
            }
        }
        for given in here.take_changes() {
            note(&mut there, given);
        }
        assert_eq!(SequenceValues::of_moved_session(&there).last(), here.last());
        for sequence in 0..5 {
            assert_eq!(SequenceValues::of_moved_session(&there).value(sequence), here.value(sequence));
        }
    }
}
