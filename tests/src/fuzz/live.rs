//! A server process that is talked to without manners: legal messages in any order, malformed ones, half frames, single
//! bytes, lengths that lie, cancel requests, nonsense over gRPC.
//!
//! What must hold: the process lives; a connection whose frames were well formed comes back to ReadyForQuery; a steady
//! session beside it is served all the time; memory stays within a bound.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use rustydb_proto::v1::RaftFrame;

use super::http2::{self, Http2};
use super::memory::{mib, resident_bytes};
use super::{mutate, peers, wire};
use crate::cluster::free_base_port;
use crate::crash::Dice;
use crate::raw::{self, Raw};
use crate::server::{Server, TRUST_LOOPBACK};

/// What memory may grow by.
pub const GROWTH_BYTES_MAX: u64 = 200 << 20;
/// Longest wait for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of one node, and its memory before anybody was rude.
pub struct Victim {
    /// The process.
    pub server: Server,
    /// Resident bytes when it had served a few statements.
    pub base_bytes: u64,
    /// The most that was seen since.
    pub most_bytes: AtomicU64,
    /// Panics of its tasks that are known.
    panics: AtomicUsize,
    cluster: String,
    _folder: tempfile::TempDir,
}

impl Victim {
    /// Starts one. `more` is TOML behind `[listen]`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(more: &str) -> Result<Victim> {
        let folder = tempfile::tempdir()?;
        let more = format!("{TRUST_LOOPBACK}{more}");
        let mut server = Server::new(folder.path(), "node", 1, free_base_port()?, 1, &more)?;
        server.start()?;
        let cluster = server.cli_json(&["cluster", "init"])?;
        let cluster = cluster["cluster_id"].as_str().unwrap_or_default().to_owned();
        server.wait_ready()?;
        let mut session = Raw::session(server.postgres)?;
        session.run("CREATE TABLE t (a int PRIMARY KEY, b text)")?;
        // One that no mangled statement drops or alters by chance.
        session.run("CREATE TABLE kept_for_the_steady_session (a int PRIMARY KEY, b text)")?;
        session.run("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) AS g(i)")?;
        for _ in 0..200 {
            session.run("SELECT count(*), max(b) FROM t")?;
        }
        let base_bytes = resident_bytes(Some(server.pid()?))?;
        let most_bytes = AtomicU64::new(base_bytes);
        Ok(Victim { server, base_bytes, most_bytes, panics: AtomicUsize::new(0), cluster, _folder: folder })
    }

    /// Looks at the process.
    ///
    /// # Errors
    /// It is gone, or has too much memory.
    pub fn look(&self) -> Result<()> {
        let pid = self.server.pid()?;
        let now =
            resident_bytes(Some(pid)).with_context(|| format!("the server is gone:\n{}", self.tail()))?;
        self.most_bytes.fetch_max(now, Ordering::Relaxed);
        let bound = self.base_bytes + GROWTH_BYTES_MAX;
        ensure!(now <= bound, "the server has {} MiB, {} at first", mib(now), mib(self.base_bytes));
        Ok(())
    }

    /// The most that its memory grew by, in MiB.
    #[must_use]
    pub fn growth_mib(&self) -> u64 {
        mib(self.most_bytes.load(Ordering::Relaxed).saturating_sub(self.base_bytes))
    }

    /// A fresh session is served.
    ///
    /// # Errors
    /// It is not.
    pub fn serves(&self) -> Result<()> {
        let mut session = Raw::session(self.server.postgres).with_context(|| self.tail())?;
        let (tags, error) = session.run("SELECT count(*) FROM kept_for_the_steady_session")?;
        ensure!(error.is_none(), "a plain query is answered with {error:?} ({tags})");
        Ok(())
    }

    /// No task of it panicked: its session would be over, and the process lives.
    ///
    /// # Errors
    /// One did since the last look, with what it said.
    pub fn calm(&self) -> Result<()> {
        let text = self.server.logged();
        let panics: Vec<usize> = text.match_indices("panicked at").map(|(place, _)| place).collect();
        let known = self.panics.swap(panics.len(), Ordering::Relaxed);
        let Some(first) = panics.get(known) else { return Ok(()) };
        let said: Vec<&str> = text.get(*first..).unwrap_or_default().lines().take(60).collect();
        bail!("a task of the server {}", said.join("\n"))
    }

    /// The last lines that it logged.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.server.logged();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Does something beside a steady session, which must be served all the time, while memory is looked at. Gives what
    /// that something gives, and the longest answer of the steady session.
    ///
    /// # Errors
    /// What went wrong first.
    pub fn beside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<(T, Duration)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let steady = scope.spawn(|| -> Result<Duration> {
                let mut session = Raw::session(self.server.postgres)?;
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let (_, error) = session
                        .run("SELECT b FROM kept_for_the_steady_session WHERE a = 7")
                        .context("the steady session")?;
                    ensure!(error.is_none(), "the steady session is answered with {error:?}");
                    longest = longest.max(asked.elapsed());
                    self.look()?;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(longest)
            });
            let worked = work();
            over.store(true, Ordering::Relaxed);
            let steady = steady.join().map_err(|_| anyhow::anyhow!("the steady session panicked"))?;
            let worked = worked?;
            self.look()?;
            Ok((worked, steady?))
        })
    }
}

