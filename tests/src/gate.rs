//! What the programs that prove the product share: a time budget, results that are counted, and a report from which
//! a later run goes on.
//!
//! A program of the gate has parts. Each part passes, fails, or is skipped for a reason that is printed and counted;
//! `--seconds N` bounds the time of all, and with `--report FILE` every finished part leaves a line of JSON there. Parts
//! that the file says have passed are not run again, so that a soak of days survives its machine. One that has failed in
//! it stays a failure, also if it passes when it is run again, until its line is taken out.
//!
//! `--require NAME=N,...` says what a run must come to. A slow machine gets up to four times the time for it; what is lacking
//! then is a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// So much is repeated at the end of what is said of each failure.
const REPEATED_CHARS: usize = 3000;

/// A slow machine gets so many times the time for what must be done.
const TIMES_WHERE_SLOW: u32 = 4;

/// The run of one program of the gate.
pub struct Gate {
    name: &'static str,
    started: Instant,
    budget: Duration,
    report: Option<File>,
    done: BTreeSet<String>,
    required: BTreeMap<String, f64>,
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Gate {
    /// A run that may take `budget`. With a report, parts that passed in it are done already.
    ///
    /// # Errors
    /// The report can be neither read nor written.
    pub fn new(name: &'static str, budget: Duration, report: Option<&Path>) -> Result<Self> {
        let mut done = BTreeSet::new();
        let mut failed_before = Vec::new();
        let report = match report {
            None => None,
            Some(path) => {
                let before = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
                let lines = before.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                for line in lines.filter(|line| line["gate"] == name) {
                    let Some(part) = line["part"].as_str().map(str::to_owned) else { continue };
                    match line["result"].as_str() {
                        Some("passed") => _ = done.insert(part),
                        Some("failed") => failed_before.push((part, line["said"].clone())),
                        _ => {}
                    }
                }
                let file = OpenOptions::new().create(true).append(true).open(path);
                let mut file = file.with_context(|| format!("cannot write to {}", path.display()))?;
                // A line that was cut off by the end of an earlier run stays alone.
                if !before.is_empty() && !before.ends_with('\n') {
                    writeln!(file)?;
                }
                Some(file)
            }
        };
        let started = Instant::now();
        for (part, said) in &failed_before {
            println!("         failed   {part}, in an earlier run: {}", said.as_str().unwrap_or_default());
        }
        let required = BTreeMap::new();
        let failed = failed_before.len();
        Ok(Self {
            name,
            started,
            budget,
            report,
            done,
            required,
            passed: 0,
            failed,
            skipped: 0,
            failures: Vec::new(),
        })
    }

    /// A run as the arguments of the program say, of which `--seconds N`, `--report FILE` and `--require NAME=N,...` are
    /// taken away.
    ///
    /// # Errors
    /// An option has no value or a wrong one, or the report is unusable.
    pub fn from_arguments(
        name: &'static str,
        default_budget: Duration,
        arguments: &mut Vec<String>,
    ) -> Result<Self> {
        let mut budget = default_budget;
        if let Some(seconds) = take_option(arguments, "--seconds")? {
            let seconds = seconds.parse().with_context(|| format!("--seconds {seconds} is no number"))?;
            budget = Duration::from_secs(seconds);
        }
        let report = take_option(arguments, "--report")?;
        let mut gate = Self::new(name, budget, report.as_ref().map(Path::new))?;
        if let Some(list) = take_option(arguments, "--require")? {
            for one in list.split(',') {
                let (name, least) =
                    one.split_once('=').with_context(|| format!("--require {one} is not NAME=N"))?;
                let least =
                    least.parse().with_context(|| format!("--require {one}: {least} is no number"))?;
                gate.required.insert(name.to_owned(), least);
            }
        }
        Ok(gate)
    }

    /// Looks whether all that is required is among what the run counts, before it begins.
    ///
    /// # Errors
    /// A name is not.
    pub fn can_require(&self, counts: &[(&str, f64)]) -> Result<()> {
        let known: Vec<&str> = counts.iter().map(|(name, _)| *name).collect();
        match self.required.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if known.is_empty() => bail!("--require {name}: nothing can be required here"),
            Some(name) => bail!("--require {name}: it is not counted here, but {}", known.join(", ")),
        }
    }

