//! Identifiers: one newtype per kind of number, so that a term cannot be passed where an index is meant.
//!
//! Every identifier has a private field, `new` and `get`, an order, a hash, a `Display` that prints the bare
//! number, and a transparent serde form (the bare number). There is no conversion from an integer by `From`: a
//! number becomes an identifier only where somebody writes down which one it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares one identifier newtype over an unsigned integer.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Names a bare number as this kind of identifier.
            #[must_use]
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The bare number, for encoding and arithmetic at the edges.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// Adds the successor and predecessor of an identifier that counts something.
macro_rules! counting {
    ($name:ident) => {
        impl $name {
            /// The one after this.
            ///
            /// # Panics
            /// At the end of 64 bits, which no running system reaches: at ten million steps a second it takes
            /// more than fifty thousand years.
            #[must_use]
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(raw) => Self(raw),
                    None => panic!("a 64-bit position is exhausted"),
                }
            }

            /// The one before this, or `None` at zero.
            #[must_use]
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }
    };
}

identifier! {
    /// A server process of a cluster. Given once and never reused: a node that lost its data comes back under a
    /// new one.
    NodeId(u64)
}

identifier! {
    /// A Raft group: the system group or the group of one database. Never reused.
    GroupId(u64)
}

impl GroupId {
    /// The group that every node belongs to and that records databases, roles and nodes.
    pub const SYSTEM: Self = Self(1);
}

identifier! {
    /// A Raft term: a period with at most one leader.
    Term(u64)
}
counting!(Term);

identifier! {
    /// The place of an entry in the log of one group, counted from 0.
    LogIndex(u64)
}
counting!(LogIndex);

identifier! {
    /// The sequence number of a commit in one group: the multi-version timestamp of its database.
    Version(u64)
}
counting!(Version);

impl Version {
    /// Before the first commit: nothing is visible.
    pub const ZERO: Self = Self(0);
    /// Later than every commit that will ever be.
    pub const MAX: Self = Self(u64::MAX);
}

identifier! {
    /// A client's session, unique within one incarnation of a node.
    SessionId(u64)
}

identifier! {
    /// One life of one node: drawn anew at each start, so that counters may begin at zero again.
    Incarnation(u64)
}

identifier! {
    /// A PostgreSQL object identifier. Zero names nothing.
    Oid(u32)
}

impl Oid {
    /// PostgreSQL's `InvalidOid`.
    pub const INVALID: Self = Self(0);
    /// The first identifier of objects that users create; everything below is built in.
    pub const FIRST_USER: Self = Self(16_384);
    /// The first identifier of objects that end with the session that made them.
    pub const FIRST_TEMPORARY: Self = Self(1 << 30);
    /// The last of those.
    pub const LAST_TEMPORARY: Self = Self((1 << 31) - 1);

    /// Whether the object ends with the session that made it.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        self.0 >= Self::FIRST_TEMPORARY.0 && self.0 <= Self::LAST_TEMPORARY.0
    }
}

identifier! {
    /// A table, by the number of its object identifier.
    TableId(u32)
}

identifier! {
    /// An index, by the number of its object identifier.
    IndexId(u32)
}

identifier! {
    /// A column within its table: never reused, so that rows written before a drop stay readable.
    ColumnId(u32)
}

/// A database, by its object identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseId(Oid);

impl DatabaseId {
    /// Names an object identifier as that of a database.
    #[must_use]
    pub const fn new(oid: Oid) -> Self {
        Self(oid)
    }

    /// The object identifier.
    #[must_use]
    pub const fn get(self) -> Oid {
        self.0
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Who asked for a commit. The answer to a commit that was lost on the way can be asked for under this name, and
/// a commit that arrives twice under it is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The life of the node at which the client is connected.
    pub incarnation: Incarnation,
    /// The client's session there.
    pub session: SessionId,
    /// Counts the commits of the session.
    pub counter: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.session, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_print_and_order_as_their_numbers() {
        assert_eq!(GroupId::SYSTEM.to_string(), "1");
        assert_eq!(DatabaseId::new(Oid::new(5)).to_string(), "5");
        assert!(LogIndex::new(9) < LogIndex::new(10));
        let id = RequestId { incarnation: Incarnation::new(7), session: SessionId::new(8), counter: 9 };
        assert_eq!(id.to_string(), "7.8.9");
    }

    #[test]
    fn neighbours_stop_at_the_ends() {
        assert_eq!(LogIndex::new(0).previous(), None);
        assert_eq!(LogIndex::new(1).previous(), Some(LogIndex::new(0)));
        assert_eq!(Version::ZERO.next(), Version::new(1));
    }
}
