//! SCRAM-SHA-256: proof of a password that neither travels nor is stored.
//!
//! ```text
//! client: n,,n=,r=CNONCE
//! server: r=CNONCE+SNONCE,s=SALT,i=ITERATIONS
//! client: c=BINDING,r=CNONCE+SNONCE,p=PROOF
//! server: v=SIGNATURE
//! stored: SCRAM-SHA-256$ITERATIONS:SALT$StoredKey:ServerKey
//! ```
//!
//! A role that does not exist, or has no password, gets a made-up verifier with a salt that is the same at each
//! try, and fails at the same step after the same work as a wrong password does.
//!
//! Sources: RFC 5802, RFC 7677 (SHA-256), RFC 5929 (tls-server-end-point), PostgreSQL 15 chapter 55.3.1.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2, rand::SecureRandom as _};

/// PostgreSQL's default number of iterations; verifiers made elsewhere bring their own.
pub const ITERATIONS_DEFAULT: u32 = 4096;

/// The mechanism without channel binding.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The mechanism that is bound to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

const KEY_SIZE: usize = 32;
const SALT_SIZE: usize = 16;
const NONCE_SIZE: usize = 18;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// 08P01: the client's message does not parse.
    #[error("malformed SCRAM message")]
    Malformed,
    /// 08P01: the client thinks the server has no channel binding, though it offered it: somebody is in between.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// 28000: the channel binding data is not that of this connection.
    #[error("SCRAM channel binding check failed")]
    Binding,
    /// 28P01: the proof is wrong.
    #[error("password authentication failed")]
    WrongPassword,
    /// The system gives no random numbers.
    #[error("could not generate random nonce")]
    Random,
    /// A stored verifier that is not one.
    #[error("stored verifier is malformed")]
    Verifier,
}

/// What is stored of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_SIZE],
    server_key: [u8; KEY_SIZE],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

impl Verifier {
    /// Makes a verifier of a password, with a fresh salt.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn from_password(password: &str, iterations: u32) -> Result<Self, ScramError> {
        let mut salt = vec![0; SALT_SIZE];
        ring::rand::SystemRandom::new().fill(&mut salt).map_err(|_| ScramError::Random)?;
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        Ok(Self::derive(password, iterations, salt))
    }

    /// Reads PostgreSQL's text form.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, ScramError> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(ScramError::Verifier)?;
        let (parameters, keys) = rest.split_once('$').ok_or(ScramError::Verifier)?;
        let (iterations, salt) = parameters.split_once(':').ok_or(ScramError::Verifier)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(ScramError::Verifier)?;
        Ok(Self {
            iterations: iterations.parse().map_err(|_| ScramError::Verifier)?,
            salt: BASE64.decode(salt).map_err(|_| ScramError::Verifier)?,
            stored_key: decode_key(stored_key).ok_or(ScramError::Verifier)?,
            server_key: decode_key(server_key).ok_or(ScramError::Verifier)?,
        })
    }

    /// Whether a text is a verifier already, so that a dump of roles restores.
    #[must_use]
    pub fn is_verifier(text: &str) -> bool {
        Self::parse(text).is_ok()
    }

    fn derive(password: &str, iterations: NonZeroU32, salt: Vec<u8>) -> Self {
        // RFC 5802 asks for SASLprep; like PostgreSQL, a password that it refuses is used as it is.
        let prepared = stringprep::saslprep(password);
        let password = prepared.as_deref().unwrap_or(password);
        let mut salted = [0; KEY_SIZE];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        Self {
            iterations,
            salt,
            stored_key: sha256(&client_key),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }

    /// A verifier that no password fits, the same for the same role and secret.
    fn made_up(role: &str, secret: &[u8]) -> Self {
        let mut salt = hmac_sha256(secret, role.as_bytes()).to_vec();
        salt.truncate(SALT_SIZE);
        let iterations = NonZeroU32::new(ITERATIONS_DEFAULT).unwrap_or(NonZeroU32::MIN);
        Self { iterations, salt, stored_key: [0; KEY_SIZE], server_key: [0; KEY_SIZE] }
    }
}

