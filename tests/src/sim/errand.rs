//! A kind of run as it is asked for on the command line, so that whatever a run found can be told by its options.

use std::{fmt, time::Duration};

use super::{
    Course, Loss, Report, Scene, campaign::Kind, panics::caught, run_log, run_proposals, run_series,
};

/// Series in one run.
const SERIES: u32 = 50;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A cluster, for so many seconds of virtual time under faults.
    Cluster(Kind, u64),
    /// The log alone.
    Log,
    /// One store, whose proposals are refused or lost.
    Proposals,
    /// A scene.
    Played(Scene),
    /// Logs that are lost.
    Lost(Loss),
    /// Series of transactions, under each of which the leader dies.
    Series,
}

/// What it came to.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
    /// Steps that were acknowledged.
    pub acknowledged: u64,
    /// All that is known of a run of a cluster.
    pub report: Option<Report>,
}

impl Ended {
    fn of(played: Result<Vec<String>, String>) -> Self {
        Self { wrong: played.unwrap_or_else(|panic| vec![panic]), ..Self::default() }
    }
}

impl Errand {
    /// Runs it from a course, whose length it sets. A panic is what was wrong, so that other runs go on.
    #[must_use]
    pub fn run(self, course: Course) -> Ended {
        match self {
            Self::Cluster(kind, seconds) => {
                match kind.run(Course { duration: Duration::from_secs(seconds), ..course }) {
                    Ok(report) => Ended {
                        wrong: report.wrong.clone(),
                        acknowledged: report.operations.acknowledged,
                        report: Some(report),
                    },
                    Err(panic) => Ended { wrong: vec![panic], ..Ended::default() },
                }
            }
            Self::Log => {
                let report = run_log(course);
                Ended { wrong: report.wrong, acknowledged: report.acknowledged, report: None }
            }
            Self::Proposals => match caught(|| run_proposals(course)) {
                Ok(report) => Ended { acknowledged: report.committed, ..Ended::default() },
                Err(panic) => Ended { wrong: vec![panic], ..Ended::default() },
            },
            Self::Played(scene) => Ended::of(caught(|| scene.play(course))),
            Self::Lost(loss) => Ended::of(caught(|| loss.play(course))),
            Self::Series => match caught(|| run_series(course, SERIES)) {
                Ok(report) => {
                    Ended { wrong: report.wrong, acknowledged: report.counts.acknowledged, report: None }
                }
                Err(panic) => Ended { wrong: vec![panic], ..Ended::default() },
            },
        }
    }
}

impl fmt::Display for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(kind, seconds) => write!(f, "--seconds {seconds} {}", kind.option()),
            Self::Log => f.write_str("--logs"),
            Self::Proposals => f.write_str("--proposals"),
            Self::Played(scene) => write!(f, "--scene {scene}"),
            Self::Lost(loss) => write!(f, "--lost-log {loss}"),
            Self::Series => f.write_str("--series"),
        }
    }
}
