//! What a client asks of a session: PostgreSQL's frontend messages after start-up.
//!
//! ```text
//! tag: u8 | length: i32, counts itself and the body | body
//! ```
//!
//! A [`Request`] borrows from the bytes it was decoded from, so that the hot path (Bind, Execute, Sync) allocates
//! nothing, and so that a gateway that forwards a request sends the client's bytes as they came.
//!
//! Invariants: every count and length in a body is checked when it is decoded, before anything reads past it; a
//! decoded list yields exactly as many items as it says.
//!
//! Source: PostgreSQL 15, chapter 55.7 "Message Formats".

use super::response::Format;

/// A message that no client of PostgreSQL's protocol would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// 08P01: the body is shorter than what it says it holds.
    #[error("insufficient data left in message")]
    Truncated,
    /// 08P01: the body goes on after its last field.
    #[error("invalid message format")]
    Surplus,
    /// 08P01: a string does not end.
    #[error("invalid string in message")]
    UnterminatedString,
    /// 08P01: the tag names no message.
    #[error("invalid frontend message type {0}")]
    UnknownTag(u8),
    /// 08P01: a format code is neither text nor binary.
    #[error("unsupported format code: {0}")]
    UnknownFormat(i16),
    /// 08P01: Describe or Close of something that is neither statement nor portal.
    #[error("invalid message subtype {0}")]
    UnknownTarget(u8),
    /// 22021: text that is not UTF-8; the message as such is well formed, so the connection can go on.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    NotUtf8,
    /// 08P01: more Bind formats than one for each value.
    #[error("bind message has {formats} parameter formats but {params} parameters")]
    FormatCount {
        /// How many formats were given.
        formats: usize,
        /// How many parameters were given.
        params: usize,
    },
}

impl RequestError {
    /// Whether the frame itself is sound, so that only this request fails and not the connection.
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        matches!(self, Self::NotUtf8)
    }

    /// PostgreSQL's SQLSTATE.
    #[must_use]
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Self::NotUtf8 => "22021",
            _ => "08P01",
        }
    }
}

/// What Describe and Close refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// A list of format codes: none means text for all, one means the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats<'a> {
    /// Big-endian 16-bit codes, checked.
    raw: &'a [u8],
}

impl<'a> Formats<'a> {
    /// Text for all.
    pub const TEXT: Formats<'static> = Formats { raw: &[] };

    /// How many codes were given.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.raw.len() / 2
    }

    /// Whether no code was given.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The format of the item at `index`; text where the list is too short, which callers refuse beforehand.
    #[must_use]
    pub fn get(&self, index: usize) -> Format {
        let place = if self.len() == 1 { 0 } else { index };
        match self.raw.get(place * 2 + 1) {
            Some(1) => Format::Binary,
            _ => Format::Text,
        }
    }
}

/// Values of parameters, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'a> {
    count: usize,
    /// For each a big-endian length (-1 for NULL) and so many bytes, checked.
    raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// No parameter.
    pub const NONE: Params<'static> = Params { count: 0, raw: &[] };

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order; `None` is NULL.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut rest = Body { rest: self.raw };
        (0..self.count).map_while(move |_| rest.value().ok())
    }
}

/// The type identifiers given for a statement's first parameters; 0 leaves a type to be inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamTypes<'a> {
    raw: &'a [u8],
}

impl<'a> ParamTypes<'a> {
    /// None is given.
    pub const NONE: ParamTypes<'static> = ParamTypes { raw: &[] };

    /// The identifiers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.raw.chunks_exact(4).map(|chunk| match *chunk {
            [a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        })
    }
}

/// The content of a Bind message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Name of the portal to make; empty for the unnamed one.
    pub portal: &'a str,
    /// Name of the statement to bind.
    pub statement: &'a str,
    /// How each parameter is written.
    pub param_formats: Formats<'a>,
    /// The parameters.
    pub params: Params<'a>,
    /// How each column of the result is to be written.
    pub result_formats: Formats<'a>,
}

impl Bind<'_> {
    /// The unnamed statement without parameters, all in text.
    pub const EMPTY: Bind<'static> = Bind {
        portal: "",
        statement: "",
        param_formats: Formats::TEXT,
        params: Params::NONE,
        result_formats: Formats::TEXT,
    };
}

