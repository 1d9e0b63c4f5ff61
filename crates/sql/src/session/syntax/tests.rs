//! What each statement is understood as, and where syntax errors are.

use super::parse;
use crate::session::settings::Scope;
use crate::session::statement::{Chain, Isolation, Modes, Password, Statement, SystemStatement};

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap();
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

fn error(sql: &str) -> (String, String, Option<u32>) {
    let error = parse(sql).unwrap_err();
    (error.state().to_string(), error.message().to_owned(), error.fields().position)
}

#[test]
fn transaction_control_is_understood_in_all_spellings() {
    let modes =
        Modes { isolation: Some(Isolation::Serializable), read_only: Some(true), deferrable: Some(true) };
    for sql in [
        "begin isolation level serializable, read only, deferrable",
        "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    ] {
        assert_eq!(one(sql), Statement::Begin { modes, tag: "BEGIN" });
    }
    assert_eq!(
        one("start transaction read write"),
        Statement::Begin {
            modes: Modes { read_only: Some(false), ..Modes::default() },
            tag: "START TRANSACTION"
        }
    );
    assert_eq!(one("END WORK AND NO CHAIN"), Statement::Commit(Chain::NoChain));
    assert_eq!(one("commit and chain"), Statement::Commit(Chain::Chain));
    assert_eq!(one("abort"), Statement::Rollback(Chain::NoChain));
    assert_eq!(one("rollback work to savepoint \"A b\""), Statement::RollbackTo("A b".into()));
    assert_eq!(one("release S"), Statement::Release("s".into()));
    assert_eq!(
        one("set transaction isolation level repeatable read"),
        Statement::SetTransaction(Modes { isolation: Some(Isolation::RepeatableRead), ..Modes::default() })
    );
}

#[test]
fn settings_are_understood_in_all_spellings() {
    let set = |scope, name: &str, value: Option<&str>| Statement::Set {
        scope,
        name: name.into(),
        value: value.map(str::to_owned),
    };
    assert_eq!(one("set search_path = a, \"B\""), set(Scope::Session, "search_path", Some("a, B")));
    assert_eq!(one("SET LOCAL work_mem TO '8MB'"), set(Scope::Local, "work_mem", Some("8MB")));
    assert_eq!(one("set session time zone default"), set(Scope::Session, "TimeZone", None));
    assert_eq!(one("set names 'utf8'"), set(Scope::Session, "client_encoding", Some("utf8")));
    assert_eq!(one("set a.b to -1.5"), set(Scope::Session, "a.b", Some("-1.5")));
    assert_eq!(
        one("show transaction isolation level"),
        Statement::Show(Some("transaction_isolation".into()))
    );
    assert_eq!(one("show all"), Statement::Show(None));
    assert_eq!(one("reset all"), Statement::Reset(None));
}

#[test]
fn prepared_statements_keep_their_text() {
    let Statement::Prepare { name, param_types, sql, .. } =
        one("prepare p (int, varchar(3)) as select $1,  $2 ")
    else {
        panic!("not a PREPARE")
    };
    assert_eq!((name.as_str(), sql.as_str()), ("p", "select $1,  $2"));
    assert_eq!(param_types, vec![23, 1043]);
    assert_eq!(
        one("execute p(-1, 'x', null, true)"),
        Statement::Execute {
            name: "p".into(),
            params: vec![Some("-1".into()), Some("x".into()), None, Some("true".into())]
        }
    );
}

#[test]
fn roles_and_databases_are_understood() {
    let Statement::System(SystemStatement::CreateRole { name, properties, password }) =
        one("create user Ann with createdb password 'secret' connection limit 3")
    else {
        panic!("not a role")
    };
    assert_eq!(name, "ann");
    assert_eq!((properties.login, properties.create_database), (Some(true), Some(true)));
    assert_eq!(properties.connection_limit, Some(3));
    assert_eq!(password, Password::Given("secret".into()));
    assert!(!format!("{password:?}").contains("secret"));
    assert_eq!(
        one("create database d with owner = ann encoding 'UTF8'"),
        Statement::System(SystemStatement::CreateDatabase { name: "d".into(), owner: Some("ann".into()) })
    );
    assert_eq!(
        one("drop database if exists d with (force)"),
        Statement::System(SystemStatement::DropDatabase { name: "d".into(), if_exists: true })
    );
    assert_eq!(error("create database d tablespace x").0, "0A000");
}

#[test]
fn what_the_planner_gets_is_split_at_semicolons() {
    let statements = parse("select 1; ;insert into t values (';');-- end\n").unwrap();
    assert_eq!(statements.len(), 2);
    assert!(statements[0].looks_read_only());
    assert!(!statements[1].looks_read_only());
    assert!(!one("select * from t for update").looks_read_only());
    assert!(parse(" ; ").unwrap().is_empty());
}

#[test]
fn syntax_errors_say_where() {
    assert_eq!(error("selec 1").1, "syntax error at or near \"selec\"");
    assert_eq!(error("selec 1").2, Some(1));
    assert_eq!(
        error("select 1; select 2 frm x y"),
        ("42601".into(), "syntax error at or near \"x\"".into(), Some(24))
    );
    assert_eq!(error("select 1 +").1, "syntax error at end of input");
    assert_eq!(error("begin foo").1, "syntax error at or near \"foo\"");
    assert_eq!(error("commit; rollback to").1, "syntax error at end of input");
    let deep = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(error(&deep).0, "54001");
}

