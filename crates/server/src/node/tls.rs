//! Certificates: read, checked and turned into what the two kinds of connections need.

use std::path::Path;

use rustydb_pg::tls::{TlsError, TlsIdentity, certificates};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Server, ServerTlsConfig};

use super::NodeError;
use crate::config::TlsConfig;

/// Both sides of the interconnect.
#[derive(Debug, Clone)]
pub(crate) struct InterconnectTls {
    pub(crate) server: ServerTlsConfig,
    pub(crate) client: ClientTlsConfig,
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, NodeError> {
    std::fs::read(path).map_err(|error| wrong(key, path, &error))
}

fn wrong(key: &'static str, path: &Path, error: &dyn std::error::Error) -> NodeError {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    NodeError::Certificate { key, path: path.to_owned(), reason }
}

/// A certificate and its key, checked, with the key of the configuration and the file that is at fault.
fn identity(
    (certificate_key, certificate_file): (&'static str, &Path),
    (key_key, key_file): (&'static str, &Path),
) -> Result<(TlsIdentity, Identity), NodeError> {
    let certificate = read(certificate_key, certificate_file)?;
    let key = read(key_key, key_file)?;
    let checked = TlsIdentity::from_pem(&certificate, &key).map_err(|error| match &error {
        TlsError::Certificates(_) | TlsError::NoCertificate => {
            wrong(certificate_key, certificate_file, &error)
        }
        _ => wrong(key_key, key_file, &error),
    })?;
    Ok((checked, Identity::from_pem(certificate, key)))
}

/// TLS of the interconnect, if it is configured: each side must show a certificate of the one authority.
pub(crate) fn interconnect(config: &TlsConfig) -> Result<Option<InterconnectTls>, NodeError> {
    if config.interconnect_ca_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let ca_key = "tls.interconnect_ca_file";
    let ca = read(ca_key, &config.interconnect_ca_file)?;
    certificates(&ca).map_err(|error| wrong(ca_key, &config.interconnect_ca_file, &error))?;
    let ca = Certificate::from_pem(ca);
    let certificate = ("tls.interconnect_certificate_file", config.interconnect_certificate_file.as_path());
    let key = ("tls.interconnect_key_file", config.interconnect_key_file.as_path());
    let (_, identity) = identity(certificate, key)?;
    let server = ServerTlsConfig::new().identity(identity.clone()).client_ca_root(ca.clone());
    // What is left to be wrong is the authority: building a server is what checks it.
    Server::builder()
        .tls_config(server.clone())
        .map_err(|error| wrong(ca_key, &config.interconnect_ca_file, &error))?;
    let client = ClientTlsConfig::new().identity(identity).ca_certificate(ca);
    Ok(Some(InterconnectTls { server, client }))
}

/// TLS for PostgreSQL clients, if it is configured.
pub(crate) fn postgres(config: &TlsConfig) -> Result<Option<TlsIdentity>, NodeError> {
    if config.certificate_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let certificate = ("tls.certificate_file", config.certificate_file.as_path());
    let (checked, _) = identity(certificate, ("tls.key_file", config.key_file.as_path()))?;
    Ok(Some(checked))
}

/// What is wrong with the certificates and keys, each with its key of the configuration.
pub(crate) fn problems(config: &TlsConfig) -> Vec<(&'static str, String)> {
    [postgres(config).err(), interconnect(config).err()]
        .into_iter()
        .flatten()
        .filter_map(|error| match error {
            NodeError::Certificate { key, path, reason } => {
                Some((key, format!("{}: {reason}", path.display())))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_key() {
        let config = TlsConfig {
            certificate_file: "/nowhere/server.pem".into(),
            key_file: "/nowhere/server.key".into(),
            ..TlsConfig::default()
        };
        let error = postgres(&config).unwrap_err().to_string();
        assert!(error.starts_with("tls.certificate_file: /nowhere/server.pem: No such file"), "{error}");
        let config = TlsConfig { interconnect_ca_file: "/nowhere/ca.pem".into(), ..TlsConfig::default() };
        let error = interconnect(&config).unwrap_err().to_string();
        assert!(error.starts_with("tls.interconnect_ca_file: /nowhere/ca.pem: No such file"), "{error}");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pem");
        std::fs::write(&file, "not a certificate").unwrap();
        let config =
            TlsConfig { certificate_file: file.clone(), key_file: file.clone(), ..TlsConfig::default() };
        assert!(matches!(postgres(&config), Err(NodeError::Certificate { .. })));
        let config = TlsConfig {
            interconnect_ca_file: file.clone(),
            interconnect_certificate_file: file.clone(),
            interconnect_key_file: file,
            ..TlsConfig::default()
        };
        assert!(matches!(interconnect(&config), Err(NodeError::Certificate { .. })));
    }
}
