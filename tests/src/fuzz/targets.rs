//! The list of targets: a name, valid input, and what is done with any input.

use std::cell::RefCell;

use bytes::Bytes;

use super::{desk::Desk, mutate, peers, stored, wire};
use crate::crash::Dice;

/// Which goal a target counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Frames of PostgreSQL clients.
    Clients,
    /// Frames between nodes.
    Peers,
    /// Everything else.
    Stored,
}

/// Something that decodes.
pub struct Target {
    /// Its name, as libFuzzer's targets have it.
    pub name: &'static str,
    /// What it counts for.
    pub kind: Kind,
    /// Its part of the time, compared with the others.
    pub weight: u32,
    /// Valid input.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Makes malformed input of valid input.
    pub mutate: fn(&[Vec<u8>], &mut Dice) -> Vec<u8>,
    /// Takes any input and returns. Gives how many frames were in it.
    pub run: fn(&[u8]) -> u64,
}

/// One changed input.
fn plain(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let other = dice.index(corpus.len());
    let input = dice.index(corpus.len());
    mutate::mutate(&corpus[input], &corpus[other], dice)
}

fn one(run: fn(&[u8]), input: &[u8]) -> u64 {
    run(input);
    1
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

fn at_desk<T>(work: impl FnOnce(&mut Desk) -> T) -> T {
    DESK.with_borrow_mut(|desk| work(desk.get_or_insert_with(Desk::new)))
}

/// A conversation with a real session.
fn session(input: &[u8]) -> u64 {
    at_desk(|desk| {
        let before = desk.messages;
        desk.converse(input);
        desk.messages - before
    })
}

/// A context and frames for the host of another node's sessions: the first byte says where the context ends.
fn hosted(input: &[u8]) -> u64 {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let cut = if *first == 0 { rest.len() } else { rest.len().min(usize::from(*first)) };
    let (context, frames) = rest.split_at(cut);
    let frames: Vec<Bytes> = frames.chunks(40).map(Bytes::copy_from_slice).collect();
    1 + at_desk(|desk| desk.host(context, &frames))
}

fn hosted_corpus() -> Vec<Vec<u8>> {
    let frames = peers::session_frames();
    let (context, rest) = frames.split_first().expect("there are frames");
    let length = u8::try_from(context.len()).unwrap_or(0);
    let mut all = vec![[&[0][..], context].concat()];
    all.extend(rest.iter().map(|frame| [&[length][..], context, frame].concat()));
    all
}

fn type_names() -> Vec<Vec<u8>> {
    [
        "numeric(10,2)",
        "timestamp(3) with time zone",
        "character varying(20)[]",
        "\"char\"",
        "double precision",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect()
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "startup",
        kind: Kind::Clients,
        weight: 1,
        corpus: wire::startups,
        mutate: plain,
        run: |input| one(wire::startup_target, input),
    },
    Target {
        name: "scram",
        kind: Kind::Clients,
        weight: 1,
        corpus: wire::scrams,
        mutate: plain,
        run: |input| one(wire::scram_target, input),
    },
    Target {
        name: "frontend",
        kind: Kind::Clients,
        weight: 4,
        corpus: wire::conversations,
        mutate: wire::mutated_conversation,
        run: wire::frontend,
    },
    Target {
        name: "session",
        kind: Kind::Clients,
        weight: 12,
        corpus: wire::conversations,
        mutate: wire::mutated_conversation,
        run: session,
    },
    Target {
        name: "raft_frame",
        kind: Kind::Peers,
        weight: 2,
        corpus: peers::frames,
        mutate: plain,
        run: |input| one(peers::frame_target, input),
    },
    Target {
        name: "session_frame",
        kind: Kind::Peers,
        weight: 1,
        corpus: peers::session_frames,
        mutate: plain,
        run: |input| one(peers::session_frame_target, input),
    },
    Target {
        name: "admin",
        kind: Kind::Peers,
        weight: 1,
        corpus: peers::admin_messages,
        mutate: plain,
        run: |input| one(peers::admin_target, input),
    },
    Target {
        name: "hosted_session",
        kind: Kind::Peers,
        weight: 3,
        corpus: hosted_corpus,
        mutate: plain,
        run: hosted,
    },
    Target {
        name: "row",
        kind: Kind::Stored,
        weight: 1,
        corpus: stored::rows,
        mutate: plain,
        run: |input| one(stored::row_target, input),
    },
    Target {
        name: "key",
        kind: Kind::Stored,
        weight: 1,
        corpus: stored::keys,
        mutate: plain,
        run: |input| one(stored::key_target, input),
    },
    Target {
        name: "parameter",
        kind: Kind::Stored,
        weight: 2,
        corpus: stored::parameters,
        mutate: plain,
        run: |input| one(stored::parameter_target, input),
    },
    Target {
        name: "type_name",
        kind: Kind::Stored,
        weight: 1,
        corpus: type_names,
        mutate: plain,
        run: |input| one(stored::type_name_target, input),
    },
    Target {
        name: "log_segment",
        kind: Kind::Stored,
        weight: 2,
        corpus: stored::segments,
        mutate: plain,
        run: |input| one(stored::segment_target, input),
    },
    Target {
        name: "snapshot",
        kind: Kind::Stored,
        weight: 2,
        corpus: stored::snapshots,
        mutate: plain,
        run: |input| one(stored::snapshot_target, input),
    },
    Target {
        name: "configuration",
        kind: Kind::Stored,
        weight: 1,
        corpus: stored::configurations,
        mutate: plain,
        run: |input| one(stored::configuration_target, input),
    },
];

/// Runs a target on one input, as libFuzzer does.
///
/// # Panics
/// There is no such target; or what is looked for.
pub fn run(name: &str, input: &[u8]) {
    let target = target(name).expect("a target of this name");
    let _frames = (target.run)(input);
}

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