/// Chains that the parser reads in a loop, and statements in statements, become trees as deep as they are long.
#[test]
fn long_chains_are_refused_and_long_lists_are_not() {
    for part in [" + 1", " || 'a'", " AND true", "::int", " IS NULL", " UNION SELECT 1"] {
        assert_eq!(error(&format!("SELECT 1{}", part.repeat(40_000))).0, "54001", "{part}");
    }
    // The parser counts two of its 200 levels for an operator and the parenthesis behind it.
    let nested =
        |levels| format!("SELECT {}1{}", "(1 + 1 + 1 + 1 + 1 + 1 + ".repeat(levels), ")".repeat(levels));
    one(&nested(90));
    assert_eq!(error(&nested(150)).0, "54001");
    let nested = format!("SELECT {}1{}", format!("({}", "1 + ".repeat(400)).repeat(20), ")".repeat(20));
    assert_eq!(error(&nested).0, "54001");
    assert_eq!(error(&format!("{}SELECT 1", "EXPLAIN ".repeat(1000))).0, "54001");
    one(&format!("SELECT 1{}", " + 1".repeat(3000)));
    one(&format!("SELECT 1{}", ", 1 + 1".repeat(20_000)));
    one(&format!("INSERT INTO t VALUES (1, 2 * 3){}", ", (4, 5 + 6)".repeat(20_000)));
    one(&format!("SELECT CASE{} END", " WHEN a = 1 THEN b + 1".repeat(5000)));
    one(&format!("SELECT a FROM t WHERE a IN (1{})", ", 2".repeat(50_000)));
}

#[test]
fn strings_on_lines_of_their_own_are_one_and_on_one_line_an_error() {
    let shown = |sql: &str| match one(sql) {
        Statement::Plan(statement) => statement.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown("SELECT 'a'\n  'b' -- more\n'c', 1"), "SELECT 'abc', 1");
    assert_eq!(shown("SELECT E'a\\n' \n 'b'"), shown("SELECT E'a\\nb'"));
    assert_eq!(shown("SELECT 'a', 'b'"), "SELECT 'a', 'b'");
    let (state, message, position) = error("SELECT 'a' 'b'");
    assert_eq!((&*state, &*message, position), ("42601", "syntax error at or near \"'b'\"", Some(12)));
    assert_eq!(error("SELECT 1 'b'").0, "42601");
    // What follows would need its escapes read, and a comment alone ends no line.
    assert_eq!(error("SELECT E'a'\n'\\n'").0, "42601");
    assert_eq!(error("SELECT 'a' /* \n */ 'b'").0, "42601");
    assert_eq!(error("SELECT 'a'\n/* c */ 'b'").0, "42601");
}

#[test]
fn what_postgresql_has_and_this_has_not_is_named() {
    for (sql, feature) in [
        ("do $$ begin end $$", "DO"),
        ("checkpoint", "CHECKPOINT"),
        ("refresh materialized view v", "REFRESH MATERIALIZED VIEW"),
        ("create or replace rule r as on insert to t do nothing", "CREATE RULE"),
        ("create foreign data wrapper w", "CREATE FOREIGN DATA WRAPPER"),
        ("create user mapping for postgres server s", "CREATE USER MAPPING"),
        ("drop event trigger e", "DROP EVENT TRIGGER"),
        ("alter table t inherit u", "ALTER TABLE INHERIT"),
        ("comment on constraint c on t is 'x'", "COMMENT ON CONSTRAINT"),
        ("copy t from stdin where a > 1", "COPY ... WHERE"),
        (
            "copy (select a from t where a < 4) to stdout (format csv, force_quote *)",
            "FORCE_QUOTE of all columns",
        ),
        ("alter table t set schema s", "ALTER TABLE SET SCHEMA"),
        ("create table t (a int, check (a > 0) not valid)", "NOT VALID but in ALTER TABLE"),
        ("alter role r set work_mem = '8MB'", "ALTER ROLE ... SET"),
        ("alter index if exists i rename to j", "ALTER INDEX IF EXISTS"),
        ("update t set a = 1 where current of c", "WHERE CURRENT OF"),
        ("select 1 for update", "locking of rows without FROM"),
        ("vacuum t, u", "VACUUM of several tables"),
    ] {
        let (state, message, _) = error(sql);
        assert_eq!((state.as_str(), message), ("0A000", format!("{feature} is not supported")), "{sql}");
    }
    // A mistake in what there is stays one.
    for sql in
        ["select * from t for update foo bar", "create tabel t (a int)", "copy t form stdin", "creat view v"]
    {
        assert_eq!(error(sql).0, "42601", "{sql}");
    }
    assert_eq!(error("select 1\n  frm\n  x y").2, Some(18));
}

#[test]
fn weaker_row_locks_are_the_next_stronger_ones() {
    assert_eq!(one("select * from t for no key update nowait"), one("select * from t for update nowait"));
    assert_eq!(one("select * from t for key share"), one("select * from t for share"));
    assert_eq!(error("select no key update").0, "42601");
}