/// What a while of rudeness came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rude {
    /// Connections.
    pub connections: u64,
    /// Frames sent.
    pub frames: u64,
    /// Connections that were well formed and came to their end.
    pub orderly: u64,
}

/// Talks to PostgreSQL's port until the deadline, from some threads.
///
/// # Errors
/// A session that was spoken to in whole frames does not come back, or the server is gone.
pub fn messages(victim: &Victim, seed: u64, deadline: Instant) -> Result<Rude> {
    const THREADS: u64 = 3;
    let totals: Vec<Result<Rude>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || talk(victim, Dice::new(seed * 101 + thread), deadline)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked"))))
            .collect()
    });
    let mut sum = Rude::default();
    for total in totals {
        let total = total?;
        sum.connections += total.connections;
        sum.frames += total.frames;
        sum.orderly += total.orderly;
    }
    Ok(sum)
}

fn talk(victim: &Victim, mut dice: Dice, deadline: Instant) -> Result<Rude> {
    let corpus = wire::conversations();
    let mut sum = Rude::default();
    while Instant::now() < deadline {
        let state = dice.clone();
        sum.connections += 1;
        let told = match dice.below(10) {
            0..=4 => {
                sum.orderly += 1;
                orders(victim, &mut dice, &mut sum.frames)
            }
            5..=7 => malformed(victim, &corpus, &mut dice, &mut sum.frames),
            8 => strange_start(victim, &mut dice),
            _ => cancel(victim, &mut dice),
        };
        told.with_context(|| format!("with {state:?}"))?;
    }
    Ok(sum)
}

/// Legal frames in any order. However they are mixed, the session comes back.
fn orders(victim: &Victim, dice: &mut Dice, frames: &mut u64) -> Result<()> {
    let mut session = Raw::session(victim.server.postgres)?;
    session.run("SET statement_timeout = 2000; SET lock_timeout = 200")?;
    let mut said = Vec::new();
    let count = 1 + dice.below(30);
    for _ in 0..count {
        said.push(some_message(dice));
    }
    *frames += count;
    // Out of whatever the session is in: a COPY, a failed request, a failed block.
    let mark = format!("mark-{}", dice.number());
    said.push(raw::message(b'f', b"enough\0"));
    said.push(raw::message(b'S', &[]));
    said.push(raw::query("ROLLBACK"));
    said.push(raw::query(&format!("SELECT '{mark}'")));
    let bytes = said.concat();
    // Answers are taken while it is said, else both sides would wait for each other.
    let heard = session.converse(&bytes, dice.chance(1, 8).then_some(1 + dice.index(7)), |heard| {
        contains(heard, mark.as_bytes()) && heard.ends_with(b"Z\0\0\0\x05I")
    });
    let heard = heard.with_context(|| {
        let tags: String = said.iter().map(|message| char::from(message[0])).collect();
        format!("messages {tags} do not come back to ReadyForQuery")
    })?;
    ensure!(!contains(&heard, b"SFATAL"), "a session of legal frames ended with FATAL");
    Ok(())
}

