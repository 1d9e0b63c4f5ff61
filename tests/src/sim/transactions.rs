//! Clients over the real stores: transactions of all isolation levels that append to lists, read them, and move
//! money between accounts whose sum never changes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::{Env, Rng};
use rustydb_txn::{
    Access, Direction, Fate, Isolation, KvStore, LockWait, RowLock, ScanRequest, Transaction, TxnError,
    TxnOptions,
};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId, Version};

use super::{
    cluster::Cluster,
    history::{History, Lists, Record},
    oracle::{Counts, Told},
    run::{Course, Report, Stage, Workload, run},
    stores::{Hashes, Stores},
};

/// How long a client waits for the end of a transaction.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);
/// How often the outcome of a transaction is asked for after the end of the run.
const LATE_QUESTIONS_MAX: u64 = 200;
/// How often a transaction whose end is not known is tried again under the same request.
const COPIES_MAX: u64 = 6;
/// Lists per group that are in use at one time.
const LISTS: u64 = 4;
/// After so many values others take their place, so that a long run has no long lists.
const ERA_VALUES: u64 = 200;
/// Accounts per group.
const ACCOUNTS: u64 = 5;
/// What an account holds that has no row.
const START: i64 = 100;
/// Under this name a replica is read that may be behind.
const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };

/// Runs the real stores under consensus from a seed: see [`run`].
#[must_use]
pub fn run_stores(course: Course) -> Report {
    let hashes = Hashes::default();
    let workload = Transactions { history: Arc::default(), hashes: hashes.clone() };
    run(course, workload, |_, _| Stores::varied(hashes.clone()))
}

#[derive(Clone)]
struct Transactions {
    history: Arc<Mutex<History>>,
    hashes: Hashes,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append { list: u64, value: u64 },
    Read { list: u64 },
    Transfer { from: u64, to: u64, amount: i64 },
    Total,
}

/// A transaction to be run.
#[derive(Clone, Debug)]
struct Plan {
    options: TxnOptions,
    steps: Vec<Step>,
    /// Rolls back in the end, whatever it has written.
    gives_up: bool,
}

/// What a transaction saw.
#[derive(Debug, Default)]
struct Saw {
    lists: Vec<(u64, Vec<u64>)>,
    totals: Vec<i64>,
}

