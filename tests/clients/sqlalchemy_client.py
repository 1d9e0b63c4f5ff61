"""SQLAlchemy over psycopg 3 and psycopg2: tables, the object mapper, upserts, reflection, isolation levels."""

import datetime as dt
import decimal
import enum
import sys
import uuid

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg

import checks
from checks import DATABASE, HOST, PORT, USER, check

DRIVER = sys.argv[1]
engine = sa.create_engine(f"postgresql+{DRIVER}://{USER}@{HOST}:{PORT}/{DATABASE}")


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "sa_authors"
    __table_args__ = (sa.CheckConstraint("amount >= 0", name="ck_amount"), {"comment": "who writes"})
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True, comment="the name")
    born: orm.Mapped[dt.date | None]
    amount: orm.Mapped[decimal.Decimal] = orm.mapped_column(sa.Numeric(10, 2), server_default="0")
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "sa_books"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("sa_authors.id", ondelete="CASCADE"), index=True)
    title: orm.Mapped[str]
    tags: orm.Mapped[list[str]] = orm.mapped_column(pg.ARRAY(sa.Text), server_default="{}")
    facts: orm.Mapped[dict | None] = orm.mapped_column(pg.JSONB)
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@check
def tables_are_made_once():
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)


@check
def objects_are_stored_and_found():
    with orm.Session(engine) as session:
        books = [Book(title="one", tags=["x", "y"], facts={"pages": 10}), Book(title="two")]
        author = Author(name="ann", born=dt.date(2000, 1, 1), books=books)
        session.add(author)
        session.add_all([Author(name=f"u{number}") for number in range(100)])
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Author)) == 101
        query = sa.select(Author).options(orm.selectinload(Author.books)).where(Author.name == "ann")
        assert [book.title for book in session.scalars(query).one().books] == ["one", "two"]
        assert session.scalar(sa.select(Book.title).where(Book.facts["pages"].as_integer() == 10)) == "one"
        assert session.scalar(sa.select(Book.title).where(Book.facts.contains({"pages": 10}))) == "one"
        assert session.scalar(sa.select(Book.title).where(Book.tags.contains(["y"]))) == "one"
        assert len(session.execute(sa.select(Author, Book).join(Book).order_by(Book.id)).all()) == 2
        author.books.pop()
        session.commit()
        session.delete(author)
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 0


@check
def upserts():
    with engine.begin() as conn:
        insert = pg.insert(Author).values(name="u1", amount=5)
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"amount": insert.excluded.amount})
        assert conn.execute(upsert.returning(Author.amount)).scalar() == 5
        conn.execute(pg.insert(Author).values(name="u1").on_conflict_do_nothing())


@check
def queries():
    with engine.connect() as conn:
        windows = sa.select(
            Author.name,
            sa.func.row_number().over(order_by=Author.id),
            sa.func.sum(Author.amount).over(rows=(None, 0), order_by=Author.id),
        )
        assert len(conn.execute(windows.limit(3)).all()) == 3
        numbers = sa.select(sa.literal(1).label("n")).cte(recursive=True)
        numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < 10))
        assert conn.scalar(sa.select(sa.func.sum(numbers.c.n))) == 55
        streamed = conn.execution_options(stream_results=True, max_row_buffer=10)
        assert sum(1 for _ in streamed.execute(sa.text("select generate_series(1, 1000)"))) == 1000
    table = sa.table("sa_authors", sa.column("id"))
    with engine.begin() as conn:
        conn.execute(sa.select(table).limit(1).with_for_update(skip_locked=True)).all()


@check
def types():
    metadata = sa.MetaData()
    table = sa.Table(
        "sa_types",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("j", sa.JSON),
        sa.Column("u", sa.Uuid),
        sa.Column("b", sa.LargeBinary),
        sa.Column("iv", sa.Interval),
        sa.Column("f", sa.Double),
        sa.Column("t", sa.Time),
        sa.Column("s", sa.SmallInteger),
        sa.Column("e", sa.Enum("a", "b", native_enum=False)),
    )
    metadata.drop_all(engine)
    metadata.create_all(engine)
    row = (1, {"a": [1]}, uuid.UUID(int=7), b"\0\xff", dt.timedelta(days=1, seconds=2), 1.5, dt.time(1, 2), 3, "b")
    with engine.begin() as conn:
        conn.execute(table.insert(), dict(zip(table.columns.keys(), row)))
        assert tuple(conn.execute(table.select()).one()) == row


class Mood(enum.Enum):
    sad = "S"
    happy = "H"


