//! Messages of PostgreSQL clients: valid ones to begin with, and the decoders that take them apart.

use rustydb_pg::scram::{Binding, Claim, Exchange, Verifier};
use rustydb_pg::startup;
use rustydb_sql::session::request::{Bind, Request};

use crate::crash::Dice;
use crate::raw;

/// Statements of every kind.
pub const STATEMENTS: &[&str] = &[
    "SELECT a, b FROM t WHERE a = 1 ORDER BY b LIMIT 3",
    "SELECT count(*), sum(a) FROM t GROUP BY b HAVING count(*) > 0",
    "INSERT INTO t VALUES (7, 'seven') ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING *",
    "UPDATE t SET b = b || 'x' WHERE a BETWEEN 1 AND 3",
    "DELETE FROM t WHERE a IN (SELECT a FROM t WHERE b LIKE '%z')",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
    "SELECT t1.a, t2.b FROM t t1 LEFT JOIN t t2 ON t1.a = t2.a WHERE t2.b IS NULL",
    "CREATE TABLE u (id int PRIMARY KEY, n numeric(10,2) DEFAULT 1.5, at timestamptz, tags text[])",
    "DROP TABLE IF EXISTS u",
    "CREATE INDEX i ON t (b)",
    "DROP INDEX i",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "COMMIT",
    "ROLLBACK",
    "SET work_mem = '1MB'",
    "SHOW ALL",
    "EXPLAIN SELECT * FROM t",
    "COPY t FROM STDIN WITH (FORMAT csv)",
    "COPY t TO STDOUT",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t",
    "FETCH 2 FROM c",
    "CLOSE c",
    "PREPARE p(int) AS SELECT $1 + 1",
    "EXECUTE p(3)",
    "DEALLOCATE ALL",
    "SELECT '2024-02-30'::date, interval '1 year 2 mons', 1.0 / 3, 'a' ~ 'b', ARRAY[1,2,3][2]",
    "SELECT to_char(now(), 'YYYY-MM-DD'), substring('abc' from 2 for 1), coalesce(NULL, 1)",
    "SELECT x FROM generate_series(1, 10) AS g(x) WHERE x % 2 = 0",
    "TRUNCATE t",
    "ANALYZE t",
    "ALTER TABLE t ADD COLUMN c int DEFAULT 0",
    "ALTER TABLE t DROP COLUMN c",
    "SELECT relname FROM pg_class WHERE relkind = 'r'",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT CASE WHEN a > 1 THEN 'x' ELSE b END, row_number() OVER (ORDER BY a) FROM t",
];