impl Plan {
    fn draw(random: &mut Rng, history: &Mutex<History>, request: RequestId) -> Self {
        let access = match random.range(0..10) {
            0 => Access::ReadLocal,
            1 | 2 => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        let isolation = match random.range(0..4) {
            _ if access != Access::ReadWrite => Isolation::RepeatableRead,
            0 => Isolation::ReadCommitted,
            1 => Isolation::RepeatableRead,
            _ => Isolation::Serializable,
        };
        let count = random.range(1..5);
        let mut steps: Vec<Step> =
            (0..count).map(|_| Step::draw(random, history, access, isolation)).collect();
        if access == Access::ReadWrite {
            // So that every transaction that writes leaves a trace.
            let list = any_list(random, history);
            steps.push(Step::Append { list, value: history.lock().next_value() });
        }
        let request = if access == Access::ReadWrite { request } else { NOBODY };
        let gives_up = access == Access::ReadWrite && random.chance(1, 12);
        Self { options: TxnOptions { isolation, access, request }, steps, gives_up }
    }

    fn appends(&self) -> Vec<(u64, u64)> {
        let append = |step: &Step| match step {
            Step::Append { list, value } => Some((*list, *value)),
            Step::Read { .. } | Step::Transfer { .. } | Step::Total => None,
        };
        self.steps.iter().filter_map(append).collect()
    }
}

impl Step {
    fn draw(random: &mut Rng, history: &Mutex<History>, access: Access, isolation: Isolation) -> Self {
        let list = any_list(random, history);
        if access != Access::ReadWrite {
            return if random.chance(1, 2) { Self::Total } else { Self::Read { list } };
        }
        match random.range(0..4) {
            0 => Self::Total,
            1 => {
                let from = random.range(0..ACCOUNTS);
                let to = (from + random.range(1..ACCOUNTS)) % ACCOUNTS;
                Self::Transfer { from, to, amount: i64::try_from(random.range(1..50)).unwrap_or(1) }
            }
            // Below SERIALIZABLE what is only read may have changed at the commit.
            2 if isolation == Isolation::Serializable => Self::Read { list },
            _ => Self::Append { list, value: history.lock().next_value() },
        }
    }
}

/// One of the lists that are in use now.
fn any_list(random: &mut Rng, history: &Mutex<History>) -> u64 {
    history.lock().values() / ERA_VALUES * LISTS + random.range(0..LISTS)
}

fn list_key(list: u64) -> Bytes {
    Bytes::from(format!("list {list}"))
}

fn account_key(account: u64) -> Bytes {
    Bytes::from(format!("account {account}"))
}

fn numbers(stored: Option<&Bytes>) -> Vec<u64> {
    let number = |chunk: &[u8]| chunk.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    stored.map(|bytes| bytes.chunks(8).map(number).collect()).unwrap_or_default()
}

fn balance(stored: &[u8]) -> i64 {
    stored.try_into().map(i64::from_le_bytes).unwrap_or(i64::MIN / 4)
}

/// The value of a row that is about to be overwritten, locked where the isolation level asks for it.
async fn get_to_write(
    txn: &mut Transaction,
    key: &Bytes,
    random: &mut Rng,
) -> Result<Option<Bytes>, TxnError> {
    let isolation = txn.options().isolation;
    let optimistic = isolation == Isolation::Serializable && random.chance(1, 2);
    if !optimistic {
        let wait = match random.range(0..4) {
            0 => LockWait::NoWait,
            _ => LockWait::For(Duration::from_millis(random.range(1..100))),
        };
        txn.lock_row(key, RowLock::ForUpdate, wait).await?;
    }
    if isolation == Isolation::ReadCommitted { txn.get_latest(key) } else { txn.get(key) }
}

fn total(txn: &Transaction, random: &mut Rng) -> Result<i64, TxnError> {
    let (mut found, mut sum) = (0, 0);
    let direction = if random.chance(1, 2) { Direction::Forward } else { Direction::Backward };
    let mut rest = Some((account_key(0), account_key(ACCOUNTS)));
    while let Some((start, end)) = rest {
        let max_rows = usize::try_from(random.range(1..4)).unwrap_or(1);
        let chunk = txn.scan(ScanRequest { start, end, direction, max_bytes: 1000, max_rows })?;
        for (_, stored) in chunk.iter() {
            found += 1;
            sum += balance(stored);
        }
        rest = chunk.rest();
    }
    Ok(sum + START * (i64::try_from(ACCOUNTS).unwrap_or(0) - found))
}

async fn step(txn: &mut Transaction, step: Step, random: &mut Rng, saw: &mut Saw) -> Result<(), TxnError> {
    match step {
        Step::Append { list, value } => {
            let key = list_key(list);
            let stored = get_to_write(txn, &key, random).await?;
            saw.lists.push((list, numbers(stored.as_ref())));
            let mut longer = stored.map(|stored| stored.to_vec()).unwrap_or_default();
            longer.extend_from_slice(&value.to_le_bytes());
            txn.put(key, Bytes::from(longer))
        }
        Step::Read { list } => {
            let found = txn.get(&list_key(list))?;
            saw.lists.push((list, numbers(found.as_ref())));
            Ok(())
        }
        Step::Transfer { from, to, amount } => {
            for (account, change) in [(from, -amount), (to, amount)] {
                let key = account_key(account);
                let stored = get_to_write(txn, &key, random).await?;
                let after = stored.map_or(START, |stored| balance(&stored)) + change;
                if after == START {
                    txn.delete(key)?;
                } else {
                    txn.put(key, Bytes::copy_from_slice(&after.to_le_bytes()))?;
                }
            }
            Ok(())
        }
        Step::Total => {
            saw.totals.push(total(txn, random)?);
            Ok(())
        }
    }
}

/// Runs a transaction to its end. [`None`] when it was rolled back.
async fn attempt(env: Env, store: KvStore, plan: Plan) -> Result<Option<Saw>, TxnError> {
    let mut random = env.rng();
    let mut saw = Saw::default();
    let mut txn = store.begin(plan.options).await?;
    for next in plan.steps {
        txn.begin_statement();
        if random.chance(1, 4) {
            env.sleep(Duration::from_micros(random.range(1..5000))).await;
        }
        if random.chance(1, 8) {
            let savepoint = txn.savepoint();
            step(&mut txn, next, &mut random, &mut Saw::default()).await?;
            txn.rollback_to(savepoint)?;
            txn.begin_statement();
        }
        step(&mut txn, next, &mut random, &mut saw).await?;
        txn.flush_if_large().await?;
    }
    if plan.gives_up {
        env.sleep(Duration::from_micros(random.range(1..20_000))).await;
        txn.rollback();
        return Ok(None);
    }
    txn.commit().await?;
    Ok(Some(saw))
}

impl Workload for Transactions {
    type Machines = Stores;

