//! What the programs that prove the product share: a time budget, results that are counted, and a report from which
//! a later run goes on.
//!
//! A program of the gate has parts. Each part passes, fails, or is skipped for a reason that is printed and counted;
//! `--seconds N` bounds the time of all, and with `--report FILE` every finished part leaves a line of JSON there. Parts
//! that the file says have passed are not run again, so that a soak of days survives its machine.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The run of one program of the gate.
pub struct Gate {
    name: &'static str,
    started: Instant,
    budget: Duration,
    report: Option<File>,
    done: BTreeSet<String>,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Gate {
    /// A run that may take `budget`. With a report, parts that passed in it are done already.
    ///
    /// # Errors
    /// The report can be neither read nor written.
    pub fn new(name: &'static str, budget: Duration, report: Option<&Path>) -> Result<Self> {
        let mut done = BTreeSet::new();
        let report = match report {
            None => None,
            Some(path) => {
                let before = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
                let lines = before.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                done.extend(
                    lines
                        .filter(|line| line["gate"] == name && line["result"] == "passed")
                        .filter_map(|line| line["part"].as_str().map(str::to_owned)),
                );
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
        Ok(Self { name, started, budget, report, done, passed: 0, failed: 0, skipped: 0 })
    }

    /// A run as the arguments of the program say, of which `--seconds N` and `--report FILE` are taken away.
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
        Self::new(name, budget, report.as_ref().map(Path::new))
    }

    /// How much of the time is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.budget.saturating_sub(self.started.elapsed())
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
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
        self.note(part, "failed", &json!(what.to_string()));
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

    /// Prints the last line, and gives what the program exits with. Nothing that passed is a failure, too.
    #[must_use]
    pub fn finish(self, figures: &str) -> ExitCode {
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
        assert_eq!(first.finish(""), ExitCode::FAILURE);
        std::fs::write(&report, std::fs::read_to_string(&report).unwrap() + "{\"gate\":\"la").unwrap();
        let mut second = Gate::new("lab", Duration::from_secs(9), Some(&report)).unwrap();
        assert!(second.is_done("cut 1") && !second.is_done("cut 2"));
        second.passed("cut 2", &json!(null));
        assert_eq!(second.finish(""), ExitCode::SUCCESS);
        assert!(Gate::new("lab", Duration::ZERO, Some(&report)).unwrap().is_done("cut 2"));
        assert!(!Gate::new("other", Duration::ZERO, Some(&report)).unwrap().is_done("cut 1"));
    }

    #[test]
    fn a_run_that_tried_nothing_fails() {
        assert_eq!(Gate::new("lab", Duration::ZERO, None).unwrap().finish(""), ExitCode::FAILURE);
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
