//! Inserts of elements, one per statement: none is lost, none is there twice, none that was refused is there, and a
//! read misses none that was acknowledged before it began.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::atomic::Ordering;

use super::{KEYS, Verdict, Workload, number};
use crate::chaos::clients::{Counter, Failure, Session};
use crate::check::history::{Recorder, Told};

/// Elements of one part of the set; a read looks at one part.
const PART: u64 = 64;

/// See the module.
pub struct Set {
    number: u64,
    moments: Recorder,
    next: Counter,
    inserts: Mutex<Vec<Insert>>,
    reads: Mutex<Vec<Read>>,
}

/// Element, when its insert began and ended, and what was told.
type Insert = (u64, u64, u64, Told);

/// Part, when its read began, and what it found; nothing for the part is a read of all.
type Read = (Option<u64>, u64, Vec<u64>);

impl Set {
    /// The history of a number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self {
            number,
            moments: Recorder::default(),
            next: Counter::default(),
            inserts: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    fn first_part(&self) -> u64 {
        self.number * KEYS
    }

    async fn insert(&self, session: &mut Session) {
        let element = self.next.next();
        let statement = format!(
            "INSERT INTO elements (part, element) VALUES ({}, {element})",
            self.first_part() + element / PART
        );
        let began = self.moments.moment();
        let result = session
            .work(async |client, _, commits| {
                commits.store(true, Ordering::Relaxed);
                client.batch_execute(&statement).await.map_err(|error| Failure::at_commit(&error))
            })
            .await;
        let told = result.map_or_else(|failure| failure.told, |()| Told::Acknowledged);
        if told == Told::Acknowledged {
            session.progress.wrote();
        }
        self.inserts.lock().push((element, began, self.moments.moment(), told));
    }

    async fn read(&self, session: &mut Session, part: Option<u64>) -> Result<(), Failure> {
        let first = self.first_part();
        let statement = match part {
            Some(part) => format!("SELECT element FROM elements WHERE part = {}", first + part),
            None => format!("SELECT element FROM elements WHERE part >= {first} AND part < {}", first + KEYS),
        };
        let began = self.moments.moment();
        let rows = session
            .work(async |client, _, _| {
                client.query(&statement, &[]).await.map_err(|error| Failure::before_commit(&error))
            })
            .await?;
        let found = rows.iter().map(|row| number(row.get(0))).collect();
        self.reads.lock().push((part, began, found));
        Ok(())
    }
}

#[async_trait]
impl Workload for Set {
    fn name(&self) -> String {
        "set".to_owned()
    }

    async fn turn(&self, session: &mut Session, _process: &mut Option<u64>) {
        if session.random.chance(1, 4) {
            let part = self.next.count().saturating_sub(1) / PART;
            // One that is refused says nothing.
            let _refused = self.read(session, Some(part)).await;
        } else {
            self.insert(session).await;
        }
    }

    async fn last_look(&self, session: &mut Session) -> Result<(), Failure> {
        self.read(session, None).await
    }

    fn judge(&self) -> Verdict {
        let (inserts, reads) = (self.inserts.lock().clone(), self.reads.lock().clone());
        let mut verdict = Verdict::default();
        inserts.iter().for_each(|(.., told)| verdict.count(*told, 1));
        verdict.steps += reads.len() as u64;
        let told: BTreeMap<u64, Told> =
            inserts.iter().map(|(element, _, _, told)| (*element, *told)).collect();
        let mut by_part: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for (element, _, ended, _) in inserts.iter().filter(|(.., told)| *told == Told::Acknowledged) {
            by_part.entry(element / PART).or_default().push((*element, *ended));
        }
        for (part, began, found) in &reads {
            let distinct: BTreeSet<u64> = found.iter().copied().collect();
            if distinct.len() != found.len() {
                verdict.wrong.push(format!("an element twice: {found:?}"));
            }
            let must = by_part
                .iter()
                .filter(|(of, _)| part.is_none_or(|part| part == **of))
                .flat_map(|(_, all)| all);
            let missing: Vec<u64> = must
                .filter(|(element, ended)| ended < began && !distinct.contains(element))
                .map(|(element, _)| *element)
                .collect();
            if !missing.is_empty() {
                let what = if part.is_some() { "a read missed" } else { "lost" };
                verdict.wrong.push(format!("{what} {missing:?}, acknowledged before it began"));
            }
            let strange: Vec<&u64> = distinct
                .iter()
                .filter(|element| !matches!(told.get(element), Some(Told::Acknowledged | Told::Unknown)))
                .collect();
            // An insert that is still under way in the eyes of this read was told of later.
            if !strange.is_empty() {
                verdict.wrong.push(format!("refused or never inserted, and there: {strange:?}"));
            }
        }
        verdict.wrong.truncate(20);
        if !verdict.wrong.is_empty() {
            verdict.history = format!("{inserts:?}\n{reads:?}\n");
        }
        verdict
    }
}