@check
def enumerations_and_domains():
    metadata = sa.MetaData()
    mood = sa.Enum(Mood, name="sa_mood", metadata=metadata)
    amount = pg.DOMAIN("sa_amount", sa.Numeric(10, 2), check="value > 0", metadata=metadata)
    table = sa.Table(
        "sa_typed",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("m", mood, server_default="happy", nullable=False),
        sa.Column("ms", pg.ARRAY(mood)),
        sa.Column("a", amount),
    )
    metadata.drop_all(engine)
    metadata.create_all(engine)
    metadata.create_all(engine)
    with engine.begin() as conn:
        conn.execute(table.insert(), {"id": 1, "m": Mood.sad, "ms": [Mood.sad, Mood.happy], "a": decimal.Decimal("1.50")})
        conn.execute(table.insert(), {"id": 2})
        rows = conn.execute(sa.select(table.c.m, table.c.ms, table.c.a).order_by(table.c.m)).all()
        assert [tuple(row) for row in rows] == [(Mood.sad, [Mood.sad, Mood.happy], decimal.Decimal("1.50")), (Mood.happy, None, None)]
        assert conn.scalar(sa.select(table.c.id).where(table.c.m == Mood.happy)) == 2
    try:
        with engine.begin() as conn:
            conn.execute(table.insert(), {"id": 3, "a": 0})
        raise AssertionError("it is no value of the domain")
    except sa.exc.IntegrityError:
        pass
    inspector = sa.inspect(engine)
    assert [found["labels"] for found in inspector.get_enums() if found["name"] == "sa_mood"] == [["sad", "happy"]]
    [domain] = [found for found in inspector.get_domains() if found["name"] == "sa_amount"]
    assert domain["type"] == "numeric" and "VALUE" in domain["constraints"][0]["check"], domain
    reflected = sa.Table("sa_typed", sa.MetaData(), autoload_with=engine)
    assert reflected.c.m.type.enums == ["sad", "happy"], reflected.c.m.type
    assert isinstance(reflected.c.a.type, pg.DOMAIN)


@check
def tables_are_reflected():
    inspector = sa.inspect(engine)
    assert {"sa_authors", "sa_books"} <= set(inspector.get_table_names())
    columns = {column["name"]: column for column in inspector.get_columns("sa_authors")}
    assert columns["name"]["comment"] == "the name" and columns["name"]["type"].length == 50
    assert not columns["id"]["nullable"] and columns["born"]["nullable"]
    assert inspector.get_columns("sa_books")[0]["identity"]["start"] == 1
    assert inspector.get_pk_constraint("sa_authors")["name"] == "sa_authors_pkey"
    assert [unique["column_names"] for unique in inspector.get_unique_constraints("sa_authors")] == [["name"]]
    assert [constraint["name"] for constraint in inspector.get_check_constraints("sa_authors")] == ["ck_amount"]
    assert [index["name"] for index in inspector.get_indexes("sa_books")] == ["ix_sa_books_author_id"]
    [key] = inspector.get_foreign_keys("sa_books")
    assert (key["referred_table"], key["options"]) == ("sa_authors", {"ondelete": "CASCADE"})
    assert inspector.get_table_comment("sa_authors") == {"text": "who writes"}
    assert not inspector.has_table("nope")
    inspector.get_multi_columns()
    inspector.get_multi_indexes()
    inspector.get_multi_foreign_keys()
    metadata = sa.MetaData()
    metadata.reflect(engine)
    assert "sa_books" in metadata.tables


@check
def views_computed_columns_and_indexes():
    metadata = sa.MetaData()
    prices = sa.Table(
        "sa_prices",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("net", sa.Numeric(10, 2)),
        sa.Column("gross", sa.Numeric(10, 2), sa.Computed("net * 1.2", persisted=True)),
        sa.Column("name", sa.String(30)),
        sa.Column("gone", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    sa.Index("ix_sa_prices_lower", sa.func.lower(prices.c.name), unique=True)
    sa.Index("ix_sa_prices_live", prices.c.net, postgresql_where=prices.c.gone.is_(False), postgresql_include=["name"])
    with engine.begin() as conn:
        conn.execute(sa.text("drop view if exists sa_live"))
        metadata.drop_all(conn)
        metadata.create_all(conn)
        conn.execute(sa.text("create view sa_live as select * from sa_prices where not gone"))
        gross = conn.execute(prices.insert().values(net=10, name="A").returning(prices.c.gross)).scalar_one()
        assert gross == decimal.Decimal("12.00")
        live = sa.Table("sa_live", sa.MetaData(), autoload_with=conn)
        assert conn.execute(live.update().values(net=20).returning(live.c.gross)).scalar_one() == decimal.Decimal("24.00")
        assert conn.execute(sa.select(sa.func.count()).select_from(live)).scalar_one() == 1
    try:
        with engine.begin() as conn:
            conn.execute(prices.insert().values(net=1, name="a"))
        raise AssertionError("two names that differ in case alone")
    except sa.exc.IntegrityError:
        pass
    inspector = sa.inspect(engine)
    assert "sa_live" in inspector.get_view_names()
    assert "from" in inspector.get_view_definition("sa_live").lower()
    columns = {column["name"]: column for column in inspector.get_columns("sa_prices")}
    assert columns["gross"]["computed"]["persisted"]
    indexes = {index["name"]: index for index in inspector.get_indexes("sa_prices")}
    assert indexes["ix_sa_prices_lower"]["expressions"] == ["lower(name)"] or indexes["ix_sa_prices_lower"]["unique"]
    assert indexes["ix_sa_prices_live"]["include_columns"] == ["name"]
    # Left for pg_dump, with a column of another type than before.
    with engine.begin() as conn:
        conn.execute(sa.text("drop view sa_live"))
        conn.execute(sa.text("alter table sa_prices alter column id type bigint"))
        conn.execute(sa.text("create view sa_live as select id, gross from sa_prices where not gone"))


@check
def isolation_levels():
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"):
        with engine.connect().execution_options(isolation_level=level) as conn:
            assert conn.get_isolation_level() == level
            assert conn.scalar(sa.text("show transaction_isolation")) == level.lower()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("select 1"))


failed = checks.run(prefix=f"{DRIVER}_")
engine.dispose()
sys.exit(failed)
