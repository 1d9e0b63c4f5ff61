//! openraft's types to and from the messages of `rustydb_proto`, on disk and on the wire.
//!
//! Formats: `docs/formats/raft.md`. What comes from the network or the disk is checked here, once.
//!
//! An entry body is encoded when its command is proposed and then shared: the log, its tail cache, the messages to
//! followers and the state machine hold the same buffer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message;
use rustydb_proto::v1;
use rustydb_types::{
    ids::{LogIndex, Term},
    position::LogPosition,
};

use crate::machine::Mark;
use crate::plausible;
use crate::type_config::{
    Command, Entry, LogId, Member, Membership, Payload, SnapshotMeta, StoredMembership, Vote, position_of,
};

/// Why bytes or a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are no message of this kind.
    #[error("not a {what}: {source}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// A part that must be there is absent.
    #[error("{what} without {part}")]
    Missing {
        /// The message.
        what: &'static str,
        /// The absent part.
        part: &'static str,
    },
    /// A message that no member of a cluster sends.
    #[error("{what}: {reason}")]
    Implausible {
        /// The message.
        what: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
    /// A membership whose voters are not all members, or without a voter.
    #[error("the membership is contradictory: {reason}")]
    Membership {
        /// What does not fit.
        reason: String,
    },
}

fn malformed(what: &'static str) -> impl FnOnce(prost::DecodeError) -> CodecError {
    move |source| CodecError::Malformed { what, source }
}

/// Encodes the body of an entry that carries `payload`.
#[must_use]
pub fn encode_command(payload: &[u8]) -> Bytes {
    // As prost writes `RaftEntryBody { command }`: one tag, the length, the bytes. By hand, because prost would
    // need the payload as an owned buffer first.
    let key = prost::encoding::key_len(1);
    let length = prost::encoding::encoded_len_varint(payload.len() as u64);
    let mut body = Vec::with_capacity(key + length + payload.len());
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut body);
    prost::encoding::encode_varint(payload.len() as u64, &mut body);
    body.extend_from_slice(payload);
    Bytes::from(body)
}

/// What an entry body carries, borrowed from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A leader's first entry.
    Blank,
    /// A decided transaction; shares the buffer of the body.
    Command(Bytes),
    /// A change of the membership.
    Membership(Membership),
}

/// Reads an entry body.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn decode_body(body: &Bytes) -> Result<Body, CodecError> {
    if body.is_empty() {
        return Ok(Body::Blank);
    }
    let message = v1::RaftEntryBody::decode(body.clone()).map_err(malformed("entry body"))?;
    match message.kind {
        None => Ok(Body::Blank),
        Some(v1::raft_entry_body::Kind::Command(command)) => Ok(Body::Command(command)),
        Some(v1::raft_entry_body::Kind::Membership(membership)) => {
            Ok(Body::Membership(decode_membership(&membership)?))
        }
    }
}

/// The bytes of a payload's entry body.
#[must_use]
pub fn encode_payload(payload: &Payload) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(command) => command.body().clone(),
        EntryPayload::Membership(membership) => {
            let kind = Some(v1::raft_entry_body::Kind::Membership(encode_membership(membership)));
            Bytes::from(v1::RaftEntryBody { kind }.encode_to_vec())
        }
    }
}

/// The payload of an entry body.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn decode_payload(body: Bytes) -> Result<Payload, CodecError> {
    Ok(match decode_body(&body)? {
        Body::Blank => EntryPayload::Blank,
        Body::Command(_) => EntryPayload::Normal(Command::from_body(body)),
        Body::Membership(membership) => EntryPayload::Membership(membership),
    })
}

/// An entry on the wire.
#[must_use]
pub fn entry_to_wire(entry: &Entry) -> v1::RaftEntry {
    v1::RaftEntry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        body: encode_payload(&entry.payload),
    }
}

/// An entry from the wire.
///
/// # Errors
/// [`CodecError`] when the body is none.
pub fn entry_from_wire(entry: v1::RaftEntry) -> Result<Entry, CodecError> {
    Ok(Entry { log_id: LogId::new_term_index(entry.term, entry.index), payload: decode_payload(entry.body)? })
}

/// A log id as a message.
#[must_use]
pub fn log_id_to_wire(log_id: &LogId) -> v1::RaftLogId {
    v1::RaftLogId { term: log_id.leader_id.term, index: log_id.index }
}

/// A log id from a message.
#[must_use]
pub fn log_id_from_wire(log_id: &v1::RaftLogId) -> LogId {
    LogId::new_term_index(log_id.term, log_id.index)
}

