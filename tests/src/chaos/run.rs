//! A whole run: sections, each on clusters of its own, with a share of the time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::runtime::Runtime;

use super::nodes::{Ground, Nodes, Setup};
use super::random::Random;
use super::round::{self, Load, Outcome};
use super::workloads::bank::Bank;
use super::workloads::counter::Counting;
use super::workloads::predicate::Predicates;
use super::workloads::register::Registers;
use super::workloads::set::Set;
use super::workloads::transactions::{Shape, Transactions};
use super::workloads::{TABLES, Verdict, Workload};
use crate::check::lists::Level;
use crate::check::second::Kind;
use crate::cluster::connect;
use crate::gate::Gate;

/// Sections end early after so many rounds that went wrong: the same cause is most likely behind all of them.
const FAILURES_MAX: usize = 4;

/// Half of the kills of the leader keep writers waiting no longer, and none longer than the second.
const OUTAGE_P50_MAX: Duration = Duration::from_secs(2);
const OUTAGE_MAX: Duration = Duration::from_secs(5);

/// What a run counts.
#[derive(Debug, Default)]
pub struct Totals {
    /// Histories that were judged.
    pub histories: usize,
    /// All their operations.
    pub verdict: Verdict,
    /// Rounds by fault.
    pub faults: BTreeMap<&'static str, usize>,
    /// Outages after kills of the leader.
    pub outages: Vec<Duration>,
    /// How often the leader stood still while others wrote.
    pub stops: usize,
    /// Strong reads that waited in the sockets of a leader that stood still, by how they were answered: fresh, errors.
    pub paused_reads: (usize, usize),
    /// Nodes that became members while clients worked.
    pub added: usize,
    /// Members that were removed while clients worked.
    pub removed: usize,
}

/// A run of the program.
pub struct Run {
    /// Parts and their results.
    pub gate: Gate,
    /// Where client tasks run.
    pub runtime: Arc<Runtime>,
    /// Where nodes run.
    pub ground: Arc<Ground>,
    /// How much of that which may be required cannot be tried on this machine. Each was told as skipped.
    pub untried: BTreeMap<&'static str, usize>,
    /// Why the network cannot be hurt, if so.
    pub no_network: Option<String>,
    /// Whether too slow is wrong.
    pub has_floors: bool,
    /// Folder for data.
    pub folder: PathBuf,
    /// Folder for histories that are wrong.
    pub keep: PathBuf,
    /// Random choices.
    pub random: Random,
    /// What was counted.
    pub totals: Totals,
    histories: u64,
    judging: Option<Judging>,
    failures: usize,
    /// Why the section that runs ended before its last part.
    cut_short: Option<&'static str>,
}

/// A round whose histories are being judged while the next one runs.
struct Judging {
    part: String,
    outcome: Outcome,
    histories: usize,
    judge: std::thread::JoinHandle<Result<Verdict>>,
}

impl Run {
    /// A run that has not begun.
    #[must_use]
    pub fn new(
        gate: Gate,
        runtime: Arc<Runtime>,
        ground: Ground,
        folder: &Path,
        keep: &Path,
        seed: u64,
    ) -> Self {
        Self {
            gate,
            runtime,
            ground: Arc::new(ground),
            untried: BTreeMap::new(),
            no_network: None,
            has_floors: false,
            folder: folder.to_owned(),
            keep: keep.to_owned(),
            random: Random::new(seed),
            totals: Totals::default(),
            histories: 0,
            judging: None,
            failures: 0,
            cut_short: None,
        }
    }

    /// Starts a cluster with the workloads' tables.
    ///
    /// # Errors
    /// It does not come up.
    pub fn cluster(&mut self, members: u16, spare: u16, setup: &Setup) -> Result<Nodes> {
        self.failures = 0;
        let nodes = Nodes::start(&self.folder, &self.ground, members, spare, setup)?;
        self.runtime.block_on(async {
            let client = connect(&nodes.targets()[0]).await?;
            client.batch_execute(TABLES).await.context("the tables cannot be made")
        })?;
        Ok(nodes)
    }

