//! Rules about the source that no compiler holds: layers, doors to the outside world, docs, bounds, versions.
//!
//! The rules are data at the top of this file. Each has a test that plants a violation, so that a rule which
//! can no longer fail is noticed. An exception is one line with its reason; an exception that nothing needs any
//! more fails too.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the source has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates and their rows. A crate may depend only on crates of lower rows, never on its own row.
const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("proto", 0),
    ("env", 1),
    ("storage", 2),
    ("txn", 3),
    ("consensus", 4),
    ("sql", 4),
    ("pg", 6),
    ("interconnect", 6),
    ("server", 7),
    ("cli", 7),
];

/// Libraries that only some crates may name, so that replacing one stays the matter of one crate.
const CONFINED: &[(&str, &[&str])] = &[
    ("openraft", &["consensus"]),
    ("sqlparser", &["sql"]),
    ("tonic", &["proto", "interconnect", "server", "cli"]),
];

/// Crates that may touch the outside world themselves: the door, and the edges above it.
const EDGES: &[&str] = &["env", "pg", "interconnect", "server", "cli", "tests"];

/// What everything else must reach through `env`, because the simulation cannot hold it.
const DOORS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "rand::thread_rng",
    "rand::rng(",
    "rand::random",
    "tokio::spawn",
    "tokio::task::spawn",
    "::spawn_blocking",
    "tokio::time",
    "tokio::net",
    "tokio::fs",
];

/// Queues without a bound, anywhere.
const UNBOUNDED: &[&str] =
    &["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::unbounded", "mpsc::channel()"];

/// `(file, pattern, reason)`: what is allowed although a rule forbids it.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Releases that can move the commit index without a quorum.
const REFUSED_OPENRAFT: &[&str] = &["0.9.21", "0.9.22", "0.9.23", "0.9.24"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every crate's name (its folder) and folder.
fn crates() -> Vec<(String, PathBuf)> {
    let mut found =
        vec![("proto".to_owned(), root().join("proto")), ("tests".to_owned(), root().join("tests"))];
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("Cargo.toml").exists() {
            found.push((path.file_name().unwrap().to_str().unwrap().to_owned(), path));
        }
    }
    found.sort();
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// One source file, as the rules see it.
struct Source {
    krate: String,
    /// Path from the root of the repository.
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for (krate, folder) in crates() {
        for file in
            ["src", "tests", "benches", "examples"].iter().flat_map(|part| rust_files(&folder.join(part)))
        {
            let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { krate: krate.clone(), path, text: std::fs::read_to_string(&file).unwrap() });
        }
    }
    found
}

/// Lines of code with their numbers: comments are left out, and so is everything from the test module on.
fn code(source: &Source) -> Vec<(usize, &str)> {
    let is_test = source.path.contains("/tests/")
        || source.path.ends_with("/tests.rs")
        || source.path.ends_with("_tests.rs");
    if is_test && source.krate != "tests" {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let mut code = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let next = lines.get(at + 1).copied().unwrap_or_default();
        if line.starts_with("#[cfg(test)]") && next.starts_with("mod ") && next.ends_with('{') {
            break;
        }
        if !line.trim_start().starts_with("//") {
            code.push((at + 1, *line));
        }
    }
    code
}

/// Whether `text` has `name` as a word of its own: `openraft::` and `openraft_rt` count, `my_openraft` does not.
fn names(text: &str, name: &str) -> bool {
    let before = |at: usize| text[..at].chars().next_back();
    text.match_indices(name)
        .any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"'))
}

type Hits = Vec<(String, String, String)>;

