//! What the sessions of a node are doing: what `pg_stat_activity` shows.
//!
//! A session registers where it runs, which is the node that leads its database, and takes itself out when it ends
//! there. It writes down what it does under a lock of its own that only those who look take too.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::interrupt::Interrupts;
use super::response::TransactionStatus;

/// Longest text of a query that is kept, in bytes, as PostgreSQL's `track_activity_query_size`.
pub const QUERY_SIZE_MAX: usize = 1024;

/// The sessions that run at a node. Bounded by the number of sessions that a node admits.
#[derive(Debug, Default)]
pub struct Activities {
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    next: u64,
    by_number: BTreeMap<u64, Arc<Activity>>,
}

/// One session, as others see it.
#[derive(Debug)]
pub struct Activity {
    /// The number by which clients know it: `pg_backend_pid()`; 0 for a session without a client.
    pub pid: i32,
    /// The role that logged in.
    pub user: String,
    /// The database's name.
    pub database: String,
    /// Where the client connects from: address and port.
    pub client_address: String,
    /// When it began here; microseconds since 2000-01-01 UTC.
    pub begun: i64,
    /// Through which it is stopped.
    pub interrupts: Arc<Interrupts>,
    doing: Mutex<Doing>,
}

/// What a session is doing. Times are microseconds since 2000-01-01 UTC.
#[derive(Clone, Debug)]
pub struct Doing {
    /// What the client calls itself.
    pub application_name: String,
    /// Whether it works for its client, rather than waiting for it.
    pub is_active: bool,
    /// Where it is with its transaction.
    pub status: TransactionStatus,
    /// The open transaction, as its store names it, and when it began.
    pub transaction: Option<(u64, i64)>,
    /// The holder of its advisory locks, as the store names it.
    pub locks: Option<u64>,
    /// The text of the present query or the last one, cut to [`QUERY_SIZE_MAX`], and when that began.
    pub query: Option<(Arc<str>, i64)>,
    /// When it last went from working to waiting or back.
    pub changed: i64,
}

/// A session's place among the activities; dropping it ends it.
#[derive(Debug)]
pub struct Registered {
    activities: Arc<Activities>,
    number: u64,
    activity: Arc<Activity>,
}

impl Activities {
    /// Enters a session.
    #[must_use]
    pub fn register(
        self: &Arc<Self>,
        pid: i32,
        (user, database): (&str, &str),
        client_address: &str,
        now: i64,
        interrupts: &Arc<Interrupts>,
    ) -> Registered {
        let activity = Arc::new(Activity {
            pid,
            user: user.to_owned(),
            database: database.to_owned(),
            client_address: client_address.to_owned(),
            begun: now,
            interrupts: Arc::clone(interrupts),
            doing: Mutex::new(Doing {
                application_name: String::new(),
                is_active: false,
                status: TransactionStatus::Idle,
                transaction: None,
                locks: None,
                query: None,
                changed: now,
            }),
        });
        let mut sessions = self.sessions.lock();
        let number = sessions.next;
        sessions.next += 1;
        sessions.by_number.insert(number, Arc::clone(&activity));
        Registered { activities: Arc::clone(self), number, activity }
    }

    /// The sessions in the order in which they began here.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Activity>> {
        self.sessions.lock().by_number.values().cloned().collect()
    }
}

impl Activity {
    /// What it is doing now.
    #[must_use]
    pub fn doing(&self) -> Doing {
        self.doing.lock().clone()
    }
}

impl Registered {
    /// All sessions of the node.
    #[must_use]
    pub fn activities(&self) -> &Arc<Activities> {
        &self.activities
    }

    /// `pg_backend_pid()`
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.activity.pid
    }

    /// The client's name for itself changed.
    pub fn rename(&self, application_name: &str) {
        application_name.clone_into(&mut self.activity.doing.lock().application_name);
    }

    /// A query begins.
    pub fn begin(&self, query: Arc<str>, now: i64) {
        let mut doing = self.activity.doing.lock();
        doing.is_active = true;
        doing.query = Some((query, now));
        doing.changed = now;
    }

    /// The open transaction, as its store names it.
    #[must_use]
    pub fn transaction(&self) -> Option<u64> {
        self.activity.doing.lock().transaction.map(|(transaction, _)| transaction)
    }

    /// The session has locks of its own, as its store names it.
    pub fn hold(&self, locks: Option<u64>) {
        self.activity.doing.lock().locks = locks;
    }

    /// A transaction is open that began at `begun`.
    pub fn open(&self, transaction: u64, begun: i64) {
        self.activity.doing.lock().transaction = Some((transaction, begun));
    }

    /// The client is waited for.
    pub fn wait(&self, status: TransactionStatus, has_transaction: bool, now: i64) {
        let mut doing = self.activity.doing.lock();
        doing.is_active = false;
        doing.status = status;
        doing.changed = now;
        if !has_transaction {
            doing.transaction = None;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.activities.sessions.lock().by_number.remove(&self.number);
    }
}

/// A query's text as it is kept: cut where it is too long, between characters.
#[must_use]
pub fn kept_text(sql: &str) -> Arc<str> {
    let end = (0..=QUERY_SIZE_MAX.min(sql.len())).rev().find(|end| sql.is_char_boundary(*end)).unwrap_or(0);
    Arc::from(sql.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_show_what_they_do_until_they_end() {
        let activities = Arc::new(Activities::default());
        let interrupts = Arc::new(Interrupts::default());
        let session = activities.register(7, ("ann", "shop"), "127.0.0.1:9", 100, &interrupts);
        session.rename("psql");
        session.begin(kept_text("select 1"), 200);
        session.open(3, 190);
        let doing = activities.all()[0].doing();
        assert!(doing.is_active);
        assert_eq!((doing.query, doing.transaction), (Some(("select 1".into(), 200)), Some((3, 190))));
        session.wait(TransactionStatus::InBlock, true, 300);
        assert!(activities.all()[0].doing().transaction.is_some());
        session.wait(TransactionStatus::Idle, false, 400);
        let doing = activities.all()[0].doing();
        assert_eq!((doing.is_active, doing.transaction, doing.changed), (false, None, 400));
        drop(session);
        assert!(activities.all().is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(&*kept_text("select 1"), "select 1");
        let long = "é".repeat(QUERY_SIZE_MAX);
        assert_eq!(kept_text(&long).len(), QUERY_SIZE_MAX);
        assert_eq!(kept_text(&format!("x{long}")).len(), QUERY_SIZE_MAX - 1);
    }
}
