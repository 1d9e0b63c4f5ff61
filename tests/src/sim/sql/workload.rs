//! Clients that speak SQL: transactions of all isolation levels, each held to what its level promises.
//!
//! To the history a SERIALIZABLE transaction is one thing with all that it saw. Below, what was only read is a thing of
//! its own: at READ COMMITTED each statement, at REPEATABLE READ all statements together at the moment of the first.
//! What was read to be written belongs to the commit at every level: rows are locked, or the commit is refused.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_env::{Instant, Rng};
use rustydb_txn::OutcomeBounds;
use rustydb_types::ids::{GroupId, NodeId};

use super::{
    super::{
        cluster::Cluster,
        history::{History, Record},
        oracle::{Counts, Told},
        run::{Course, Report, Stage, Workload, run},
        stores::{Hashes, Stores},
    },
    check,
    connection::{Connection, Failure, Lost, Reply, Request},
    links::Hosts,
    node::{Databases, SqlNode},
    plan::{Form, Isolation, Kind, Plan, Saw, setup},
};

/// What a client may be told when nodes come and go and others are at work, and when it cancels. Anything else is a
/// fault.
const EXPECTED: &[&str] = &[
    "40001", // serialization_failure
    "40P01", // deadlock_detected
    "55P03", // lock_not_available
    "57014", // query_canceled
    "57P03", // cannot_connect_now
    "08007", // transaction_resolution_unknown
    "57P01", // admin_shutdown: the store has stopped, its disk failed
    "58030", // io_error
    "53100", // disk_full
    "53000", // insufficient_resources: commits that were read are not there in time
    "53200", // out_of_memory: back-pressure
];
/// A client comes back after so many transactions at most, perhaps to another node.
const TRANSACTIONS_MAX: u64 = 30;

/// The databases of a run.
fn databases() -> Databases {
    vec![(GroupId::SYSTEM, "first"), (GroupId::new(2), "second")]
}

/// Runs SQL sessions over the real stores under consensus from a seed: see [`run`].
#[must_use]
pub fn run_sql(course: Course) -> Report {
    let hashes = Hashes::default();
    let may_forget = remembered(course.seed) != OutcomeBounds::default();
    let workload = Sql { history: Arc::default(), hashes: hashes.clone(), made: Arc::default(), may_forget };
    let hosts: Mutex<Option<Hosts>> = Mutex::default();
    run(course, workload, |node, network| {
        let hosts = hosts.lock().get_or_insert_with(|| Hosts::new(network.clone())).clone();
        let stores = Stores::varied(hashes.clone()).remembering(remembered(course.seed));
        SqlNode::new(node, &databases(), hosts, stores)
    })
}

/// In some runs so little is remembered of commits that it is forgotten while somebody asks.
fn remembered(seed: u64) -> OutcomeBounds {
    match seed % 4 {
        0 => OutcomeBounds { rows_max: 2, commits_max: 1_000 },
        1 => OutcomeBounds { rows_max: 1_000, commits_max: 6 },
        _ => OutcomeBounds::default(),
    }
}

#[derive(Clone)]
pub(super) struct Sql {
    pub(super) history: Arc<Mutex<History>>,
    pub(super) hashes: Hashes,
    /// In how many databases the tables are.
    made: Arc<Mutex<usize>>,
    /// Whether so little is remembered that a client may be told so.
    may_forget: bool,
}

/// Asks for the name of a transaction.
const TOKEN: &str = "SELECT rustydb_transaction_token()";
/// How often an outcome is asked for after the end of the run.
const LATE_QUESTIONS_MAX: u64 = 200;

/// A client at work.
pub(super) struct Client {
    stage: Stage<SqlNode>,
    pub(super) number: u64,
    pub(super) random: Rng,
    pub(super) history: Arc<Mutex<History>>,
    may_forget: bool,
}

/// A client's session.
pub(super) struct Session {
    pub(super) group: GroupId,
    pub(super) connection: Connection,
    pub(super) kind: Kind,
}

/// How a request ended.
enum Answer {
    Done(Reply),
    Failed(Failure),
    /// The session is over, with or without a last word.
    Over(Option<Failure>),
}

impl Workload for Sql {
    type Machines = SqlNode;

    const OPTION: &'static str = "--sql";