/// `(path, pattern, message)` of each violation in one file.
fn violations(source: &Source) -> Hits {
    let mut hits = Hits::new();
    let mut hit = |pattern: &str, line: usize, what: &str| {
        hits.push((source.path.clone(), pattern.to_owned(), format!("{}:{line}: {what}", source.path)));
    };
    let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        hit("//!", 1, "the module has no `//!` that says what it is for");
    }
    for (at, line) in source.text.lines().enumerate() {
        for mark in ["TODO", "FIXME", "XXX"] {
            // This file must be able to name them.
            if names(line, mark)
                && !line.contains(&format!("{mark}(#"))
                && source.path != "tests/tests/tidy.rs"
            {
                hit(mark, at + 1, &format!("a bare {mark}: name its issue, as in {mark}(#12)"));
            }
        }
    }
    if source.path == "tests/tests/tidy.rs" {
        return hits;
    }
    for (number, line) in code(source) {
        for (library, homes) in CONFINED {
            if names(line, library) && !homes.contains(&source.krate.as_str()) {
                hit(library, number, &format!("only {} may name {library}", homes.join(", ")));
            }
        }
        for pattern in UNBOUNDED.iter().filter(|pattern| line.contains(**pattern)) {
            hit(pattern, number, &format!("`{pattern}`: every queue has a bound"));
        }
        if !EDGES.contains(&source.krate.as_str()) {
            for pattern in DOORS.iter().filter(|pattern| line.contains(**pattern)) {
                hit(pattern, number, &format!("`{pattern}`: reach the outside world through `env`"));
            }
        }
    }
    hits
}

/// Violations that no exception covers, and exceptions that nothing needs.
fn judge(hits: &Hits, exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let excused = |path: &str, pattern: &str| {
        exceptions.iter().any(|(file, allowed, _)| *file == path && *allowed == pattern)
    };
    let mut messages: Vec<String> = hits
        .iter()
        .filter(|(path, pattern, _)| !excused(path, pattern))
        .map(|(_, _, message)| message.clone())
        .collect();
    let needed: BTreeSet<(&str, &str)> =
        hits.iter().map(|(path, pattern, _)| (&**path, &**pattern)).collect();
    for (file, pattern, reason) in exceptions {
        assert!(!reason.is_empty(), "the exception of {file} for `{pattern}` has no reason");
        if !needed.contains(&(*file, *pattern)) {
            messages.push(format!("{file} no longer needs its exception for `{pattern}`"));
        }
    }
    messages
}

/// Edges between our crates that go up or sideways, from `name -> dependencies`.
fn wrong_edges(manifests: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let rows: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (krate, dependencies) in manifests {
        let Some(row) = rows.get(krate.as_str()) else {
            wrong.push(format!("{krate} has no row"));
            continue;
        };
        for dependency in dependencies {
            match rows.get(dependency.as_str()) {
                Some(below) if below < row => {}
                Some(_) => wrong.push(format!("{krate} may not use {dependency}: it is not below it")),
                None => wrong.push(format!("{krate} uses {dependency}, which has no row")),
            }
        }
    }
    wrong
}

fn manifest(folder: &Path) -> toml::Table {
    std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap()
}

