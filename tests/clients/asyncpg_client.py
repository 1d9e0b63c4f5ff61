"""asyncpg: binary formats of every type, its own catalog queries, cursors, COPY, pools."""

import asyncio
import datetime as dt
import decimal
import io
import sys
import uuid

import asyncpg

from checks import DATABASE, HOST, PORT, PORTS, USER, check, run

PLACE = {"host": HOST, "port": PORT, "user": USER, "database": DATABASE}


def connect(**options):
    return asyncpg.connect(**PLACE, **options)


@check
async def a_row_of_every_type():
    conn = await connect()
    await conn.execute(
        "drop table if exists ap; create table ap (id bigserial primary key, t text, n numeric, ts timestamptz,"
        " a text[], u uuid, b bytea, j jsonb)"
    )
    now = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    values = ("x", decimal.Decimal("1.50"), now, ["a", None], uuid.UUID(int=3), b"\0", '{"a": 1}')
    row = await conn.fetchrow("insert into ap (t, n, ts, a, u, b, j) values ($1, $2, $3, $4, $5, $6, $7) returning *", *values)
    assert tuple(row) == (1, *values), row
    await conn.close()


@check
async def values_come_back():
    conn = await connect()
    for name, value in [
        ("int2", 5), ("int4", -5), ("int8", 2**60), ("float4", 1.5), ("float8", 1e300),
        ("numeric", decimal.Decimal("-0.00001")), ("numeric", decimal.Decimal("1e40")), ("text", "é"), ("varchar", "x"),
        ("bpchar", "x"), ("bool", True), ("bytea", b"\xff"), ("date", dt.date(2020, 1, 1)), ("time", dt.time(1, 2)),
        ("timestamp", dt.datetime(2020, 1, 1, 1, 1)), ("timestamptz", dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)),
        ("interval", dt.timedelta(days=2, seconds=3)), ("uuid", uuid.UUID(int=9)), ("oid", 5), ("name", "n"),
        ('"char"', b"c"), ("json", '{"a":  1}'), ("jsonb", '{"a": 1}'), ("int4[]", [1, None]), ("int4[]", [[1, 2], [3, 4]]),
        ("numeric[]", [decimal.Decimal(1)]), ("date[]", [dt.date(2020, 1, 1)]), ("json[]", ['{"a": 1}']), ("text", None),
    ]:  # fmt: skip
        found = await conn.fetchval(f"select $1::{name}", value)
        assert found == value, (name, value, found)
    record = await conn.fetchval("select row(1, 'a'::text)")
    assert tuple(record) == (1, "a")
    await conn.close()


@check
async def copy_in_binary():
    conn = await connect()
    await conn.execute("drop table if exists ap_copy; create table ap_copy (a int, b text)")
    await conn.copy_records_to_table("ap_copy", records=[(number, str(number)) for number in range(1000)])
    assert await conn.fetchval("select count(*) from ap_copy") == 1000
    out = io.BytesIO()
    await conn.copy_from_query("select * from ap_copy where a < $1", 10, output=out, format="csv")
    assert out.getvalue().count(b"\n") == 10
    out = io.BytesIO()
    await conn.copy_from_table("ap_copy", output=out, format="binary")
    out.seek(0)
    await conn.copy_to_table("ap_copy", source=out, format="binary")
    assert await conn.fetchval("select count(*) from ap_copy") == 2000
    await conn.close()


@check
async def transactions_and_cursors():
    conn = await connect()
    async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
        assert await conn.fetchval("show transaction_read_only") == "on"
    async with conn.transaction():
        numbers = [row[0] async for row in conn.cursor("select generate_series(1, 100)", prefetch=10)]
        assert numbers == list(range(1, 101))
        cursor = await conn.cursor("select generate_series(1, 100)")
        await cursor.forward(10)
        assert (await cursor.fetchrow())[0] == 11
        try:
            async with conn.transaction():
                await conn.execute("select 1 / 0")
        except asyncpg.DivisionByZeroError:
            pass
        assert await conn.fetchval("select 1") == 1
    await conn.execute("set application_name = 'changed'")
    await conn.reset()
    assert await conn.fetchval("show application_name") != "changed"
    await conn.close()


