//! The first packet of a connection, before there are message tags.
//!
//! ```text
//! length: u32, counts itself | code: u32 | rest
//! code 80877103: SSLRequest      80877104: GSSENCRequest      80877102: CancelRequest, rest = pid u32, secret
//! code 3.n:      start-up, rest = (name \0 value \0)* \0
//! ```
//!
//! Invariant: a packet longer than [`STARTUP_SIZE_MAX`] is refused by its length, before it is read.
//!
//! Source: PostgreSQL 15, chapter 55.2.1 and 55.7.

/// Most bytes of a start-up packet, as in PostgreSQL.
pub const STARTUP_SIZE_MAX: usize = 10_000;

/// The protocol version spoken here: 3.0.
const PROTOCOL_MAJOR: u32 = 3;

/// A start-up packet that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// 08P01: the length is impossible.
    #[error("invalid length of startup packet")]
    Length,
    /// 08P01: the content does not parse.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// 0A000: another major version.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0")]
    Version {
        /// Major version asked for.
        major: u32,
        /// Minor version asked for.
        minor: u32,
    },
    /// 28000: no user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// 22023: `options` that cannot be understood.
    #[error("invalid command-line argument for server process: {0}")]
    Options(String),
}

impl StartupError {
    /// PostgreSQL's SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::Length | Self::Layout => "08P01",
            Self::Version { .. } => "0A000",
            Self::NoUser => "28000",
            Self::Options(_) => "22023",
        }
    }
}

/// What a client asks for when it connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupParameters {
    /// The role.
    pub user: String,
    /// The database; the role's name where none is given.
    pub database: String,
    /// Settings, in the order given.
    pub settings: Vec<(String, String)>,
    /// Whether a replication connection is asked for.
    pub replication: bool,
    /// The minor version of the protocol asked for.
    pub minor_version: u32,
    /// Protocol options that are not known here.
    pub unknown_options: Vec<String>,
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// Asks for TLS.
    Tls,
    /// Asks for GSSAPI encryption.
    Gss,
    /// Asks to cancel what another connection does.
    Cancel {
        /// Which one.
        pid: u32,
        /// Proof that it is allowed.
        secret: Vec<u8>,
    },
    /// Begins a session.
    Start(StartupParameters),
}

/// Checks the length that begins a packet and gives the length of the rest.
///
/// # Errors
/// When it is impossible.
pub fn rest_length(length: u32) -> Result<usize, StartupError> {
    let length = usize::try_from(length).map_err(|_| StartupError::Length)?;
    if !(8..=STARTUP_SIZE_MAX).contains(&length) {
        return Err(StartupError::Length);
    }
    Ok(length - 4)
}

/// Parses a packet without its length.
///
/// # Errors
/// Why it cannot be answered.
pub fn parse(packet: &[u8]) -> Result<StartupPacket, StartupError> {
    let (code, rest) = packet.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    match u32::from_be_bytes(*code) {
        80_877_103 => Ok(StartupPacket::Tls),
        80_877_104 => Ok(StartupPacket::Gss),
        80_877_102 => {
            let (pid, secret) = rest.split_first_chunk::<4>().ok_or(StartupError::Length)?;
            Ok(StartupPacket::Cancel { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() })
        }
        version => {
            let (major, minor) = (version >> 16, version & 0xffff);
            if major != PROTOCOL_MAJOR {
                return Err(StartupError::Version { major, minor });
            }
            parse_parameters(rest, minor).map(StartupPacket::Start)
        }
    }
}

