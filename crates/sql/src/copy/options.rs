//! What a COPY statement asks for.

use sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, Ident};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::error::{SqlError, SqlState};

/// The shape of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tab-separated, backslash escapes.
    Text,
    /// Comma-separated, quoted.
    Csv,
    /// Lengths and bytes.
    Binary,
}

/// The options of one COPY, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The shape of the data.
    pub format: CopyFormat,
    /// The byte between fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Whether the first line holds column names.
    pub header: bool,
    /// The quote of CSV.
    pub quote: u8,
    /// The byte that makes a quote inside quotes ordinary.
    pub escape: u8,
    /// Columns whose values are always quoted on output; empty: none.
    pub force_quote: Vec<String>,
    /// All columns are always quoted on output (`FORCE_QUOTE *`).
    pub force_quote_all: bool,
    /// Columns in which the NULL string is taken as a string.
    pub force_not_null: Vec<String>,
    /// Columns in which even the quoted NULL string is NULL.
    pub force_null: Vec<String>,
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Text,
            delimiter: b'\t',
            null: "\\N".to_owned(),
            header: false,
            quote: b'"',
            escape: b'"',
            force_quote: Vec::new(),
            force_quote_all: false,
            force_not_null: Vec::new(),
            force_null: Vec::new(),
        }
    }
}

/// Options as written, before defaults and checks.
#[derive(Default)]
struct Given {
    csv: bool,
    binary: bool,
    delimiter: Option<char>,
    null: Option<String>,
    header: bool,
    quote: Option<char>,
    escape: Option<char>,
    force_quote: Option<Vec<String>>,
    force_not_null: Option<Vec<String>>,
    force_null: Option<Vec<String>>,
}

impl CopyOptions {
    /// Checks and completes the options of a parsed COPY, in the present (`options`) and the old syntax (`legacy`).
    ///
    /// # Errors
    /// 42601 for options that exclude each other, 22023 for values that cannot be, 0A000 for what is not supported.
    pub fn of_statement(
        options: &[CopyOption],
        legacy: &[CopyLegacyOption],
    ) -> Result<CopyOptions, SqlError> {
        let mut given = Given::default();
        for option in options {
            given.take(option)?;
        }
        for option in legacy {
            given.take_legacy(option)?;
        }
        given.check()
    }
}

fn names(columns: &[Ident]) -> Vec<String> {
    let folded = |ident: &Ident| {
        if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
    };
    columns.iter().map(folded).collect()
}

fn check_encoding(name: &str) -> Result<(), SqlError> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if matches!(plain.to_ascii_lowercase().as_str(), "utf8" | "unicode" | "sqlascii") {
        return Ok(());
    }
    Err(SqlError::not_supported(format!("COPY with encoding \"{name}\" is not supported"))
        .with_hint("Send the data in UTF8."))
}

impl Given {
    fn take(&mut self, option: &CopyOption) -> Result<(), SqlError> {
        match option {
            CopyOption::Format(name) => match name.value.to_lowercase().as_str() {
                "text" => {}
                "csv" => self.csv = true,
                "binary" => self.binary = true,
                other => {
                    let message = format!("COPY format \"{other}\" not recognized");
                    return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
                }
            },
            // Rows are frozen from birth here: there is nothing to do.
            CopyOption::Freeze(_) => {}
            CopyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyOption::Null(null) => self.null = Some(null.clone()),
            CopyOption::Header(header) => self.header = *header,
            CopyOption::Quote(quote) => self.quote = Some(*quote),
            CopyOption::Escape(escape) => self.escape = Some(*escape),
            CopyOption::ForceQuote(columns) => self.force_quote = Some(names(columns)),
            CopyOption::ForceNotNull(columns) => self.force_not_null = Some(names(columns)),
            CopyOption::ForceNull(columns) => self.force_null = Some(names(columns)),
            CopyOption::Encoding(name) => check_encoding(name)?,
        }
        Ok(())
    }