    async fn client(self, stage: Stage<SqlNode>, number: u64, random: Rng) {
        let (history, may_forget) = (Arc::clone(&self.history), self.may_forget);
        let mut client = Client { stage, number, random, history, may_forget };
        if number == 1 {
            for (_, name) in databases() {
                client.make_tables(name).await;
                *self.made.lock() += 1;
            }
        }
        while *self.made.lock() < databases().len() && !client.stage.is_over() {
            client.stage.cluster.sleep(Duration::from_millis(10)).await;
        }
        while !client.stage.is_over() {
            if let Some(mut session) = client.connect().await {
                for _ in 0..client.random.range(1..TRANSACTIONS_MAX) {
                    if client.stage.is_over() || !client.transaction(&mut session).await {
                        break;
                    }
                    client.stage.think(&mut client.random).await;
                }
            }
            client.pause(50_000).await;
        }
    }

    fn counts(&self) -> Counts {
        self.history.lock().counts()
    }

    async fn check(&self, cluster: &Cluster<SqlNode>) -> Vec<String> {
        let mut wrong = self.hashes.wrong();
        for (group, name) in databases() {
            wrong.extend(check::database(cluster, &self.history, group, name).await);
        }
        wrong
    }
}

impl Client {
    /// One that may not be told that something was forgotten.
    pub(super) const fn new(
        stage: Stage<SqlNode>,
        number: u64,
        random: Rng,
        history: Arc<Mutex<History>>,
    ) -> Self {
        Self { stage, number, random, history, may_forget: false }
    }

    async fn pause(&mut self, micros_max: u64) {
        let pause = Duration::from_micros(self.random.range(100..micros_max));
        self.stage.cluster.sleep(pause).await;
    }

    pub(super) fn wrong(&self, wrong: String) {
        self.history.lock().wrong(wrong);
    }

    fn pick(&mut self) -> Option<NodeId> {
        let up = self.stage.cluster.up();
        up.get(usize::try_from(self.random.range(0..up.len().max(1) as u64)).unwrap_or(0)).copied()
    }

    pub(super) async fn make_tables(&mut self, database: &str) {
        for statement in setup() {
            loop {
                if self.stage.is_over() {
                    return;
                }
                let connection =
                    self.pick().and_then(|node| Connection::open(&self.stage.cluster, node, database));
                if let Some(mut connection) = connection {
                    let request = Request::Simple(statement.clone());
                    if let Answer::Done(_) = self.ask(&mut connection, &request).await {
                        break;
                    }
                }
                self.pause(50_000).await;
            }
        }
    }

    async fn connect(&mut self) -> Option<Session> {
        let databases = databases();
        let number = usize::try_from(self.random.range(0..databases.len() as u64)).unwrap_or(0);
        let (group, name) = databases.get(number).copied()?;
        let node = self.pick()?;
        let mut connection = Connection::open(&self.stage.cluster, node, name)?;
        let isolation = Isolation::draw(&mut self.random);
        let kind = Kind { isolation, reads_only: self.random.chance(1, 4) };
        let mut settings = vec![format!("SET default_transaction_isolation = '{}'", isolation.name())];
        if self.random.chance(1, 2) {
            settings.push(format!("SET lock_timeout = '{}ms'", self.random.range(1..300)));
        }
        if self.random.chance(1, 4) {
            settings.push(format!("SET statement_timeout = '{}ms'", self.random.range(20..1500)));
        }
        for setting in settings {
            match self.ask(&mut connection, &Request::Simple(setting)).await {
                Answer::Done(_) => {}
                Answer::Failed(_) | Answer::Over(_) => return None,
            }
        }
        Some(Session { group, connection, kind })
    }

    async fn ask(&self, connection: &mut Connection, request: &Request) -> Answer {
        match self.put(connection, request).await {
            Ok(reply) => match reply.failure {
                None => Answer::Done(reply),
                Some(failure) if failure.is_fatal => Answer::Over(Some(failure)),
                Some(failure) => Answer::Failed(failure),
            },
            Err(Lost::Closed) => Answer::Over(None),
            Err(Lost::TimedOut) => {
                self.wrong(format!("no answer to {request:?}"));
                Answer::Over(None)
            }
        }
    }

    /// Sends a request; the answer, as it is.
    pub(super) async fn put(&self, connection: &mut Connection, request: &Request) -> Result<Reply, Lost> {
        let answered = connection.ask(&self.stage.cluster, request).await;
        let at = self.stage.cluster.sim().harness().now() - Instant::ORIGIN;
        tracing::debug!(?at, client = self.number, ?request, ?answered, "asked");
        if let Ok(Reply { failure: Some(failure), .. }) = &answered
            && !EXPECTED.contains(&failure.code.as_str())
        {
            self.wrong(format!("{request:?} was answered by {failure:?}"));
        }
        answered
    }