/// The stored form of a log id.
#[must_use]
pub fn encode_log_id(log_id: &LogId) -> Bytes {
    Bytes::from(log_id_to_wire(log_id).encode_to_vec())
}

/// Reads the stored form of a log id.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn decode_log_id(bytes: &Bytes) -> Result<LogId, CodecError> {
    let message = v1::RaftLogId::decode(bytes.clone()).map_err(malformed("log position"))?;
    Ok(log_id_from_wire(&message))
}

/// A vote as a message.
#[must_use]
pub fn vote_to_wire(vote: &Vote) -> v1::RaftVote {
    v1::RaftVote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

/// A vote from a message.
#[must_use]
pub fn vote_from_wire(vote: &v1::RaftVote) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}

/// A vote that a message must have.
///
/// # Errors
/// [`CodecError::Missing`] when it has none, [`CodecError::Implausible`] for a term that no cluster comes to.
pub fn required_vote(what: &'static str, vote: Option<&v1::RaftVote>) -> Result<Vote, CodecError> {
    let vote = vote.ok_or(CodecError::Missing { what, part: "a vote" })?;
    plausible::vote(what, vote)?;
    Ok(vote_from_wire(vote))
}

/// The stored form of a vote.
#[must_use]
pub fn encode_vote(vote: &Vote) -> Bytes {
    Bytes::from(vote_to_wire(vote).encode_to_vec())
}

/// Reads the stored form of a vote.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn decode_vote(bytes: &Bytes) -> Result<Vote, CodecError> {
    let message = v1::RaftVote::decode(bytes.clone()).map_err(malformed("vote"))?;
    Ok(vote_from_wire(&message))
}

fn encode_membership(membership: &Membership) -> v1::RaftMembership {
    v1::RaftMembership {
        configurations: membership
            .get_joint_config()
            .iter()
            .map(|voters| v1::RaftVoters { nodes: voters.iter().copied().collect() })
            .collect(),
        nodes: membership.nodes().map(|(node, _)| *node).collect(),
    }
}

fn decode_membership(message: &v1::RaftMembership) -> Result<Membership, CodecError> {
    let configurations: Vec<BTreeSet<u64>> =
        message.configurations.iter().map(|voters| voters.nodes.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, Member> = message.nodes.iter().copied().map(|node| (node, Member)).collect();
    Membership::new(configurations, nodes)
        .map_err(|error| CodecError::Membership { reason: error.to_string() })
}

/// A stored membership as a message.
#[must_use]
pub fn stored_membership_to_wire(stored: &StoredMembership) -> v1::RaftStoredMembership {
    v1::RaftStoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(encode_membership(stored.membership())),
    }
}

/// A stored membership from a message.
///
/// # Errors
/// [`CodecError`] when it is contradictory.
pub fn stored_membership_from_wire(
    message: &v1::RaftStoredMembership,
) -> Result<StoredMembership, CodecError> {
    let log_id = message.log_id.as_ref().map(log_id_from_wire);
    let membership = match &message.membership {
        // A member that has applied nothing knows no membership: no voters at all.
        Some(membership) if !membership.configurations.is_empty() => decode_membership(membership)?,
        _ => Membership::default(),
    };
    Ok(StoredMembership::new(log_id, membership))
}

/// The stored form of a membership.
#[must_use]
pub fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    Bytes::from(stored_membership_to_wire(stored).encode_to_vec())
}

/// Reads the stored form of a membership.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn decode_stored_membership(bytes: &Bytes) -> Result<StoredMembership, CodecError> {
    let message = v1::RaftStoredMembership::decode(bytes.clone()).map_err(malformed("membership"))?;
    stored_membership_from_wire(&message)
}

/// The head of a snapshot as a message.
#[must_use]
pub fn snapshot_header(vote: &Vote, meta: &SnapshotMeta) -> v1::RaftSnapshotHeader {
    v1::RaftSnapshotHeader {
        vote: Some(vote_to_wire(vote)),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership: Some(stored_membership_to_wire(&meta.last_membership)),
    }
}

