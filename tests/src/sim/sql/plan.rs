//! What a client is about to do in a transaction, drawn from the seed, as SQL text; and what the answers say.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use rustydb_env::Rng;

use super::{
    super::history::History,
    connection::{Reply, Request},
};

/// Lists that are in use at one time.
pub const LISTS: u64 = 4;
/// After so many values others take their place, so that a long run has no long lists.
pub const ERA_VALUES: u64 = 150;
/// Tables that are made, and columns that are added, in a run.
const CHANGES_MAX: u64 = 40;
/// Rows of a large transaction.
pub const BATCH_ROWS: u64 = 150;
/// Rows of `accounts` of each database.
pub const ACCOUNTS: u64 = 5;
/// What each account holds at first.
pub const START: i64 = 100;

/// To the history everything that can be there or not is a value of a list. What has no order gets a list of its own:
/// these and the value are its number.
pub const EVENTS: u64 = 1 << 32;
/// Rows of `ledger`.
pub const LEDGER: u64 = 2 << 32;
/// Tables.
pub const TABLES: u64 = 3 << 32;
/// Columns of `events`.
pub const COLUMNS: u64 = 4 << 32;
/// Batches of rows of `bulk`.
pub const BATCHES: u64 = 5 << 32;
/// Counted numbers.
pub const NUMBERS: u64 = 6 << 32;

/// Isolation levels, in the order of what they forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what is committed when it begins.
    ReadCommitted,
    /// All statements see what was committed when the first one began.
    RepeatableRead,
    /// As if transactions ran one after another.
    Serializable,
}

impl Isolation {
    /// Any of the three.
    pub fn draw(random: &mut Rng) -> Self {
        match random.range(0..3) {
            0 => Self::ReadCommitted,
            1 => Self::RepeatableRead,
            _ => Self::Serializable,
        }
    }

    /// Its name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }
}

/// What kind of session a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What was set as its isolation level.
    pub isolation: Isolation,
    /// It goes on when nothing can be written, and so sees what a node shows that was cut off.
    pub reads_only: bool,
}

/// How a transaction is put to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One request that is a transaction by itself, at the isolation level that was set for the session.
    Alone,
    /// BEGIN to COMMIT.
    Block,
    /// BEGIN to ROLLBACK.
    GivenUp,
}

/// One thing that a transaction does. Lists and accounts go by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Appends to a list.
    Append(Item),
    /// Appends to a list after it has locked its row.
    LockedAppend(Item),
    /// Appends to a list, and takes that back.
    UndoneAppend(u64),
    /// Reads a list.
    Read(u64),
    /// Reads all lists that are in use, from this one, by one statement.
    ReadAll(u64),
    /// Moves money, and writes that down.
    Transfer(Transfer),
    /// Adds up all accounts.
    Total,
    /// Holds the accounts against the ledger.
    Audit,
    /// Inserts a row that nothing keeps from being there twice.
    Insert(Event),
    /// Makes a table of this number.
    CreateTable(u64),
    /// Adds a column of this number to a table that others write to.
    AddColumn(u64),
    /// Inserts many rows at once.
    InsertBatch(u64),
    /// Takes the next number of a counter.
    Count(u64),
}

/// What is appended, and to which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The list.
    pub list: u64,
    /// Never used before.
    pub value: u64,
}

/// A row of `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Never used before.
    pub value: u64,
    /// The client that inserts it.
    pub client: u64,
}

/// A row of `ledger`, and what it says of two accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Never used before.
    pub value: u64,
    /// The account that pays.
    pub from: u64,
    /// The account that is paid.
    pub to: u64,
    /// How much.
    pub amount: u64,
}

/// A transaction to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its isolation level.
    pub isolation: Isolation,
    /// Its form.
    pub form: Form,
    /// What it does.
    pub steps: Vec<Step>,
}

/// What the answer to a step says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saw {
    /// Lists that were read to be written, own appends included: as they are at the commit.
    pub written: Vec<(u64, Vec<u64>)>,
    /// Lists that were only read: as they were when they were read.
    pub read: Vec<(u64, Vec<u64>)>,
    /// What may never be seen.
    pub wrong: Vec<String>,
}

