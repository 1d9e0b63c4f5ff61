//! TLS towards clients: certificates from PEM text, and what SCRAM binds itself to.

use std::sync::Arc;

use ring::digest;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::scram::Binding;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The PEM text of the certificates does not parse.
    #[error("certificates do not parse: {0}")]
    Certificates(rustls_pki_types::pem::Error),
    /// There is no certificate.
    #[error("no certificate found")]
    NoCertificate,
    /// The PEM text of the key does not parse, or there is none.
    #[error("private key does not parse: {0}")]
    Key(rustls_pki_types::pem::Error),
    /// Key and certificate do not belong together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// What is needed to speak TLS.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Makes TLS connections.
    pub(crate) acceptor: TlsAcceptor,
    /// What SCRAM binds itself to.
    pub(crate) binding: Binding,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity")
    }
}

impl TlsIdentity {
    /// Of the text of PEM files: the chain shown to clients, the server's certificate first, and its key.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        let binding = server_end_point(chain.first().ok_or(TlsError::NoCertificate)?);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Unusable)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), binding })
    }
}

/// The certificates in the text of a PEM file, at least one.
///
/// # Errors
/// There is none, or the text cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(TlsError::Certificates)?;
    if found.is_empty() { Err(TlsError::NoCertificate) } else { Ok(found) }
}

/// RFC 5929, section 4: the certificate's hash by the hash function of its own signature, SHA-256 where that is
/// weaker. A signature without a hash function of its own (Ed25519) has no such binding.
fn server_end_point(certificate: &[u8]) -> Binding {
    let algorithm = match signature_algorithm(certificate) {
        // sha384WithRSAEncryption, ecdsa-with-SHA384
        Some([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]) => {
            &digest::SHA384
        }
        // sha512WithRSAEncryption, ecdsa-with-SHA512
        Some([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4]) => {
            &digest::SHA512
        }
        // md5, sha1 and sha256WithRSAEncryption, ecdsa-with-SHA1, ecdsa-with-SHA256
        Some(
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11]
            | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]
            | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        ) => &digest::SHA256,
        _ => return Binding::None,
    };
    Binding::ServerEndPoint(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The object identifier in `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, .. }, .. }`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = der_value(certificate, 0x30)?;
    let (_, after) = der_value(certificate, 0x30)?;
    let (algorithm, _) = der_value(after, 0x30)?;
    let (oid, _) = der_value(algorithm, 0x06)?;
    Some(oid)
}

/// Splits a DER value of a given tag from what follows it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let algorithm = [&[0x30, 2 + oid.len() as u8, 0x06, oid.len() as u8], oid].concat();
        let inside = [&[0x30, 1, 0][..], &algorithm].concat();
        [&[0x30, 0x81, inside.len() as u8][..], &inside].concat()
    }

    #[test]
    fn the_binding_follows_the_signature() {
        let size = |oid: &[u8]| match server_end_point(&certificate(oid)) {
            Binding::ServerEndPoint(hash) => hash.len(),
            Binding::None => 0,
        };
        assert_eq!(size(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]), 32);
        assert_eq!(size(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]), 48);
        assert_eq!(size(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13]), 64);
        assert_eq!(size(&[0x2b, 0x65, 0x70]), 0, "Ed25519");
        assert_eq!(server_end_point(&[0x30, 0x84, 0xff]), Binding::None);
    }

    #[test]
    fn what_is_not_a_certificate_is_said_so() {
        assert!(matches!(TlsIdentity::from_pem(b"", b""), Err(TlsError::NoCertificate)));
    }
}