    fn take_legacy(&mut self, option: &CopyLegacyOption) -> Result<(), SqlError> {
        match option {
            CopyLegacyOption::Binary => self.binary = true,
            CopyLegacyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyLegacyOption::Null(null) => self.null = Some(null.clone()),
            CopyLegacyOption::Header => self.header = true,
            CopyLegacyOption::Csv(options) => {
                self.csv = true;
                for option in options {
                    match option {
                        CopyLegacyCsvOption::Header => self.header = true,
                        CopyLegacyCsvOption::Quote(quote) => self.quote = Some(*quote),
                        CopyLegacyCsvOption::Escape(escape) => self.escape = Some(*escape),
                        CopyLegacyCsvOption::ForceQuote(columns) => self.force_quote = Some(names(columns)),
                        CopyLegacyCsvOption::ForceNotNull(columns) => {
                            self.force_not_null = Some(names(columns))
                        }
                    }
                }
            }
            other => {
                let message = format!("option \"{other}\" not recognized");
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
            }
        }
        Ok(())
    }

    fn check(self) -> Result<CopyOptions, SqlError> {
        let format = match (self.binary, self.csv) {
            (true, _) => CopyFormat::Binary,
            (false, true) => CopyFormat::Csv,
            (false, false) => CopyFormat::Text,
        };
        if self.binary {
            for (given, name) in [(self.delimiter.is_some(), "DELIMITER"), (self.null.is_some(), "NULL")] {
                if given {
                    let message = format!("cannot specify {name} in BINARY mode");
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
                }
            }
            if self.header {
                return Err(SqlError::not_supported("cannot specify HEADER in BINARY mode"));
            }
        }
        if !self.csv {
            for (given, name) in [
                (self.quote.is_some(), "quote"),
                (self.escape.is_some(), "escape"),
                (self.force_quote.is_some(), "force quote"),
                (self.force_not_null.is_some(), "force not null"),
                (self.force_null.is_some(), "force null"),
            ] {
                if given {
                    return Err(SqlError::not_supported(format!("COPY {name} available only in CSV mode")));
                }
            }
        }
        let quote = one_byte(self.quote, b'"', "quote")?;
        let checked = CopyOptions {
            format,
            delimiter: one_byte(self.delimiter, if self.csv { b',' } else { b'\t' }, "delimiter")?,
            null: self.null.unwrap_or_else(|| if self.csv { String::new() } else { "\\N".to_owned() }),
            header: self.header,
            quote,
            escape: one_byte(self.escape, quote, "escape")?,
            force_quote_all: self
                .force_quote
                .as_ref()
                .is_some_and(|columns| columns.iter().any(|name| name == "*")),
            force_quote: self.force_quote.unwrap_or_default(),
            force_not_null: self.force_not_null.unwrap_or_default(),
            force_null: self.force_null.unwrap_or_default(),
        };
        checked.check_together()?;
        Ok(checked)
    }
}

fn one_byte(given: Option<char>, default: u8, name: &str) -> Result<u8, SqlError> {
    match given {
        None => Ok(default),
        Some(given) => u8::try_from(given).ok().filter(u8::is_ascii).ok_or_else(|| {
            SqlError::not_supported(format!("COPY {name} must be a single one-byte character"))
        }),
    }
}

impl CopyOptions {
    fn check_together(&self) -> Result<(), SqlError> {
        let invalid = |message: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        if matches!(self.delimiter, b'\n' | b'\r') {
            return invalid("COPY delimiter cannot be newline or carriage return");
        }
        if self.null.contains(['\n', '\r']) {
            return invalid("COPY null representation cannot use newline or carriage return");
        }
        let reserved = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";
        if self.format == CopyFormat::Text && reserved.contains(&self.delimiter) {
            return invalid(&format!("COPY delimiter cannot be \"{}\"", char::from(self.delimiter)));
        }
        if self.null.as_bytes().contains(&self.delimiter) {
            return invalid("COPY delimiter must not appear in the NULL specification");
        }
        if self.format == CopyFormat::Csv {
            if self.delimiter == self.quote {
                return invalid("COPY delimiter and quote must be different");
            }
            if self.null.as_bytes().contains(&self.quote) {
                return invalid("CSV quote character must not appear in the NULL specification");
            }
        }
        Ok(())
    }
}