    /// Runs a transaction to its end. Whether the session goes on.
    async fn transaction(&mut self, session: &mut Session) -> bool {
        let reads_only = session.kind.reads_only && !self.stage.is_healed();
        let kind = Kind { reads_only, ..session.kind };
        if !reads_only && self.random.chance(1, 8) {
            return self.series(session).await;
        }
        let plan = Plan::draw(&mut self.random, &self.history, self.number, kind);
        if plan.steps.is_empty() {
            return true;
        }
        if self.random.chance(1, 25) {
            self.cancel_soon(session);
        }
        let mut run = Run { began: self.tick(), snapshot: None, saw: Saw::default() };
        let (told, goes_on) = self.run(session, &plan, &mut run).await;
        let ended = self.tick();
        let mut saw = run.saw;
        let appends = plan.appends();
        let mut history = self.history.lock();
        saw.wrong.into_iter().for_each(|wrong| history.wrong(wrong));
        let record = |began, ended, reads, appends, told| Record {
            group: session.group,
            began,
            ended,
            is_linearizable: true,
            reads,
            appends,
            told,
        };
        if plan.isolation == Isolation::Serializable && told != Told::Refused {
            saw.written.append(&mut saw.read);
        } else if let Some((began, ended)) = run.snapshot
            && !saw.read.is_empty()
        {
            // Nothing that it had written itself is to be found later.
            saw.read.retain(|(list, _)| !appends.iter().any(|(appended, _)| appended == list));
            history.record(record(began, ended, saw.read, Vec::new(), Told::Acknowledged));
        }
        let reads = if told == Told::Refused { Vec::new() } else { saw.written };
        history.record(record(run.began, ended, reads, appends, told));
        goes_on
    }

    pub(super) fn tick(&self) -> u64 {
        self.history.lock().tick()
    }

    /// Cancels whatever the session does in a moment.
    fn cancel_soon(&mut self, session: &Session) {
        let interrupts = session.connection.interrupts();
        let env = self.stage.cluster.sim().harness();
        let pause = Duration::from_micros(self.random.range(0..20_000));
        let sleep = env.sleep(pause);
        drop(env.spawn("cancel", async move {
            sleep.await;
            interrupts.cancel();
        }));
    }

    /// What the client believes in the end, and whether the session goes on.
    async fn run(&mut self, session: &mut Session, plan: &Plan, run: &mut Run) -> (Told, bool) {
        if plan.form == Form::Alone {
            let Some(step) = plan.steps.first() else { return (Told::Refused, true) };
            let requests = step.requests(plan.form, &mut self.random);
            let Some(request) = requests.first() else { return (Told::Refused, true) };
            return match self.ask(&mut session.connection, request).await {
                Answer::Done(reply) => {
                    run.absorb(
                        plan.isolation,
                        (run.began, self.tick()),
                        step.saw(&[reply]),
                        &self.history,
                        session.group,
                    );
                    (Told::Acknowledged, true)
                }
                Answer::Failed(failure) => (fate(&failure), true),
                Answer::Over(failure) => (end_of_session(failure.as_ref()), false),
            };
        }
        let begin = format!("BEGIN ISOLATION LEVEL {}", plan.isolation.name());
        match self.ask(&mut session.connection, &Request::Simple(begin)).await {
            Answer::Done(_) => {}
            Answer::Failed(_) => return (Told::Refused, true),
            Answer::Over(_) => return (Told::Refused, false),
        }
        for step in &plan.steps {
            let began = self.tick();
            let mut first = None;
            let mut replies = Vec::new();
            for request in step.requests(plan.form, &mut self.random) {
                match self.ask(&mut session.connection, &request).await {
                    Answer::Done(reply) => replies.push(reply),
                    Answer::Failed(failure) => {
                        if fate(&failure) == Told::Unknown {
                            self.wrong(format!("{request:?} within a block was answered by {failure:?}"));
                        }
                        let end = Request::Simple("ROLLBACK".to_owned());
                        let ended = self.ask(&mut session.connection, &end).await;
                        return (Told::Refused, matches!(ended, Answer::Done(_)));
                    }
                    Answer::Over(_) => return (Told::Refused, false),
                }
                first.get_or_insert_with(|| self.tick());
            }
            let ended =
                if plan.isolation == Isolation::ReadCommitted { self.tick() } else { first.unwrap_or(began) };
            run.absorb(plan.isolation, (began, ended), step.saw(&replies), &self.history, session.group);
            if self.random.chance(1, 4) {
                self.pause(5_000).await;
            }
        }
        let is_given_up = plan.form == Form::GivenUp;
        let mut token = None;
        if !is_given_up && self.random.chance(2, 3) {
            match self.ask(&mut session.connection, &Request::Simple(TOKEN.to_owned())).await {
                Answer::Done(reply) => token = reply.rows.first().and_then(|row| row.first()).cloned(),
                Answer::Failed(_) => {
                    let end = Request::Simple("ROLLBACK".to_owned());
                    let ended = self.ask(&mut session.connection, &end).await;
                    return (Told::Refused, matches!(ended, Answer::Done(_)));
                }
                Answer::Over(_) => return (Told::Refused, false),
            }
        }
        let (told, goes_on) = self.end(session, is_given_up).await;
        let (Some(token), true) = (token, told == Told::Unknown || self.random.chance(1, 8)) else {
            return (told, goes_on);
        };
        (self.resolve(session.group, &token, told).await, goes_on)
    }