fn contains(heard: &[u8], what: &[u8]) -> bool {
    heard.windows(what.len()).any(|window| window == what)
}

fn some_message(dice: &mut Dice) -> Vec<u8> {
    let names = ["", "a", "b"];
    let statement = *dice.pick(&names);
    let portal = *dice.pick(&names);
    // What runs for long or for ever is left to the attacks.
    let sql = *dice.pick(wire::STATEMENTS);
    match dice.below(16) {
        0 | 1 => raw::query(sql),
        2 => raw::query(&format!("{sql}; {}", dice.pick(wire::STATEMENTS))),
        3 | 4 => raw::parse(statement, sql),
        5 => wire::parse_with(statement, "SELECT $1::int, $2::text", &[23]),
        6 | 7 => raw::bind(portal, statement),
        8 => wire::bind_with(portal, statement, &[0], &[Some(b"1"), None]),
        9 | 10 => raw::execute(portal, u32::try_from(dice.below(3)).unwrap_or(0)),
        11 => raw::message(b'D', format!("{}{statement}\0", dice.pick(&["S", "P"])).as_bytes()),
        12 => raw::message(b'C', format!("{}{statement}\0", dice.pick(&["S", "P"])).as_bytes()),
        13 => raw::message(b'H', &[]),
        14 => raw::message(b'S', &[]),
        _ => match dice.below(3) {
            0 => raw::message(b'd', b"900001\tcopied\n"),
            1 => raw::message(b'c', &[]),
            _ => raw::message(b'f', b"why not\0"),
        },
    }
}

/// Frames that are not whole, or not frames.
fn malformed(victim: &Victim, corpus: &[Vec<u8>], dice: &mut Dice, frames: &mut u64) -> Result<()> {
    let mut session = Raw::session(victim.server.postgres)?;
    let mut bytes = Vec::new();
    for _ in 0..=dice.below(3) {
        bytes.extend(wire::mutated_conversation(corpus, dice));
    }
    if dice.chance(1, 3) {
        bytes = mutate::mutate(&bytes, &corpus[0], dice);
    }
    if dice.chance(1, 2) {
        bytes.truncate(dice.index(bytes.len() + 1));
    }
    *frames += wire::messages(&bytes).count() as u64;
    session.pour(&bytes, dice.chance(1, 10).then_some(1 + dice.index(9)))
}

fn strange_start(victim: &Victim, dice: &mut Dice) -> Result<()> {
    let corpus = wire::startups();
    let (input, other) = (dice.index(corpus.len()), dice.index(corpus.len()));
    let bytes = mutate::mutate(&corpus[input], &corpus[other], dice);
    let mut connection = Raw::connect(victim.server.postgres)?;
    connection.pour(&bytes, dice.chance(1, 4).then_some(1))
}

fn cancel(victim: &Victim, dice: &mut Dice) -> Result<()> {
    let mut connection = Raw::connect(victim.server.postgres)?;
    let body = [&80_877_102_u32.to_be_bytes()[..], &dice.number().to_be_bytes()].concat();
    let length = u32::try_from(body.len() + 4)?;
    connection.pour(&[&length.to_be_bytes()[..], &body].concat(), None)
}