/// What a connection offers for channel binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// No TLS, or a certificate that has no defined binding.
    None,
    /// `tls-server-end-point`: the hash of the server's certificate.
    ServerEndPoint(Vec<u8>),
}

/// The server's side of one exchange, after the client's first message.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    /// Whether the verifier is a real one. A made-up one fails whatever the proof.
    is_known: bool,
    client_first_bare: String,
    server_first: String,
    nonce: String,
    /// The `c=` value that the client must send.
    expected_binding: Vec<u8>,
}

/// Who tries to log in, as far as the verifier goes.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The role's name.
    pub role: &'a str,
    /// Its verifier, if the role exists and has one.
    pub verifier: Option<&'a Verifier>,
    /// Secret of the cluster or node from which salts for unknown roles are made.
    pub mock_secret: &'a [u8],
}

impl Exchange {
    /// Takes the client's first message.
    ///
    /// # Errors
    /// When it is malformed or disagrees with what was offered.
    pub fn begin(
        claim: Claim<'_>,
        mechanism: &str,
        binding: &Binding,
        message: &str,
    ) -> Result<Self, ScramError> {
        let mut nonce = [0; NONCE_SIZE];
        ring::rand::SystemRandom::new().fill(&mut nonce).map_err(|_| ScramError::Random)?;
        Self::begin_with_nonce(claim, mechanism, binding, message, &BASE64.encode(nonce))
    }

    fn begin_with_nonce(
        claim: Claim<'_>,
        mechanism: &str,
        binding: &Binding,
        message: &str,
        server_nonce: &str,
    ) -> Result<Self, ScramError> {
        let mut parts = message.splitn(3, ',');
        let flag = parts.next().ok_or(ScramError::Malformed)?;
        let authorization = parts.next().ok_or(ScramError::Malformed)?;
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        if !authorization.is_empty() {
            return Err(ScramError::Malformed);
        }
        let mut expected_binding = format!("{flag},,").into_bytes();
        match (flag, mechanism, binding) {
            ("n", MECHANISM, _) | ("y", MECHANISM, Binding::None) => {}
            ("y", MECHANISM, Binding::ServerEndPoint(_)) => return Err(ScramError::Downgrade),
            ("p=tls-server-end-point", MECHANISM_PLUS, Binding::ServerEndPoint(hash)) => {
                expected_binding.extend(hash);
            }
            _ => return Err(ScramError::Malformed),
        }
        let mut attributes = bare.split(',');
        // The user name here is ignored, as PostgreSQL does: the start-up packet has said it.
        attributes.next().and_then(|name| name.strip_prefix("n=")).ok_or(ScramError::Malformed)?;
        let client_nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(ScramError::Malformed);
        }
        let verifier =
            claim.verifier.cloned().unwrap_or_else(|| Verifier::made_up(claim.role, claim.mock_secret));
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        Ok(Self {
            is_known: claim.verifier.is_some(),
            verifier,
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
            expected_binding,
        })
    }

    /// The server's first message.
    #[must_use]
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's final message; gives the server's final one.
    ///
    /// # Errors
    /// When the proof is wrong or the message malformed.
    pub fn finish(self, message: &str) -> Result<String, ScramError> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding =
            attributes.next().and_then(|binding| binding.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        let binding = BASE64.decode(binding).map_err(|_| ScramError::Malformed)?;
        if binding != self.expected_binding {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof = decode_key(proof).ok_or(ScramError::Malformed)?;
        let authentication = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let client_signature = hmac_sha256(&self.verifier.stored_key, authentication.as_bytes());
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(client_signature) {
            *byte ^= mask;
        }
        let matches = same(&sha256(&client_key), &self.verifier.stored_key);
        if !(matches & self.is_known) {
            return Err(ScramError::WrongPassword);
        }
        let signature = hmac_sha256(&self.verifier.server_key, authentication.as_bytes());
        Ok(format!("v={}", BASE64.encode(signature)))
    }
}