impl Plan {
    /// Draws one of a client whose session is of this kind.
    pub fn draw(random: &mut Rng, history: &Mutex<History>, client: u64, session: Kind) -> Self {
        let form = match random.range(0..10) {
            0..5 => Form::Alone,
            5 => Form::GivenUp,
            _ => Form::Block,
        };
        let isolation = if form == Form::Alone { session.isolation } else { Isolation::draw(random) };
        let count = if form == Form::Alone { 1 } else { random.range(1..5) };
        let mut steps: Vec<Step> =
            (0..count).map(|_| Step::draw(random, history, client, session.reads_only)).collect();
        if form == Form::Alone {
            steps.retain(|step| !matches!(step, Step::UndoneAppend(_)));
        }
        // Each list is appended to once, and below SERIALIZABLE read before, so that what was only read is what was
        // committed.
        let mut appended = BTreeSet::new();
        steps.retain(|step| match step {
            Step::Append(Item { list, .. }) | Step::LockedAppend(Item { list, .. }) => appended.insert(*list),
            Step::Read(list) if isolation != Isolation::Serializable => !appended.contains(list),
            Step::ReadAll(_) if isolation != Isolation::Serializable => appended.is_empty(),
            _ => true,
        });
        Self { isolation, form, steps }
    }

    /// Everything that is there afterwards if it commits, as lists and values.
    #[must_use]
    pub fn appends(&self) -> Vec<(u64, u64)> {
        self.steps.iter().filter_map(|step| step.append()).collect()
    }
}

impl Step {
    fn draw(random: &mut Rng, history: &Mutex<History>, client: u64, reads_only: bool) -> Self {
        let era = history.lock().values() / ERA_VALUES * LISTS;
        let list = era + random.range(0..LISTS);
        let value = || history.lock().next_value();
        let may_change = || history.lock().may_change(CHANGES_MAX);
        match if reads_only { random.range(22..32) } else { random.range(0..66) } {
            0..14 => Self::Append(Item { list, value: value() }),
            14..20 => Self::LockedAppend(Item { list, value: value() }),
            20..22 => Self::UndoneAppend(list),
            22..28 => Self::Read(list),
            28..32 => Self::ReadAll(era),
            32..44 => {
                let from = random.range(0..ACCOUNTS);
                let to = (from + random.range(1..ACCOUNTS)) % ACCOUNTS;
                Self::Transfer(Transfer { from, to, amount: random.range(1..50), value: value() })
            }
            44..48 => Self::Total,
            48..50 => Self::Audit,
            58 if may_change() => Self::CreateTable(value()),
            59 if may_change() => Self::AddColumn(value()),
            60 | 61 => Self::InsertBatch(value()),
            62..66 => Self::Count(value()),
            _ => Self::Insert(Event { client, value: value() }),
        }
    }