    /// Histories for a round: one of lists, one of another kind, and a set.
    pub fn loads(&mut self) -> Vec<Load> {
        let turn = self.histories;
        let level = Level::ALL[usize::try_from(turn / 3 % 3).unwrap_or(0)];
        // Those that mean something from snapshots on.
        let strong = if (turn / 3).is_multiple_of(2) { Level::Serializable } else { Level::Snapshot };
        let lists = Transactions::new(turn, Kind::Lists, level, Shape::Mixed);
        let other: Arc<dyn Workload> = match turn / 3 % 7 {
            0 => Arc::new(Registers::new(turn + 1)),
            1 => Arc::new(Bank::new(turn + 1, strong)),
            2 => Arc::new(Transactions::new(turn + 1, Kind::Registers, strong, Shape::Mixed)),
            3 => Arc::new(Counting::new(turn + 1)),
            4 => Arc::new(Predicates::new(turn + 1)),
            5 => Arc::new(Transactions::new(turn + 1, Kind::Lists, strong, Shape::Fork)),
            _ => Arc::new(Transactions::new(turn + 1, Kind::Lists, Level::Serializable, Shape::Mixed)),
        };
        self.histories += 3;
        vec![
            Load { workload: Arc::new(lists), clients: 4 },
            Load { workload: other, clients: 4 },
            Load { workload: Arc::new(Set::new(turn + 2)), clients: 2 },
        ]
    }

    /// Runs a round as a part of the gate. Gives whether the cluster can be used further.
    pub fn round(
        &mut self,
        nodes: &mut Nodes,
        part: &str,
        kind: &'static str,
        inflict: impl FnOnce(&mut Nodes, &mut Random) -> Result<()>,
    ) -> bool {
        if self.gate.is_done(part) {
            return true;
        }
        let loads = self.loads();
        let result = round::run(&self.runtime, nodes, &loads, &mut self.random, inflict);
        self.settle_judged();
        match result {
            Ok(outcome) => {
                *self.totals.faults.entry(kind).or_default() += 1;
                if kind == KILL_LEADER {
                    self.totals.outages.push(outcome.outage);
                }
                let (histories, keep, name) = (loads.len(), self.keep.clone(), part.replace(' ', "-"));
                let judge = std::thread::spawn(move || round::judge(&loads, &keep, &name));
                self.judging = Some(Judging { part: part.to_owned(), outcome, histories, judge });
                true
            }
            Err(error) => {
                self.fail(part, nodes, &error);
                false
            }
        }
    }

    /// Notes a part that went wrong, and keeps the nodes' logs.
    pub fn fail(&mut self, part: &str, nodes: &Nodes, error: &anyhow::Error) {
        self.failures += 1;
        let logs = self.keep.join(format!("{}-logs", part.replace(' ', "-")));
        let kept = std::fs::create_dir_all(&logs).is_ok();
        for node in nodes.numbers() {
            if let (true, Ok(server)) = (kept, nodes.server(node)) {
                // What cannot be kept is lost; the part has failed either way.
                let _copied = std::fs::copy(&server.log, logs.join(format!("node{node}.log")));
            }
        }
        self.gate.failed(part, format!("{error:#} (logs in {})", logs.display()));
    }

    /// Whether a section should go on with its next part.
    #[must_use]
    pub fn goes_on(&mut self, deadline: Instant) -> bool {
        self.cut_short = if self.failures >= FAILURES_MAX {
            Some("too much went wrong")
        } else if Instant::now() >= deadline {
            Some("its share of the time was over")
        } else {
            None
        };
        self.cut_short.is_none()
    }

    /// The same for a section all of whose parts may be required: a slow machine gets more time for them.
    #[must_use]
    pub fn goes_on_for(&mut self, name: &str, deadline: Instant) -> bool {
        let counts = self.counts();
        let count = counts.iter().find(|(counted, _)| *counted == name).map_or(0.0, |(_, count)| *count);
        let is_required = self.gate.waits_for_more(name, count);
        self.goes_on(if is_required { Instant::now() + MORE } else { deadline })
    }

    /// Counts what a section that has ended left out as skipped.
    pub fn end_section(&mut self, name: &str) {
        if let Some(why) = self.cut_short.take() {
            self.gate.skipped(&format!("the rest of {name}"), why);
        }
    }

    /// Settles the round that is being judged.
    pub fn settle_judged(&mut self) {
        let Some(Judging { part, outcome, histories, judge }) = self.judging.take() else { return };
        let judged = judge.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the checker panicked")));
        match judged {
            Err(error) => {
                self.failures += 1;
                self.gate.failed(&part, format!("{error:#}"));
            }
            Ok(verdict) => {
                self.count(histories, &verdict);
                let figures = json!({
                    "outage_ms": u64::try_from(outcome.outage.as_millis()).unwrap_or(u64::MAX),
                    "steps": verdict.steps,
                    "acknowledged": verdict.acknowledged,
                    "refused": verdict.refused,
                    "unknown": verdict.unknown,
                    "errors": outcome.errors,
                });
                self.gate.passed(&part, &figures);
            }
        }
    }