/// A frontend message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Runs statements.
    Query {
        /// The statements.
        sql: &'a str,
    },
    /// Prepares a statement.
    Parse {
        /// Its name; empty for the unnamed one.
        name: &'a str,
        /// Its text.
        sql: &'a str,
        /// Types of its parameters, as far as given.
        param_types: ParamTypes<'a>,
    },
    /// Makes a portal of a statement.
    Bind(Bind<'a>),
    /// Asks for the shape of a statement or portal.
    Describe {
        /// Which of the two.
        target: Target,
        /// Its name.
        name: &'a str,
    },
    /// Runs a portal.
    Execute {
        /// Its name.
        portal: &'a str,
        /// Most rows to return; 0 for all.
        max_rows: u32,
    },
    /// Forgets a statement or portal.
    Close {
        /// Which of the two.
        target: Target,
        /// Its name.
        name: &'a str,
    },
    /// Asks for what is answered so far.
    Flush,
    /// Ends a group of extended messages.
    Sync,
    /// Input of a COPY.
    CopyData(&'a [u8]),
    /// End of the input of a COPY.
    CopyDone,
    /// The client gives up a COPY.
    CopyFail {
        /// Why.
        message: &'a str,
    },
    /// The deprecated call of a function by number.
    FunctionCall,
    /// The client says goodbye.
    Terminate,
}

impl<'a> Request<'a> {
    /// Decodes one message.
    ///
    /// # Errors
    /// When the message is malformed.
    pub fn decode(tag: u8, body: &'a [u8]) -> Result<Self, RequestError> {
        let mut body = Body { rest: body };
        let request = match tag {
            b'Q' => Self::Query { sql: body.string()? },
            b'P' => {
                let (name, sql) = (body.string()?, body.string()?);
                let count = usize::from(body.u16()?);
                Self::Parse { name, sql, param_types: ParamTypes { raw: body.take(count * 4)? } }
            }
            b'B' => Self::Bind(body.bind()?),
            b'D' => Self::Describe { target: body.target()?, name: body.string()? },
            b'E' => Self::Execute { portal: body.string()?, max_rows: body.u32()? },
            b'C' => Self::Close { target: body.target()?, name: body.string()? },
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'd' => return Ok(Self::CopyData(body.rest)),
            // The body of these may hold anything: PostgreSQL does not look at it either.
            b'c' => return Ok(Self::CopyDone),
            b'X' => return Ok(Self::Terminate),
            b'F' => return Ok(Self::FunctionCall),
            b'f' => Self::CopyFail { message: body.string()? },
            tag => return Err(RequestError::UnknownTag(tag)),
        };
        if body.rest.is_empty() { Ok(request) } else { Err(RequestError::Surplus) }
    }
}

/// The rest of a message's body.
struct Body<'a> {
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RequestError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(RequestError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RequestError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(RequestError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, RequestError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, RequestError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<&'a str, RequestError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(RequestError::UnterminatedString)?;
        let text = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| RequestError::NotUtf8)
    }

    fn target(&mut self) -> Result<Target, RequestError> {
        match self.array()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            [other] => Err(RequestError::UnknownTarget(other)),
        }
    }

    fn formats(&mut self) -> Result<Formats<'a>, RequestError> {
        let count = usize::from(self.u16()?);
        let raw = self.take(count * 2)?;
        for code in raw.chunks_exact(2) {
            if let [high, low] = *code
                && (high != 0 || low > 1)
            {
                return Err(RequestError::UnknownFormat(i16::from_be_bytes([high, low])));
            }
        }
        Ok(Formats { raw })
    }

    fn value(&mut self) -> Result<Option<&'a [u8]>, RequestError> {
        let length = i32::from_be_bytes(self.array()?);
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| RequestError::Truncated)?;
        self.take(length).map(Some)
    }

    fn bind(&mut self) -> Result<Bind<'a>, RequestError> {
        let (portal, statement) = (self.string()?, self.string()?);
        let param_formats = self.formats()?;
        let count = usize::from(self.u16()?);
        let before = self.rest;
        for _ in 0..count {
            self.value()?;
        }
        let (raw, _) =
            before.split_at_checked(before.len() - self.rest.len()).ok_or(RequestError::Truncated)?;
        if param_formats.len() > 1 && param_formats.len() != count {
            return Err(RequestError::FormatCount { formats: param_formats.len(), params: count });
        }
        let result_formats = self.formats()?;
        Ok(Bind { portal, statement, param_formats, params: Params { count, raw }, result_formats })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bind_body() -> Vec<u8> {
        let mut body = b"portal\0statement\0".to_vec();
        body.extend([0, 1, 0, 1]);
        body.extend([0, 2, 0, 0, 0, 3, 7, 8, 9, 0xff, 0xff, 0xff, 0xff]);
        body.extend([0, 0]);
        body
    }

    #[test]
    fn bind_yields_its_parts() {
        let body = bind_body();
        let Request::Bind(bind) = Request::decode(b'B', &body).unwrap() else { panic!("not a Bind") };
        assert_eq!((bind.portal, bind.statement), ("portal", "statement"));
        assert_eq!(bind.param_formats.get(1), Format::Binary, "one code stands for all");
        assert_eq!(bind.params.iter().collect::<Vec<_>>(), vec![Some(&[7, 8, 9][..]), None]);
        assert_eq!(bind.result_formats.get(5), Format::Text);
    }

    #[test]
    fn every_truncation_of_a_message_is_refused() {
        let body = bind_body();
        for end in 0..body.len() {
            assert!(Request::decode(b'B', &body[..end]).is_err(), "cut at {end}");
        }
        let mut longer = body;
        longer.push(0);
        assert_eq!(Request::decode(b'B', &longer), Err(RequestError::Surplus));
    }

    #[test]
    fn what_is_not_in_the_protocol_is_refused() {
        assert_eq!(Request::decode(b'z', &[]), Err(RequestError::UnknownTag(b'z')));
        assert_eq!(Request::decode(b'Q', b"select 1"), Err(RequestError::UnterminatedString));
        assert_eq!(Request::decode(b'Q', b"\xff\0"), Err(RequestError::NotUtf8));
        assert_eq!(Request::decode(b'D', b"X\0"), Err(RequestError::UnknownTarget(b'X')));
        assert_eq!(Request::decode(b'B', b"\0\0\0\x01\0\x02\0\0\0\0"), Err(RequestError::UnknownFormat(2)));
        assert_eq!(
            Request::decode(b'B', b"\0\0\0\x02\0\x01\0\x01\0\0\0\0"),
            Err(RequestError::FormatCount { formats: 2, params: 0 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(tag: u8, body: Vec<u8>) {
            if let Ok(Request::Bind(bind)) = Request::decode(tag, &body) {
                prop_assert_eq!(bind.params.iter().count(), bind.params.len());
            }
        }
    }
}
