//! What goes on at the node that answers: `pg_stat_activity`, `pg_locks`, and the functions that stop a session.
//!
//! A session runs at the node that leads its database, and so does the query that asks. It is therefore told of every
//! session of its own database that has asked for something since that node leads it, wherever its client is
//! connected, and of those of the other databases that the node leads; not of sessions of databases led elsewhere.
//! Locks are those of the query's own database. Rows are locked one by one, so a row lock is listed only while
//! somebody waits for it: as PostgreSQL's tuple locks, but without its place, since rows have none.

use std::collections::BTreeMap;

use rustydb_txn::{AdvisoryId, Locked};
use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::classes::{oid, text};
use super::cluster::is_superuser;
use super::relation::Rows;
use crate::catalog::descriptor::StorageId;
use crate::catalog::keys;
use crate::catalog::virtual_table::{Live, VirtualContext};
use crate::error::{SqlError, SqlState};
use crate::session::activity::Activity;
use crate::session::response::TransactionStatus;

/// Most locks that are listed.
const LOCK_COUNT_MAX: usize = 10_000;

/// Whether the session may see what another does, and stop it.
fn may_touch(context: &VirtualContext<'_>, activity: &Activity) -> bool {
    is_superuser(context) || activity.user == context.user
}

/// Open transactions of the context's database, as the store names them, with the numbers of their sessions.
fn sessions_by_transaction(context: &VirtualContext<'_>, live: Live<'_>) -> BTreeMap<u64, i32> {
    let own = live.activities.all().into_iter().filter(|activity| activity.database == context.database);
    own.flat_map(|activity| {
        let doing = activity.doing();
        let holders = doing.transaction.map(|(transaction, _)| transaction).into_iter().chain(doing.locks);
        holders.map(|holder| (holder, activity.pid)).collect::<Vec<_>>()
    })
    .collect()
}

/// `pg_locks.locktype` of a lock.
fn kind(on: &Locked) -> &'static str {
    match on {
        Locked::Table(_) => "relation",
        Locked::Row(_) => "tuple",
        Locked::Staged => "transactionid",
        Locked::Advisory(_) => "advisory",
    }
}

/// `pg_stat_activity`
pub(super) fn pg_stat_activity(context: &VirtualContext<'_>) -> Rows {
    let Some(live) = context.live else { return Vec::new() };
    let waits: BTreeMap<u64, &'static str> = (live.store.locks(LOCK_COUNT_MAX).into_iter())
        .filter(|lock| !lock.is_granted)
        .map(|lock| (lock.transaction, kind(&lock.on)))
        .collect();
    let row = |activity: &Activity| {
        let doing = activity.doing();
        let database = context.system.database_named(&activity.database);
        let role = context.system.role_named(&activity.user);
        let address = activity.client_address.rsplit_once(':');
        let time = |micros: Option<i64>| micros.map_or(Value::Null, Value::Timestamptz);
        let waits_for = match doing.transaction {
            Some((transaction, _)) if activity.database == context.database => {
                waits.get(&transaction).or_else(|| waits.get(&doing.locks?))
            }
            _ => None,
        };
        let (wait_type, wait) = match (doing.is_active, waits_for) {
            (true, Some(what)) => (text("Lock"), text(what)),
            (true, None) => (Value::Null, Value::Null),
            (false, _) => (text("Client"), text("ClientRead")),
        };
        let state = match (doing.is_active, doing.status) {
            (true, _) => "active",
            (false, TransactionStatus::Idle) => "idle",
            (false, TransactionStatus::InBlock) => "idle in transaction",
            (false, TransactionStatus::Failed) => "idle in transaction (aborted)",
        };
        let shown = may_touch(context, activity);
        let if_shown = |value: Value| if shown { value } else { Value::Null };
        let query = match &doing.query {
            _ if !shown => "<insufficient privilege>",
            Some((query, _)) => query,
            None => "",
        };
        vec![
            database.map_or(Value::Null, |database| oid(database.id.get())),
            text(&activity.database),
            Value::Int4(activity.pid),
            Value::Null, // leader_pid
            role.map_or(Value::Null, |role| oid(role.oid)),
            text(&activity.user),
            text(&doing.application_name),
            if_shown(address.map_or(Value::Null, |(host, _)| text(host.trim_matches(['[', ']'])))),
            Value::Null, // client_hostname
            if_shown(address.and_then(|(_, port)| port.parse().ok()).map_or(Value::Null, Value::Int4)),
            if_shown(time(Some(activity.begun))),
            if_shown(time(doing.transaction.map(|(_, begun)| begun))),
            if_shown(time(doing.query.as_ref().map(|(_, begun)| *begun))),
            if_shown(time(Some(doing.changed))),
            if_shown(wait_type),
            if_shown(wait),
            if_shown(text(state)),
            Value::Null, // backend_xid
            Value::Null, // backend_xmin
            Value::Null, // query_id
            text(query),
            if_shown(text("client backend")),
        ]
    };
    live.activities.all().iter().map(|activity| row(activity)).collect()
}