/// Nonsense to the port of the nodes until the deadline: HTTP/2 that is none, messages that cannot be decoded, streams
/// that are opened and reset at once. Gives how many messages were sent.
///
/// # Errors
/// The server is gone.
pub fn peers(victim: &Victim, seed: u64, deadline: Instant) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let corpora = [
        ("/rustydb.v1.Consensus/Exchange", peers::frames()),
        ("/rustydb.v1.Sessions/Open", peers::session_frames()),
        ("/rustydb.v1.Sessions/Cancel", peers::admin_messages()),
        ("/rustydb.v1.Admin/AwaitSystem", peers::admin_messages()),
        ("/rustydb.v1.Admin/ExecuteSystem", peers::admin_messages()),
        ("/rustydb.v1.Admin/Nothing", peers::admin_messages()),
    ];
    let mut sent = 0;
    while Instant::now() < deadline {
        let mut connection = Http2::connect(victim.server.interconnect).with_context(|| victim.tail())?;
        loop {
            let (path, corpus) = dice.pick(&corpora);
            let mut data = Vec::new();
            for _ in 0..=dice.below(8) {
                let (input, other) = (dice.index(corpus.len()), dice.index(corpus.len()));
                let bytes = mutate::mutate(&corpus[input], &corpus[other], &mut dice);
                if !is_harmful(&bytes) {
                    data.extend(http2::message(&bytes));
                    sent += 1;
                }
            }
            if dice.chance(1, 6) {
                data = mutate::mutate(&data, b"\xff\xff\xff\xff", &mut dice);
            }
            let cluster = if dice.chance(1, 10) { "another" } else { &victim.cluster };
            let metadata = [
                ("rustydb-cluster", cluster),
                ("rustydb-from", "7"),
                ("rustydb-to", "1"),
                ("grpc-timeout", "1S"),
            ];
            let ends = dice.chance(3, 4);
            if !connection.call(path, &metadata, &data, ends) {
                break;
            }
            if dice.chance(1, 50) {
                let kind = u8::try_from(dice.below(12)).unwrap_or(0);
                let bytes = http2::frame(kind, 0xff, u32::try_from(dice.below(9)).unwrap_or(0), &data);
                if !connection.say(&mutate::mutate(&bytes, &data, &mut dice)) {
                    break;
                }
            }
        }
    }
    victim.look()?;
    Ok(sent)
}

/// Whether a message is one that a member of the cluster may send: from a liar it may do harm, and only certificates
/// keep liars out.
fn is_harmful(bytes: &[u8]) -> bool {
    RaftFrame::decode(Bytes::copy_from_slice(bytes)).is_ok_and(|frame| frame.group < 100)
}

impl Raw {
    /// Says bytes, in pieces if so, and hears what comes meanwhile, until what was heard is enough.
    ///
    /// # Errors
    /// The other side ends or says too little in time.
    pub fn converse(
        &mut self,
        bytes: &[u8],
        piece: Option<usize>,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let mut stream = self.stream().try_clone()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        std::thread::scope(|scope| {
            let mut writing = self.stream().try_clone()?;
            scope.spawn(move || say_in_pieces(&mut writing, bytes, piece));
            let mut heard = Vec::new();
            let mut buffer = [0; 16 << 10];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => {
                        bail!("the server ended the connection after {}", String::from_utf8_lossy(&heard))
                    }
                    Ok(count) => heard.extend_from_slice(&buffer[..count]),
                    Err(error) => {
                        bail!("nothing more is said ({error}) after {}", String::from_utf8_lossy(&heard))
                    }
                }
                if enough(&heard) {
                    return Ok(heard);
                }
            }
        })
    }

    /// Says bytes and hangs up; takes what comes until the other side has ended.
    ///
    /// # Errors
    /// The other side does not end.
    pub fn pour(&mut self, bytes: &[u8], piece: Option<usize>) -> Result<()> {
        let mut reading = self.stream().try_clone()?;
        reading.set_read_timeout(Some(PATIENCE))?;
        let mut writing = self.stream().try_clone()?;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                say_in_pieces(&mut writing, bytes, piece);
                let _gone = writing.shutdown(std::net::Shutdown::Write);
            });
            let mut buffer = [0; 16 << 10];
            loop {
                match reading.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        bail!("a connection that was hung up is left open")
                    }
                    Err(_) => return Ok(()),
                }
            }
        })
    }
}

fn say_in_pieces(stream: &mut TcpStream, bytes: &[u8], piece: Option<usize>) {
    let piece = piece.unwrap_or(bytes.len()).max(1);
    // Small pieces of the beginning only: the rest of a long text adds nothing but time.
    let (slow, fast) = bytes.split_at(bytes.len().min(if piece < 64 { 2000 } else { usize::MAX }));
    for part in slow.chunks(piece).chain([fast]) {
        // Whoever has ended the connection hears no more.
        if stream.write_all(part).is_err() {
            return;
        }
    }
}
