//! The parts of the fuzzer, in the order in which they run, and what is printed of each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::live::{self, GROWTH_BYTES_MAX, Victim};
use super::memory::{mib, peak_bytes, resident_bytes};
use super::peers::Members;
use super::targets::{Kind, TARGETS, Target};
use super::{attack, peers};
use crate::crash::Dice;
use crate::gate::Gate;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From which all is drawn.
    pub seed: u64,
    /// Frames of clients that must be tried.
    pub clients: u64,
    /// Frames of peers that must be tried.
    pub peers: u64,
    /// The one part to run, by the beginning of its name; absent for all.
    pub only: Option<String>,
}

impl Plan {
    fn wants(&self, gate: &Gate, part: &str) -> bool {
        !gate.is_done(part) && self.only.as_ref().is_none_or(|only| part.starts_with(only.as_str()))
    }
}

/// Panics so far of any thread, and what the last of them said.
static PANICS: AtomicU64 = AtomicU64::new(0);
static SAID: Mutex<String> = Mutex::new(String::new());

/// Counts panics wherever they happen: a task that panics ends quietly in its runtime.
pub fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        *SAID.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
        before(panic);
    }));
}

fn panics() -> u64 {
    PANICS.load(Ordering::SeqCst)
}

fn said() -> String {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Runs all parts; gives the figures of the last line.
///
/// # Errors
/// Something is missing that has nothing to do with what is tested.
pub fn run(gate: &mut Gate, plan: &Plan) -> Result<String> {
    let (mut clients, mut from_peers) = (0, 0);
    // Less than half of the time for what decodes in this process, the rest for a server.
    let decoding = if plan.only.is_some() { gate.left() } else { gate.left().mul_f64(0.4) };
    let wanted = TARGETS.iter().filter(|target| plan.wants(gate, &format!("decode {}", target.name)));
    let weights = wanted.map(|target| target.weight).sum::<u32>();
    let weights = if plan.wants(gate, "members") { weights + 3 } else { weights }.max(1);
    for target in TARGETS {
        let part = format!("decode {}", target.name);
        if !plan.wants(gate, &part) {
            continue;
        }
        let budget = decoding * target.weight / weights;
        let (frames, result) = decode(target, plan.seed, budget);
        match target.kind {
            Kind::Clients => clients += frames,
            Kind::Peers => from_peers += frames,
            Kind::Stored => {}
        }
        gate.settle(&part, result);
    }
    let part = "members";
    if plan.wants(gate, part) {
        let budget = decoding * 3 / weights;
        let (frames, result) = members(plan.seed, budget);
        from_peers += frames;
        gate.settle(part, result);
    }
    let on_server = [
        "server messages",
        "server peers",
        "server slow readers",
        "server giant messages",
        "server deep nesting",
        "server connections",
    ];
    if on_server.iter().any(|part| plan.wants(gate, part)) {
        serve(gate, plan, &mut clients, &mut from_peers)?;
    }
    if plan.only.is_none() {
        let part = "numbers";
        let result = if clients >= plan.clients && from_peers >= plan.peers {
            Ok(json!({ "frames_of_clients": clients, "frames_of_peers": from_peers }))
        } else {
            Err(anyhow!("{clients} frames of clients and {from_peers} of peers: fewer than are asked for"))
        };
        gate.settle(part, result);
    }
    Ok(format!("{clients} frames of clients, {from_peers} of peers"))
}

/// An input that takes longer is printed.
const SLOW: Duration = Duration::from_millis(300);
/// An input that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The input at work, and since when: an input that never returns is told by whoever waits.
type AtWork = Mutex<Option<(Instant, Vec<u8>)>>;

/// A target until the time is over. Gives how many frames it was given.
fn decode(target: &'static Target, seed: u64, budget: Duration) -> (u64, Result<Value>) {
    let deadline = Instant::now() + budget;
    let at_work = Arc::<AtWork>::default();
    let seen = Arc::clone(&at_work);
    // In a thread of its own, which a panic ends; what the target keeps is the thread's.
    let working = std::thread::spawn(move || work(target, seed, deadline, &seen));
    while !working.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
        let at_work = at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, input)) = at_work.as_ref().filter(|(since, _)| since.elapsed() > 2 * HANGS) {
            println!("          replay: fuzz --target {} --input {}", target.name, hex(input));
            return (0, Err(anyhow!("one input has not returned for {:?}", since.elapsed())));
        }
    }
    match working.join() {
        Ok(done) => done,
        Err(_) => (0, Err(anyhow!("{} panicked: {}", target.name, said()))),
    }
}

