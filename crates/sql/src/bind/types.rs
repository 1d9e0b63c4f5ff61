//! Names of types, those that users made among them, and the conditions of domains.
//!
//! A text that the catalog keeps names a type that a user made by its number, `pg_catalog."16384"`, so that it means
//! the same whatever the type is called later; who shows such a text puts the name in its place.

use std::sync::Arc;

use rustydb_types::datatype::{DataType, TypeNameError};
use rustydb_types::ids::{ColumnId, Oid};
use rustydb_types::value::Value;
use sqlparser::ast;

use super::context::Binder;
use super::errors::{at, fail, syntax, unsupported};
use super::privilege::denied;
use crate::catalog::acl::{AclKind, Privileges};
use crate::catalog::descriptor::{KnownTypes, TypeRef};
use crate::catalog::{ColumnDescriptor, StorageId, TableDescriptor, TypeDescriptor, TypeKind, UserType};
use crate::error::{SqlError, SqlState};
use crate::pgcatalog::definition::qualified;
use crate::scalar::{EvalContext, Expr};

/// What stands before the number of a type in a text that is kept.
const BY_NUMBER: &str = "pg_catalog.\"";

/// A type as a text that is kept names it.
#[must_use]
pub fn kept_name(data_type: DataType) -> String {
    match data_type.base.enumeration() {
        Some(definition) => {
            let array = if data_type.element().is_some() { "[]" } else { "" };
            format!("{}{array}", by_number(definition.oid))
        }
        None => data_type.to_string(),
    }
}

/// A type that a user made as a text that is kept names it.
#[must_use]
pub fn by_number(oid: u32) -> String {
    format!("{BY_NUMBER}{oid}\"")
}

/// A kept text with the names of types that it has by number.
pub fn with_names(text: &str, name: impl Fn(u32) -> Option<String>) -> String {
    if !text.contains(BY_NUMBER) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BY_NUMBER) {
        // Within a literal such words mean nothing, but no literal that is kept has so many quotes before them.
        let number = after.split_once('"').and_then(|(digits, rest)| Some((digits.parse().ok()?, rest)));
        let named = number.and_then(|(oid, rest)| Some((name(oid)?, rest)));
        shown.push_str(before);
        match named {
            Some((name, behind)) => {
                shown.push_str(&name);
                rest = behind;
            }
            None => {
                shown.push_str(BY_NUMBER);
                rest = after;
            }
        }
    }
    shown.push_str(rest);
    shown
}

/// A domain whose conditions are bound.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundDomain {
    /// Its number.
    pub oid: Oid,
    /// Its schema.
    schema: String,
    /// Its name.
    name: String,
    /// Its name as messages have it.
    pub shown: String,
    /// Whether it, or a domain under it, refuses NULL.
    not_null: bool,
    /// The constraints in the order in which they are asked: name, and condition over the value.
    checks: Vec<(String, Expr)>,
}

impl BoundDomain {
    /// Refuses a value that is none of the domain's.
    ///
    /// # Errors
    /// 23502, 23514, and those of the conditions.
    pub fn check(&self, value: &Value, eval: &EvalContext<'_>) -> Result<(), SqlError> {
        if self.not_null && value.is_null() {
            let message = format!("domain {} does not allow null values", self.shown);
            return Err(self.refused(fail(SqlState::NOT_NULL_VIOLATION, message)));
        }
        for (name, condition) in &self.checks {
            // NULL passes.
            if condition.eval(std::slice::from_ref(value), eval)? == Value::Bool(false) {
                let message = format!("value for domain {} violates check constraint \"{name}\"", self.shown);
                let error = self.refused(fail(SqlState::CHECK_VIOLATION, message));
                return Err(error.with_constraint(name.clone()));
            }
        }
        Ok(())
    }

    fn refused(&self, error: SqlError) -> SqlError {
        error.with_data_type(self.schema.clone(), self.name.clone())
    }
}

/// A row of one column, `VALUE`, over which the conditions of a domain are bound.
pub(crate) fn domain_row(name: &str, base: DataType, types: &KnownTypes) -> TableDescriptor {
    TableDescriptor {
        oid: Oid::new(0),
        schema: Oid::new(0),
        name: name.to_owned(),
        owner: Oid::new(0),
        acl: None,
        columns: vec![ColumnDescriptor {
            id: ColumnId::new(1),
            name: "value".to_owned(),
            data_type: base.into(),
            not_null: false,
            default: None,
            missing: None,
            identity: None,
            generated: None,
            acl: None,
        }],
        next_column: 2,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        computed: Vec::new(),
        storage: StorageId::new(0),
        row_key: Vec::new(),
        options: std::collections::BTreeMap::new(),
        at_commit: crate::catalog::AtCommit::Keep,
        types: types.clone(),
    }
}