@check
async def pools_over_all_nodes():
    place = {**PLACE, "host": [HOST] * len(PORTS), "port": PORTS}
    async with asyncpg.create_pool(**place, min_size=3, max_size=8) as pool:

        async def one(number):
            async with pool.acquire() as conn:
                return await conn.fetchval("select $1::int", number)

        assert await asyncio.gather(*[one(number) for number in range(50)]) == list(range(50))


@check
async def prepared_statements_know_their_types():
    conn = await connect()
    statement = await conn.prepare("select $1::int + $2 as sum, $3::text as word")
    assert [parameter.name for parameter in statement.get_parameters()] == ["int4", "int4", "text"]
    assert [(column.name, column.type.name) for column in statement.get_attributes()] == [("sum", "int4"), ("word", "text")]
    assert tuple(await statement.fetchrow(1, 2, "x")) == (3, "x")
    await conn.set_type_codec("numeric", encoder=str, decoder=float, schema="pg_catalog")
    assert await conn.fetchval("select 1.5") == 1.5
    await conn.executemany("insert into ap_copy values ($1, $2)", [(number, "many") for number in range(100)])
    assert await conn.fetchval("select count(*) from ap_copy where b = 'many'") == 100
    await conn.close()


@check
async def enumerations_and_domains():
    conn = await connect()
    await conn.execute("drop table if exists ap_typed; drop domain if exists ap_count; drop type if exists ap_mood")
    await conn.execute("create type ap_mood as enum ('sad', 'happy'); create domain ap_count as int check (value > 0)")
    await conn.execute("create table ap_typed (m ap_mood, ms ap_mood[], c ap_count)")
    row = await conn.fetchrow("insert into ap_typed values ($1, $2, $3) returning *", "happy", ["sad", "happy"], 5)
    assert tuple(row) == ("happy", ["sad", "happy"], 5), row
    await conn.copy_records_to_table("ap_typed", records=[("sad", None, 7)])
    assert await conn.fetchval("select count(*) from ap_typed where m = $1", "sad") == 1
    await conn.execute("alter type ap_mood add value 'fine' before 'happy'")
    assert await conn.fetchval("select enum_range($1::ap_mood, null)", "fine") == ["fine", "happy"]
    for call in [conn.execute("insert into ap_typed (c) values (0)"), conn.fetch("select $1::ap_count", -1)]:
        try:
            await call
            raise AssertionError("it is no value of the domain")
        except asyncpg.CheckViolationError:
            pass
    try:
        await conn.fetch("select $1::ap_mood", "angry")
        raise AssertionError("it is no label")
    except asyncpg.InvalidTextRepresentationError:
        pass
    await conn.close()


@check
async def a_statement_has_a_time_limit():
    conn = await connect()
    try:
        await conn.fetchval("select pg_sleep(60)", timeout=0.3)
        raise AssertionError("it was not cancelled")
    except asyncio.TimeoutError:
        pass
    assert await conn.fetchval("select 1") == 1
    await conn.close()


@check
async def listeners_are_called():
    conn, sender = await connect(), await connect()
    heard = asyncio.Queue()
    await conn.add_listener("apg", lambda *told: heard.put_nowait(told[2:]))
    await sender.execute("notify apg, 'one'")
    assert await heard.get() == ("apg", "one")
    await conn.execute("notify apg, 'own'")
    assert await heard.get() == ("apg", "own")
    await conn.reset()
    await sender.execute("notify apg, 'late'")
    assert await conn.fetchval("select count(*) from pg_listening_channels()") == 0
    assert heard.empty()
    await conn.close()
    await sender.close()


sys.exit(run(lambda function: asyncio.run(asyncio.wait_for(function(), 60))))
