"""psycopg 3: sync and async, pipelines, COPY, text and binary formats."""

import asyncio
import datetime as dt
import decimal
import enum
import sys
import threading
import uuid

import psycopg
from psycopg.rows import dict_row
from psycopg.types import TypeInfo
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Json, Jsonb

from checks import DATABASE, HOST, PORT, PORTS, USER, check, raises, run

DSN = f"host={HOST} port={PORT} user={USER} dbname={DATABASE}"


def connect(**options):
    return psycopg.connect(DSN, **options)


@check
def a_row_of_every_type():
    row = {
        "t": "it's \\ é",
        "n": decimal.Decimal("12.50"),
        "a": [1, 2, None],
        "u": uuid.UUID(int=5),
        "b": b"\0\1",
        "d": dt.date(2024, 1, 2),
        "ti": dt.time(1, 2, 3),
        "iv": dt.timedelta(days=1, seconds=5),
        "bo": True,
        "f": 1.5,
        "j": {"k": [1, None]},
    }
    with connect() as conn:
        conn.execute("drop table if exists p3")
        conn.execute(
            "create table p3 (id serial primary key, t text, n numeric(10,2), a int[], u uuid, b bytea, d date,"
            " ti time, iv interval, bo bool, f float8, j jsonb, ts timestamptz default now())"
        )
        names = ", ".join(row)
        marks = ", ".join(f"%({name})s" for name in row)
        values = {**row, "j": Jsonb(row["j"])}
        inserted = conn.execute(f"insert into p3 ({names}) values ({marks}) returning id", values).fetchone()
        assert inserted == (1,)
        for binary in (False, True):
            with conn.cursor(row_factory=dict_row, binary=binary) as cursor:
                found = cursor.execute("select * from p3").fetchone()
                assert {name: found[name] for name in row} == row, found
                assert found["ts"].tzinfo is not None


@check
def values_come_back():
    values = [
        1, -5, 2**40, 2**70, 1.25, decimal.Decimal("1e-30"), "é", "", b"", b"\xff", None, True, dt.date.max,
        dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), dt.datetime(2020, 1, 1), dt.time(23, 59, 59, 999999),
        dt.timedelta(days=-3, microseconds=5), uuid.UUID(int=77), [1, 2], [dt.date(2020, 1, 1)], [[1, 2], [3, 4]],
        [decimal.Decimal("1.5")],
    ]  # fmt: skip
    with connect(autocommit=True) as conn:
        for binary in (False, True):
            for value in values:
                for mark in ("%s", "%b", "%t"):
                    cursor = conn.cursor(binary=binary)
                    try:
                        found = cursor.execute(f"select {mark}", (value,)).fetchone()[0]
                    except psycopg.ProgrammingError as error:
                        # The client itself has no such form of the value.
                        assert "cannot adapt" in str(error), error
                        continue
                    assert found == value, (value, mark, binary, found)
        nan = conn.execute("select %s::numeric", (decimal.Decimal("NaN"),)).fetchone()[0]
        assert nan.is_nan()


@check
def json_values():
    with connect(autocommit=True) as conn:
        for binary in (False, True):
            for wrap in (Json, Jsonb):
                cursor = conn.cursor(binary=binary)
                assert cursor.execute("select %s", (wrap({"a": [1, "é"]}),)).fetchone()[0] == {"a": [1, "é"]}
        row = conn.execute("select %s::jsonb -> 'a' ->> 1, %s::jsonb @> '{\"a\": 1}'", ('{"a": [1, 2]}', '{"a": 1}'))
        assert row.fetchone() == ("2", True)


@check
def copy_in_text():
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("drop table if exists p3_copy")
        cursor.execute("create table p3_copy (a int, b text)")
        with cursor.copy("copy p3_copy from stdin") as copy:
            for number in range(1000):
                copy.write_row((number, f"r\t{number}"))
        assert cursor.execute("select count(*), max(b) from p3_copy").fetchone() == (1000, "r\t999")
        with cursor.copy("copy p3_copy to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 1000


@check
def copy_in_binary():
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("drop table if exists p3_binary")
        cursor.execute("create table p3_binary (a int, b text, c numeric, d timestamptz, e int[])")
        now = dt.datetime.now(dt.timezone.utc)
        types = ["int4", "text", "numeric", "timestamptz", "int4[]"]
        rows = [(number, f"r{number}", decimal.Decimal(number) / 8, now, [number, None]) for number in range(1000)]
        with cursor.copy("copy p3_binary from stdin (format binary)") as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
        with cursor.copy("copy (select * from p3_binary order by a) to stdout (format binary)") as copy:
            copy.set_types(types)
            assert list(copy.rows()) == rows
        with cursor.copy("copy (select * from p3_binary where false) to stdout (format binary)") as copy:
            copy.set_types(types)
            assert list(copy.rows()) == []


@check
def copy_that_fails_loads_nothing():
    with connect(autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("truncate p3_copy")

        def load():
            with cursor.copy("copy p3_copy from stdin") as copy:
                copy.write("1\tone\n2\ttwo\nthree\tthree\n")

        error = raises(psycopg.errors.InvalidTextRepresentation, load)
        assert "line 3" in error.diag.context, error.diag.context
        assert cursor.execute("select count(*) from p3_copy").fetchone() == (0,)


@check
def pipelines():
    with connect(autocommit=True) as conn:
        with conn.pipeline() as pipeline:
            cursors = [conn.execute("select %s::int", [number]) for number in range(50)]
            pipeline.sync()
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))

        def fails():
            with conn.pipeline():
                conn.execute("select 1")
                conn.execute("select nope")
                conn.execute("select 2")

        raises(psycopg.errors.UndefinedColumn, fails)
        assert conn.execute("select 3").fetchone() == (3,)