fn dependencies(manifest: &toml::Table, sections: &[&str]) -> Vec<String> {
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn sources_keep_the_rules() {
    let hits: Hits = sources().iter().flat_map(violations).collect();
    let messages = judge(&hits, EXCEPTIONS);
    assert!(messages.is_empty(), "{} violations:\n{}", messages.len(), messages.join("\n"));
}

#[test]
fn crates_use_only_lower_rows() {
    let mut manifests = BTreeMap::new();
    for (krate, folder) in crates() {
        let manifest = manifest(&folder);
        for library in dependencies(&manifest, &["dependencies", "dev-dependencies", "build-dependencies"]) {
            for (confined, homes) in CONFINED {
                let is_it = library == *confined || library.starts_with(&format!("{confined}-"));
                assert!(!is_it || homes.contains(&krate.as_str()), "{krate} depends on {library}");
            }
        }
        if krate != "tests" {
            let ours = dependencies(&manifest, &["dependencies", "dev-dependencies"]);
            let ours =
                ours.iter().filter_map(|name| name.strip_prefix("rustydb-")).map(str::to_owned).collect();
            manifests.insert(krate, ours);
        }
    }
    let wrong = wrong_edges(&manifests);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn openraft_is_pinned_to_a_release_that_needs_a_quorum() {
    let workspace = manifest(&root());
    let pins = workspace["workspace"]["dependencies"].as_table().unwrap();
    for (name, value) in pins.iter().filter(|(name, _)| name.starts_with("openraft")) {
        let version = value.as_str().or_else(|| value.get("version")?.as_str()).unwrap();
        assert!(version.starts_with('='), "{name} = \"{version}\" is not an exact pin");
    }
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let locked = |package: &&toml::Value| package["name"].as_str() == Some("openraft");
    let versions: Vec<&str> = lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .filter(locked)
        .map(|package| package["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions.len(), 1, "one version of openraft, found {versions:?}");
    assert!(!REFUSED_OPENRAFT.contains(&versions[0]), "openraft {} commits without a quorum", versions[0]);
}

// The tests below plant violations.

fn planted(krate: &str, text: &str) -> Vec<String> {
    let path = format!("crates/{krate}/src/planted.rs");
    let source = Source { krate: krate.to_owned(), path, text: text.to_owned() };
    violations(&source).into_iter().map(|(_, pattern, _)| pattern).collect()
}

#[test]
fn planted_violations_are_found() {
    assert_eq!(planted("txn", "pub fn f() {}\n"), ["//!"]);
    assert_eq!(planted("txn", "//! Docs.\n// TODO: later\n"), ["TODO"]);
    assert_eq!(planted("txn", "//! Docs.\nuse std::fs;\n"), ["std::fs"]);
    assert_eq!(planted("sql", "//! Docs.\nlet at = std::time::Instant::now();\n"), ["Instant::now"]);
    assert_eq!(planted("storage", "//! Docs.\ntokio::spawn(task);\n"), ["tokio::spawn"]);
    assert_eq!(planted("sql", "//! Docs.\nuse openraft::Raft;\n"), ["openraft"]);
    assert_eq!(planted("server", "//! Docs.\nuse sqlparser::ast;\n"), ["sqlparser"]);
    assert_eq!(planted("server", "//! Docs.\nlet (a, b) = unbounded_channel();\n"), ["unbounded_channel"]);
}

#[test]
fn what_is_allowed_is_not_found() {
    let nothing: [&str; 0] = [];
    assert_eq!(planted("txn", "//! Docs.\n// TODO(#12): later\n"), nothing);
    assert_eq!(planted("txn", "//! Docs.\n// std::fs is behind env.\n"), nothing);
    assert_eq!(planted("txn", "//! Docs.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), nothing);
    assert_eq!(planted("env", "//! Docs.\nuse std::fs;\n"), nothing);
    assert_eq!(planted("consensus", "//! Docs.\nuse openraft::Raft;\n"), nothing);
}

#[test]
fn a_planted_edge_is_found() {
    let edge =
        |from: &str, to: &str| wrong_edges(&BTreeMap::from([(from.to_owned(), vec![to.to_owned()])])).len();
    assert_eq!(edge("sql", "txn"), 0);
    assert_eq!(edge("sql", "consensus"), 1, "same row");
    assert_eq!(edge("storage", "txn"), 1, "upwards");
    assert_eq!(edge("types", "geo"), 1, "without a row");
    assert_eq!(edge("geo", "types"), 1, "without a row");
}

#[test]
fn an_exception_covers_its_place_only_and_must_be_needed() {
    let hits = vec![("a.rs".to_owned(), "std::fs".to_owned(), "a.rs:1: found".to_owned())];
    assert!(judge(&hits, &[("a.rs", "std::fs", "why")]).is_empty());
    assert_eq!(judge(&hits, &[("b.rs", "std::fs", "why")]).len(), 2);
    assert_eq!(judge(&Hits::new(), &[("a.rs", "std::fs", "why")]).len(), 1);
}
