//! `[tls]` and `[auth]`: who may speak to this node, and how it proves itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[tls]`: certificates. An empty path leaves that side without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate chain shown to PostgreSQL clients; default empty: no TLS offered.
    pub certificate_file: PathBuf,
    /// PEM file with its private key; set if and only if the certificate is. Give only the
    /// server's account the right to read it; this is not checked.
    pub key_file: PathBuf,
    /// PEM file with the authority that signs the nodes' certificates; default empty: the interconnect is plain
    /// and belongs on a network of its own.
    pub interconnect_ca_file: PathBuf,
    /// PEM file with this node's certificate for the interconnect; set if and only if the authority is.
    pub interconnect_certificate_file: PathBuf,
    /// PEM file with its private key.
    pub interconnect_key_file: PathBuf,
}

/// How a client that matches a rule proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// The client is believed. For loopback on a machine of one's own.
    Trust,
    /// A password, proved by SCRAM-SHA-256: it never travels and is not stored.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The client is refused.
    Reject,
}

/// One rule: the first that matches a connection decides, as in `pg_hba.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthRule {
    /// Addresses the rule is for, such as `10.0.0.0/8`, `::1/128`, or `all`.
    pub from: String,
    /// Role the rule is for, or `all`; default `all`.
    #[serde(default = "all")]
    pub role: String,
    /// Database the rule is for, or `all`; default `all`.
    #[serde(default = "all")]
    pub database: String,
    /// Whether the rule is for connections with TLS only; default false.
    #[serde(default)]
    pub tls: bool,
    /// What such a client must show: `trust`, `scram-sha-256` or `reject`.
    pub method: AuthMethod,
}

fn all() -> String {
    "all".to_owned()
}

/// `[auth]`: the rules, in order. A connection that no rule matches is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The rules; default: a password from everywhere. `rustydb dev` trusts loopback instead.
    pub rules: Vec<AuthRule>,
}

impl AuthConfig {
    /// The rules of `rustydb dev`: loopback is trusted, nothing else is let in.
    pub fn trust_loopback() -> AuthConfig {
        let rule = |from: &str| AuthRule {
            from: from.to_owned(),
            role: all(),
            database: all(),
            tls: false,
            method: AuthMethod::Trust,
        };
        AuthConfig { rules: vec![rule("127.0.0.0/8"), rule("::1/128")] }
    }
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            rules: vec![AuthRule {
                from: all(),
                role: all(),
                database: all(),
                tls: false,
                method: AuthMethod::ScramSha256,
            }],
        }
    }
}