@check
def executemany():
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("truncate p3_copy")
        rows = [(number, str(number)) for number in range(500)]
        cursor.executemany("insert into p3_copy values (%s, %s) returning a", rows, returning=True)
        count = len(cursor.fetchall())
        while cursor.nextset():
            count += len(cursor.fetchall())
        assert count == 500


@check
def cursors_of_the_server():
    with connect() as conn:
        with conn.cursor(name="scrolls", scrollable=True) as cursor:
            cursor.execute("select generate_series(1, 1000)")
            assert len(cursor.fetchmany(10)) == 10
            cursor.scroll(100)
            assert cursor.fetchone() == (111,)
            cursor.scroll(0, mode="absolute")
            assert cursor.fetchone() == (1,)
        held = conn.cursor(name="held", withhold=True)
        held.execute("values (1), (2)")
        conn.commit()
        assert held.fetchall() == [(1,), (2,)]
        held.close()


@check
def transactions_and_savepoints():
    with connect() as conn:
        with conn.transaction():
            conn.execute("truncate p3_copy")
            conn.execute("insert into p3_copy values (1, 'x')")

            def within():
                with conn.transaction():
                    conn.execute("insert into p3_copy values (2, 'x')")
                    conn.execute("select 1 / 0")

            raises(psycopg.errors.DivisionByZero, within)
        assert conn.execute("select count(*) from p3_copy").fetchone() == (1,)
    with connect() as conn:
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        conn.deferrable = True
        assert conn.execute("show transaction_isolation").fetchone() == ("serializable",)
        raises(psycopg.errors.ReadOnlySqlTransaction, lambda: conn.execute("insert into p3_copy values (1, '')"))


@check
def errors_name_what_they_are_about():
    with connect(autocommit=True) as conn:
        conn.execute("drop table if exists p3_errors")
        conn.execute("create table p3_errors (a int primary key, b int not null check (b > 0))")
        conn.execute("insert into p3_errors values (1, 1)")
        insert = "insert into p3_errors values (%s, %s)"
        error = raises(psycopg.errors.UniqueViolation, lambda: conn.execute(insert, (1, 1)))
        diag = error.diag
        assert (diag.schema_name, diag.table_name, diag.constraint_name) == ("public", "p3_errors", "p3_errors_pkey")
        error = raises(psycopg.errors.NotNullViolation, lambda: conn.execute(insert, (2, None)))
        assert error.diag.column_name == "b"
        error = raises(psycopg.errors.CheckViolation, lambda: conn.execute(insert, (2, 0)))
        assert error.diag.constraint_name == "p3_errors_b_check"
        error = raises(psycopg.errors.UndefinedColumn, lambda: conn.execute("select a, nope from p3_errors"))
        assert error.diag.statement_position == "11"
        raises(psycopg.errors.FeatureNotSupported, lambda: conn.execute("prepare transaction 'x'"))


@check
def a_statement_can_be_cancelled():
    with connect(autocommit=True) as conn:
        timer = threading.Timer(0.3, conn.cancel_safe)
        timer.start()
        raises(psycopg.errors.QueryCanceled, lambda: conn.execute("select pg_sleep(60)"))
        timer.join()
        assert conn.execute("select 1").fetchone() == (1,)


@check
def prepared_statements_outlive_changes_of_their_tables():
    with connect(autocommit=True, prepare_threshold=0) as conn:
        for number in range(20):
            assert conn.execute("select %s::int + 1", (number,)).fetchone() == (number + 1,)
        conn.execute("select b from p3_errors where a = %s", (1,))
        conn.execute("alter table p3_errors add column c int default 7")
        assert conn.execute("select b from p3_errors where a = %s", (1,)).fetchone() == (1,)


class Mood(enum.Enum):
    SAD = "sad"
    HAPPY = "happy"


