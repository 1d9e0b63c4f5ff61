//! What is wrong in a configuration file, with the line it is on.
//!
//! Syntax, unknown keys and wrong types come from the TOML reader with their place. A broken relation names its
//! key, and the key's line is looked up in the text; a key that is not in the file has no line.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::{Config, TlsConfig};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line in the file, from 1; nothing when the value comes from a default.
    pub line: Option<usize>,
    /// The key with its section; empty when the text could not be read that far.
    pub key: String,
    /// Why it is wrong.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl Finding {
    /// Something that is wrong with what a key is set to in `text`.
    pub(crate) fn of_key(text: &str, key: &str, reason: String) -> Finding {
        Finding { line: line_of(text, key), key: key.to_owned(), reason }
    }
}

/// Reads and checks the text of a configuration file.
///
/// # Errors
/// All findings: one when the text cannot be read, else one per broken relation, in the order of the file.
pub fn check_text(text: &str) -> Result<Config, Vec<Finding>> {
    let config: Config = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_at(text, span.start));
        vec![Finding { line, key: String::new(), reason: error.message().replace('\n', "; ") }]
    })?;
    let mut findings: Vec<Finding> = config
        .validate()
        .into_iter()
        .map(|problem| Finding::of_key(text, problem.key(), problem.to_string()))
        .collect();
    if findings.is_empty() {
        return Ok(config);
    }
    findings.sort_by_key(|finding| finding.line.unwrap_or(usize::MAX));
    Err(findings)
}

/// The private keys that others than the server's account may read. A file that is not there is not looked at here.
pub(super) fn exposed_keys(text: &str, tls: &TlsConfig) -> Vec<Finding> {
    let keys = [("tls.key_file", &tls.key_file), ("tls.interconnect_key_file", &tls.interconnect_key_file)];
    let exposed = |(key, path): (&str, &PathBuf)| {
        let metadata = std::fs::metadata(path).ok().filter(|_| !path.as_os_str().is_empty())?;
        let reason = access_problem(metadata.mode(), metadata.uid())?;
        let reason = format!("{}: {reason}", path.display());
        Some(Finding::of_key(text, key, reason))
    };
    keys.into_iter().filter_map(exposed).collect()
}

