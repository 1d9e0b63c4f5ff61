//! Whether single operations on one register are linearizable.
//!
//! Wing and Gong's search with Lowe's memory: among the operations that are not placed yet, one comes next that began
//! before any of them ended and whose answer fits; where that leads nowhere, another is tried, and no state is tried
//! twice. An operation whose end nobody knows may be placed anywhere after its begin, or nowhere.
//! Registers are judged one by one, as linearizability is local.

use std::collections::HashSet;

use super::history::Told;

/// What a client asked of the register, and what it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It reads this.
    Read(u64),
    /// It sets it.
    Write(u64),
    /// It sets it to `to` if it holds `from`, and is told whether it did.
    Swap {
        /// What it must hold.
        from: u64,
        /// What it is then.
        to: u64,
        /// The answer; means nothing where the end is unknown.
        did: bool,
    },
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// A moment before anything of it was sent.
    pub began: u64,
    /// A moment after its answer.
    pub ended: u64,
    /// Refused calls must have done nothing and are left out of account.
    pub told: Told,
    /// What it did.
    pub action: Action,
}

/// Most states that are tried before the search is given up.
const STATES_MAX: usize = 2_000_000;

/// Why a register is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No order explains the answers. How many operations could be explained at most.
    NotLinearizable {
        /// See the variant.
        explained: usize,
    },
    /// The search was too long: the history says nothing.
    GaveUp,
}

/// Judges the calls of one register that held `initial`.
///
/// # Errors
/// They are not linearizable, or too many orders are possible.
pub fn check(calls: &[Call], initial: u64) -> Result<(), Wrong> {
    let mut calls: Vec<Call> = calls
        .iter()
        .filter(|call| match (call.told, call.action) {
            (Told::Refused, _) | (Told::Unknown, Action::Read(_)) => false,
            (Told::Acknowledged | Told::Unknown, _) => true,
        })
        .copied()
        .collect();
    calls.sort_unstable_by_key(|call| call.began);
    let must = calls.iter().filter(|call| call.told == Told::Acknowledged).count();
    let mut search =
        Search { calls, placed: Placed::default(), seen: HashSet::new(), known: 0, explained: 0 };
    // Depth first, with the choices that are left at each depth.
    let mut path: Vec<(usize, Vec<Choice>)> = Vec::new();
    let mut choices = search.choices(initial);
    loop {
        if search.explained >= must {
            return Ok(());
        }
        if search.seen.len() > STATES_MAX {
            return Err(Wrong::GaveUp);
        }
        match choices.pop() {
            Some((at, value)) => {
                search.place(at);
                if search.seen.insert((search.placed.clone(), value)) {
                    path.push((at, std::mem::take(&mut choices)));
                    search.explained = search.explained.max(search.known);
                    choices = search.choices(value);
                } else {
                    search.take_back(at);
                }
            }
            None => match path.pop() {
                Some((at, rest)) => {
                    search.take_back(at);
                    choices = rest;
                }
                None => return Err(Wrong::NotLinearizable { explained: search.explained }),
            },
        }
    }
}

/// A call that may come next, and the value after it.
type Choice = (usize, u64);

/// Calls that have their place: all below `all_below`, and some from there on. That is few numbers, as calls that are
/// placed were under way at the same time as the first that is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Placed {
    all_below: usize,
    others: std::collections::BTreeSet<usize>,
}

impl Placed {
    fn contains(&self, at: usize) -> bool {
        at < self.all_below || self.others.contains(&at)
    }

    fn insert(&mut self, at: usize) {
        self.others.insert(at);
        while self.others.remove(&self.all_below) {
            self.all_below += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        if at < self.all_below {
            self.others.extend(at + 1..self.all_below);
            self.all_below = at;
        } else {
            self.others.remove(&at);
        }
    }
}

struct Search {
    /// By their begin.
    calls: Vec<Call>,
    placed: Placed,
    seen: HashSet<(Placed, u64)>,
    /// Acknowledged calls that have their place.
    known: usize,
    /// Most that had it at once.
    explained: usize,
}

impl Search {
    /// What may come next when the register holds `value`.
    fn choices(&self, value: u64) -> Vec<Choice> {
        let mut first_end = u64::MAX;
        let mut choices = Vec::new();
        for (at, call) in self.calls.iter().enumerate().skip(self.placed.all_below) {
            if call.began > first_end {
                break;
            }
            if self.placed.contains(at) {
                continue;
            }
            let is_known = call.told == Told::Acknowledged;
            if is_known {
                first_end = first_end.min(call.ended);
            }
            let after = match call.action {
                Action::Read(found) => (found == value).then_some(value),
                Action::Write(to) => Some(to),
                Action::Swap { from, to, did } if is_known => {
                    ((from == value) == did).then_some(if did { to } else { value })
                }
                Action::Swap { from, to, .. } => (from == value).then_some(to),
            };
            choices.extend(after.map(|after| (at, after)));
        }
        // What began after one that is not placed had ended is no choice, and the ends are all known only now.
        choices.retain(|(at, _)| self.calls[*at].began < first_end);
        // Taken from the back: what is known comes first.
        choices.sort_by_key(|(at, _)| self.calls[*at].told == Told::Acknowledged);
        choices
    }