    fn append(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Append(Item { list, value }) | Self::LockedAppend(Item { list, value }) => {
                Some((list, value))
            }
            Self::Transfer(Transfer { value, .. }) => Some((LEDGER + value, value)),
            Self::Insert(Event { value, .. }) => Some((EVENTS + value, value)),
            Self::CreateTable(value) => Some((TABLES + value, value)),
            Self::AddColumn(value) => Some((COLUMNS + value, value)),
            Self::InsertBatch(value) => Some((BATCHES + value, value)),
            Self::Count(value) => Some((NUMBERS + value, value)),
            Self::UndoneAppend(_) | Self::Read(_) | Self::ReadAll(_) | Self::Total | Self::Audit => None,
        }
    }

    /// Its statements.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        let append = |list: u64, value: u64| {
            format!(
                "INSERT INTO lists AS l VALUES ({list}, ',{value}') \
                 ON CONFLICT (id) DO UPDATE SET items = l.items || excluded.items RETURNING items"
            )
        };
        match *self {
            Self::Append(Item { list, value }) => vec![append(list, value)],
            Self::LockedAppend(Item { list, value }) => {
                vec![format!("SELECT items FROM lists WHERE id = {list} FOR UPDATE"), append(list, value)]
            }
            Self::UndoneAppend(list) => {
                vec!["SAVEPOINT undone".into(), append(list, 0), "ROLLBACK TO undone".into()]
            }
            Self::Read(list) => vec![format!("SELECT id, items FROM lists WHERE id = {list}")],
            Self::ReadAll(first) => vec![format!(
                "SELECT id, items FROM lists WHERE id BETWEEN {first} AND {} ORDER BY id",
                first + LISTS - 1
            )],
            Self::Transfer(Transfer { from, to, amount, value }) => vec![
                format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {from}"),
                format!(
                    "INSERT INTO ledger (id, source, target, amount) VALUES ({value}, {from}, {to}, {amount})"
                ),
                format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {to}"),
            ],
            Self::Total => vec!["SELECT count(*), sum(balance) FROM accounts".into()],
            Self::Audit => vec![AUDIT.into()],
            Self::Insert(Event { client, value }) => {
                vec![format!("INSERT INTO events (id, client) VALUES ({value}, {client})")]
            }
            Self::CreateTable(value) => {
                vec![format!("CREATE TABLE made_{value} (id integer PRIMARY KEY, note text)")]
            }
            Self::AddColumn(value) => {
                vec![format!("ALTER TABLE events ADD COLUMN added_{value} integer DEFAULT 7")]
            }
            Self::InsertBatch(value) => vec![format!(
                "INSERT INTO bulk SELECT {value}, n, repeat('x', 40) FROM generate_series(1, {BATCH_ROWS}) AS n"
            )],
            Self::Count(value) => vec![
                "UPDATE counters SET number = number + 1 WHERE id = 1".into(),
                format!("INSERT INTO numbers SELECT number, {value} FROM counters WHERE id = 1"),
            ],
        }
    }

    /// Its statements as requests: one by one in a block, all in one outside of it.
    pub fn requests(&self, form: Form, random: &mut Rng) -> Vec<Request> {
        let statements = self.statements();
        if form == Form::Alone && statements.len() > 1 {
            return vec![Request::Simple(statements.join("; "))];
        }
        let prepared = match *self {
            Self::Append(Item { list, value }) => Some(Request::Prepared {
                name: "append",
                sql: "INSERT INTO lists AS l VALUES ($2, $1) \
                      ON CONFLICT (id) DO UPDATE SET items = l.items || excluded.items RETURNING items",
                parameters: vec![format!(",{value}"), list.to_string()],
            }),
            Self::Insert(Event { client, value }) => Some(Request::Prepared {
                name: "insert",
                sql: "INSERT INTO events (id, client) VALUES ($1, $2)",
                parameters: vec![value.to_string(), client.to_string()],
            }),
            _ => None,
        };
        match prepared {
            Some(prepared) if random.chance(1, 2) => vec![prepared],
            _ => statements
                .into_iter()
                .map(|sql| if random.chance(1, 3) { Request::Extended(sql) } else { Request::Simple(sql) })
                .collect(),
        }
    }

    /// Reads the answers to all its requests.
    #[must_use]
    pub fn saw(&self, replies: &[Reply]) -> Saw {
        let mut saw = Saw::default();
        let rows: Vec<&Vec<String>> = replies.iter().flat_map(|reply| &reply.rows).collect();
        let mut wrong = |what: &str| saw.wrong.push(format!("{self:?}: {what}: {replies:?}"));
        match *self {
            Self::Append(Item { list, value }) | Self::LockedAppend(Item { list, value }) => {
                let mut lists: Vec<_> =
                    rows.iter().map(|row| items(row.first().map_or("", String::as_str))).collect();
                match lists.pop() {
                    Some(mut last) if last.last() == Some(&value) => {
                        last.pop();
                        if lists.iter().any(|locked| *locked != last) {
                            wrong("a locked row changed");
                        }
                        saw.written.push((list, last));
                    }
                    _ => wrong("the own append is missing"),
                }
            }
            Self::Read(_) | Self::ReadAll(_) => {
                let wanted = match *self {
                    Self::ReadAll(first) => first..first + LISTS,
                    Self::Read(list) => list..list + 1,
                    _ => 0..0,
                };
                let mut found: BTreeMap<u64, Vec<u64>> =
                    wanted.clone().map(|list| (list, Vec::new())).collect();
                for row in rows {
                    let list = row.first().and_then(|id| id.parse().ok()).filter(|id| wanted.contains(id));
                    match (list, row.get(1)) {
                        (Some(list), Some(values)) => found.insert(list, items(values)),
                        _ => {
                            wrong("a row that was not asked for");
                            None
                        }
                    };
                }
                saw.read.extend(found);
            }
            Self::Total => {
                let total = START * i64::try_from(ACCOUNTS).unwrap_or(0);
                if rows != [&vec![ACCOUNTS.to_string(), total.to_string()]] {
                    wrong("the accounts do not add up");
                }
            }
            Self::Audit => {
                if rows != [&vec!["0".to_owned()]] {
                    wrong("accounts differ from the ledger");
                }
            }
            Self::Transfer(_) => {
                let tags = replies.iter().flat_map(|reply| &reply.tags);
                if !tags.eq(["UPDATE 1", "INSERT 0 1", "UPDATE 1"]) {
                    wrong("rows are missing");
                }
            }
            Self::Insert(_) => {
                if !replies.iter().flat_map(|reply| &reply.tags).eq(["INSERT 0 1"]) {
                    wrong("not one row");
                }
            }
            Self::InsertBatch(_) => {
                let tag = format!("INSERT 0 {BATCH_ROWS}");
                if !replies.iter().flat_map(|reply| &reply.tags).eq([&tag]) {
                    wrong("not all rows");
                }
            }
            Self::Count(_) => {
                if !replies.iter().flat_map(|reply| &reply.tags).eq(["UPDATE 1", "INSERT 0 1"]) {
                    wrong("no number");
                }
            }
            Self::UndoneAppend(_) | Self::CreateTable(_) | Self::AddColumn(_) => {}
        }
        saw
    }
}

