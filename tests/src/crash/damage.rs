//! Damage of files at rest on one node of three: a bit in the middle of the log, in the engine, in what names them.
//!
//! What must hold: the damaged node starts, shows nothing that is wrong, leads again, and has what was damaged from the
//! others within seconds; the damaged log stays as it is, to the last bit, and a damaged engine is kept aside; the other
//! two serve all the time, with all that was acknowledged; a node that joins in its place has everything. Where the
//! damaged copy is the only one, the node names it, refuses to start and leaves it as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::Dice;
use crate::cluster::{PATIENCE, connect, free_base_port};
use crate::server::{Server, TRUST_LOOPBACK};

/// Rows of the table.
const ROWS: i64 = 4000;

/// Which file is damaged, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A frame in the middle of the log.
    LogMiddle,
    /// The header of a segment.
    LogHeader,
    /// The end of the log: it is gone without a trace.
    LogEnd,
    /// Pages of an engine that hold rows.
    EnginePages,
    /// The head of an engine's file.
    EngineHead,
    /// What says which engine is in use.
    EnginePointer,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 6] = [
        Self::LogMiddle,
        Self::LogHeader,
        Self::LogEnd,
        Self::EnginePages,
        Self::EngineHead,
        Self::EnginePointer,
    ];

    const fn is_of_log(self) -> bool {
        matches!(self, Self::LogMiddle | Self::LogHeader | Self::LogEnd)
    }
}

/// Three nodes with a table that is in the log and in the engines.
pub struct Cluster {
    servers: Vec<Server>,
    folder: tempfile::TempDir,
    runtime: Handle,
    sum: i64,
}

