//! ALTER SEQUENCE, which the parser does not know. In the tree it stands as ALTER DYNAMIC TABLE, a statement of other
//! databases, with its clauses as options.

use sqlparser::ast::{
    self, AlterTable, AlterTableOperation, AlterTableType, Expr, Ident, RenameTableNameKind, SqlOption,
    Value, helpers::attached_token::AttachedToken,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The statement, if it is one; the parser stands behind it then.
pub(super) fn alter(parser: &mut Parser<'_>) -> Result<Option<ast::Statement>, ParserError> {
    if !parser.parse_keywords(&[Keyword::ALTER, Keyword::SEQUENCE]) {
        return Ok(None);
    }
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = parser.parse_object_name(false)?;
    let operation = if parser.parse_keywords(&[Keyword::RENAME, Keyword::TO]) {
        let table_name = RenameTableNameKind::To(parser.parse_object_name(false)?);
        AlterTableOperation::RenameTable { table_name }
    } else if parser.parse_keywords(&[Keyword::OWNER, Keyword::TO]) {
        AlterTableOperation::OwnerTo { new_owner: parser.parse_owner()? }
    } else {
        let mut options = Vec::new();
        while let Some(option) = option(parser)? {
            options.push(option);
        }
        if options.is_empty() {
            return parser.expected("an option of the sequence", parser.peek_token());
        }
        AlterTableOperation::SetOptionsParens { options }
    };
    Ok(Some(ast::Statement::AlterTable(AlterTable {
        name,
        if_exists,
        only: false,
        operations: vec![operation],
        location: None,
        on_cluster: None,
        table_type: Some(AlterTableType::Dynamic),
        end_token: AttachedToken::empty(),
    })))
}

fn option(parser: &mut Parser<'_>) -> Result<Option<SqlOption>, ParserError> {
    let word = |parser: &mut Parser<'_>, wanted: &str| {
        let found = matches!(&parser.peek_token().token,
            Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
        if found {
            let _word = parser.next_token();
        }
        found
    };
    let made = |name: &str, value: Expr| Ok(Some(SqlOption::KeyValue { key: Ident::new(name), value }));
    let nothing = || Expr::Value(Value::Null.with_empty_span());
    if word(parser, "as") {
        let ty = parser.parse_data_type()?;
        return made(
            "as",
            Expr::Cast {
                kind: ast::CastKind::DoubleColon,
                expr: Box::new(nothing()),
                data_type: ty,
                format: None,
            },
        );
    }
    if word(parser, "no") {
        for name in ["minvalue", "maxvalue", "cycle"] {
            if word(parser, name) {
                return made(if name == "cycle" { "no cycle" } else { name }, nothing());
            }
        }
        return parser.expected("MINVALUE, MAXVALUE or CYCLE", parser.peek_token());
    }
    if word(parser, "cycle") {
        return made("cycle", nothing());
    }
    if word(parser, "owned") {
        parser.expect_keyword(Keyword::BY)?;
        let column = parser.parse_object_name(false)?;
        let parts = column.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        return made("owned by", Expr::CompoundIdentifier(parts));
    }
    if word(parser, "restart") {
        let is_given = word(parser, "with")
            || matches!(parser.peek_token().token, Token::Number(..) | Token::Minus | Token::Plus);
        let value = if is_given { parser.parse_number()? } else { nothing() };
        return made("restart", value);
    }
    for (name, filler) in
        [("increment", "by"), ("start", "with"), ("minvalue", ""), ("maxvalue", ""), ("cache", "")]
    {
        if word(parser, name) {
            if !filler.is_empty() {
                let _filler = word(parser, filler);
            }
            return made(name, parser.parse_number()?);
        }
    }
    Ok(None)
}