/// A Bind with parameters.
#[must_use]
pub fn bind_with(portal: &str, statement: &str, formats: &[i16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = [portal.as_bytes(), &[0], statement.as_bytes(), &[0]].concat();
    let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    body.extend(count(formats.len()));
    for format in formats {
        body.extend(format.to_be_bytes());
    }
    body.extend(count(values.len()));
    for value in values {
        match value {
            Some(value) => {
                body.extend(i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
                body.extend_from_slice(value);
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend([0, 1, 0, 1]);
    raw::message(b'B', &body)
}

/// A Parse that names types.
#[must_use]
pub fn parse_with(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.extend(u16::try_from(types.len()).unwrap_or(u16::MAX).to_be_bytes());
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    raw::message(b'P', &body)
}

/// Sequences of valid frontend messages.
#[must_use]
pub fn conversations() -> Vec<Vec<u8>> {
    let sync = raw::message(b'S', &[]);
    let mut all: Vec<Vec<u8>> = STATEMENTS.iter().map(|sql| raw::query(sql)).collect();
    for sql in STATEMENTS {
        all.push([raw::parse("", sql), raw::bind("", ""), raw::execute("", 0), sync.clone()].concat());
    }
    all.push(
        [
            parse_with("s1", "SELECT $1::int + a FROM t WHERE b = $2", &[23, 25]),
            raw::message(b'D', b"Ss1\0"),
            bind_with("p1", "s1", &[1, 0], &[Some(&7_i32.to_be_bytes()), Some(b"seven")]),
            raw::message(b'D', b"Pp1\0"),
            raw::execute("p1", 1),
            raw::execute("p1", 0),
            raw::message(b'C', b"Pp1\0"),
            raw::message(b'C', b"Ss1\0"),
            raw::message(b'H', &[]),
            sync.clone(),
        ]
        .concat(),
    );
    all.push(
        [
            parse_with("s2", "SELECT $1::numeric, $2::timestamptz, $3::int[], $4::interval, $5::uuid", &[]),
            bind_with(
                "",
                "s2",
                &[0],
                &[Some(b"12.5"), Some(b"2024-01-02 03:04:05+06"), Some(b"{1,NULL,3}"), Some(b"1 day"), None],
            ),
            raw::execute("", 0),
            sync.clone(),
        ]
        .concat(),
    );
    all.push(
        [
            raw::query("COPY t FROM STDIN"),
            raw::message(b'd', b"101\tone\n102\ttwo\n"),
            raw::message(b'd', b"103\t\\N\n"),
            raw::message(b'c', &[]),
        ]
        .concat(),
    );
    all.push(
        [
            raw::query("COPY t FROM STDIN (FORMAT binary)"),
            raw::message(
                b'd',
                b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\x09\0\0\0\x01x\xff\xff",
            ),
            raw::message(b'c', &[]),
        ]
        .concat(),
    );
    all.push([raw::query("COPY t FROM STDIN"), raw::message(b'f', b"no\0")].concat());
    all.push([raw::message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), sync].concat());
    all
}

/// Start-up packets.
#[must_use]
pub fn startups() -> Vec<Vec<u8>> {
    let special = |code: u32, rest: &[u8]| {
        let length = u32::try_from(8 + rest.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
    };
    vec![
        raw::startup("postgres", "postgres"),
        special(196_608, b"user\0ann\0database\0db\0options\0-c geqo=off --search-path=a\\ b\0_pq_.x\0y\0replication\0off\0\0"),
        special(80_877_103, &[]),
        special(80_877_104, &[]),
        special(80_877_102, &[0, 0, 0, 1, 1, 2, 3, 4]),
    ]
}

/// SCRAM messages of a client, the first and the last.
#[must_use]
pub fn scrams() -> Vec<Vec<u8>> {
    vec![
        b"n,,n=ann,r=fyko+d2lbbFgONRv9qkxdawL\nc=biws,r=fyko+d2lbbFgONRv9qkxdawL,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=".to_vec(),
        b"y,,n=,r=abc\nc=eSws,r=abc,p=AAAA".to_vec(),
        b"p=tls-server-end-point,,n=,r=abc\nc=cD10,r=abc,p=AAAA".to_vec(),
        b"SCRAM-SHA-256$4096:c2FsdHNhbHQ=$U3RvcmVk:U2VydmVy\nx".to_vec(),
    ]
}

/// The first packet of a connection.
pub fn startup_target(input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return };
    if let Ok(length) = startup::rest_length(u32::from_be_bytes(*length)) {
        assert!(length <= startup::STARTUP_SIZE_MAX, "a packet of {length} bytes is taken");
        let _refused = startup::parse(rest.get(..length).unwrap_or(rest));
    }
}

/// What a client says to prove who it is.
pub fn scram_target(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (first, last) = text.split_once('\n').unwrap_or((&text, ""));
    let verifier = Verifier::parse(first).ok();
    let claim = Claim { role: "ann", verifier: verifier.as_ref(), mock_secret: &[7; 32] };
    if let Ok(exchange) = Exchange::begin(claim, "SCRAM-SHA-256", &Binding::None, first) {
        let _first = exchange.server_first();
        assert!(exchange.finish(last).is_err(), "nobody knows this password");
    }
}

/// Cuts input into messages as a connection does; what is left over is not given.
pub fn messages(input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        // A length that lies is answered with the end of the connection; the rest is looked at all the same.
        let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(4).min(after.len());
        let (body, next) = after.split_at(length);
        rest = next;
        Some((head[0], body))
    })
}

/// Every message of a conversation is decoded and all its parts are read. Gives how many messages there were.
pub fn frontend(input: &[u8]) -> u64 {
    let mut count = 0;
    for (tag, body) in messages(input) {
        count += 1;
        match Request::decode(tag, body) {
            Ok(Request::Bind(bind)) => read_bind(&bind),
            Ok(Request::Parse { param_types, .. }) => {
                assert_eq!(param_types.iter().count(), param_types.iter().len());
            }
            _ => {}
        }
    }
    count
}

fn read_bind(bind: &Bind<'_>) {
    let values = bind.params.iter().count();
    assert_eq!(values, bind.params.len(), "a list yields as many items as it says");
    for index in 0..bind.params.len() {
        let _format = bind.param_formats.get(index);
    }
}

/// The target of [`frontend`].
pub fn frontend_target(input: &[u8]) {
    let _count = frontend(input);
}

/// One conversation of mutated messages whose frames are mostly whole: tags and bodies change, lengths follow or lie.
#[must_use]
pub fn mutated_conversation(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=dice.below(4) {
        let (input, other) = (dice.pick(corpus).clone(), dice.pick(corpus));
        for (tag, body) in messages(&input) {
            let body =
                if dice.chance(1, 2) { super::mutate::mutate(body, other, dice) } else { body.to_vec() };
            let tag = if dice.chance(1, 30) { u8::try_from(dice.below(256)).unwrap_or(0) } else { tag };
            let mut message = raw::message(tag, &body);
            if dice.chance(1, 40) {
                let lie = *dice.pick(&[u32::MAX, 0, 3, 0x7fff_ffff, 5]);
                message[1..5].copy_from_slice(&lie.to_be_bytes());
            }
            out.extend(message);
        }
    }
    out.truncate(super::mutate::SIZE_MAX);
    out
}
