//! COPY TO: fields to lines.

use super::options::{CopyFormat, CopyOptions};

/// Writes rows of fields as lines that end in LF.
pub struct CopyWriter {
    options: CopyOptions,
    /// Per column, whether its values are always quoted.
    force_quote: Vec<bool>,
}

impl CopyWriter {
    /// A writer for these columns.
    #[must_use]
    pub fn new(options: CopyOptions, columns: &[String]) -> CopyWriter {
        let forced = |name: &String| options.force_quote_all || options.force_quote.contains(name);
        CopyWriter { force_quote: columns.iter().map(forced).collect(), options }
    }

    /// Appends the header line, if the options ask for one.
    pub fn write_header(&self, columns: &[String], out: &mut Vec<u8>) {
        if self.options.header {
            self.write_fields(columns.iter().map(|name| Some(name.as_str())), &[], out);
        }
    }

    /// Appends one row; `None` is NULL.
    pub fn write_row<'f>(&self, fields: impl Iterator<Item = Option<&'f str>>, out: &mut Vec<u8>) {
        self.write_fields(fields, &self.force_quote, out);
    }

    fn write_fields<'f>(
        &self,
        fields: impl Iterator<Item = Option<&'f str>>,
        force_quote: &[bool],
        out: &mut Vec<u8>,
    ) {
        let line_start = out.len();
        let mut count = 0;
        for (index, field) in fields.enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            count = index + 1;
            match (field, self.options.format) {
                (None, _) => out.extend_from_slice(self.options.null.as_bytes()),
                (Some(text), CopyFormat::Text) => self.write_text(text, out),
                // Binary rows are written by `binary`.
                (Some(text), CopyFormat::Csv | CopyFormat::Binary) => {
                    self.write_csv(text, force_quote.get(index).copied().unwrap_or(false), out);
                }
            }
        }
        // Unquoted, a lone `\.` would be read as the end of the data.
        if self.options.format == CopyFormat::Csv && count == 1 && out.get(line_start..) == Some(b"\\.") {
            out.truncate(line_start);
            self.write_csv("\\.", true, out);
        }
        out.push(b'\n');
    }

    fn write_text(&self, text: &str, out: &mut Vec<u8>) {
        for byte in text.bytes() {
            let letter = match byte {
                8 => b'b',
                9 => b't',
                10 => b'n',
                11 => b'v',
                12 => b'f',
                13 => b'r',
                b'\\' => b'\\',
                other if other == self.options.delimiter => other,
                other => {
                    out.push(other);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
    }

    fn write_csv(&self, text: &str, force: bool, out: &mut Vec<u8>) {
        let special = |byte: u8| {
            byte == self.options.delimiter || byte == self.options.quote || byte == b'\n' || byte == b'\r'
        };
        if !force && text != self.options.null && !text.bytes().any(special) {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.push(self.options.quote);
        for byte in text.bytes() {
            if byte == self.options.quote || byte == self.options.escape {
                out.push(self.options.escape);
            }
            out.push(byte);
        }
        out.push(self.options.quote);
    }
}
