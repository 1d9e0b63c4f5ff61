//! Several transactions in one request, or one that begins as the other ends.
//!
//! Who loses a node under such a request must not be told of one transaction what became of another.

use rustydb_env::Rng;

use super::{
    super::{history::Record, oracle::Told},
    connection::{Lost, Reply, Request},
    plan::EVENTS,
    workload::{Client, Session, end_of_session, fate},
};

/// What is sent, request by request.
pub(super) struct Series(Vec<Sent>);

/// One request.
struct Sent {
    statements: Vec<Statement>,
    way: Way,
}

#[derive(Clone, Copy)]
enum Way {
    Query,
    /// Executed one after the other up to one Sync; the last portal is closed before it.
    Pipeline {
        is_closed: bool,
    },
}

#[derive(Clone, Copy)]
enum Statement {
    Begin,
    Commit,
    CommitAndChain,
    Rollback,
    RollbackAndChain,
    Read,
    /// Inserts a row that nothing keeps from being there twice.
    Insert(u64),
}

impl Statement {
    fn sql(self, client: u64) -> String {
        match self {
            Self::Begin => "BEGIN".to_owned(),
            Self::Commit => "COMMIT".to_owned(),
            Self::CommitAndChain => "COMMIT AND CHAIN".to_owned(),
            Self::Rollback => "ROLLBACK".to_owned(),
            Self::RollbackAndChain => "ROLLBACK AND CHAIN".to_owned(),
            Self::Read => "SELECT count(*) FROM accounts".to_owned(),
            Self::Insert(value) => format!("INSERT INTO events (id, client) VALUES ({value}, {client})"),
        }
    }

    const fn commits(self) -> bool {
        matches!(self, Self::Commit | Self::CommitAndChain)
    }

    /// Whether a block is open behind it, where one was open before or not.
    const fn leaves_block(self, was_in_block: bool) -> bool {
        match self {
            Self::Begin | Self::CommitAndChain | Self::RollbackAndChain => true,
            Self::Commit | Self::Rollback => false,
            Self::Read | Self::Insert(_) => was_in_block,
        }
    }
}

impl Series {
    /// Draws one; `value` gives what was never used before.
    pub(super) fn draw(random: &mut Rng, mut value: impl FnMut() -> u64) -> Self {
        use Statement::{Begin, Commit, CommitAndChain, Read, Rollback, RollbackAndChain};
        let mut insert = || Statement::Insert(value());
        let requests = match random.range(0..10) {
            8 => vec![vec![Begin, insert(), Commit]],
            9 => vec![vec![Begin], vec![insert(), Commit]],
            0 => vec![vec![Begin, insert(), Commit, Begin, insert(), Commit]],
            1 => vec![vec![Begin, Read, Commit, insert()]],
            2 => vec![vec![insert(), Commit, insert()]],
            3 => vec![vec![Begin], vec![insert()], vec![Commit, insert()]],
            4 => vec![vec![Begin], vec![insert()], vec![CommitAndChain], vec![insert()], vec![Commit]],
            5 => vec![vec![Begin, insert()], vec![CommitAndChain], vec![insert()], vec![Rollback]],
            6 => vec![vec![Begin, Read], vec![CommitAndChain], vec![Read, Commit, insert()]],
            _ => vec![
                vec![Begin],
                vec![insert(), RollbackAndChain, insert()],
                vec![Commit, Begin, insert(), Commit],
            ],
        };
        let mut way = || match random.range(0..4) {
            0 => Way::Pipeline { is_closed: false },
            1 => Way::Pipeline { is_closed: true },
            _ => Way::Query,
        };
        Self(requests.into_iter().map(|statements| Sent { statements, way: way() }).collect())
    }
}

impl Sent {
    fn request(&self, client: u64) -> Request {
        let statements: Vec<String> = self.statements.iter().map(|one| one.sql(client)).collect();
        match self.way {
            Way::Query => Request::Simple(statements.join("; ")),
            Way::Pipeline { is_closed } => Request::Pipeline { statements, is_closed },
        }
    }

    /// Whether anything in it asks for a commit of a block.
    fn commits(&self) -> bool {
        self.statements.iter().any(|one| one.commits())
    }
}

/// What a client knows of the rows it has inserted.
#[derive(Default)]
struct Known {
    /// In the transaction that is open.
    open: Vec<u64>,
    told: Vec<(u64, Told)>,
}

impl Known {
    fn end(&mut self, told: Told) {
        self.told.extend(self.open.drain(..).map(|value| (value, told)));
    }

    /// The statements of a request that were answered.
    fn absorb(&mut self, sent: &Sent, reply: &Reply) {
        for (statement, tag) in sent.statements.iter().zip(&reply.tags) {
            self.answered(*statement, tag);
        }
    }

    fn answered(&mut self, statement: Statement, tag: &str) {
        match (statement, tag) {
            (Statement::Insert(value), _) => self.open.push(value),
            (Statement::Commit | Statement::CommitAndChain, "COMMIT") => self.end(Told::Acknowledged),
            // Of a block that had failed.
            (Statement::Commit | Statement::CommitAndChain, _) => self.end(Told::Refused),
            (Statement::Rollback | Statement::RollbackAndChain, _) => self.end(Told::Refused),
            (Statement::Begin | Statement::Read, _) => {}
        }
    }
}

