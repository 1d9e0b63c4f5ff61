//! What clients did, in the order of real time.
//!
//! An operation is a transaction of small steps. Its `began` lies before its first byte was sent, its `ended` after
//! the last was received, and all moments of a history are different numbers.
//! An operation whose end no client knows is [`Told::Unknown`]: it may take effect at any time after it began, so its
//! client goes on as another process. On disk a history is one JSON object per line, as Jepsen writes it:
//!
//! ```text
//! {"index":4,"type":"invoke","process":2,"value":[["append",7,1],["r",8,null]]}
//! {"index":5,"type":"ok","process":2,"value":[["append",7,1],["r",8,[3,4]]]}
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

pub use crate::sim::oracle::Told;

/// One step of a transaction. Keys and values are numbers; a value is written to a key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts a value at the end of a list.
    Append {
        /// The list.
        key: u64,
        /// The value.
        value: u64,
    },
    /// Reads a list. What was found counts only if the operation was acknowledged.
    List {
        /// The list.
        key: u64,
        /// What it held, in its order.
        found: Vec<u64>,
    },
    /// Overwrites a register.
    Write {
        /// The register.
        key: u64,
        /// The value.
        value: u64,
    },
    /// Reads a register.
    Read {
        /// The register.
        key: u64,
        /// What it held; nothing if it was never written.
        found: Option<u64>,
    },
}

impl Step {
    /// The list or register.
    #[must_use]
    pub fn key(&self) -> u64 {
        match self {
            Self::Append { key, .. } | Self::List { key, .. } => *key,
            Self::Write { key, .. } | Self::Read { key, .. } => *key,
        }
    }

    fn as_json(&self, knows: bool) -> Value {
        match self {
            Self::Append { key, value } => json!(["append", key, value]),
            Self::Write { key, value } => json!(["w", key, value]),
            Self::List { key, found } if knows => json!(["r", key, found]),
            Self::Read { key, found: Some(found) } if knows => json!(["r", key, found]),
            Self::List { key, .. } | Self::Read { key, .. } => json!(["r", key, null]),
        }
    }
}

/// One transaction of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who: a process does one operation at a time, and none after one whose end it does not know.
    pub process: u64,
    /// A moment before anything of it was sent.
    pub began: u64,
    /// A moment after its end was known; if it never was, when its client gave up.
    pub ended: u64,
    /// How it ended.
    pub told: Told,
    /// What it did, in its order.
    pub steps: Vec<Step>,
}

impl Operation {
    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let knows = self.told == Told::Acknowledged;
        let steps: Vec<Value> = self.steps.iter().map(|step| step.as_json(knows)).collect();
        let told = match self.told {
            Told::Acknowledged => "ok",
            Told::Refused => "fail",
            Told::Unknown => "info",
        };
        format!("process {} [{}, {}] {told} {}", self.process, self.began, self.ended, Value::Array(steps))
    }
}

/// Where clients write down what they did. Any number of them may do so at once.
#[derive(Debug, Default)]
pub struct Recorder {
    moments: AtomicU64,
    processes: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    /// The next moment: later than all that were given out before.
    pub fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    /// The number of a process that nobody else has.
    pub fn process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::SeqCst)
    }

    /// An operation is over.
    pub fn record(&self, operation: Operation) {
        self.operations.lock().push(operation);
    }

    /// All operations so far, by their begin.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let mut operations = self.operations.lock().clone();
        operations.sort_unstable_by_key(|operation| operation.began);
        operations
    }
}

/// The history as Jepsen writes it, for `adya` and for people.
#[must_use]
pub fn as_lines(operations: &[Operation]) -> String {
    let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(operations.len() * 2);
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.began, at, true));
        events.push((operation.ended, at, false));
    }
    events.sort_unstable();
    let mut lines = String::new();
    for (index, (_, at, is_begin)) in events.into_iter().enumerate() {
        let operation = &operations[at];
        let kind = match (is_begin, operation.told) {
            (true, _) => "invoke",
            (false, Told::Acknowledged) => "ok",
            (false, Told::Refused) => "fail",
            (false, Told::Unknown) => "info",
        };
        let knows = kind == "ok";
        let steps: Vec<Value> = operation.steps.iter().map(|step| step.as_json(knows)).collect();
        let event =
            json!({ "index": index, "type": kind, "process": operation.process, "f": "txn", "value": steps });
        lines.push_str(&event.to_string());
        lines.push('\n');
    }
    lines
}