/// Rewrites, in the tokens of a COPY statement, what PostgreSQL allows and the parser does not know:
/// `ON`, `OFF`, `1` and `0` as values of FREEZE and HEADER, and `FORCE_QUOTE *`.
pub fn normalise_tokens(tokens: &mut [TokenWithSpan]) {
    let mut significant: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let is_copy = significant.first().is_some_and(|first| is_word(&tokens[*first].token, "COPY"));
    if !is_copy {
        significant.clear();
    }
    for pair in significant.windows(2) {
        let (name, value) = (pair[0], pair[1]);
        if is_word(&tokens[name].token, "FREEZE") || is_word(&tokens[name].token, "HEADER") {
            let truth = match &tokens[value].token {
                Token::Word(word) if word.value.eq_ignore_ascii_case("on") => Some(Keyword::TRUE),
                Token::Word(word) if word.value.eq_ignore_ascii_case("off") => Some(Keyword::FALSE),
                Token::Number(number, _) if number == "1" => Some(Keyword::TRUE),
                Token::Number(number, _) if number == "0" => Some(Keyword::FALSE),
                _ => None,
            };
            if let Some(keyword) = truth {
                let value_text = if keyword == Keyword::TRUE { "TRUE" } else { "FALSE" };
                tokens[value].token =
                    Token::Word(Word { value: value_text.to_owned(), quote_style: None, keyword });
            }
        }
        if is_word(&tokens[name].token, "FORCE_QUOTE") && tokens[value].token == Token::Mul {
            // The parser wants a list: `(*)` is not one, but a column by that name in quotes is.
            let star = Word { value: "*".to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
            tokens[value].token = Token::Word(star);
        }
    }
}

fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::Statement;
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;
    use sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn options(sql: &str) -> Result<CopyOptions, SqlError> {
        let dialect = PostgreSqlDialect {};
        let mut tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().unwrap();
        normalise_tokens(&mut tokens);
        let statement = Parser::new(&dialect).with_tokens_with_locations(tokens).parse_statement().unwrap();
        let Statement::Copy { options, legacy_options, .. } = statement else { panic!("not a COPY: {sql}") };
        CopyOptions::of_statement(&options, &legacy_options)
    }

    #[test]
    fn every_spelling_gives_its_options() {
        assert_eq!(options("COPY t FROM STDIN").unwrap(), CopyOptions::default());
        assert_eq!(options("copy t from stdin with (freeze on)").unwrap(), CopyOptions::default());
        let csv =
            options("COPY t FROM STDIN WITH (FORMAT csv, HEADER on, NULL 'NA', DELIMITER ';')").unwrap();
        assert_eq!(
            (csv.format, csv.header, csv.null.as_str(), csv.delimiter),
            (CopyFormat::Csv, true, "NA", b';')
        );
        let old = options("COPY t FROM STDIN CSV HEADER").unwrap();
        assert_eq!(
            (old.format, old.header, old.null.as_str(), old.delimiter),
            (CopyFormat::Csv, true, "", b',')
        );
        let quoted = options("COPY t TO STDOUT (FORMAT csv, FORCE_QUOTE (a, B), ESCAPE '\\')").unwrap();
        assert_eq!((quoted.force_quote, quoted.escape), (vec!["a".to_owned(), "b".to_owned()], b'\\'));
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        for (sql, state) in [
            ("COPY t FROM STDIN (FORMAT binary, DELIMITER ',')", "42601"),
            ("COPY t FROM STDIN (FORMAT binary, NULL '')", "42601"),
            ("COPY t FROM STDIN (FORMAT binary, HEADER)", "0A000"),
            ("COPY t FROM STDIN (FORMAT binary, QUOTE '|')", "0A000"),
            ("COPY t FROM STDIN (FORMAT parquet)", "22023"),
            ("COPY t FROM STDIN (QUOTE '|')", "0A000"),
            ("COPY t FROM STDIN (DELIMITER 'a')", "22023"),
            ("COPY t FROM STDIN (DELIMITER '\\')", "22023"),
            ("COPY t FROM STDIN (FORMAT csv, DELIMITER '\"')", "22023"),
            ("COPY t FROM STDIN (FORMAT csv, NULL 'a,b')", "22023"),
            ("COPY t FROM STDIN (ENCODING 'latin1')", "0A000"),
        ] {
            assert_eq!(options(sql).unwrap_err().state().code(), state, "{sql}");
        }
    }
}
