//! Schemas, data and statements, from a seed.

use super::values::{Type, makers};
use crate::crash::dice::Dice;

/// A column that a statement may use.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    ty: Type,
}

/// A table.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    columns: Vec<Column>,
}

/// A statement.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// Whether the order of its rows is told; else they are compared without it.
    pub(super) is_ordered: bool,
    /// Whether it changes nothing.
    pub(super) is_query: bool,
}

/// Makes the statements of a seed.
pub(super) struct Generator {
    dice: Dice,
    tables: Vec<Table>,
    aliases: u32,
}

/// A query with the types of its columns.
struct Query {
    sql: String,
    types: Vec<Type>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), tables: Vec::new(), aliases: 0 }
    }

    fn below(&mut self, count: u64) -> u64 {
        self.dice.below(count)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.dice.chance(1, count)
    }

    /// The tables with their first rows.
    pub(super) fn schema(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        for number in 0..2 + self.below(2) {
            let mut columns = vec![Column { name: "id".into(), ty: Type::Int4 }];
            for place in 0..3 + self.below(5) {
                columns.push(Column { name: format!("c{place}"), ty: *self.dice.pick(Type::ALL) });
            }
            let name = format!("t{number}");
            let mut parts = Vec::new();
            for column in &columns {
                let mut part = format!("{} {}", column.name, column.ty.sql());
                if column.name == "id" {
                    part.push_str(" PRIMARY KEY");
                } else if self.one_in(5) {
                    part.push_str(&format!(" DEFAULT {}", column.ty.literal(&mut self.dice)));
                } else if self.one_in(10) && column.ty != Type::Jsonb {
                    part.push_str(" UNIQUE");
                }
                parts.push(part);
            }
            if self.one_in(3) {
                parts.push(format!("CHECK (id < {})", 40 + self.below(1000)));
            }
            statements.push(change(format!("CREATE TABLE {name} ({})", parts.join(", "))));
            if self.one_in(2) {
                let column = columns[self.below(columns.len() as u64) as usize].clone();
                let direction = if self.one_in(3) { " DESC" } else { "" };
                statements.push(change(format!("CREATE INDEX ON {name} ({}{direction}, id)", column.name)));
            }
            self.tables.push(Table { name, columns });
        }
        for place in 0..self.tables.len() {
            for _ in 0..8 {
                let insert = self.insert_into(place);
                statements.push(insert);
            }
        }
        statements
    }

    /// The next statement.
    pub(super) fn statement(&mut self) -> Statement {
        match self.below(20) {
            0 | 1 => {
                let place = self.below(self.tables.len() as u64) as usize;
                self.insert_into(place)
            }
            2 => self.insert_select(),
            3 | 4 => self.update(),
            5 => self.delete(),
            _ => self.select(),
        }
    }

    fn table(&mut self) -> Table {
        self.dice.pick(&self.tables).clone()
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("a{}", self.aliases)
    }

    /// An expression of a type over some columns.
    fn expr(&mut self, ty: Type, columns: &[Column], depth: u32) -> String {
        let fitting: Vec<&Column> = columns.iter().filter(|column| column.ty == ty).collect();
        if !fitting.is_empty() && !self.one_in(3) {
            return self.dice.pick(&fitting).name.clone();
        }
        if depth == 0 || self.one_in(5) {
            return ty.literal(&mut self.dice);
        }
        match self.below(24) {
            0 => {
                let (when, then) =
                    (self.expr(Type::Bool, columns, depth - 1), self.expr(ty, columns, depth - 1));
                let otherwise = self.expr(ty, columns, depth - 1);
                return format!("CASE WHEN {when} THEN {then} ELSE {otherwise} END");
            }
            1 if ty.has_min() && depth > 1 => {
                let table = self.table();
                let alias = self.alias();
                let inner = qualified(&table, &alias);
                let value = self.expr(ty, &inner, 1);
                let all: Vec<Column> = inner.iter().chain(columns).cloned().collect();
                let condition = self.expr(Type::Bool, &all, 1);
                return format!("(SELECT max({value}) FROM {} {alias} WHERE {condition})", table.name);
            }
            2 if ty == Type::Bool && depth > 1 => {
                let table = self.table();
                let alias = self.alias();
                let inner = qualified(&table, &alias);
                let all: Vec<Column> = inner.iter().chain(columns).cloned().collect();
                let condition = self.expr(Type::Bool, &all, 1);
                let not = if self.one_in(2) { "NOT " } else { "" };
                return format!("({not}EXISTS (SELECT 1 FROM {} {alias} WHERE {condition}))", table.name);
            }
            3 if ty == Type::Bool && depth > 1 => {
                let table = self.table();
                let alias = self.alias();
                let inner = qualified(&table, &alias);
                let column = self.dice.pick(&inner).clone();
                let left = self.expr(column.ty, columns, 1);
                let not = if self.one_in(3) { "NOT " } else { "" };
                return format!("({left} {not}IN (SELECT {} FROM {} {alias}))", column.name, table.name);
            }
            _ => {}
        }
        let makers = makers(ty);
        let (template, operands) = self.dice.pick(makers);
        let mut out = String::new();
        let mut operands = operands.iter();
        for part in template.split('$') {
            if !out.is_empty() || !part.is_empty() || template.starts_with('$') {
                out.push_str(part);
            }
            if let Some(operand) = operands.next() {
                let operand = self.expr(*operand, columns, depth - 1);
                // The parser takes a subquery that begins a list for all of it.
                let begins_list = template.contains("IN ($") && operand.starts_with("(SELECT");
                let operand = if begins_list { format!("coalesce({operand})") } else { operand };
                let is_cast = template.starts_with("$::");
                if is_cast { out.push_str(&format!("({operand})")) } else { out.push_str(&operand) }
            }
        }
        out
    }

    fn insert_into(&mut self, place: usize) -> Statement {
        let table = self.tables[place].clone();
        let mut columns: Vec<&Column> =
            table.columns.iter().filter(|column| column.name == "id" || !self.dice.chance(1, 8)).collect();
        if self.one_in(3) {
            columns.reverse();
        }
        let mut rows = Vec::new();
        for _ in 0..1 + self.below(3) {
            let values: Vec<String> = columns
                .iter()
                .map(|column| match column.name.as_str() {
                    "id" => self.below(40).to_string(),
                    _ if self.one_in(12) => "DEFAULT".to_owned(),
                    _ => {
                        let depth = u32::from(self.dice.chance(1, 3));
                        self.expr(column.ty, &[], depth)
                    }
                })
                .collect();
            rows.push(format!("({})", values.join(", ")));
        }
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let mut sql = format!("INSERT INTO {} ({}) VALUES {}", table.name, names.join(", "), rows.join(", "));
        match self.below(4) {
            0 => sql.push_str(" ON CONFLICT DO NOTHING"),
            1 | 2 => {
                let column = self.dice.pick(&table.columns[1..]).clone();
                let mut over = qualified(&table, &table.name);
                over.extend(qualified(&table, "excluded"));
                let value = self.expr(column.ty, &over, 1);
                sql.push_str(&format!(" ON CONFLICT (id) DO UPDATE SET {} = {value}", column.name));
            }
            _ => {}
        }
        self.returning(&mut sql, &table);
        change(sql)
    }

    fn returning(&mut self, sql: &mut String, table: &Table) {
        if self.one_in(3) {
            let ty = *self.dice.pick(Type::ALL);
            let columns = qualified(table, &table.name);
            let value = self.expr(ty, &columns, 1);
            sql.push_str(&format!(" RETURNING {}.id, {value}", table.name));
        }
    }

    fn insert_select(&mut self) -> Statement {
        let (into, from) = (self.table(), self.table());
        let columns = qualified(&from, "s");
        let column = self.dice.pick(&into.columns[1..]).clone();
        let value = self.expr(column.ty, &columns, 2);
        let condition = self.expr(Type::Bool, &columns, 2);
        let shift = 40 + self.below(100);
        change(format!(
            "INSERT INTO {} (id, {}) SELECT s.id + {shift}, {value} FROM {} s WHERE {condition} ORDER BY s.id LIMIT 5",
            into.name, column.name, from.name
        ))
    }

    fn update(&mut self) -> Statement {
        let table = self.table();
        let mut columns = qualified(&table, &table.name);
        let mut from = String::new();
        if self.one_in(3) {
            let other = self.table();
            from = format!(" FROM {} o", other.name);
            columns.extend(qualified(&other, "o"));
        }
        let column = self.dice.pick(&table.columns[1..]).clone();
        // With FROM a row may match several: the value must not depend on which.
        let own = qualified(&table, &table.name);
        let value = self.expr(column.ty, &own, 2);
        let condition = self.expr(Type::Bool, &columns, 2);
        let mut sql = format!("UPDATE {} SET {} = {value}{from} WHERE {condition}", table.name, column.name);
        self.returning(&mut sql, &table);
        change(sql)
    }

    fn delete(&mut self) -> Statement {
        let table = self.table();
        let own = qualified(&table, &table.name);
        let condition = self.expr(Type::Bool, &own, 2);
        let mut sql = format!(
            "DELETE FROM {} WHERE {}.id % 3 = {} AND {condition}",
            table.name,
            table.name,
            self.below(3)
        );
        self.returning(&mut sql, &table);
        change(sql)
    }

    fn select(&mut self) -> Statement {
        let query = match self.below(8) {
            0 => self.set_operation(),
            1 | 2 => self.grouped(),
            3 => self.windowed(),
            4 => self.over_a_query(),
            _ => self.plain(),
        };
        let count = query.types.len();
        let mut sql = query.sql;
        let is_ordered = self.one_in(2);
        if is_ordered {
            let keys: Vec<String> = (1..=count)
                .map(|place| {
                    let order = *self.dice.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
                    format!("{place}{order}")
                })
                .collect();
            sql.push_str(&format!(" ORDER BY {}", keys.join(", ")));
            if self.one_in(2) {
                sql.push_str(&format!(" LIMIT {}", self.below(6)));
            }
            if self.one_in(4) {
                sql.push_str(&format!(" OFFSET {}", self.below(4)));
            }
        }
        Statement { sql, is_ordered, is_query: true }
    }

    /// FROM with the columns that it has.
    fn from(&mut self) -> (String, Vec<Column>) {
        let table = self.table();
        let alias = self.alias();
        let mut sql = format!("{} {alias}", table.name);
        let mut columns = qualified(&table, &alias);
        for _ in 0..self.below(3) {
            let other = self.table();
            let alias = self.alias();
            let theirs = qualified(&other, &alias);
            let both: Vec<Column> = columns.iter().chain(&theirs).cloned().collect();
            match self.below(6) {
                0 => sql.push_str(&format!(" CROSS JOIN {} {alias}", other.name)),
                1 => {
                    // Only what can be hashed or merged is allowed here.
                    let left = columns[0].name.clone();
                    sql.push_str(&format!(" FULL JOIN {} {alias} ON {left} = {alias}.id", other.name));
                }
                kind => {
                    let kind = if kind == 2 {
                        "RIGHT"
                    } else if kind == 3 {
                        "LEFT"
                    } else {
                        "INNER"
                    };
                    let condition = if self.one_in(2) {
                        format!("{} = {alias}.id", columns[0].name)
                    } else {
                        self.expr(Type::Bool, &both, 2)
                    };
                    sql.push_str(&format!(" {kind} JOIN {} {alias} ON {condition}", other.name));
                }
            }
            columns = both;
        }
        (sql, columns)
    }

    fn condition(&mut self, columns: &[Column]) -> String {
        if self.one_in(4) { String::new() } else { format!(" WHERE {}", self.expr(Type::Bool, columns, 3)) }
    }

    fn types(&mut self, most: u64) -> Vec<Type> {
        (0..1 + self.below(most)).map(|_| *self.dice.pick(Type::ALL)).collect()
    }

    fn plain(&mut self) -> Query {
        let (from, columns) = self.from();
        let types = self.types(4);
        let values: Vec<String> = types.iter().map(|ty| self.expr(*ty, &columns, 3)).collect();
        let distinct = if self.one_in(5) { "DISTINCT " } else { "" };
        let condition = self.condition(&columns);
        Query { sql: format!("SELECT {distinct}{} FROM {from}{condition}", values.join(", ")), types }
    }

    fn aggregate(&mut self, columns: &[Column]) -> (String, Type) {
        let ty = *self.dice.pick(Type::ALL);
        let value = self.expr(ty, columns, 2);
        let distinct = if self.one_in(4) { "DISTINCT " } else { "" };
        match self.below(8) {
            0 => ("count(*)".into(), Type::Int8),
            1 if ty.has_sum() => (format!("sum({distinct}{value})"), Type::Numeric),
            2 if ty.has_sum() => (format!("avg({value})"), Type::Numeric),
            3 if ty.has_min() => (format!("min({value})"), ty),
            4 if ty.has_min() => (format!("max({value})"), ty),
            // Of values that are equal and look different, any may come first.
            5 if ty.has_one_look() => (format!("array_agg({value} ORDER BY {value})"), Type::Texts),
            6 => (format!("bool_or({})", self.expr(Type::Bool, columns, 2)), Type::Bool),
            7 => {
                let text = self.expr(Type::Text, columns, 2);
                (format!("string_agg({text}, ',' ORDER BY {text})"), Type::Text)
            }
            _ => (format!("count({distinct}{value})"), Type::Int8),
        }
    }

    fn grouped(&mut self) -> Query {
        let (from, columns) = self.from();
        let keys: Vec<Column> = (0..self.below(3)).map(|_| self.dice.pick(&columns).clone()).collect();
        let mut values: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
        let mut types: Vec<Type> = keys.iter().map(|key| key.ty).collect();
        for _ in 0..1 + self.below(3) {
            let (value, ty) = self.aggregate(&columns);
            let filter = if self.one_in(5) {
                format!(" FILTER (WHERE {})", self.expr(Type::Bool, &columns, 1))
            } else {
                String::new()
            };
            values.push(format!("{value}{filter}"));
            types.push(ty);
        }
        let condition = self.condition(&columns);
        let mut sql = format!("SELECT {} FROM {from}{condition}", values.join(", "));
        if !keys.is_empty() {
            let keys: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            let keys = keys.join(", ");
            let keys = match self.below(8) {
                0 => format!("ROLLUP ({keys})"),
                1 => format!("CUBE ({keys})"),
                2 => format!("GROUPING SETS (({keys}), ())"),
                _ => keys,
            };
            sql.push_str(&format!(" GROUP BY {keys}"));
        }
        if self.one_in(4) {
            sql.push_str(&format!(" HAVING count(*) > {}", self.below(3)));
        }
        Query { sql, types }
    }

    fn windowed(&mut self) -> Query {
        let (from, columns) = self.from();
        let partition = self.dice.pick(&columns).clone();
        let order = self.dice.pick(&columns).clone();
        let by = if self.one_in(2) { format!("PARTITION BY {} ", partition.name) } else { String::new() };
        let value = self.expr(Type::Int4, &columns, 2);
        let call = match self.below(6) {
            0 => "rank()".to_owned(),
            1 => "dense_rank()".to_owned(),
            2 => "count(*)".to_owned(),
            3 => format!("sum({value})"),
            4 => format!("max({value})"),
            _ => "percent_rank()".to_owned(),
        };
        let condition = self.condition(&columns);
        let sql = format!(
            "SELECT {}, {call} OVER ({by}ORDER BY {}) FROM {from}{condition}",
            columns[0].name, order.name
        );
        Query { sql, types: vec![Type::Int4, Type::Int8] }
    }

    fn over_a_query(&mut self) -> Query {
        let inner = if self.one_in(2) { self.grouped() } else { self.plain() };
        let alias = self.alias();
        let columns: Vec<Column> = inner
            .types
            .iter()
            .enumerate()
            .map(|(place, ty)| Column { name: format!("{alias}.x{place}"), ty: *ty })
            .collect();
        // What an aggregate really gives has another type now and then: only whole columns are used, and their count.
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let plain: Vec<String> = (0..inner.types.len()).map(|place| format!("x{place}")).collect();
        let sql = if self.one_in(2) {
            format!(
                "WITH {alias}({}) AS ({}) SELECT {} FROM {alias}",
                plain.join(", "),
                inner.sql,
                names.join(", ")
            )
        } else {
            format!("SELECT {} FROM ({}) {alias}({})", names.join(", "), inner.sql, plain.join(", "))
        };
        Query { sql, types: inner.types }
    }

    fn set_operation(&mut self) -> Query {
        let types = self.types(3);
        let mut parts = Vec::new();
        for _ in 0..2 {
            let (from, columns) = self.from();
            let values: Vec<String> = types.iter().map(|ty| self.expr(*ty, &columns, 2)).collect();
            let condition = self.condition(&columns);
            parts.push(format!("SELECT {} FROM {from}{condition}", values.join(", ")));
        }
        let operation =
            *self.dice.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"]);
        Query { sql: parts.join(&format!(" {operation} ")), types }
    }
}

fn change(sql: String) -> Statement {
    Statement { sql, is_ordered: false, is_query: false }
}

fn qualified(table: &Table, alias: &str) -> Vec<Column> {
    table
        .columns
        .iter()
        .map(|column| Column { name: format!("{alias}.{}", column.name), ty: column.ty })
        .collect()
}
