//! What can be told of a batch of messages from its text.

use super::frame::{PreparedText, StateChanges};
use crate::session::request::{Request, Target};
use crate::session::response::Messages;

/// What a batch that was carried out has changed of the named statements.
pub(super) fn prepared_in(batch: &[u8]) -> StateChanges {
    let mut changes = StateChanges::default();
    for (tag, body) in Messages::new(batch) {
        match Request::decode(tag, body) {
            Ok(Request::Parse { name, sql, param_types }) if !name.is_empty() => {
                let param_types = param_types.iter().collect();
                changes.prepared.push(PreparedText {
                    name: name.to_owned(),
                    sql: sql.to_owned(),
                    param_types,
                });
            }
            Ok(Request::Close { target: Target::Statement, name }) => {
                changes.prepared.retain(|prepared| prepared.name != name);
                changes.deallocated.push(name.to_owned());
            }
            _ => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;
    use crate::session::response::{message, put_string};

    fn parse(out: &mut BytesMut, name: &str, sql: &str) {
        message(out, b'P', |out| {
            put_string(out, name);
            put_string(out, sql);
            out.put_i16(1);
            out.put_u32(23);
        });
    }

    #[test]
    fn named_statements_that_a_batch_leaves_behind_are_known() {
        let mut batch = BytesMut::new();
        parse(&mut batch, "", "SELECT 1");
        parse(&mut batch, "kept", "SELECT $1");
        parse(&mut batch, "closed", "SELECT 3");
        message(&mut batch, b'C', |out| {
            out.put_u8(b'S');
            put_string(out, "closed");
        });
        let kept =
            PreparedText { name: "kept".to_owned(), sql: "SELECT $1".to_owned(), param_types: vec![23] };
        let changes = prepared_in(&batch);
        assert_eq!((changes.prepared, changes.deallocated), (vec![kept], vec!["closed".to_owned()]));
    }
}