    /// How much of the time is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.budget.saturating_sub(self.started.elapsed())
    }

    /// How much is left of the time that a slow machine gets for what must be done.
    #[must_use]
    pub fn left_at_most(&self) -> Duration {
        (self.budget * TIMES_WHERE_SLOW).saturating_sub(self.started.elapsed())
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Whether a slow machine's time is over, too: nothing waits longer than that for what is required.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.left_at_most().is_zero()
    }

    /// Whether to begin something more: there is time, or the machine gets more of it for what is required.
    #[must_use]
    pub fn goes_on(&self, counts: &[(&str, f64)]) -> bool {
        !self.is_over() || self.waits_for(counts)
    }

    /// Whether something that is required is lacking and may still be reached.
    #[must_use]
    pub fn waits_for(&self, counts: &[(&str, f64)]) -> bool {
        !self.is_late() && !self.lacking(counts).is_empty()
    }

    /// Whether more of this one thing is required and may still be reached.
    #[must_use]
    pub fn waits_for_more(&self, name: &str, count: f64) -> bool {
        !self.is_late() && self.required.get(name).is_some_and(|least| count < *least)
    }

    /// What is required and not reached.
    fn lacking(&self, counts: &[(&str, f64)]) -> Vec<String> {
        let count = |name: &str| counts.iter().find(|(counted, _)| *counted == name).map(|(_, count)| *count);
        let said = |(name, least): (&String, &f64)| match count(name) {
            None => {
                let known: Vec<&str> = counts.iter().map(|(name, _)| *name).collect();
                Some(format!("{name} is not counted here, but {}", known.join(", ")))
            }
            Some(count) => (count < *least).then(|| format!("{count:.1} {name}, and {least} are required")),
        };
        self.required.iter().filter_map(said).collect()
    }

    /// How long the run takes already.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether an earlier run with the same report did this part.
    #[must_use]
    pub fn is_done(&self, part: &str) -> bool {
        self.done.contains(part)
    }

    /// How many parts have passed so far.
    #[must_use]
    pub fn passed_count(&self) -> usize {
        self.passed
    }

    /// A part is as it should be.
    pub fn passed(&mut self, part: &str, figures: &Value) {
        self.passed += 1;
        self.note(part, "passed", figures);
    }

    /// The same for one of many parts: counted and reported, not printed.
    pub fn passed_quietly(&mut self, part: &str, figures: &Value) {
        self.passed += 1;
        self.write(part, "passed", figures);
    }

    /// A part is not as it should be.
    pub fn failed(&mut self, part: &str, what: impl Display) {
        self.failed += 1;
        let what = what.to_string();
        let repeated: String = what.chars().take(REPEATED_CHARS).collect();
        self.failures.push(format!("{part}: {repeated}"));
        self.note(part, "failed", &json!(what));
    }

    /// A part cannot be tried here.
    pub fn skipped(&mut self, part: &str, reason: impl Display) {
        self.skipped += 1;
        self.note(part, "SKIPPED", &json!(reason.to_string()));
    }

    /// Notes what became of a part.
    pub fn settle(&mut self, part: &str, result: Result<Value>) {
        match result {
            Ok(figures) => self.passed(part, &figures),
            Err(error) => self.failed(part, format!("{error:#}")),
        }
    }

    fn note(&mut self, part: &str, result: &str, said: &Value) {
        let text = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
        println!("{:6.1} s  {result:7}  {part}: {text}", self.elapsed().as_secs_f64());
        self.write(part, result, said);
    }

    fn write(&mut self, part: &str, result: &str, said: &Value) {
        if let Some(report) = &mut self.report {
            let line = json!({ "gate": self.name, "part": part, "result": result, "said": said });
            if let Err(error) = writeln!(report, "{line}") {
                println!("the report cannot be written: {error}");
            }
        }
    }

    /// Prints what failed once more and the last line, and gives what the program exits with. What is required and was not reached is a failure,
    /// and that nothing passed is one, too.
    #[must_use]
    pub fn finish(mut self, figures: &str, counts: &[(&str, f64)]) -> ExitCode {
        for lacking in self.lacking(counts) {
            self.failed("what is required", lacking);
        }
        if !self.failures.is_empty() {
            // Far above it may be cut off where only the end of an output is kept.
            println!("== what failed in {}\n{}", self.name, self.failures.join("\n"));
        }
        let is_empty = self.passed == 0 && self.skipped == 0 && self.done.is_empty();
        let nothing = if is_empty && self.failed == 0 { " (nothing was tried)" } else { "" };
        println!(
            "{}: {figures}; passed {}, failed {}, skipped {}{nothing}, {:.0} s",
            self.name,
            self.passed,
            self.failed,
            self.skipped,
            self.elapsed().as_secs_f64()
        );
        if self.failed > 0 || is_empty { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Takes an option and its value out of the arguments.
///
/// # Errors
/// The option is there and no value behind it.
pub fn take_option(arguments: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let Some(place) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    if place + 1 >= arguments.len() {
        bail!("{name} needs a value");
    }
    let mut taken = arguments.drain(place..place + 2);
    Ok(taken.nth(1))
}

/// Takes an option without a value out of the arguments. Whether it was there.
pub fn take_flag(arguments: &mut Vec<String>, name: &str) -> bool {
    let place = arguments.iter().position(|argument| argument == name);
    place.map(|place| arguments.remove(place)).is_some()
}

/// Prints how a program is used and ends it, if that is asked for.
pub fn help(arguments: &[String], usage: &str) {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{usage}");
        std::process::exit(0);
    }
}

/// What a program exits with. An error is one line: whoever mistypes an option needs no stack.
#[must_use]
pub fn exit_code(program: &str, result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("{program}: {error:#}");
        ExitCode::from(2)
    })
}

