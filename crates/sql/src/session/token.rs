//! The name of a transaction by which its client can ask what became of it, on any node and at any later time.
//!
//! ```text
//!   r1.<database>.<incarnation>.<session>.<counter>.<since>.<signature>       numbers in hexadecimal
//! ```
//!
//! `since` is a version from before the commit: by it, an outcome that was dropped is told from one that never was.
//!
//! Who asks keeps a transaction that is still open from committing, and its answer takes room in the replicated state. So
//! only who was given a token may ask: its signature is made with a key of the database that no client sees. It also
//! finds a token that was cut or mistyped.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustydb_env::Rng;
use rustydb_types::ids::{DatabaseId, Incarnation, Oid, RequestId, SessionId, Version};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What became of transactions, as a statement asks for it. A question is noted where an expression asks it, and
/// answered between two runs of the statement, because an expression cannot wait.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// What is asked and not yet answered.
    pub open: Option<TransactionToken>,
    /// What is answered.
    pub answers: Vec<(TransactionToken, &'static str)>,
}

/// What the first part of every token is.
const FORM: &str = "r1";
/// How much of a signature a token bears: nobody can try so many.
const SIGNATURE_BYTES: usize = 8;

/// Names a transaction that may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionToken {
    /// The database.
    pub database: DatabaseId,
    /// The commit.
    pub request: RequestId,
    /// A version from before the commit.
    pub since: Version,
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a transaction token of this database")]
pub struct NoToken;

impl TransactionToken {
    fn fields(&self) -> [u64; 5] {
        [
            u64::from(self.database.get().get()),
            self.request.incarnation.get(),
            self.request.session.get(),
            self.request.counter,
            self.since.get(),
        ]
    }

    fn read(body: &str) -> Option<Self> {
        let mut parts = body.split('.');
        if parts.next() != Some(FORM) {
            return None;
        }
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let database = u32::try_from(number()?).ok()?;
        let request = RequestId {
            incarnation: Incarnation::new(number()?),
            session: SessionId::new(number()?),
            counter: number()?,
        };
        let since = Version::new(number()?);
        Some(Self { database: DatabaseId::new(Oid::new(database)), request, since })
    }
}

/// Signs the tokens of a database: part of its record, so that every node has it, and shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey([u8; 16]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

impl TokenKey {
    /// A known key, for tests.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// A key that nobody knows.
    #[must_use]
    pub fn random(random: &mut Rng) -> Self {
        Self((u128::from(random.u64()) << 64 | u128::from(random.u64())).to_be_bytes())
    }

    /// The beginning of an HMAC-SHA-256.
    fn signature(&self, body: &str) -> Vec<u8> {
        // As HMAC does with a key that is shorter than the hash's block.
        let mut block = [0; 64];
        block.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        let mut signature = Hmac::<Sha256>::new(&block.into());
        signature.update(body.as_bytes());
        signature.finalize().into_bytes().iter().copied().take(SIGNATURE_BYTES).collect()
    }

    /// The text of a token.
    #[must_use]
    pub fn text(&self, token: &TransactionToken) -> String {
        let [database, incarnation, session, counter, since] = token.fields();
        let mut text = format!("{FORM}.{database:x}.{incarnation:x}.{session:x}.{counter:x}.{since:x}");
        let signature = self.signature(&text);
        text.push('.');
        signature.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text
    }

    /// The token of a text that this key has signed.
    ///
    /// # Errors
    /// The text is no token, or was signed by the key of another database, or by nobody.
    pub fn read(&self, text: &str) -> Result<TransactionToken, NoToken> {
        let token =
            text.rsplit_once('.').and_then(|(body, _)| TransactionToken::read(body)).ok_or(NoToken)?;
        // Only one text stands for a token.
        if same(self.text(&token).as_bytes(), text.as_bytes()) { Ok(token) } else { Err(NoToken) }
    }
}

/// Whether two texts are equal, found out in a time that says nothing of where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TokenKey {
        TokenKey::new([byte; 16])
    }

    #[test]
    fn a_token_survives_the_round_trip_and_a_damaged_or_made_up_one_does_not() {
        let token = TransactionToken {
            database: DatabaseId::new(Oid::new(16_384)),
            request: RequestId {
                incarnation: Incarnation::new(1 << 32 | 3),
                session: SessionId::new(77),
                counter: 5,
            },
            since: Version::new(u64::MAX),
        };
        let text = key(1).text(&token);
        assert!(text.starts_with("r1.4000.100000003.4d.5.ffffffffffffffff."), "{text}");
        assert_eq!(key(1).read(&text), Ok(token));
        assert_eq!(key(2).read(&text), Err(NoToken), "another database has signed it");
        let (body, signature) = text.rsplit_once('.').unwrap();
        assert_eq!(signature.len(), 16, "{text}");
        for digit in 0..signature.len() {
            let mut wrong = signature.to_owned().into_bytes();
            wrong[digit] = if wrong[digit] == b'0' { b'1' } else { b'0' };
            let made_up = format!("{body}.{}", String::from_utf8(wrong).unwrap());
            assert_eq!(key(1).read(&made_up), Err(NoToken), "{made_up}");
        }
        for damaged in [
            "",
            "r1",
            "r1.5.0.0.0.0.",
            body,
            &text[..text.len() - 1],
            &text.to_uppercase(),
            &text.replace("4d", "4e"),
            &text.replace("r1", "r2"),
            &text.replace(".5.", ".05."),
        ] {
            assert_eq!(key(1).read(damaged), Err(NoToken), "{damaged}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", key(7)), "TokenKey(..)");
    }
}
