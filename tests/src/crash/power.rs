//! Power cuts of real servers that write under load.
//!
//! ```text
//!   one round:  writers work ──► power cut in the midst ──► kill -9, unmount, mount ──► start ──► compare
//!                                                              └─ in one of five: cut again while it starts
//! ```
//! A lane is a cluster with its disks and goes its own way; lanes of one node and one of three nodes run at once.
//! The three lose their power together, or one or two of them, while the others go on. Durability is as shipped; only
//! sizes are small, so that segments fill, rows are flushed and logs are shortened all the time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Handle;
use tokio_postgres::Client;

use super::Dice;
use super::disk::PowerDisk;
use super::ledger::{Judged, Ledger, Life};
use crate::cluster::{PATIENCE, connect, free_base_port, text};
use crate::server::{Server, TRUST_LOOPBACK, finish};

/// Bytes of a disk.
const DISK_BYTES: u64 = 512 << 20;
/// Writers of a lane.
const WRITERS: i64 = 6;
/// After so many cuts everything is compared once more and the tables are emptied.
const CLEAR_EVERY: u64 = 12;

/// What a lane, or all, came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cuts {
    /// Times that the power went.
    pub cuts: u64,
    /// Of these, cuts of a node that was starting after another.
    pub in_recovery: u64,
    /// File systems that were shut down.
    pub disks: u64,
    /// What the writers were told and what was there.
    pub judged: Judged,
}

impl Cuts {
    /// Adds what another lane came to.
    pub fn add(&mut self, other: &Cuts) {
        self.cuts += other.cuts;
        self.in_recovery += other.in_recovery;
        self.disks += other.disks;
        self.judged.acknowledged += other.judged.acknowledged;
        self.judged.unknown += other.judged.unknown;
        self.judged.unknown_kept += other.judged.unknown_kept;
        self.judged.rows += other.judged.rows;
    }
}

/// A cluster whose nodes have a disk each.
pub struct Lane {
    /// For messages.
    name: String,
    disks: Vec<PowerDisk>,
    servers: Vec<Server>,
    ledger: Ledger,
    dice: Dice,
    runtime: Handle,
    cuts: Cuts,
    /// Longest wait for nodes to be ready.
    patience: Duration,
}

impl Lane {
    /// A fresh cluster of so many nodes, one or three, ready to be cut. `slot` keeps lanes' ports apart.
    /// The servers run behind the library `shim`, if there is one.
    ///
    /// # Errors
    /// It does not start.
    pub fn new(
        name: &str,
        nodes: u16,
        (base_port, slot): (u16, u16),
        seed: u64,
        shim: Option<&Path>,
        runtime: &Handle,
    ) -> Result<Lane> {
        let (mut disks, mut servers) = (Vec::new(), Vec::new());
        for node in 1..=nodes {
            let disk = PowerDisk::new(DISK_BYTES)?;
            let more = format!(
                "[log]\nsegment_size = \"8MiB\"\ndisk_reserve = \"16MiB\"\n[storage]\nflush_interval = \"100ms\"\n\
                 [raft]\nsnapshot_log_size = \"8MiB\"\n{TRUST_LOOPBACK}"
            );
            let mut server =
                Server::new(disk.beside(), "node", u64::from(node), base_port, slot + node, &more)?;
            if let Some(shim) = shim {
                server = server.with_environment("LD_PRELOAD", &shim.display().to_string());
            }
            // The data lie on the disk that is cut, configuration and what it logs do not.
            server.move_data(&disk.path().join("data"))?;
            server.start()?;
            servers.push(server);
            disks.push(disk);
        }
        servers[0].cli_json(&["cluster", "init"])?;
        for server in servers.iter().skip(1) {
            servers[0].cli_json(&["node", "add", &format!("127.0.0.1:{}", server.interconnect)])?;
        }
        for server in &servers {
            server.wait_ready()?;
        }
        let prepare = async {
            let client = connect(&servers[0].target("postgres")).await?;
            Ledger::prepare(&client, WRITERS).await
        };
        let ledger = runtime.block_on(prepare)?;
        let (name, runtime) = (name.to_owned(), runtime.clone());
        Ok(Lane {
            name,
            disks,
            servers,
            ledger,
            dice: Dice::new(seed),
            runtime,
            cuts: Cuts::default(),
            patience: PATIENCE,
        })
    }