    const OPTION: &'static str = "--stores";

    async fn client(self, stage: Stage<Stores>, number: u64, mut random: Rng) {
        let mut counter = 0;
        while !stage.is_over() {
            counter += 1;
            let request =
                RequestId { incarnation: Incarnation::new(number), session: SessionId::new(number), counter };
            let groups = stage.cluster.groups();
            let group = groups[usize::try_from(random.range(0..groups.len() as u64)).unwrap_or(0)];
            let plan = Plan::draw(&mut random, &self.history, request);
            self.transaction(&stage, group, plan, &mut random).await;
            stage.think(&mut random).await;
        }
    }

    fn counts(&self) -> Counts {
        self.history.lock().counts()
    }

    async fn check(&self, cluster: &Cluster<Stores>) -> Vec<String> {
        let mut wrong = self.hashes.wrong();
        for group in cluster.groups() {
            let mut checked = None;
            for node in cluster.ids() {
                let found = self.check_node(cluster, *group, node, &mut checked).await;
                wrong.extend(found.into_iter().map(|found| format!("at node {node}: {found}")));
            }
        }
        wrong
    }
}

/// A node: most often the one that leads, now and then any.
fn choose(cluster: &Cluster<Stores>, group: GroupId, access: Access, random: &mut Rng) -> Option<NodeId> {
    let anywhere = access == Access::ReadLocal || random.chance(1, 6);
    if let (false, Some((leader, _))) = (anywhere, cluster.leader(group)) {
        return Some(leader);
    }
    let up = cluster.up();
    up.get(usize::try_from(random.range(0..up.len().max(1) as u64)).unwrap_or(0)).copied()
}

impl Transactions {
    async fn transaction(&self, stage: &Stage<Stores>, group: GroupId, plan: Plan, random: &mut Rng) {
        let began = self.history.lock().tick();
        let mut ended = self.run(&stage.cluster, group, &plan, random).await;
        let writes = plan.options.access == Access::ReadWrite;
        if writes && matches!(ended, Err(Told::Unknown)) {
            ended = self.resolve(stage, group, &plan, random).await;
        }
        let (told, saw) = match ended {
            Ok(saw) => (Told::Acknowledged, saw),
            Err(told) => (told, Saw::default()),
        };
        let mut history = self.history.lock();
        let right = START * i64::try_from(ACCOUNTS).unwrap_or(0);
        for total in saw.totals.iter().filter(|total| **total != right) {
            history.wrong(format!("the accounts of group {group} held {total}, not {right}: {plan:?}"));
        }
        let ended = history.tick();
        history.record(Record {
            group,
            began,
            ended,
            is_linearizable: plan.options.access != Access::ReadLocal,
            reads: saw.lists,
            appends: plan.appends(),
            told,
        });
    }