impl Binder<'_> {
    /// The type that values of a written type have.
    ///
    /// # Errors
    /// As [`Binder::declared_type`].
    pub(crate) fn type_name(&self, written: &ast::DataType) -> Result<DataType, SqlError> {
        self.declared_type(written).map(TypeRef::data_type)
    }

    /// The type that a written type name means.
    ///
    /// # Errors
    /// 42704 when there is none, 3F000 without its schema, and those of what stands in parentheses.
    pub(crate) fn declared_type(&self, written: &ast::DataType) -> Result<TypeRef, SqlError> {
        if let ast::DataType::Custom(whole, modifiers) = written
            && let Ok((schema, name)) = self.split_name(whole)
        {
            let is_built_in = schema.is_none_or(|schema| schema.value == "pg_catalog");
            let known = match name.value.as_str() {
                // Without quotes it is the word for character(1).
                "char" if schema.is_some() || name.quote_style.is_some() => "\"char\"",
                name => name,
            };
            if modifiers.is_empty()
                && is_built_in
                && let Some(found) = DataType::parse(known)
            {
                return Ok(found.into());
            }
            if let Some(found) = self.user_type(schema, name)? {
                if !modifiers.is_empty() {
                    return Err(syntax(format!("type modifier is not allowed for type \"{}\"", name.value)));
                }
                if schema.is_none_or(|schema| schema.value != "pg_catalog") {
                    self.note_type(whole, found.oid);
                }
                return Ok(found);
            }
        }
        if let ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) = written
            && let inner = self.array_element(inner)
            && matches!(inner, ast::DataType::Custom(..))
            && !self.context.catalog.known_types().is_empty()
        {
            let element = self.declared_type(inner)?;
            if element.is_domain() {
                return Err(unsupported("an array of a domain"));
            }
            if element.known.is_some()
                && let Some(array) = element.data_type().array()
            {
                return Ok(array.into());
            }
        }
        let text = written.to_string();
        let text = text.to_lowercase();
        DataType::read(&text.replace("pg_catalog.", "")).map(TypeRef::from).map_err(|error| match error {
            TypeNameError::Unknown => {
                fail(SqlState::UNDEFINED_OBJECT, format!("type \"{written}\" does not exist"))
            }
            TypeNameError::Modifier(message) if message.contains("not allowed") => syntax(message),
            TypeNameError::Modifier(message) => fail(SqlState::INVALID_PARAMETER_VALUE, message),
        })
    }

    /// The innermost element of arrays of arrays, which are one type.
    fn array_element<'t>(&self, written: &'t ast::DataType) -> &'t ast::DataType {
        match written {
            ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) => self.array_element(inner),
            other => other,
        }
    }

    /// A type that a user made, by name, or in a kept text by number.
    fn user_type(&self, schema: Option<&ast::Ident>, name: &ast::Ident) -> Result<Option<TypeRef>, SqlError> {
        let catalog = &self.context.catalog;
        let known = |oid: u32| {
            let found = catalog.known_types().get(oid)?;
            Some(TypeRef { oid, modifier: -1, known: Some(found.data_type()) })
        };
        let in_schema = |schema: &str| {
            let found = catalog.type_named(catalog.schema_named(schema)?.oid, &name.value);
            known(found?.oid.get()).or_else(|| self.array_named(schema, &name.value))
        };
        match schema {
            Some(schema) if schema.value == "pg_catalog" => Ok(name.value.parse().ok().and_then(known)),
            Some(schema) if catalog.schema_named(&schema.value).is_none() => {
                let message = format!("schema \"{}\" does not exist", schema.value);
                Err(fail(SqlState::INVALID_SCHEMA_NAME, message))
            }
            Some(schema) => {
                if let Some(named) = catalog.schema_named(&schema.value) {
                    self.need_schema(named).map_err(|error| at(error, schema))?;
                }
                Ok(in_schema(&schema.value).or_else(|| self.array_named(&schema.value, &name.value)))
            }
            None => Ok(self
                .search_schemas()
                .find_map(|schema| in_schema(schema).or_else(|| self.array_named(schema, &name.value)))),
        }
    }

    /// An array type by its own name: `_mood`.
    fn array_named(&self, schema: &str, name: &str) -> Option<TypeRef> {
        let catalog = &self.context.catalog;
        let schema = catalog.schema_named(schema)?.oid;
        let of = catalog.types().find(|known| known.schema == schema && known.array_name == name)?;
        let found = catalog.known_types().get(of.array_oid.get())?;
        Some(found.data_type().into())
    }

    /// The descriptor of the type that a name means, if a user made it.
    ///
    /// # Errors
    /// 3F000 when its schema does not exist, 42501 when the role may not use that, 42809 for an array type.
    pub(crate) fn find_type(&self, name: &ast::ObjectName) -> Result<Option<Arc<TypeDescriptor>>, SqlError> {
        let Some((found, is_array)) = self.type_or_array(name)? else { return Ok(None) };
        if is_array {
            let shown = self.shown_type(&found);
            let message = format!("cannot alter array type {shown}[]");
            return Err(fail(SqlState::WRONG_OBJECT_TYPE, message)
                .with_hint(format!("You can alter type {shown}, which will alter the array type as well.")));
        }
        Ok(Some(found))
    }

    /// The same, and whether the name is that of arrays of it.
    ///
    /// # Errors
    /// 3F000 and 42501 for its schema.
    pub(crate) fn type_or_array(
        &self,
        name: &ast::ObjectName,
    ) -> Result<Option<(Arc<TypeDescriptor>, bool)>, SqlError> {
        let (schema, name) = self.split_name(name)?;
        let Some(found) = self.user_type(schema, name)?.map(|found| Oid::new(found.oid)) else {
            return Ok(None);
        };
        let descriptor = self.context.catalog.type_descriptor(found).cloned();
        Ok(descriptor.map(|descriptor| (Arc::clone(&descriptor), descriptor.oid != found)))
    }

    /// Refuses a type to a role that may not use it.
    ///
    /// # Errors
    /// 42501.
    pub(crate) fn require_type(&self, declared: TypeRef) -> Result<(), SqlError> {
        let Some(own) = self.context.catalog.type_descriptor(Oid::new(declared.oid)) else { return Ok(()) };
        if self.context.authority.may(Privileges::USAGE, AclKind::Type, own.owner, own.acl.as_ref()) {
            Ok(())
        } else {
            Err(denied("type", &self.shown_type(own)))
        }
    }

    /// The conditions of a domain, those of the domains under it first.
    ///
    /// # Errors
    /// When one cannot be read, which none should.
    pub(crate) fn bind_domain(&self, oid: u32) -> Result<Option<Arc<BoundDomain>>, SqlError> {
        let catalog = &self.context.catalog;
        let types = catalog.known_types();
        let Some(UserType::Domain(own, base)) = types.get(oid) else { return Ok(None) };
        let row = domain_row(&own.name, *base, &KnownTypes(Arc::clone(types)));
        let (mut not_null, mut checks) = (false, Vec::new());
        for domain in types.domains(oid) {
            let TypeKind::Domain { not_null: refuses, checks: own, .. } = &domain.kind else { continue };
            not_null |= refuses;
            let mut bound = Vec::with_capacity(own.len());
            for check in own {
                bound.push((check.name.clone(), self.bind_domain_check(&check.expr, &row)?));
            }
            bound.sort_by(|(a, _), (b, _)| a.cmp(b));
            checks.extend(bound);
        }
        let schema = catalog.schema(own.schema).map(|schema| schema.name.clone()).unwrap_or_default();
        let shown = self.shown_type(own);
        Ok(Some(Arc::new(BoundDomain {
            oid: own.oid,
            schema,
            name: own.name.clone(),
            shown,
            not_null,
            checks,
        })))
    }

    /// A type as messages name it: with its schema where the search path does not find it.
    pub(crate) fn shown_type(&self, descriptor: &TypeDescriptor) -> String {
        let found = self.user_type(None, &ast::Ident::new(descriptor.name.clone()));
        let is_visible = matches!(found, Ok(Some(found)) if found.oid == descriptor.oid.get());
        let schema = self.context.catalog.schema(descriptor.schema).filter(|_| !is_visible);
        qualified(schema.map(|schema| schema.name.as_str()), &descriptor.name)
    }

    /// A value that is brought to a domain, whose conditions are asked.
    ///
    /// # Errors
    /// As [`Binder::bind_domain`].
    pub(crate) fn as_domain(&self, value: Expr, declared: TypeRef) -> Result<Expr, SqlError> {
        if !declared.is_domain() {
            return Ok(value);
        }
        Ok(match self.bind_domain(declared.oid)? {
            Some(domain) => Expr::Domain { input: Box::new(value), domain },
            None => value,
        })
    }

    /// The default of a domain, or of one under it.
    pub(crate) fn domain_default(&self, declared: TypeRef) -> Option<crate::catalog::StoredExpr> {
        if !declared.is_domain() {
            return None;
        }
        let domains = self.context.catalog.known_types().domains(declared.oid);
        domains.iter().rev().find_map(|domain| match &domain.kind {
            TypeKind::Domain { default, .. } => default.clone(),
            TypeKind::Enum(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_types_become_names() {
        let name = |oid| (oid == 16_384).then(|| "mood".to_owned());
        let shown = |text| with_names(text, name);
        assert_eq!(shown("'sad'::pg_catalog.\"16384\""), "'sad'::mood");
        assert_eq!(shown("ARRAY[a]::pg_catalog.\"16384\"[] = b"), "ARRAY[a]::mood[] = b");
        assert_eq!(shown("'x'::pg_catalog.\"1\""), "'x'::pg_catalog.\"1\"");
        assert_eq!(shown("a > 1"), "a > 1");
    }
}