/// Compares in a time that does not depend on where the two differ; ring's own function for it is deprecated.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let differences =
        left.iter().zip(right).fold(0, |differences, (left, right)| differences | (left ^ right));
    (left.len() == right.len()) & (std::hint::black_box(differences) == 0)
}

fn decode_key(text: &str) -> Option<[u8; KEY_SIZE]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn sha256(data: &[u8]) -> [u8; KEY_SIZE] {
    let mut out = [0; KEY_SIZE];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; KEY_SIZE] {
    let mut out = [0; KEY_SIZE];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn rfc_verifier() -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::derive("pencil", NonZeroU32::new(4096).unwrap(), salt)
    }

    fn begin(verifier: Option<&Verifier>, first: &str) -> Result<Exchange, ScramError> {
        let claim = Claim { role: "user", verifier, mock_secret: b"secret" };
        Exchange::begin_with_nonce(claim, MECHANISM, &Binding::None, first, SERVER_NONCE)
    }

    #[test]
    fn the_example_of_rfc_7677_is_reproduced() {
        let verifier = rfc_verifier();
        let exchange = begin(Some(&verifier), CLIENT_FIRST).unwrap();
        assert_eq!(
            exchange.server_first(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(exchange.finish(CLIENT_FINAL).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_verifier_survives_its_text_form() {
        let verifier = rfc_verifier();
        assert_eq!(Verifier::parse(&verifier.to_string()), Ok(verifier.clone()));
        assert!(!format!("{verifier:?}").contains("WG5d8"), "keys stay out of logs");
        for bad in ["", "md5abc", "SCRAM-SHA-256$0:YQ==$a:b", "SCRAM-SHA-256$4096:YQ==$YQ==:YQ=="] {
            assert_eq!(Verifier::parse(bad), Err(ScramError::Verifier), "{bad}");
        }
    }

    #[test]
    fn an_unknown_role_fails_like_a_wrong_password() {
        let unknown = begin(None, CLIENT_FIRST).unwrap();
        let again = begin(None, CLIENT_FIRST).unwrap();
        assert_eq!(unknown.server_first(), again.server_first(), "the salt does not change between tries");
        assert_eq!(unknown.finish(CLIENT_FINAL), Err(ScramError::WrongPassword));
        let verifier = Verifier::from_password("other", 4096).unwrap();
        let known = begin(Some(&verifier), CLIENT_FIRST).unwrap();
        assert_eq!(known.finish(CLIENT_FINAL), Err(ScramError::WrongPassword));
    }

    #[test]
    fn channel_binding_is_checked_and_not_talked_away() {
        let verifier = rfc_verifier();
        let claim = Claim { role: "user", verifier: Some(&verifier), mock_secret: b"secret" };
        let binding = Binding::ServerEndPoint(vec![1, 2, 3]);
        let begin = |mechanism, first| Exchange::begin(claim, mechanism, &binding, first);
        assert_eq!(begin(MECHANISM, "y,,n=,r=abc").unwrap_err(), ScramError::Downgrade);
        assert_eq!(begin(MECHANISM, "p=tls-server-end-point,,n=,r=abc").unwrap_err(), ScramError::Malformed);
        let exchange = begin(MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=abc").unwrap();
        let nonce = exchange.nonce.clone();
        let wrong = BASE64.encode(b"p=tls-server-end-point,,\x09\x09\x09");
        assert_eq!(exchange.finish(&format!("c={wrong},r={nonce},p=AAAA")), Err(ScramError::Binding));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let verifier = rfc_verifier();
        for first in ["", "n", "n,,", "n,,n=u", "n,a=x,n=u,r=a", "x,,n=u,r=a", "n,,n=u,r=", "n,,m=1,n=u,r=a"]
        {
            assert_eq!(begin(Some(&verifier), first).unwrap_err(), ScramError::Malformed, "{first}");
        }
        for last in ["", "c=biws", "c=biws,r=x,p=AA==", "c=!,r=x,p=AA=="] {
            let exchange = begin(Some(&verifier), CLIENT_FIRST).unwrap();
            assert_eq!(exchange.finish(last), Err(ScramError::Malformed), "{last}");
        }
    }
}