impl Client {
    /// Runs one. Whether the session goes on.
    pub(super) async fn series(&mut self, session: &mut Session) -> bool {
        let series = Series::draw(&mut self.random, || self.history.lock().next_value());
        let began = self.tick();
        let mut known = Known::default();
        let (mut in_block, mut goes_on) = (false, true);
        for sent in series.0 {
            let was_in_block = in_block;
            in_block =
                sent.statements.iter().fold(in_block, |block, statement| statement.leaves_block(block));
            let request = sent.request(self.number);
            match self.put(&mut session.connection, &request).await {
                Ok(reply) if reply.failure.is_none() => {
                    known.absorb(&sent, &reply);
                    let answers = || sent.statements.iter().zip(&reply.tags);
                    if answers().count() != sent.statements.len()
                        || answers().any(|(one, tag)| one.commits() && tag != "COMMIT")
                    {
                        self.wrong(format!("{request:?} was answered by {reply:?}"));
                    }
                    if !in_block {
                        // What was not in a block is committed when the session is ready.
                        known.end(Told::Acknowledged);
                    }
                    if reply.status != if in_block { b'T' } else { b'I' } {
                        self.wrong(format!("{request:?} left the session at {:?}", char::from(reply.status)));
                    }
                    continue;
                }
                Ok(reply) => {
                    known.absorb(&sent, &reply);
                    self.judge(&request, &sent, &reply, was_in_block);
                    let told = if sent.commits() || !was_in_block { told(&reply) } else { Told::Refused };
                    self.lose(session, &sent, &reply, told, &mut known).await;
                    goes_on = match reply.status {
                        0 => false,
                        b'I' => true,
                        _ => {
                            let end = Request::Simple("ROLLBACK".to_owned());
                            let ended = self.put(&mut session.connection, &end).await;
                            ended.is_ok_and(|reply| reply.failure.is_none())
                        }
                    };
                }
                Err(lost) => {
                    if lost == Lost::TimedOut {
                        self.wrong(format!("no answer to {request:?}"));
                    }
                    let told = if sent.commits() || !was_in_block { Told::Unknown } else { Told::Refused };
                    self.lose(session, &sent, &Reply::default(), told, &mut known).await;
                    goes_on = false;
                }
            }
            break;
        }
        let ended = self.tick();
        let mut history = self.history.lock();
        for (value, told) in known.told {
            history.record(Record {
                group: session.group,
                began,
                ended,
                is_linearizable: true,
                reads: Vec::new(),
                appends: vec![(EVENTS + value, value)],
                told,
            });
        }
        goes_on
    }

    /// In a block in which nothing asks for a commit, nothing is in doubt, and after an error the block has failed.
    fn judge(&self, request: &Request, sent: &Sent, reply: &Reply, was_in_block: bool) {
        let Some(failure) = reply.failure.as_ref().filter(|failure| !failure.is_fatal) else { return };
        if was_in_block && !sent.commits() && (failure.code == "08007" || reply.status != b'E') {
            self.wrong(format!("{request:?} within a block was answered by {reply:?}"));
        }
    }

    /// Notes what becomes of all that the answer says nothing of. Who is told that it is not known, and given names to ask
    /// by, does so.
    async fn lose(&mut self, session: &Session, sent: &Sent, reply: &Reply, told: Told, known: &mut Known) {
        let mut lost = vec![std::mem::take(&mut known.open)];
        for statement in sent.statements.iter().skip(reply.tags.len()) {
            match statement {
                Statement::Insert(value) => lost.last_mut().into_iter().for_each(|open| open.push(*value)),
                Statement::Commit | Statement::CommitAndChain => lost.push(Vec::new()),
                Statement::Rollback | Statement::RollbackAndChain => {
                    known.open = lost.pop().unwrap_or_default();
                    known.end(Told::Refused);
                    lost.push(Vec::new());
                }
                Statement::Begin | Statement::Read => {}
            }
        }
        lost.retain(|values| !values.is_empty());
        let detail = reply.failure.as_ref().map_or("", |failure| failure.detail.as_str());
        let tokens: Vec<&str> =
            detail.strip_prefix("transaction token: ").unwrap_or_default().split_whitespace().collect();
        let is_named = told == Told::Unknown && tokens.len() == lost.len();
        for (number, values) in lost.into_iter().enumerate() {
            let told = match tokens.get(number).filter(|_| is_named) {
                Some(token) => self.resolve(session.group, token, told).await,
                None => told,
            };
            known.open = values;
            known.end(told);
        }
    }
}

/// What an error says of all that was not answered before it.
fn told(reply: &Reply) -> Told {
    match &reply.failure {
        Some(failure) if failure.is_fatal => end_of_session(Some(failure)),
        Some(failure) => fate(failure),
        None => Told::Unknown,
    }
}