    /// What became of a transaction, asked at any node until one can say it.
    pub(super) async fn resolve(&mut self, group: GroupId, token: &str, told: Told) -> Told {
        let Some(name) = databases().into_iter().find_map(|(of, name)| (of == group).then_some(name)) else {
            return told;
        };
        let question = Request::Simple(format!("SELECT rustydb_transaction_outcome('{token}')"));
        let mut late_questions = 0;
        while late_questions < LATE_QUESTIONS_MAX {
            late_questions += u64::from(self.stage.is_over());
            let connection = self.pick().and_then(|node| Connection::open(&self.stage.cluster, node, name));
            if let Some(mut connection) = connection
                && let Answer::Done(reply) = self.ask(&mut connection, &question).await
            {
                let outcome =
                    reply.rows.first().and_then(|row| row.first()).map_or("nothing", String::as_str);
                return match (outcome, told) {
                    ("committed", Told::Acknowledged | Told::Unknown) => Told::Acknowledged,
                    ("aborted", Told::Refused | Told::Unknown) => Told::Refused,
                    ("forgotten", _) if self.may_forget => told,
                    _ => {
                        self.wrong(format!("{token} was {told:?} and is {outcome}"));
                        told
                    }
                };
            }
            self.pause(50_000).await;
        }
        if told == Told::Unknown {
            self.wrong(format!("nobody could say what became of {token}"));
        }
        told
    }

    /// Ends a block.
    async fn end(&mut self, session: &mut Session, is_given_up: bool) -> (Told, bool) {
        let end = Request::Simple(if is_given_up { "ROLLBACK" } else { "COMMIT" }.to_owned());
        match self.ask(&mut session.connection, &end).await {
            Answer::Done(reply) if !is_given_up && reply.tags == ["COMMIT"] => (Told::Acknowledged, true),
            Answer::Done(reply) if reply.tags == ["ROLLBACK"] => (Told::Refused, true),
            Answer::Done(reply) => {
                self.wrong(format!("{end:?} was answered by {reply:?}"));
                (Told::Unknown, false)
            }
            Answer::Failed(_) | Answer::Over(_) if is_given_up => (Told::Refused, false),
            Answer::Failed(failure) => (fate(&failure), true),
            Answer::Over(failure) => (end_of_session(failure.as_ref()), false),
        }
    }
}

/// What became of a transaction whose end was answered by an error.
pub(super) fn fate(failure: &Failure) -> Told {
    if failure.code == "08007" { Told::Unknown } else { Told::Refused }
}

/// The same when the session ended with it. No leader to be found means that nothing was asked of one.
pub(super) fn end_of_session(failure: Option<&Failure>) -> Told {
    match failure {
        Some(failure) if failure.code == "57P03" => Told::Refused,
        _ => Told::Unknown,
    }
}

/// What a transaction has seen so far.
struct Run {
    began: u64,
    /// Above READ COMMITTED: from when it was taken to the last answer out of it. It may have in it what was in flight
    /// when it was taken, and an answer waits only for what it shows of that; so others may miss until the last answer
    /// what the snapshot already has.
    snapshot: Option<(u64, u64)>,
    saw: Saw,
}

impl Run {
    /// A step was answered that began and ended then.
    fn absorb(
        &mut self,
        isolation: Isolation,
        (began, ended): (u64, u64),
        saw: Saw,
        history: &Mutex<History>,
        group: GroupId,
    ) {
        self.saw.written.extend(saw.written);
        self.saw.wrong.extend(saw.wrong);
        if isolation != Isolation::ReadCommitted {
            self.snapshot.get_or_insert((began, ended)).1 = ended;
            self.saw.read.extend(saw.read);
        } else if !saw.read.is_empty() {
            history.lock().record(Record {
                group,
                began,
                ended,
                is_linearizable: true,
                reads: saw.read,
                appends: Vec::new(),
                told: Told::Acknowledged,
            });
        }
    }
}