fn parse_parameters(mut rest: &[u8], minor_version: u32) -> Result<StartupParameters, StartupError> {
    let mut parameters = StartupParameters { minor_version, ..StartupParameters::default() };
    loop {
        let name = take_string(&mut rest)?;
        if name.is_empty() {
            break;
        }
        let value = take_string(&mut rest)?;
        match name {
            "user" => parameters.user = value.to_owned(),
            "database" => parameters.database = value.to_owned(),
            "options" => parse_options(value, &mut parameters.settings)?,
            "replication" => {
                parameters.replication = !matches!(value, "false" | "off" | "no" | "0");
            }
            name if name.starts_with("_pq_.") => parameters.unknown_options.push(name.to_owned()),
            name => parameters.settings.push((name.to_owned(), value.to_owned())),
        }
    }
    if !rest.is_empty() {
        return Err(StartupError::Layout);
    }
    if parameters.user.is_empty() {
        return Err(StartupError::NoUser);
    }
    if parameters.database.is_empty() {
        parameters.database.clone_from(&parameters.user);
    }
    Ok(parameters)
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Result<&'a str, StartupError> {
    let end = rest.iter().position(|byte| *byte == 0).ok_or(StartupError::Layout)?;
    let (text, after) = rest.split_at_checked(end).ok_or(StartupError::Layout)?;
    *rest = after.split_first().ok_or(StartupError::Layout)?.1;
    std::str::from_utf8(text).map_err(|_| StartupError::Layout)
}

/// Reads `-c name=value`, `-cname=value` and `--name=value`; a backslash keeps the next character from ending a word.
fn parse_options(options: &str, settings: &mut Vec<(String, String)>) -> Result<(), StartupError> {
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next().ok_or_else(|| StartupError::Options(word.clone()))?
        } else if let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            rest.to_owned()
        } else {
            return Err(StartupError::Options(word));
        };
        let (name, value) = assignment.split_once('=').ok_or_else(|| StartupError::Options(word.clone()))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(body: &[u8]) -> Result<StartupPacket, StartupError> {
        parse(&[&[0, 3, 0, 0], body].concat())
    }

    #[test]
    fn parameters_and_options_are_read() {
        let StartupPacket::Start(parameters) = start(
            b"user\0ann\0application_name\0psql\0options\0-c geqo=off --search-path=a\\ b -cx=1\0_pq_.zip\0on\0\0",
        )
        .unwrap() else {
            panic!("not a start")
        };
        assert_eq!((parameters.user.as_str(), parameters.database.as_str()), ("ann", "ann"));
        let settings: Vec<_> = parameters.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            settings,
            vec![("application_name", "psql"), ("geqo", "off"), ("search_path", "a b"), ("x", "1")]
        );
        assert_eq!(parameters.unknown_options, vec!["_pq_.zip"]);
    }

    #[test]
    fn packets_that_make_no_sense_are_refused() {
        assert_eq!(rest_length(7), Err(StartupError::Length));
        assert_eq!(rest_length(10_001), Err(StartupError::Length));
        assert_eq!(rest_length(8), Ok(4));
        assert_eq!(start(b"user\0ann\0"), Err(StartupError::Layout));
        assert_eq!(start(b"user\0ann\0\0x"), Err(StartupError::Layout));
        assert_eq!(start(b"\0"), Err(StartupError::NoUser));
        assert_eq!(start(b"user\0a\0options\0-c\0\0"), Err(StartupError::Options("-c".into())));
        assert_eq!(start(b"user\0a\0options\0wild\0\0"), Err(StartupError::Options("wild".into())));
        assert_eq!(parse(&[0, 2, 0, 0]), Err(StartupError::Version { major: 2, minor: 0 }));
    }

    #[test]
    fn a_cancel_request_carries_a_secret_of_any_length() {
        let packet = parse(&[4, 210, 22, 46, 0, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(packet, Ok(StartupPacket::Cancel { pid: 9, secret: vec![1, 2, 3, 4] }));
        assert_eq!(parse(&[4, 210, 22, 46, 0]), Err(StartupError::Length));
        assert_eq!(parse(&[4, 210, 22, 47]), Ok(StartupPacket::Tls));
        assert_eq!(parse(&[4, 210, 22, 48]), Ok(StartupPacket::Gss));
    }
}
