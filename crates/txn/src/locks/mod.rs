//! Locks: on rows and on tables, in memory at the leader.
//!
//! First come, first served: a request waits behind every conflicting holder and every conflicting request that
//! came earlier; only who already holds a lock on the same thing goes to the front, since nobody behind could be
//! served before it anyway. When a wait begins, the graph of who waits for whom is searched; the request that
//! would close a circle is refused.
//!
//! Safety never rests on a lock surviving: a change of leadership forgets all of them and ends the transactions.

mod advisory;
mod mode;
mod table;

pub use advisory::{AdvisoryWait, SessionLocks};
pub use mode::{AdvisoryId, LockWait, RowLock, TableLockId, TableLockMode};
pub(crate) use mode::{LockTarget, Mode};
pub(crate) use table::{Acquired, LockTable, LockWaiter, TxnId};
pub use table::{LockView, Locked};