/// `pg_locks`
pub(super) fn pg_locks(context: &VirtualContext<'_>) -> Rows {
    let Some(live) = context.live else { return Vec::new() };
    let sessions = sessions_by_transaction(context, live);
    let database = context.system.database_named(context.database).map(|database| database.id.get());
    let relation_of = |key: &[u8]| {
        let storage = keys::storage_of(key)?;
        let has = |it: StorageId| it == storage;
        let mut tables = context.catalog.tables();
        tables.find(|table| has(table.storage) || table.indexes.iter().any(|index| has(index.storage)))
    };
    (live.store.locks(LOCK_COUNT_MAX).into_iter())
        .map(|lock| {
            let relation = match &lock.on {
                Locked::Table(id) => Value::Oid(id.get()),
                Locked::Row(key) => relation_of(key).map_or(Value::Null, |table| oid(table.oid)),
                Locked::Staged | Locked::Advisory(_) => Value::Null,
            };
            // As PostgreSQL shows the two kinds of numbers.
            let [class, object, sub] = match lock.on {
                Locked::Advisory(AdvisoryId::One(key)) => {
                    [Value::Oid((key >> 32) as u32), Value::Oid(key as u32), Value::Int2(1)]
                }
                Locked::Advisory(AdvisoryId::Pair(first, second)) => {
                    [Value::Oid(first as u32), Value::Oid(second as u32), Value::Int2(2)]
                }
                _ => [Value::Null, Value::Null, Value::Null],
            };
            vec![
                text(kind(&lock.on)),
                database.map_or(Value::Null, oid),
                relation,
                Value::Null, // page
                Value::Null, // tuple
                Value::Null, // virtualxid
                Value::Null, // transactionid
                class,
                object,
                sub,
                text(lock.transaction.to_string()),
                sessions.get(&lock.transaction).map_or(Value::Null, |pid| Value::Int4(*pid)),
                text(lock.mode),
                Value::Bool(lock.is_granted),
                Value::Bool(false), // fastpath
                Value::Null,        // waitstart
            ]
        })
        .collect()
}

/// `pg_blocking_pids`: the sessions that stand in the way of the lock that a session waits for.
pub(super) fn blocking_pids(context: &VirtualContext<'_>, pid: i32) -> Value {
    let blockers = context.live.map_or_else(Vec::new, |live| {
        let sessions = sessions_by_transaction(context, live);
        let waiting = sessions.iter().filter(|(_, session)| **session == pid);
        let blockers: Vec<u64> = waiting.flat_map(|(holder, _)| live.store.blockers(*holder)).collect();
        blockers.iter().map(|blocker| Value::Int4(sessions.get(blocker).copied().unwrap_or(0))).collect()
    });
    Value::array(BaseType::Int4, blockers)
}

