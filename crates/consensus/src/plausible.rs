//! What a message between members must fulfil before consensus sees it.
//!
//! openraft holds its own rules to be invariants: a message that breaks one ends the process. No member that follows
//! the protocol sends such a message; a damaged or a foreign one is refused here, and nothing is changed by it.

use rustydb_proto::v1;

use crate::codec::CodecError;

/// No cluster comes to so many terms or entries; beyond, counting on would overflow.
const NUMBER_MAX: u64 = 1 << 62;

const fn implausible(what: &'static str, reason: &'static str) -> CodecError {
    CodecError::Implausible { what, reason }
}

const fn require(holds: bool, what: &'static str, reason: &'static str) -> Result<(), CodecError> {
    if holds { Ok(()) } else { Err(implausible(what, reason)) }
}

fn bounded(what: &'static str, log_id: Option<&v1::RaftLogId>, term_max: u64) -> Result<(), CodecError> {
    let Some(log_id) = log_id else { return Ok(()) };
    require(log_id.index < NUMBER_MAX, what, "an index out of bounds")?;
    require(log_id.term <= term_max, what, "an entry of a later term than its own")
}

/// A vote's term can be counted on from.
pub(crate) fn vote(what: &'static str, vote: &v1::RaftVote) -> Result<(), CodecError> {
    require(vote.term < NUMBER_MAX, what, "a term out of bounds")
}

/// Entries follow each other, and none is of a later term than their leader's.
pub(crate) fn append(append: &v1::RaftAppend) -> Result<(), CodecError> {
    const WHAT: &str = "append";
    let Some(leader) = &append.vote else { return Ok(()) };
    require(leader.committed, WHAT, "it is not of a leader")?;
    bounded(WHAT, append.previous.as_ref(), leader.term)?;
    bounded(WHAT, append.leader_commit.as_ref(), leader.term)?;
    let (mut term, mut index) = append.previous.as_ref().map_or((0, 0), |last| (last.term, last.index + 1));
    for entry in &append.entries {
        require(entry.index == index, WHAT, "entries do not follow each other")?;
        require(entry.term >= term && entry.term <= leader.term, WHAT, "terms do not follow each other")?;
        (term, index) = (entry.term, index + 1);
    }
    let Some(commit) = &append.leader_commit else { return Ok(()) };
    // Terms grow along a log, and what is committed is in its leader's.
    let known = append.previous.iter().map(|last| (last.index, last.term));
    let mut known = known.chain(append.entries.iter().map(|entry| (entry.index, entry.term)));
    let fits = known.all(|(index, term)| match commit.index.cmp(&index) {
        std::cmp::Ordering::Less => commit.term <= term,
        std::cmp::Ordering::Equal => commit.term == term,
        std::cmp::Ordering::Greater => commit.term >= term,
    });
    require(fits, WHAT, "what is committed is not in the log")
}

/// Nobody asks for votes with a log of a later term.
pub(crate) fn vote_request(request: &v1::RaftVoteRequest) -> Result<(), CodecError> {
    const WHAT: &str = "vote request";
    let Some(asked) = &request.vote else { return Ok(()) };
    require(!asked.committed, WHAT, "it is of a leader")?;
    bounded(WHAT, request.last.as_ref(), asked.term)
}

/// A snapshot is not of a later term than its leader's, and its members are not of a later entry than its last.
pub(crate) fn snapshot(header: &v1::RaftSnapshotHeader) -> Result<(), CodecError> {
    const WHAT: &str = "snapshot header";
    let Some(leader) = &header.vote else { return Ok(()) };
    require(leader.committed, WHAT, "it is not of a leader")?;
    bounded(WHAT, header.last_log_id.as_ref(), leader.term)?;
    let members = header.membership.as_ref().and_then(|stored| stored.log_id.as_ref());
    let place = |log_id: &v1::RaftLogId| (log_id.term, log_id.index);
    let (members, last) = (members.map(place), header.last_log_id.as_ref().map(place));
    require(members <= last, WHAT, "its members are of a later entry than its last")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: u64) -> Option<v1::RaftLogId> {
        Some(v1::RaftLogId { term, index })
    }

    fn leader(term: u64) -> Option<v1::RaftVote> {
        Some(v1::RaftVote { term, node: 1, committed: true })
    }

    fn entry(term: u64, index: u64) -> v1::RaftEntry {
        v1::RaftEntry { term, index, body: bytes::Bytes::new() }
    }

    #[test]
    fn appends_that_no_leader_sends_are_refused() {
        let sound = v1::RaftAppend {
            vote: leader(3),
            previous: at(2, 7),
            entries: vec![entry(2, 8), entry(3, 9)],
            leader_commit: at(3, 20),
        };
        append(&sound).unwrap();
        append(&v1::RaftAppend { previous: None, entries: vec![entry(0, 0), entry(1, 1)], ..sound.clone() })
            .unwrap();
        let wrong = [
            v1::RaftAppend {
                vote: Some(v1::RaftVote { term: 3, node: 1, committed: false }),
                ..sound.clone()
            },
            v1::RaftAppend { previous: at(4, 7), ..sound.clone() },
            v1::RaftAppend { previous: at(2, u64::MAX), ..sound.clone() },
            v1::RaftAppend { entries: vec![entry(2, 9)], ..sound.clone() },
            v1::RaftAppend { entries: vec![entry(1, 8)], ..sound.clone() },
            v1::RaftAppend { entries: vec![entry(4, 8)], ..sound.clone() },
            v1::RaftAppend { leader_commit: at(9, 9), ..sound.clone() },
            v1::RaftAppend { leader_commit: at(3, 6), ..sound.clone() },
            v1::RaftAppend { leader_commit: at(2, 9), ..sound },
        ];
        for message in wrong {
            let refused = append(&message);
            assert!(matches!(refused, Err(CodecError::Implausible { .. })), "{message:?}");
        }
    }

    #[test]
    fn snapshots_and_votes_of_later_terms_are_refused() {
        let membership = |log_id| Some(v1::RaftStoredMembership { log_id, membership: None });
        let header = |last, members| v1::RaftSnapshotHeader {
            vote: leader(3),
            last_log_id: last,
            membership: membership(members),
        };
        snapshot(&header(at(3, 9), at(1, 2))).unwrap();
        assert!(snapshot(&header(at(4, 9), at(1, 2))).is_err());
        assert!(snapshot(&header(at(3, 9), at(3, 10))).is_err());
        assert!(snapshot(&header(None, at(0, 0))).is_err());
        let request = |term, last| v1::RaftVoteRequest {
            vote: Some(v1::RaftVote { term, node: 2, committed: false }),
            last,
            ..v1::RaftVoteRequest::default()
        };
        vote_request(&request(3, at(3, 1))).unwrap();
        assert!(vote_request(&request(3, at(4, 1))).is_err());
        assert!(vote("vote", &v1::RaftVote { term: u64::MAX, node: 2, committed: false }).is_err());
    }
}