    /// Tries once.
    async fn run(
        &self,
        cluster: &Cluster<Stores>,
        group: GroupId,
        plan: &Plan,
        random: &mut Rng,
    ) -> Result<Saw, Told> {
        let env = cluster.sim().harness();
        let node = choose(cluster, group, plan.options.access, random);
        let Some((node, store)) = node.and_then(|node| Some((node, cluster.machines(node).store(group)?)))
        else {
            return Err(Told::Refused);
        };
        let running = cluster.at(node, "transaction", attempt(env.clone(), store, plan.clone()));
        match env.timeout(TRANSACTION_TIMEOUT, running).await {
            Ok(Some(Ok(Some(saw)))) => Ok(saw),
            Ok(Some(Ok(None))) => Err(Told::Refused),
            Ok(Some(Err(TxnError::UnknownOutcome)) | None) | Err(_) => Err(Told::Unknown),
            Ok(Some(Err(_))) => Err(Told::Refused),
        }
    }

    /// Finds out what became of a transaction: by asking, or at first by trying again under the same request.
    async fn resolve(
        &self,
        stage: &Stage<Stores>,
        group: GroupId,
        plan: &Plan,
        random: &mut Rng,
    ) -> Result<Saw, Told> {
        let cluster = &stage.cluster;
        // A new leader may be some elections away.
        let copies = if random.chance(1, 2) { COPIES_MAX } else { 0 };
        for _ in 0..copies {
            if let Ok(saw) = self.run(cluster, group, plan, random).await {
                return Ok(saw);
            }
            cluster.sleep(Duration::from_millis(random.range(1..200))).await;
        }
        let env = cluster.sim().harness();
        let mut questions = 0;
        while questions < LATE_QUESTIONS_MAX {
            questions += u64::from(stage.is_over());
            cluster.sleep(Duration::from_millis(random.range(1..50))).await;
            let Some((leader, _)) = cluster.leader(group) else { continue };
            let Some(store) = cluster.machines(leader).store(group) else { continue };
            let request = plan.options.request;
            let asking = async move { store.fate(request, Version::ZERO).await };
            let asking = cluster.at(leader, "outcome", asking);
            match env.timeout(TRANSACTION_TIMEOUT, asking).await {
                Ok(Some(Ok(Fate::Committed(_)))) => return Ok(Saw::default()),
                Ok(Some(Ok(Fate::Aborted))) => return Err(Told::Refused),
                Ok(Some(Ok(Fate::Forgotten) | Err(_)) | None) | Err(_) => {}
            }
        }
        stage.wrong([format!("nobody could say what became of {request:?}", request = plan.options.request)]);
        Err(Told::Unknown)
    }

    /// Reads a whole replica and holds it against the history, unless the same was held against it before.
    async fn check_node(
        &self,
        cluster: &Cluster<Stores>,
        group: GroupId,
        node: NodeId,
        checked: &mut Option<Lists>,
    ) -> Vec<String> {
        let Some(store) = cluster.machines(node).store(group) else { return vec!["no store".to_owned()] };
        let options =
            TxnOptions { isolation: Isolation::RepeatableRead, access: Access::ReadLocal, request: NOBODY };
        let mut random = cluster.sim().harness().rng();
        let lists = (self.history.lock().values() / ERA_VALUES + 1) * LISTS;
        let reading = async move {
            let txn = store.begin(options).await?;
            let mut end = Lists::new();
            for list in 0..lists {
                end.insert(list, numbers(txn.get(&list_key(list))?.as_ref()));
            }
            Ok::<_, TxnError>((end, total(&txn, &mut random)?))
        };
        let mut wrong = match cluster.at(node, "check", reading).await {
            Some(Ok((end, _))) if checked.as_ref() == Some(&end) => Vec::new(),
            Some(Ok((end, _))) => {
                let wrong = self.history.lock().check(group, &end);
                *checked = Some(end);
                wrong
            }
            other => vec![format!("group {group} cannot be read: {other:?}")],
        };
        match cluster.machines(node).recompute_hash(group) {
            Ok(true) => {}
            other => wrong.push(format!("group {group}: the hash is not that of what is stored: {other:?}")),
        }
        wrong
    }
}
