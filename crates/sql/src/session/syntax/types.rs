//! CREATE DOMAIN, ALTER DOMAIN, DROP DOMAIN, and the forms of ALTER TYPE that the parser does not know.
//!
//! In the tree ALTER DOMAIN, and ALTER TYPE with an owner, stand as ALTER ICEBERG TABLE, a statement of other databases,
//! the latter with `IF EXISTS`; DROP DOMAIN as DROP TYPE with PURGE; and NOT NULL of a domain as a CHECK that is marked.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    self, AlterColumnOperation, AlterTable, AlterTableOperation, AlterTableType, CheckConstraint, Expr,
    Ident, ObjectType, RenameTableNameKind, Statement, TableConstraint,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// Whether a constraint stands for NOT NULL.
#[must_use]
pub fn is_not_null_mark(check: &CheckConstraint) -> bool {
    check.enforced == Some(true) && matches!(*check.expr, Expr::IsNotNull(_))
}

fn not_null() -> TableConstraint {
    TableConstraint::Check(CheckConstraint {
        name: None,
        expr: Box::new(Expr::IsNotNull(Box::new(Expr::Identifier(Ident::new("value"))))),
        enforced: Some(true),
        no_inherit: false,
    })
}

/// A statement about types, if it is one that the parser does not know; the parser stands behind it then.
pub(super) fn statement(parser: &mut Parser<'_>) -> Result<Option<Statement>, ParserError> {
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::DOMAIN]) {
        return create(parser).map(Some);
    }
    if parser.parse_keywords(&[Keyword::ALTER, Keyword::DOMAIN]) {
        return alter(parser).map(Some);
    }
    if parser.parse_keywords(&[Keyword::DROP, Keyword::DOMAIN]) {
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let names = parser.parse_comma_separated(|parser| parser.parse_object_name(false))?;
        let cascade = parser.parse_keyword(Keyword::CASCADE);
        let restrict = !cascade && parser.parse_keyword(Keyword::RESTRICT);
        return Ok(Some(Statement::Drop {
            object_type: ObjectType::Type,
            if_exists,
            names,
            cascade,
            restrict,
            purge: true,
            temporary: false,
            table: None,
        }));
    }
    parser.maybe_parse(|parser| {
        parser.expect_keywords(&[Keyword::ALTER, Keyword::TYPE])?;
        let name = parser.parse_object_name(false)?;
        parser.expect_keywords(&[Keyword::OWNER, Keyword::TO])?;
        let new_owner = parser.parse_owner()?;
        Ok(altered(name, AlterTableOperation::OwnerTo { new_owner }, true))
    })
}

fn altered(name: ast::ObjectName, operation: AlterTableOperation, is_type: bool) -> Statement {
    Statement::AlterTable(AlterTable {
        name,
        if_exists: is_type,
        only: false,
        operations: vec![operation],
        location: None,
        on_cluster: None,
        table_type: Some(AlterTableType::Iceberg),
        end_token: AttachedToken::empty(),
    })
}

fn create(parser: &mut Parser<'_>) -> Result<Statement, ParserError> {
    let name = parser.parse_object_name(false)?;
    let _as = parser.parse_keyword(Keyword::AS);
    let data_type = parser.parse_data_type()?;
    let mut made =
        ast::CreateDomain { name, data_type, collation: None, default: None, constraints: Vec::new() };
    loop {
        if parser.parse_keyword(Keyword::COLLATE) {
            made.collation = Some(parser.parse_identifier()?);
        } else if made.default.is_none() && parser.parse_keyword(Keyword::DEFAULT) {
            // Below the level at which NOT could go on the expression.
            made.default = Some(parser.parse_subexpr(20)?);
        } else if let Some(constraint) = constraint(parser)? {
            made.constraints.extend(constraint);
        } else {
            return Ok(Statement::CreateDomain(made));
        }
    }
}

/// A constraint; nothing of NULL, which is what a domain without NOT NULL allows.
fn constraint(parser: &mut Parser<'_>) -> Result<Option<Option<TableConstraint>>, ParserError> {
    let name = match parser.parse_keyword(Keyword::CONSTRAINT) {
        true => Some(parser.parse_identifier()?),
        false => None,
    };
    if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
        return Ok(Some(Some(not_null())));
    }
    if parser.parse_keyword(Keyword::NULL) {
        return Ok(Some(None));
    }
    if parser.parse_keyword(Keyword::CHECK) {
        parser.expect_token(&sqlparser::tokenizer::Token::LParen)?;
        let expr = Box::new(parser.parse_expr()?);
        parser.expect_token(&sqlparser::tokenizer::Token::RParen)?;
        let check = CheckConstraint { name, expr, enforced: None, no_inherit: false };
        return Ok(Some(Some(TableConstraint::Check(check))));
    }
    match name {
        Some(_) => parser.expected("CHECK, NOT NULL or NULL", parser.peek_token()),
        None => Ok(None),
    }
}

fn alter(parser: &mut Parser<'_>) -> Result<Statement, ParserError> {
    let name = parser.parse_object_name(false)?;
    let column = |op| AlterTableOperation::AlterColumn { column_name: Ident::new("value"), op };
    let operation = if parser.parse_keywords(&[Keyword::SET, Keyword::DEFAULT]) {
        column(AlterColumnOperation::SetDefault { value: parser.parse_expr()? })
    } else if parser.parse_keywords(&[Keyword::DROP, Keyword::DEFAULT]) {
        column(AlterColumnOperation::DropDefault)
    } else if parser.parse_keywords(&[Keyword::SET, Keyword::NOT, Keyword::NULL]) {
        column(AlterColumnOperation::SetNotNull)
    } else if parser.parse_keywords(&[Keyword::DROP, Keyword::NOT, Keyword::NULL]) {
        column(AlterColumnOperation::DropNotNull)
    } else if parser.parse_keyword(Keyword::ADD) {
        match constraint(parser)?.flatten() {
            Some(constraint) => {
                let not_valid = parser.parse_keywords(&[Keyword::NOT, Keyword::VALID]);
                AlterTableOperation::AddConstraint { constraint, not_valid }
            }
            None => return parser.expected("a constraint", parser.peek_token()),
        }
    } else if parser.parse_keywords(&[Keyword::DROP, Keyword::CONSTRAINT]) {
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = parser.parse_identifier()?;
        let _behavior = parser.parse_keyword(Keyword::CASCADE) || parser.parse_keyword(Keyword::RESTRICT);
        AlterTableOperation::DropConstraint { if_exists, name, drop_behavior: None }
    } else if parser.parse_keywords(&[Keyword::RENAME, Keyword::CONSTRAINT]) {
        let old_name = parser.parse_identifier()?;
        parser.expect_keyword(Keyword::TO)?;
        AlterTableOperation::RenameConstraint { old_name, new_name: parser.parse_identifier()? }
    } else if parser.parse_keywords(&[Keyword::RENAME, Keyword::TO]) {
        let table_name = RenameTableNameKind::To(parser.parse_object_name(false)?);
        AlterTableOperation::RenameTable { table_name }
    } else if parser.parse_keywords(&[Keyword::VALIDATE, Keyword::CONSTRAINT]) {
        AlterTableOperation::ValidateConstraint { name: parser.parse_identifier()? }
    } else if parser.parse_keywords(&[Keyword::OWNER, Keyword::TO]) {
        AlterTableOperation::OwnerTo { new_owner: parser.parse_owner()? }
    } else {
        return parser.expected("a change of the domain", parser.peek_token());
    };
    Ok(altered(name, operation, false))
}