@check
def enumerations():
    with connect(autocommit=True) as conn:
        conn.execute("drop table if exists pe; drop type if exists pe_mood")
        conn.execute("create type pe_mood as enum ('sad', 'happy')")
        register_enum(EnumInfo.fetch(conn, "pe_mood"), conn, Mood, mapping={mood: mood.value for mood in Mood})
        conn.execute("create table pe (m pe_mood primary key, ms pe_mood[])")
        for binary in (False, True):
            conn.execute("truncate pe")
            with conn.cursor(binary=binary) as cur:
                cur.execute("insert into pe values (%s, %s)", (Mood.SAD, [Mood.HAPPY, Mood.SAD]))
                with cur.copy("copy pe from stdin" + (" (format binary)" if binary else "")) as copy:
                    copy.set_types(["pe_mood", "pe_mood[]"])
                    copy.write_row((Mood.HAPPY, None))
                cur.execute("select * from pe order by m")
                assert cur.fetchall() == [(Mood.SAD, [Mood.HAPPY, Mood.SAD]), (Mood.HAPPY, None)]


@check
def types_are_found_by_name():
    with connect(autocommit=True) as conn:
        found = TypeInfo.fetch(conn, "int4")
        assert (found.oid, found.array_oid) == (23, 1007)
        assert TypeInfo.fetch(conn, "jsonb").oid == 3802
        assert TypeInfo.fetch(conn, "nope") is None


@check
def the_session_says_what_it_is():
    with connect(autocommit=True) as conn:
        assert conn.execute("select pg_backend_pid()").fetchone() == (conn.info.backend_pid,)
        assert conn.info.server_version >= 150000
        assert conn.info.parameter_status("server_encoding") == "UTF8"
        conn.execute("set timezone to 'Europe/Berlin'")
        assert conn.info.parameter_status("TimeZone") == "Europe/Berlin"


@check
def hosts_are_chosen_by_target_session_attrs():
    hosts = f"host={','.join([HOST] * len(PORTS))} port={','.join(map(str, PORTS))} user={USER} dbname={DATABASE}"
    for attrs in ("any", "read-write", "primary", "prefer-standby"):
        with psycopg.connect(hosts, target_session_attrs=attrs) as conn:
            conn.execute("select 1")
    raises(psycopg.OperationalError, lambda: psycopg.connect(hosts, target_session_attrs="read-only"))
    for port in PORTS:
        with psycopg.connect(DSN, port=port) as conn:
            assert conn.execute("select count(*) from p3").fetchone() == (1,)


@check
def async_connections():
    async def work():
        async with await psycopg.AsyncConnection.connect(DSN) as conn:
            async with conn.cursor() as cursor:
                await cursor.execute("select 1")
                assert await cursor.fetchone() == (1,)
                async with cursor.copy("copy p3_copy to stdout") as copy:
                    rows = [row async for row in copy.rows()]
                assert len(rows) == 1
            async with conn.pipeline():
                cursor = await conn.execute("select 5")
                assert await cursor.fetchone() == (5,)

    asyncio.run(work())


@check
def notifications_from_another_node():
    other = f"host={HOST} port={PORTS[-1]} user={USER} dbname={DATABASE}"
    with connect(autocommit=True) as listener, psycopg.connect(other, autocommit=True) as sender:
        listener.execute("listen p3_news")
        with sender.transaction():
            sender.execute("notify p3_news, 'first'")
            sender.execute("select pg_notify('p3_news', 'second')")
        sender.execute("begin")
        sender.execute("notify p3_news, 'never'")
        sender.execute("rollback")
        sender.execute("notify p3_news, 'third'")
        notified = list(listener.notifies(timeout=30, stop_after=3))
        assert [one.payload for one in notified] == ["first", "second", "third"], notified
        assert all(one.pid == sender.info.backend_pid for one in notified)


@check
def advisory_locks():
    with connect(autocommit=True) as first, connect(autocommit=True) as second:
        first.execute("select pg_advisory_lock(7, 7)")
        assert second.execute("select pg_try_advisory_lock(7, 7)").fetchone() == (False,)
        second.execute("set lock_timeout = '100ms'")
        raises(psycopg.errors.LockNotAvailable, lambda: second.execute("select pg_advisory_lock(7, 7)"))
        assert first.execute("select pg_advisory_unlock(7, 7)").fetchone() == (True,)
        assert second.execute("select pg_try_advisory_xact_lock(7, 7)").fetchone() == (True,)


@check
def with_queries_that_change_rows():
    with connect() as conn:
        conn.execute("drop table if exists p3_live, p3_archive")
        conn.execute("create table p3_live as select i as id, 'v' || i as v from generate_series(1, 5) i")
        conn.execute("create table p3_archive (id int, v text)")
        moved = conn.execute(
            "with moved as (delete from p3_live where id > %s returning *) insert into p3_archive select * from moved"
            " returning id",
            (3,),
        )
        assert sorted(moved.fetchall()) == [(4,), (5,)]
        assert conn.execute("select count(*) from p3_live").fetchone() == (3,)


sys.exit(run())