/// Refuses arguments that nobody took.
///
/// # Errors
/// There are some.
pub fn nothing_left(arguments: &[String], known: &str) -> Result<()> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => bail!("unknown option {argument}; known are {known}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_second_run_goes_on_after_what_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        let mut first = Gate::new("lab", Duration::from_secs(9), Some(&report)).unwrap();
        first.passed("cut 1", &json!({ "lost": 0 }));
        first.failed("cut 2", "lost a row");
        assert_eq!(first.finish("", &[]), ExitCode::FAILURE);
        std::fs::write(&report, std::fs::read_to_string(&report).unwrap() + "{\"gate\":\"la").unwrap();
        let mut second = Gate::new("lab", Duration::from_secs(9), Some(&report)).unwrap();
        assert!(second.is_done("cut 1") && !second.is_done("cut 2"));
        second.passed("cut 2", &json!(null));
        // Not always is no excuse.
        assert_eq!(second.finish("", &[]), ExitCode::FAILURE);
        assert!(Gate::new("lab", Duration::ZERO, Some(&report)).unwrap().is_done("cut 2"));
        let without = std::fs::read_to_string(&report).unwrap();
        let without: Vec<&str> = without.lines().filter(|line| !line.contains("failed")).collect();
        std::fs::write(&report, without.join("\n")).unwrap();
        assert_eq!(
            Gate::new("lab", Duration::ZERO, Some(&report)).unwrap().finish("", &[]),
            ExitCode::SUCCESS
        );
        assert!(!Gate::new("other", Duration::ZERO, Some(&report)).unwrap().is_done("cut 1"));
    }

    #[test]
    fn a_run_that_tried_nothing_fails() {
        assert_eq!(Gate::new("lab", Duration::ZERO, None).unwrap().finish("", &[]), ExitCode::FAILURE);
    }

    #[test]
    fn what_is_not_counted_cannot_be_required() {
        let mut arguments = ["--require", "kills=5,stop=3"].map(str::to_owned).to_vec();
        let gate = Gate::from_arguments("lab", Duration::from_secs(9), &mut arguments).unwrap();
        let refused = gate.can_require(&[("kills", 0.0), ("stops", 0.0)]).unwrap_err().to_string();
        assert_eq!(refused, "--require stop: it is not counted here, but kills, stops");
        assert!(gate.can_require(&[("kills", 0.0), ("stop", 0.0)]).is_ok());
        assert!(gate.can_require(&[]).is_err());
    }

    #[test]
    fn what_is_required_is_waited_for_and_then_a_failure() {
        let gate = |require: &str, seconds: u64| {
            let mut arguments = vec!["--require".to_owned(), require.to_owned()];
            let mut gate = Gate::from_arguments("lab", Duration::from_secs(seconds), &mut arguments)?;
            gate.passed("a part", &json!(null));
            Ok::<_, anyhow::Error>(gate)
        };
        let counts = [("kills", 5.0), ("stops", 2.0)];
        assert_eq!(gate("kills=5,stops=2", 9).unwrap().finish("", &counts), ExitCode::SUCCESS);
        assert_eq!(gate("kills=5,stops=3", 9).unwrap().finish("", &counts), ExitCode::FAILURE);
        assert_eq!(gate("cuts=1", 9).unwrap().finish("", &counts), ExitCode::FAILURE);
        assert!(gate("kills", 9).is_err() && gate("kills=many", 9).is_err());
        let mut slow = gate("kills=6", 9).unwrap();
        let Some(earlier) = Instant::now().checked_sub(Duration::from_secs(10)) else { return };
        slow.started = earlier;
        assert!(slow.is_over() && slow.goes_on(&counts) && !slow.goes_on(&[("kills", 6.0)]));
        assert!(slow.waits_for_more("kills", 5.0) && !slow.waits_for_more("kills", 6.0));
        assert!(!slow.waits_for_more("stops", 0.0), "nobody asks for them");
        slow.budget = Duration::from_secs(2);
        assert!(slow.is_late() && !slow.goes_on(&counts));
    }

    #[test]
    fn options_are_taken_out() {
        let mut arguments: Vec<String> = ["--seconds", "5", "--fast", "--x"].map(str::to_owned).into();
        assert_eq!(take_option(&mut arguments, "--seconds").unwrap(), Some("5".to_owned()));
        assert!(take_flag(&mut arguments, "--fast") && !take_flag(&mut arguments, "--fast"));
        assert!(take_option(&mut arguments, "--x").is_err());
        assert!(nothing_left(&arguments, "--seconds").unwrap_err().to_string().contains("--x"));
    }
}
