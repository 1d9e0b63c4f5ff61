//! What the requests of one peer may hold in memory while they are worked on.

use rustydb_proto::v1::raft_frame::Body;

/// Requests of one peer that are worked on at one time; beyond, they are refused as busy.
const REQUESTS_PER_PEER_MAX: usize = 4096;
/// Bytes of them, as they came; one is worked on in any case.
const REQUEST_BYTES_PER_PEER_MAX: usize = 128 << 20;

/// The requests of one peer that are worked on.
#[derive(Default)]
pub(crate) struct Working {
    count: usize,
    bytes: usize,
}

impl Working {
    /// Takes one more, if there is room for it.
    pub(crate) fn begin(&mut self, bytes: usize) -> bool {
        let is_too_much = self.bytes.saturating_add(bytes) > REQUEST_BYTES_PER_PEER_MAX;
        if self.count >= REQUESTS_PER_PEER_MAX || (self.count > 0 && is_too_much) {
            return false;
        }
        self.count += 1;
        self.bytes += bytes;
        true
    }

    /// One is done.
    pub(crate) fn end(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What a request holds in memory while it is worked on: entries may be large, anything else is small.
pub(crate) fn held_bytes(body: &Body) -> usize {
    match body {
        Body::Append(append) => append.entries.iter().map(prost::Message::encoded_len).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_of_a_peer_are_bounded_in_number_and_in_bytes() {
        let mut working = Working::default();
        // One is taken whatever its size: what a message may be is bounded elsewhere.
        assert!(working.begin(REQUEST_BYTES_PER_PEER_MAX + 1));
        assert!(!working.begin(0), "beyond the bytes nothing is taken");
        working.end(REQUEST_BYTES_PER_PEER_MAX + 1);
        assert!(working.begin(REQUEST_BYTES_PER_PEER_MAX - 1) && working.begin(1) && !working.begin(1));
        working.end(1);
        working.end(REQUEST_BYTES_PER_PEER_MAX - 1);
        assert!((0..REQUESTS_PER_PEER_MAX).all(|_| working.begin(1)));
        assert!(!working.begin(1), "beyond the number nothing is taken");
    }
}