    fn place(&mut self, at: usize) {
        self.placed.insert(at);
        self.known += usize::from(self.is_known(at));
    }

    fn take_back(&mut self, at: usize) {
        self.placed.remove(at);
        self.known -= usize::from(self.is_known(at));
    }

    fn is_known(&self, at: usize) -> bool {
        self.calls[at].told == Told::Acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(began: u64, ended: u64, action: Action) -> Call {
        Call { began, ended, told: Told::Acknowledged, action }
    }

    fn unknown(began: u64, action: Action) -> Call {
        Call { began, ended: began + 1, told: Told::Unknown, action }
    }

    #[test]
    fn overlapping_calls_may_be_seen_in_any_order() {
        let swap = Action::Swap { from: 1, to: 2, did: true };
        let calls = [call(0, 5, Action::Write(1)), call(1, 2, Action::Read(0)), call(3, 9, swap)];
        assert_eq!(check(&calls, 0), Ok(()));
        let calls = [call(0, 5, Action::Write(1)), call(1, 2, Action::Read(1)), call(3, 4, Action::Read(1))];
        assert_eq!(check(&calls, 0), Ok(()));
    }

    #[test]
    fn stale_reads_and_lost_writes_are_found() {
        let stale = [call(0, 1, Action::Write(1)), call(2, 3, Action::Read(0))];
        assert_eq!(check(&stale, 0), Err(Wrong::NotLinearizable { explained: 1 }));
        let back = [call(0, 9, Action::Write(1)), call(1, 2, Action::Read(1)), call(3, 4, Action::Read(0))];
        assert!(check(&back, 0).is_err(), "a value was seen and then not");
        let swap = |to| Action::Swap { from: 0, to, did: true };
        assert!(check(&[call(0, 5, swap(1)), call(1, 6, swap(2))], 0).is_err(), "both swapped the same");
        let refused = Action::Swap { from: 0, to: 1, did: false };
        assert!(check(&[call(0, 1, refused)], 0).is_err(), "it held what was asked for");
    }

    #[test]
    fn what_nobody_knows_may_happen_late_or_never() {
        let write = unknown(0, Action::Write(1));
        assert_eq!(check(&[write, call(2, 3, Action::Read(0)), call(4, 5, Action::Read(1))], 0), Ok(()));
        assert_eq!(check(&[write, call(2, 3, Action::Read(0)), call(4, 5, Action::Read(0))], 0), Ok(()));
        let reads = [call(2, 3, Action::Read(1)), call(4, 5, Action::Read(0))];
        assert!(check(&[&[write][..], &reads].concat(), 0).is_err(), "it happened and was undone");
        assert!(
            check(&[unknown(3, Action::Write(1)), call(0, 1, Action::Read(1))], 0).is_err(),
            "before it began"
        );
        let refused = Call { told: Told::Refused, ..call(0, 1, Action::Write(1)) };
        assert!(check(&[refused, call(2, 3, Action::Read(1))], 0).is_err(), "refused and there");
    }

    #[test]
    fn long_histories_are_judged_quickly() {
        let mut calls = Vec::new();
        for turn in 0..3000 {
            let at = turn * 10;
            calls.push(call(at, at + 7, Action::Write(turn + 1)));
            calls.push(call(at + 1, at + 6, Action::Read(turn + turn % 2)));
            calls.push(call(at + 8, at + 9, Action::Read(turn + 1)));
        }
        assert_eq!(check(&calls, 0), Ok(()));
        calls[8001].action = Action::Read(7);
        assert!(check(&calls, 0).is_err());
    }
}