/// The head of a snapshot from a message.
///
/// # Errors
/// [`CodecError`] when a part is missing or contradictory.
pub fn snapshot_meta(header: &v1::RaftSnapshotHeader) -> Result<(Vote, SnapshotMeta), CodecError> {
    let vote = required_vote("snapshot header", header.vote.as_ref())?;
    plausible::snapshot(header)?;
    let membership = header
        .membership
        .as_ref()
        .ok_or(CodecError::Missing { what: "snapshot header", part: "a membership" })?;
    let meta = SnapshotMeta {
        last_log_id: header.last_log_id.as_ref().map(log_id_from_wire),
        last_membership: stored_membership_from_wire(membership)?,
    };
    Ok((vote, meta))
}

/// A state hash as a message.
#[must_use]
pub fn mark_to_wire(mark: &Mark) -> v1::RaftMark {
    let at = v1::RaftLogId { term: mark.position.term.get(), index: mark.position.index.get() };
    v1::RaftMark { at: Some(at), hash: Bytes::copy_from_slice(&mark.hash.to_le_bytes()) }
}

/// A state hash from a message.
///
/// # Errors
/// [`CodecError`] when a part is missing.
pub fn mark_from_wire(message: &v1::RaftMark) -> Result<Mark, CodecError> {
    let missing = |part| CodecError::Missing { what: "mark", part };
    let at = message.at.as_ref().ok_or(missing("a position"))?;
    let hash = message.hash.as_ref().try_into().map_err(|_| missing("a hash of 16 bytes"))?;
    let position = LogPosition::new(Term::new(at.term), LogIndex::new(at.index));
    Ok(Mark { position, hash: u128::from_le_bytes(hash) })
}

/// The position of a message's optional log id.
#[must_use]
pub fn optional_position(log_id: Option<&LogId>) -> Option<LogPosition> {
    log_id.map(position_of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_membership() -> impl Strategy<Value = Membership> {
        (
            prop::collection::btree_set(1u64..20, 1..8),
            prop::collection::btree_set(1u64..20, 0..4),
            any::<bool>(),
        )
            .prop_map(|(voters, learners, joint)| {
                let mut configurations = vec![voters.clone()];
                if joint && !learners.is_empty() {
                    configurations.push(learners.clone());
                }
                let nodes: BTreeMap<u64, Member> =
                    voters.iter().chain(&learners).map(|node| (*node, Member)).collect();
                Membership::new(configurations, nodes).expect("all voters are members")
            })
    }

    proptest! {
        #[test]
        fn command_bodies_are_what_prost_would_write(payload in prop::collection::vec(any::<u8>(), 0..600)) {
            let body = encode_command(&payload);
            let kind = Some(v1::raft_entry_body::Kind::Command(Bytes::from(payload.clone())));
            prop_assert_eq!(&body[..], &v1::RaftEntryBody { kind }.encode_to_vec()[..]);
            prop_assert_eq!(decode_body(&body), Ok(Body::Command(Bytes::from(payload))));
        }

        #[test]
        fn votes_and_positions_survive(term in any::<u64>(), node in any::<u64>(), committed in any::<bool>()) {
            let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
            let log_id = LogId::new_term_index(term, node);
            prop_assert_eq!(decode_log_id(&encode_log_id(&log_id)), Ok(log_id));
        }

        #[test]
        fn memberships_survive_on_disk_and_in_entries(membership in any_membership(), term in 0u64..9, index in 0u64..99) {
            let stored = StoredMembership::new(Some(LogId::new_term_index(term, index)), membership.clone());
            prop_assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)), Ok(stored));
            let body = encode_payload(&EntryPayload::Membership(membership.clone()));
            prop_assert_eq!(decode_payload(body), Ok(EntryPayload::Membership(membership)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_body(&bytes);
            let _ = decode_vote(&bytes);
            let _ = decode_log_id(&bytes);
            let _ = decode_stored_membership(&bytes);
        }
    }

    #[test]
    fn a_decoded_command_shares_the_buffer_of_its_body() {
        let body = encode_command(b"payload");
        let Ok(Body::Command(command)) = decode_body(&body) else { panic!("not a command") };
        let range = body.as_ptr_range();
        assert!(range.contains(&command.as_ptr()), "the payload was copied");
    }

    #[test]
    fn voters_that_are_no_members_are_refused() {
        let message = v1::RaftStoredMembership {
            log_id: None,
            membership: Some(v1::RaftMembership {
                configurations: vec![v1::RaftVoters { nodes: vec![1, 2] }],
                nodes: vec![1],
            }),
        };
        assert!(matches!(stored_membership_from_wire(&message), Err(CodecError::Membership { .. })));
    }

    #[test]
    fn absent_membership_means_none_yet() {
        let stored = StoredMembership::default();
        assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)), Ok(stored));
    }
}