impl Cluster {
    /// Starts one and fills it.
    ///
    /// # Errors
    /// It does not start.
    pub fn new(runtime: &Handle) -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let base_port = free_base_port()?;
        let mut servers = Vec::new();
        for slot in 1..=3 {
            let more = format!(
                "[log]\nsegment_size = \"8MiB\"\ndisk_reserve = \"16MiB\"\n[storage]\nflush_interval = \"100ms\"\n{TRUST_LOOPBACK}"
            );
            let name = format!("node-{slot}");
            let mut server = Server::new(folder.path(), &name, u64::from(slot), base_port, slot, &more)?;
            server.start()?;
            servers.push(server);
        }
        servers[0].cli_json(&["cluster", "init"])?;
        for server in servers.iter().skip(1) {
            servers[0].cli_json(&["node", "add", &format!("127.0.0.1:{}", server.interconnect)])?;
        }
        for server in &servers {
            server.wait_ready()?;
        }
        let mut cluster = Cluster { servers, folder, runtime: runtime.clone(), sum: 0 };
        cluster.fill()?;
        Ok(cluster)
    }

    fn fill(&mut self) -> Result<()> {
        let target = self.servers[0].target("postgres");
        self.runtime.block_on(async {
            let client = connect(&target).await?;
            client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n bigint, filler text)").await?;
            for part in 0..20 {
                let (from, to) = (part * ROWS / 20, (part + 1) * ROWS / 20 - 1);
                let sql = format!("INSERT INTO t SELECT i, i * 7, 'filler of row ' || i FROM generate_series({from}, {to}) AS g(i)");
                client.batch_execute(&sql).await?;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            anyhow::Ok(())
        })?;
        self.sum = (0..ROWS).map(|id| id * 7).sum();
        Ok(())
    }

    /// Everything that a node shows is right; an error of the server is not wrong. Gives whether it answered.
    ///
    /// # Errors
    /// It shows something wrong.
    fn read(&self, at: usize) -> Result<bool> {
        let target = self.servers[at].target("postgres");
        self.runtime.block_on(async {
            let Ok(client) = connect(&target).await else { return Ok(false) };
            let reading = client.query("SELECT id, n, filler FROM t", &[]);
            let Ok(Ok(rows)) = tokio::time::timeout(PATIENCE, reading).await else { return Ok(false) };
            let mut found: BTreeMap<i64, (i64, String)> = BTreeMap::new();
            for row in rows {
                found.insert(row.get(0), (row.get(1), row.get(2)));
            }
            ensure!(found.len() as i64 >= ROWS, "node {}: {} rows of {ROWS}", at + 1, found.len());
            for (id, (n, filler)) in &found {
                let right = *n == id * 7 && *filler == format!("filler of row {id}");
                ensure!(right, "node {}: row {id} is wrong: {n}, {filler}", at + 1);
            }
            Ok(true)
        })
    }

    fn files(&self, at: usize, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        walk(&self.servers[at].data, &mut found)?;
        found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&fits));
        ensure!(!found.is_empty(), "there is no such file");
        Ok(found)
    }

    fn damage(&self, at: usize, place: Place, dice: &mut Dice) -> Result<String> {
        match place {
            Place::LogMiddle => {
                let path = self.files(at, |name| name.ends_with(".log"))?.remove(0);
                let mut bytes = std::fs::read(&path)?;
                // In the first half of what was written, so that much was written and synced behind it.
                let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                let offset = 4096 + dice.index(written / 2);
                flip(&path, &mut bytes, offset)
            }
            Place::LogHeader => {
                let path = self.files(at, |name| name.ends_with(".log"))?.remove(0);
                let mut bytes = std::fs::read(&path)?;
                flip(&path, &mut bytes, 16 + dice.index(32))
            }
            Place::LogEnd => {
                let newest = self.files(at, |name| name.ends_with(".log"))?.into_iter().max();
                let path = newest.context("there is no log")?;
                let mut bytes = std::fs::read(&path)?;
                let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                let from = written / 2 + dice.index(written / 4 + 1);
                bytes[from..].fill(0);
                std::fs::write(&path, &bytes)?;
                Ok(format!("{}: zeros from byte {from} of {written} that were written", path.display()))
            }
            Place::EnginePages => {
                // The text of a row, wherever the engine has put it: as many places as there are.
                let mut said = String::new();
                for path in self.files(at, |name| name.starts_with("store-"))? {
                    let mut bytes = std::fs::read(&path)?;
                    let text = b"filler of row 7";
                    let places: Vec<usize> = (0..bytes.len().saturating_sub(text.len()))
                        .filter(|at| bytes[*at..].starts_with(text))
                        .collect();
                    for place in places.iter().take(50) {
                        said = flip(&path, &mut bytes, place + 3)?;
                    }
                }
                ensure!(!said.is_empty(), "no row has reached an engine");
                Ok(said)
            }
            Place::EngineHead => {
                let mut said = String::new();
                for path in self.files(at, |name| name.starts_with("store-"))? {
                    let mut bytes = std::fs::read(&path)?;
                    // Block 0 of the engine, behind the head and the first checksums.
                    said = flip(&path, &mut bytes, 2 * 4096 + 64 + dice.index(200))?;
                }
                Ok(said)
            }
            Place::EnginePointer => {
                let path = self.files(at, |name| name == "CURRENT")?.remove(0);
                let mut bytes = std::fs::read(&path)?;
                let offset = dice.index(bytes.len());
                flip(&path, &mut bytes, offset)
            }
        }
    }

    /// Damages one node while it is stopped, and looks at it and at the others afterwards.
    ///
    /// # Errors
    /// Something wrong is served, the others do not serve, or the damaged file was changed by guess.
    pub fn try_place(&mut self, place: Place, dice: &mut Dice) -> Result<Value> {
        let victim = 1 + dice.index(2);
        // By force, so that the log ends as a crash leaves it.
        // Long enough for it to be noted how far that is.
        std::thread::sleep(Duration::from_millis(2500));
        self.servers[victim].kill()?;
        let said = self.damage(victim, place, dice)?;
        let before = self.logs(victim)?;
        self.servers[victim].start().with_context(|| said.clone())?;
        let mended = if place.is_of_log() { self.wait_mended(victim).context(said.clone())? } else { 0.0 };
        // Whatever it shows must be right, also when it leads.
        self.make_leader(victim).with_context(|| said.clone())?;
        let (mut answers, mut errors) = (0, 0);
        for _ in 0..5 {
            if self.read(victim)? { answers += 1 } else { errors += 1 }
        }
        ensure!(self.servers[victim].is_alive()?, "{said}: the node has stopped");
        ensure!(answers > 0, "{said}: the node answers nothing");
        let outcome = if place.is_of_log() {
            let after = self.logs(victim)?;
            let is_kept = before.iter().all(|(path, bytes)| after.get(path) == Some(bytes));
            ensure!(is_kept, "{said}: the damaged log was changed");
            json!({ "answers": answers, "errors": errors, "votes_after_s": mended })
        } else {
            let repaired = self.wait_repaired(victim).with_context(|| said.clone())?;
            json!({ "answers": answers, "errors": errors, "repaired": repaired })
        };
        self.others_serve(victim).with_context(|| said.clone())?;
        for at in (0..3).filter(|at| *at != victim) {
            self.others_serve(at).with_context(|| said.clone())?;
        }
        self.replace(victim, place).with_context(|| said.clone())?;
        Ok(json!({ "damage": said, "outcome": outcome }))
    }

    /// Waits until a node that has lost its log takes part in all elections again. Gives the seconds.
    fn wait_mended(&self, at: usize) -> Result<f64> {
        let started = Instant::now();
        loop {
            let place = std::fs::read_to_string(self.servers[at].data.join("LOG")).unwrap_or_default();
            if place.starts_with("folder log-1\n") && !place.contains("mending") {
                return Ok(started.elapsed().as_secs_f64());
            }
            let in_time = started.elapsed() < PATIENCE;
            ensure!(in_time, "it does not vote again: {place}\n{}", self.servers[at].logged());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until no state of a node is withheld. Gives how many were replaced: what they were is kept aside.
    fn wait_repaired(&self, at: usize) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        let count = |wanted: &str| -> Result<usize> {
            let groups = std::fs::read_dir(self.servers[at].data.join("groups"))?;
            let there = groups.map(|group| Ok(group?.path().join(wanted).exists()));
            Ok(there.collect::<Result<Vec<bool>>>()?.into_iter().filter(|there| *there).count())
        };
        loop {
            let (withheld, kept) = (count("WITHHELD")?, count("diverged")?);
            if withheld == 0 && kept > 0 {
                return Ok(kept);
            }
            ensure!(
                Instant::now() < deadline,
                "{withheld} states are withheld still, {kept} were replaced\n{}",
                self.servers[at].logged()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops whoever leads until this node does.
    fn make_leader(&mut self, at: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut stops = 0;
        loop {
            // A node that has just lost its leader may not tell.
            let told = self.servers[at].cli_json(&["cluster", "status"]);
            let leader = told.as_ref().ok().and_then(|status| status["databases"][0]["leader"].as_u64());
            match leader.and_then(|leader| usize::try_from(leader).ok()?.checked_sub(1)) {
                Some(leader) if leader == at => return Ok(()),
                Some(leader) if leader < self.servers.len() => {
                    // It hands its leadership over, to either of the others.
                    self.servers[leader].stop()?;
                    self.servers[leader].start()?;
                    self.servers[leader].wait_ready()?;
                    stops += 1;
                }
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
            ensure!(
                Instant::now() < deadline,
                "it does not come to lead, though whoever leads was stopped {stops} times; status {told:?}\n{}",
                self.servers[at].logged()
            );
        }
    }

    fn others_serve(&self, at: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.read(at)? {
            ensure!(
                Instant::now() < deadline,
                "node {} does not serve\n{}",
                at + 1,
                self.servers[at].logged()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn logs(&self, at: usize) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let logs = self.files(at, |name| name.ends_with(".log"))?;
        logs.into_iter().map(|path| Ok((path.clone(), std::fs::read(&path)?))).collect()
    }

    /// A node under a new number joins with an empty folder, as the manual says, and has everything.
    fn replace(&mut self, victim: usize, place: Place) -> Result<()> {
        // In good order: it may lead, and whoever is asked to take in another node must know who does.
        self.servers[victim].stop()?;
        let slot = u16::try_from(4 + Place::ALL.iter().position(|known| *known == place).unwrap_or(0))?;
        if slot > 4 {
            return Ok(());
        }
        let base_port = self.servers[0].postgres - 1;
        let name = format!("node-{slot}");
        let mut server =
            Server::new(self.folder.path(), &name, u64::from(slot), base_port, slot, TRUST_LOOPBACK)?;
        server.start()?;
        let address = format!("127.0.0.1:{}", server.interconnect);
        let added = self.servers[0].cli_json(&["node", "add", &address]).map(drop);
        added.and_then(|()| server.wait_ready()).with_context(|| {
            let tail = |server: &Server| {
                let text = server.logged();
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(12)..].join("\n")
            };
            let all = self.servers.iter().chain([&server]).map(tail).collect::<Vec<_>>();
            format!("a new node in place of node {}\n{}", victim + 1, all.join("\n---\n"))
        })?;
        self.servers.push(server);
        let last = self.servers.len() - 1;
        self.others_serve(last)
    }
}

/// What a server said when it refused to start; it must be one of these words.
fn refusal(error: &anyhow::Error, words: &[&str]) -> Result<String> {
    let text = format!("{error:#}");
    let is_named = |line: &&str| line.starts_with("rustydb:") && words.iter().any(|word| line.contains(word));
    let named = text.lines().rev().find(is_named);
    let named = named.with_context(|| format!("refused without a reason: {text}"))?;
    Ok(named.chars().skip(9).take(300).collect())
}

/// A node alone whose engine is damaged, and then its log: it refuses, says which file, and changes nothing; when the file is back as it
/// was, it serves.
///
/// # Errors
/// It starts, or something is changed.
pub fn only_copy(runtime: &Handle, dice: &mut Dice) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let more = format!("[storage]\nflush_interval = \"100ms\"\n{TRUST_LOOPBACK}");
    let mut server = Server::new(folder.path(), "node-1", 1, free_base_port()?, 1, &more)?;
    server.start()?;
    server.cli_json(&["cluster", "init"])?;
    server.wait_ready()?;
    let mut alone = Cluster { servers: vec![server], folder, runtime: runtime.clone(), sum: 0 };
    alone.fill()?;
    std::thread::sleep(Duration::from_millis(400));
    alone.servers[0].kill()?;
    let is_stored = |name: &str| name.starts_with("store-") || name == "CURRENT";
    let content = |alone: &Cluster| -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let files = alone.files(0, is_stored)?;
        files.into_iter().map(|path| Ok((path.clone(), std::fs::read(&path)?))).collect()
    };
    let sound = content(&alone)?;
    let said = alone.damage(0, Place::EngineHead, dice)?;
    let damaged = content(&alone)?;
    let Err(error) = alone.servers[0].start() else { bail!("{said}: the node starts") };
    let refused = refusal(&error, &["only copy"]).context(said.clone())?;
    ensure!(content(&alone)? == damaged, "{said}: what was damaged is changed");
    for (path, bytes) in sound {
        std::fs::write(path, bytes)?;
    }
    alone.servers[0].start()?;
    alone.others_serve(0)?;
    alone.servers[0].kill()?;
    let said = alone.damage(0, Place::LogMiddle, dice)?;
    let damaged = alone.logs(0)?;
    let Err(error) = alone.servers[0].start() else { bail!("{said}: the node starts") };
    refusal(&error, &["corrupt"]).context(said.clone())?;
    ensure!(alone.logs(0)? == damaged, "{said}: what was damaged is changed");
    Ok(json!({ "damage": said, "refused": refused }))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

fn flip(path: &Path, bytes: &mut [u8], offset: usize) -> Result<String> {
    let Some(byte) = bytes.get_mut(offset) else { bail!("{} has no byte {offset}", path.display()) };
    *byte ^= 4;
    std::fs::write(path, bytes)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(format!("a bit of byte {offset} of {name}"))
}