    /// What it came to so far.
    #[must_use]
    pub fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    fn logs(&self) -> String {
        let tail = |server: &Server| {
            let text = server.logged();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        self.servers.iter().map(tail).collect::<Vec<_>>().join("\n---\n")
    }

    /// One life: load, cut, start, compare.
    ///
    /// # Errors
    /// What was acknowledged is not there, or a node does not open what its disk holds.
    pub fn round(&mut self) -> Result<()> {
        let cut = self.cuts.cuts;
        self.live().with_context(|| format!("{}, after {cut} cuts\n{}", self.name, self.logs()))
    }

    fn live(&mut self) -> Result<()> {
        let with_tables = self.dice.chance(1, 4);
        // Any node takes a writer's connection; those of nodes that are cut end.
        let at = self.dice.index(self.servers.len());
        let target = self.servers[at].target("postgres");
        let runtime = self.runtime.clone();
        let life = {
            let _in_runtime = runtime.enter();
            self.ledger.start(&target, &mut self.dice, with_tables)
        };
        let wait = Duration::from_millis(60 + self.dice.below(500));
        std::thread::sleep(wait);
        self.wait_for_commits(&life)?;
        let victims = self.victims();
        self.cut(&victims)?;
        if victims.len() == 1 && self.servers.len() > 1 {
            // A majority goes on; its writers, too, if they are not at the victim.
            std::thread::sleep(Duration::from_millis(self.dice.below(300)));
        }
        self.bring_back(&victims)?;
        let client = self.client(0)?;
        let judged = runtime.block_on(self.ledger.judge(life, &client))?;
        self.cuts.judged.acknowledged += judged.acknowledged;
        self.cuts.judged.unknown += judged.unknown;
        self.cuts.judged.unknown_kept += judged.unknown_kept;
        self.cuts.judged.rows += judged.rows;
        if self.cuts.cuts.is_multiple_of(CLEAR_EVERY) {
            self.check_everywhere()?;
            runtime.block_on(self.ledger.clear(&client))?;
        }
        Ok(())
    }

    /// Waits until the load has begun to be acknowledged, on a machine that is busy with other things.
    fn wait_for_commits(&mut self, life: &Life) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while life.acknowledged() < 5 {
            ensure!(Instant::now() < deadline, "no commit is acknowledged");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Which nodes lose their power: mostly all at once.
    fn victims(&mut self) -> Vec<usize> {
        let all: Vec<usize> = (0..self.servers.len()).collect();
        if all.len() == 1 || self.dice.chance(2, 3) {
            return all;
        }
        vec![self.dice.index(all.len())]
    }

    fn cut(&mut self, victims: &[usize]) -> Result<()> {
        // At once, as far as threads are.
        let disks = self.disks.iter_mut().enumerate().filter(|(at, _)| victims.contains(at));
        let done: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = disks.map(|(_, disk)| scope.spawn(|| disk.cut())).collect();
            threads.into_iter().map(|thread| thread.join().expect("a cut does not panic")).collect()
        });
        done.into_iter().collect::<Result<()>>()?;
        self.cuts.cuts += 1;
        self.cuts.disks += victims.len() as u64;
        // The machine is gone with its power; what its process still says after the cut nobody may rely on, so it is
        // left to run for a moment: an acknowledgement now would be a lie that the comparison finds.
        std::thread::sleep(Duration::from_millis(self.dice.below(20)));
        for victim in victims {
            self.servers[*victim].kill()?;
        }
        for victim in victims {
            self.disks[*victim].restore()?;
        }
        Ok(())
    }

    /// Starts nodes after a cut, with more cuts on the way, until all are ready.
    fn bring_back(&mut self, victims: &[usize]) -> Result<()> {
        while self.dice.chance(1, 5) {
            for victim in victims {
                self.servers[*victim].launch()?;
            }
            std::thread::sleep(Duration::from_millis(self.dice.below(250)));
            self.cuts.in_recovery += 1;
            self.cut(victims)?;
        }
        for victim in victims {
            self.servers[*victim].launch()?;
        }
        for victim in victims {
            self.servers[*victim].wait_up()?;
        }
        let deadline = Instant::now() + self.patience;
        for at in 0..self.servers.len() {
            while !self.servers[at].get("/ready").is_ok_and(|(code, _)| code == 200) {
                ensure!(self.servers[at].is_alive()?, "node {} does not open what its disk holds", at + 1);
                ensure!(Instant::now() < deadline, "node {} is not ready within {:?}", at + 1, self.patience);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits no longer than this for a node that has started to be ready.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Lane {
        self.patience = patience;
        self
    }

    fn client(&self, at: usize) -> Result<Client> {
        self.runtime.block_on(connect(&self.servers[at].target("postgres")))
    }

    /// Compares all that should be there, asked at each node.
    ///
    /// # Errors
    /// Something differs.
    pub fn check_everywhere(&self) -> Result<()> {
        for at in 0..self.servers.len() {
            let client = self.client(at)?;
            self.runtime
                .block_on(self.ledger.check_all(&client))
                .with_context(|| format!("at node {}", at + 1))?;
        }
        Ok(())
    }
}

/// A base port with room for lanes.
///
/// # Errors
/// No ports are free.
pub fn base_port() -> Result<u16> {
    free_base_port()
}

/// A library behind which nothing is ever synced, compiled by the linker's own compiler: what the lab must find.
///
/// # Errors
/// There is no compiler.
pub fn sync_shim(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("sync_shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/crash/sync_shim.c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    let output = finish(command, PATIENCE)?;
    ensure!(output.status.success(), "cc: {}", text(&output));
    Ok(library)
}