/// What is wrong with the access to a private key, by the rule of PostgreSQL: a key of root may be read by a group, so
/// that the system can hand it to several services.
fn access_problem(mode: u32, owner: u32) -> Option<String> {
    const ROOT: u32 = 0;
    let forbidden = if owner == ROOT { 0o037 } else { 0o077 };
    (mode & forbidden != 0).then(|| {
        format!(
            "others than its owner may use this private key (mode {:04o}): give it the mode 0600, or 0640 when root \
             owns it",
            mode & 0o7777
        )
    })
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The line on which `section.key` is set.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let (section, key) = path.split_once('.')?;
    let mut current = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let header = line.split('#').next().unwrap_or_default();
            current = header.trim().trim_matches(|c| c == '[' || c == ']').trim().to_owned();
            // `[[auth.rules]]` sets the key `rules` of the section `auth`.
            if current == path {
                return Some(at + 1);
            }
        } else if let Some((name, _)) = line.split_once('=') {
            let name = name.trim();
            if (current == section && name == key) || (current.is_empty() && name == path) {
                return Some(at + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of a file and the findings it must give, one per line.
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = match check_text(text) {
            Ok(_) => Vec::new(),
            Err(findings) => findings.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(found, expected, "for {text}");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(check_text("").unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_with_their_line() {
        let error = check_text("[node]\nid = 1\n\n[raft]\nheartbeat = \"50ms\"\n").unwrap_err();
        assert_eq!(error[0].line, Some(5));
        assert!(error[0].reason.starts_with("unknown field `heartbeat`, expected one of"), "{}", error[0]);
        let error = check_text("[raft]\nheartbeat_interval = 50\n").unwrap_err();
        assert_eq!(error[0].line, Some(2));
        assert!(error[0].reason.contains("a time in quotes with its unit"), "{}", error[0]);
        let error = check_text("[raft]\nheartbeat_interval = \"50\"\n").unwrap_err();
        assert_eq!(error[0].to_string(), "line 2: `50` needs one of the units us, ms, s, min, h, d");
        let error = check_text("[node\n").unwrap_err();
        assert_eq!(error[0].line, Some(1));
        let error = check_text("[storage]\nengine = \"rocks\"\n").unwrap_err();
        assert!(error[0].reason.contains("unknown variant `rocks`"), "{}", error[0]);
    }

    #[test]
    fn every_broken_relation_is_found_with_its_line() {
        check("[node]\nid = 0", &["line 2: node.id: 0 is outside 1 to 4294967295"]);
        check(
            "[raft]\nelection_timeout_min = \"100ms\"",
            &["line 2: raft.election_timeout_min: 100ms is less than 3 heartbeats (50ms each)"],
        );
        check(
            "[raft]\nelection_timeout_max = \"200ms\"",
            &["line 2: raft.election_timeout_max: 200ms is not more than raft.election_timeout_min (200ms)"],
        );
        check(
            "[listen]\npostgres = \"localhost\"",
            &["line 2: listen.postgres: `localhost` is not an address of the form host:port"],
        );
        check(
            "[listen]\n# both\nhttp = \"127.0.0.1:5432\"",
            &["line 3: listen.http: 127.0.0.1:5432 is already taken by listen.postgres"],
        );
        check(
            "[listen]\npostgres = \"0.0.0.0:5432\"",
            &[
                "line 2: listen.postgres: `0.0.0.0:5432` is a wildcard: set listen.advertise_host to the name \
               under which others reach this node",
            ],
        );
        check(
            "[tls]\ncertificate_file = \"a.pem\"",
            &["tls.key_file: is empty although tls.certificate_file is set"],
        );
        check(
            "[[auth.rules]]\nfrom = \"nowhere\"\nmethod = \"trust\"",
            &["line 1: auth.rules: rule 1: `nowhere` is neither `all` nor a network such as 10.0.0.0/8"],
        );
        check("[auth]\nrules = []", &["line 2: auth.rules: there is no rule, so that nobody could log in"]);
        check("[memory]\nbudget = \"1MiB\"", &["line 2: memory.budget: 1MiB is outside 128MiB to 16TiB"]);
        check("[node]\ndata_dir = \"\"", &["line 2: node.data_dir: is empty"]);
    }

    #[test]
    fn all_findings_come_at_once_in_the_order_of_the_file() {
        check(
            "[session]\nmax_connections = 0\n[node]\nid = 0\n",
            &[
                "line 2: session.max_connections: 0 is outside 1 to 100000",
                "line 4: node.id: 0 is outside 1 to 4294967295",
            ],
        );
    }

    #[test]
    fn a_private_key_is_its_owners() {
        for (mode, owner, is_good) in [
            (0o100_600, 1000, true),
            (0o100_400, 1000, true),
            (0o100_640, 1000, false),
            (0o100_644, 1000, false),
            (0o100_600, 0, true),
            (0o100_640, 0, true),
            (0o100_660, 0, false),
            (0o100_644, 0, false),
        ] {
            assert_eq!(access_problem(mode, owner).is_none(), is_good, "{mode:o} of {owner}");
        }
    }

    #[test]
    fn an_exposed_private_key_is_found_with_its_line() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("server.key");
        std::fs::write(&key, "secret").unwrap();
        let text = format!("[tls]\ncertificate_file = \"a.pem\"\nkey_file = {key:?}\n");
        let config = check_text(&text).unwrap();
        let found = |mode| {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            exposed_keys(&text, &config.tls)
        };
        assert_eq!(found(0o600), []);
        let said = found(0o644).first().unwrap().to_string();
        let expected = format!("line 3: tls.key_file: {}: others than its owner", key.display());
        assert!(said.starts_with(&expected) && said.contains("(mode 0644)"), "{said}");
    }
}