/// `pg_cancel_backend`: ends what a session does now. False when there is no such session here.
pub(super) fn cancel_backend(context: &VirtualContext<'_>, pid: i32) -> Result<Value, SqlError> {
    let Some(live) = context.live else { return Ok(Value::Bool(false)) };
    let Some(found) = live.activities.all().into_iter().find(|activity| activity.pid == pid) else {
        return Ok(Value::Bool(false));
    };
    if !may_touch(context, &found) {
        let superuser = context.system.role_named(&found.user).is_some_and(|role| role.superuser);
        let message = if superuser {
            "must be a superuser to cancel superuser query"
        } else {
            "must be a member of the role whose query is being canceled or member of pg_signal_backend"
        };
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    found.interrupts.cancel();
    Ok(Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustydb_env::Env;
    use rustydb_txn::{
        Access, Isolation, LocalKv, LockWait, RowLock, TableLockId, TableLockMode, Transaction, TxnOptions,
    };
    use rustydb_types::ids::{Incarnation, RequestId, SessionId};

    use super::super::tests::{catalog, system};
    use super::*;
    use crate::catalog::virtual_table::VirtualRegistry;
    use crate::session::activity::{Activities, kept_text};
    use crate::session::interrupt::Interrupts;

    async fn begin(store: &LocalKv, counter: u64) -> Transaction {
        let request = RequestId { incarnation: Incarnation::new(1), session: SessionId::new(1), counter };
        let options = TxnOptions { isolation: Isolation::ReadCommitted, access: Access::ReadWrite, request };
        store.kv().begin(options).await.unwrap()
    }

    #[tokio::test]
    async fn a_waiting_session_shows_what_it_waits_for_and_for_whom() {
        let env = Env::os();
        let dir = tempfile::tempdir().unwrap();
        let store = LocalKv::in_memory(&env, dir.path().to_owned(), Duration::ZERO).unwrap();
        let kv = store.kv();
        let activities = Arc::new(Activities::default());
        let interrupts = Arc::new(Interrupts::default());
        let session = |pid| activities.register(pid, ("postgres", "shop"), "10.0.0.9:4711", 5, &interrupts);
        let (holder, waiter) = (session(11), session(22));
        let (mut first, mut second) = (begin(&store, 1).await, begin(&store, 2).await);
        holder.begin(kept_text("update accounts"), 7);
        holder.open(first.id(), 6);
        waiter.begin(kept_text("delete from accounts"), 8);
        waiter.open(second.id(), 8);
        let table = TableLockId::new(16_385);
        first.lock_table(table, TableLockMode::RowExclusive, LockWait::NoWait).await.unwrap();
        let (catalog, system, registry) = (catalog(), system(), VirtualRegistry::builtin());
        let mut key = keys::storage_prefix(catalog.tables().next().unwrap().storage).to_vec();
        key.push(9);
        first.lock_row(&key, RowLock::ForUpdate, LockWait::NoWait).await.unwrap();
        let mut waiting = Box::pin(second.lock_row(&key, RowLock::ForUpdate, LockWait::Forever));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        holder.wait(TransactionStatus::InBlock, true, 9);

        let context = VirtualContext {
            catalog: &catalog,
            system: &system,
            registry: &registry,
            database: "shop",
            user: "postgres",
            settings: &[],
            live: Some(Live { activities: &activities, store: &kv }),
        };
        let shown = |value: &Value| value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned);
        let activity: Vec<String> = (pg_stat_activity(&context).iter())
            .map(|row| [2, 7, 9, 14, 15, 16, 20].map(|place| shown(&row[place])).join(" "))
            .collect();
        assert_eq!(
            activity,
            [
                "Int4(11) 10.0.0.9 Int4(4711) Client ClientRead idle in transaction update accounts",
                "Int4(22) 10.0.0.9 Int4(4711) Lock tuple active delete from accounts",
            ]
        );
        let locks: Vec<String> = (pg_locks(&context).iter())
            .map(|row| [0, 11, 12, 13].map(|place| shown(&row[place])).join(" "))
            .collect();
        assert_eq!(
            locks,
            [
                "relation Int4(11) RowExclusiveLock Bool(true)",
                "tuple Int4(11) AccessExclusiveLock Bool(true)",
                "tuple Int4(22) AccessExclusiveLock Bool(false)",
            ]
        );
        assert_eq!(blocking_pids(&context, 22), Value::array(BaseType::Int4, vec![Value::Int4(11)]));
        assert_eq!(blocking_pids(&context, 11), Value::array(BaseType::Int4, Vec::new()));

        let stranger = VirtualContext { user: "nobody", ..context };
        let row = &pg_stat_activity(&stranger)[0];
        assert_eq!((&row[16], row[20].as_str()), (&Value::Null, Some("<insufficient privilege>")));
        assert_eq!(cancel_backend(&stranger, 22).unwrap_err().state(), SqlState::INSUFFICIENT_PRIVILEGE);
        assert!(interrupts.check().is_ok());
        assert_eq!(cancel_backend(&context, 22).unwrap(), Value::Bool(true));
        assert_eq!(interrupts.check().unwrap_err().state(), SqlState::QUERY_CANCELED);
        assert_eq!(cancel_backend(&context, 99).unwrap(), Value::Bool(false));
    }
}