    /// Counts histories that were judged and are right.
    pub fn count(&mut self, histories: usize, verdict: &Verdict) {
        self.totals.histories += histories;
        self.totals.verdict.steps += verdict.steps;
        self.totals.verdict.acknowledged += verdict.acknowledged;
        self.totals.verdict.refused += verdict.refused;
        self.totals.verdict.unknown += verdict.unknown;
    }

    /// The number of a history that is made outside of [`Run::round`].
    pub fn history_number(&mut self) -> u64 {
        self.histories += 1;
        self.histories - 1
    }

    /// What a run may be required to come to.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts that are printed and compared with floors")]
    pub fn counts(&self) -> [(&'static str, f64); 11] {
        let rounds = |name: &str, kind: &str| {
            let counted = self.totals.faults.iter().filter(|(fault, _)| fault.ends_with(kind));
            let count: usize = counted.map(|(_, count)| *count).sum();
            (count + self.untried.get(name).copied().unwrap_or(0)) as f64
        };
        [
            ("kills", self.totals.outages.len() as f64),
            ("stops", self.totals.stops as f64),
            ("fresh", self.totals.paused_reads.0 as f64),
            ("histories", self.totals.histories as f64),
            ("steps", self.totals.verdict.steps as f64),
            ("added", self.totals.added as f64),
            ("removed", self.totals.removed as f64),
            ("components", rounds("components", COMPONENT)),
            ("links", rounds("links", BAD_LINKS)),
            ("clocks", rounds("clocks", CLOCK)),
            ("partitions", rounds("partitions", PARTITION)),
        ]
    }

    /// The middle and the longest of the outages after kills of the leader.
    fn outages(&self) -> (Duration, Duration) {
        let mut outages = self.totals.outages.clone();
        outages.sort_unstable();
        let at = |place: usize| outages.get(place).copied().unwrap_or_default();
        (at(outages.len() / 2), at(outages.len().saturating_sub(1)))
    }

    /// Holds the outages of the whole run against what is promised.
    pub fn judge_outages(&mut self) {
        let part = "outages after kill -9 of the leader";
        let (middle, longest) = self.outages();
        if self.totals.outages.is_empty() || self.gate.is_done(part) {
            return;
        }
        let said = format!("p50 {} ms, longest {} ms", middle.as_millis(), longest.as_millis());
        if middle <= OUTAGE_P50_MAX && longest <= OUTAGE_MAX {
            self.gate.passed(part, &json!(said));
        } else {
            self.gate.failed(part, said);
        }
    }

    /// The figures of the last line.
    #[must_use]
    pub fn figures(&self) -> String {
        let totals = &self.totals;
        let (middle, longest) = self.outages();
        let faults: Vec<String> =
            totals.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        format!(
            "{} histories, {} steps ({} acknowledged, {} refused, {} unknown transactions); faults: {}; \
             write gap after kill -9 of the leader: {} kills, p50 {} ms, max {} ms; \
             {} stops of the leader, reads there: {} fresh, {} errors, 0 stale; churn: {} added, {} removed",
            totals.histories,
            totals.verdict.steps,
            totals.verdict.acknowledged,
            totals.verdict.refused,
            totals.verdict.unknown,
            faults.join(", "),
            totals.outages.len(),
            middle.as_millis(),
            longest.as_millis(),
            totals.stops,
            totals.paused_reads.0,
            totals.paused_reads.1,
            totals.added,
            totals.removed,
        )
    }
}

/// The kind of rounds whose outage is the figure of a killed leader.
pub const KILL_LEADER: &str = "kill leader";
/// The kind of rounds in which a component is lost.
pub const COMPONENT: &str = "component";
/// The kind of rounds over bad links.
pub const BAD_LINKS: &str = "bad links";
/// The kind of rounds with wrong clocks.
pub const CLOCK: &str = "clock";
/// What the kinds of rounds end with in which nodes do not hear each other.
const PARTITION: &str = " partition";
/// Another round is begun within this time.
const MORE: Duration = Duration::from_secs(1);