/// Counts the accounts that do not hold what the ledger says.
const AUDIT: &str = "SELECT count(*) FROM accounts a WHERE balance <> 100 \
     + (SELECT coalesce(sum(amount), 0) FROM ledger WHERE target = a.id) \
     - (SELECT coalesce(sum(amount), 0) FROM ledger WHERE source = a.id)";

/// The values of a stored list.
#[must_use]
pub fn items(list: &str) -> Vec<u64> {
    list.split(',').skip(1).map(|item| item.parse().unwrap_or(u64::MAX)).collect()
}

/// What must be there before the first transaction. Each statement can be repeated.
#[must_use]
pub fn setup() -> Vec<String> {
    let rows = |count: u64, value: &str| {
        (0..count).map(|id| format!("({id}, {value})")).collect::<Vec<_>>().join(", ")
    };
    vec![
        "CREATE TABLE IF NOT EXISTS lists (id integer PRIMARY KEY, items text NOT NULL)".into(),
        "CREATE TABLE IF NOT EXISTS accounts (id integer PRIMARY KEY, balance bigint NOT NULL)".into(),
        "CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, source integer, target integer, amount bigint)"
            .into(),
        "CREATE TABLE IF NOT EXISTS events (id bigint NOT NULL, client integer NOT NULL)".into(),
        "CREATE INDEX IF NOT EXISTS events_client ON events (client)".into(),
        "CREATE TABLE IF NOT EXISTS bulk (batch bigint, n integer, note text, PRIMARY KEY (batch, n))".into(),
        "CREATE TABLE IF NOT EXISTS counters (id integer PRIMARY KEY, number bigint NOT NULL)".into(),
        "CREATE TABLE IF NOT EXISTS numbers (number bigint PRIMARY KEY, value bigint NOT NULL)".into(),
        "INSERT INTO counters VALUES (1, 0) ON CONFLICT DO NOTHING".into(),
        format!("INSERT INTO accounts VALUES {} ON CONFLICT DO NOTHING", rows(ACCOUNTS, &START.to_string())),
    ]
}