fn work(target: &Target, seed: u64, deadline: Instant, at_work: &AtWork) -> (u64, Result<Value>) {
    let corpus = (target.corpus)();
    let (mut frames, mut inputs) = (0_u64, 0_u64);
    let before = panics();
    for input in &corpus {
        (target.run)(input);
    }
    let base = resident_bytes(None).unwrap_or(0);
    let mut dice = Dice::new(seed.wrapping_mul(1_000_003) ^ u64::from(target.weight));
    let mut slowest = (Duration::ZERO, Vec::new());
    let result = loop {
        if Instant::now() >= deadline {
            break Ok(());
        }
        let here = dice.clone();
        let mut input = Vec::new();
        for _ in 0..32 {
            input = (target.mutate)(&corpus, &mut dice);
            let began = Instant::now();
            *at_work.lock().unwrap_or_else(PoisonError::into_inner) = Some((began, input.clone()));
            let ran = std::panic::catch_unwind(|| (target.run)(&input));
            if began.elapsed() > slowest.0 {
                slowest = (began.elapsed(), input.clone());
            }
            inputs += 1;
            match ran {
                Ok(count) => frames += count,
                Err(_) => break,
            }
            if panics() != before {
                break;
            }
        }
        if panics() != before {
            println!("          replay: fuzz --target {} --input {}", target.name, hex(&input));
            break Err(anyhow!("a panic after {inputs} inputs, near {here:?}: {}", said()));
        }
        let now = resident_bytes(None).unwrap_or(0);
        if now > base + GROWTH_BYTES_MAX {
            break Err(anyhow!("memory grew from {} to {} MiB after {inputs} inputs", mib(base), mib(now)));
        }
    };
    if slowest.0 > SLOW {
        println!("          {:?}: fuzz --target {} --input {}", slowest.0, target.name, hex(&slowest.1));
    }
    let result = result.and_then(|()| {
        let hangs = slowest.0 > HANGS;
        if hangs { Err(anyhow!("one input takes {:?}", slowest.0)) } else { Ok(()) }
    });
    let figures = result.map(|()| {
        let peak = peak_bytes(None).unwrap_or(0);
        json!({ "inputs": inputs, "frames": frames, "peak_mib": mib(peak), "base_mib": mib(base), "slowest_us": u64::try_from(slowest.0.as_micros()).unwrap_or(u64::MAX) })
    });
    (frames, figures)
}

/// Frames of a member that lies, handled by two that are sound.
fn members(seed: u64, budget: Duration) -> (u64, Result<Value>) {
    let deadline = Instant::now() + budget;
    let corpus = peers::frames();
    let mut dice = Dice::new(seed);
    let mut members = Members::new(seed);
    let before = panics();
    let mut frames = 0;
    let result = (|| {
        let mut round = 0_u64;
        while Instant::now() < deadline {
            let batch: Vec<Vec<u8>> = (0..20)
                .map(|_| {
                    let (input, other) = (dice.index(corpus.len()), dice.index(corpus.len()));
                    super::mutate::mutate(&corpus[input], &corpus[other], &mut dice)
                })
                .collect();
            frames += batch.len() as u64;
            members.send(&batch);
            ensure!(panics() == before, "a panic after {frames} frames: {}", said());
            round += 1;
            if round.is_multiple_of(100) {
                // What it said may have led to a term that never ends; a fresh cluster is told the next lies.
                members = members.renewed(seed.wrapping_add(round));
            }
        }
        Ok(json!({ "frames": frames, "handled": members.handled, "stopped": members.stopped }))
    })();
    (frames, result)
}

/// The parts that need a server.
fn serve(gate: &mut Gate, plan: &Plan, clients: &mut u64, from_peers: &mut u64) -> Result<()> {
    let mut victim = Victim::start("[session]\nmax_connections = 500\n")?;
    let share = |gate: &Gate, part: f64| {
        Instant::now() + if plan.only.is_some() { gate.left() } else { gate.left().mul_f64(part) }
    };
    if plan.wants(gate, "server messages") {
        let deadline = share(gate, 0.25);
        let result =
            victim.beside(|| live::messages(&victim, plan.seed, deadline)).and_then(|(rude, longest)| {
                victim.serves()?;
                *clients += rude.frames;
                Ok(json!({
                    "connections": rude.connections, "frames": rude.frames, "orderly": rude.orderly,
                    "growth_mib": victim.growth_mib(), "longest_wait_ms": u64::try_from(longest.as_millis())?,
                }))
            });
        gate.settle("server messages", victim.calm().and(result));
    }
    if plan.wants(gate, "server peers") {
        let deadline = share(gate, 0.15);
        let result = victim.beside(|| live::peers(&victim, plan.seed, deadline)).and_then(|(sent, longest)| {
            victim.serves()?;
            *from_peers += sent;
            Ok(json!({
                "frames": sent, "growth_mib": victim.growth_mib(), "longest_wait_ms": u64::try_from(longest.as_millis())?,
            }))
        });
        gate.settle("server peers", victim.calm().and(result));
    }
    for part in ["server slow readers", "server giant messages", "server connections", "server deep nesting"]
    {
        if !plan.wants(gate, part) {
            continue;
        }
        if !victim.server.is_alive()? {
            gate.failed(part, "the server is gone");
            continue;
        }
        let result = match part {
            "server slow readers" => attack::slow_readers(&victim),
            "server giant messages" => attack::giant_messages(&victim),
            "server connections" => attack::connections(&victim, 10_000),
            _ => attack::deep_nesting(&victim, share(gate, 0.95)),
        };
        gate.settle(part, victim.calm().and(result));
    }
    let alive = victim.server.is_alive()?;
    if !alive {
        bail!("the server is gone:\n{}", victim.tail());
    }
    Ok(())
}
