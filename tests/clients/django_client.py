"""Django: migrations, the object mapper, schema changes, introspection and its management commands."""

import datetime as dt
import decimal
import io
import os
import sys
import uuid

import psycopg

from checks import HOST, PORT, USER, check, raises, run

os.environ["DJANGO_SETTINGS_MODULE"] = "django_settings"
with psycopg.connect(host=HOST, port=PORT, user=USER, dbname="postgres", autocommit=True) as conn:
    conn.execute("drop database if exists django")
    conn.execute("create database django")

import django  # noqa: E402

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import IntegrityError, connection, models, transaction  # noqa: E402
from django.db.models import (  # noqa: E402
    Avg, Case, CharField, Count, Exists, F, Max, OuterRef, Q, StdDev, Subquery, Sum, TextField, Value, When, Window,
)  # fmt: skip
from django.db.models.functions import (  # noqa: E402
    MD5, Cast, Coalesce, Concat, ExtractWeek, ExtractYear, Greatest, Left, Length, Lower, LPad, NullIf, Now,
    Replace, Reverse, Round, RowNumber, StrIndex, TruncMonth,
)  # fmt: skip

from django_app.models import Author, Book, Tag  # noqa: E402


def output_of(*command, **options):
    out = io.StringIO()
    call_command(*command, stdout=out, **options)
    return out.getvalue()


@check
def migrations():
    output_of("migrate", run_syncdb=True, verbosity=1)
    output_of("check", database=["default"])
    assert "[X] 0001_initial" in output_of("showmigrations")
    assert "CREATE TABLE" in output_of("sqlmigrate", "auth", "0001")


@check
def objects():
    author = Author.objects.create(name="Ann", born=dt.date(1990, 1, 1))
    values = {
        "title": "T", "price": decimal.Decimal("9.99"), "took": dt.timedelta(hours=2), "raw": b"\0", "pages": 10,
        "uid": uuid.UUID(int=3), "at": dt.time(1, 2), "weight": 1.5, "facts": {"k": [1, {"z": 2}]},
    }  # fmt: skip
    book = Book.objects.create(author=author, **values)
    book.refresh_from_db()
    found = {name: getattr(book, name) for name in values}
    found["raw"] = bytes(found["raw"])
    assert found == values, found
    book.tags.add(Tag.objects.create(label="x"), Tag.objects.create(label="y"))
    assert list(book.tags.order_by("label").values_list("label", flat=True)) == ["x", "y"]
    Book.objects.bulk_create([Book(author=author, title=f"b{n}", price=n, pages=n) for n in range(100)])
    again = {"update_conflicts": True, "update_fields": ["born"], "unique_fields": ["name"]}
    Author.objects.bulk_create([Author(name=f"n{n}") for n in range(10)], **again)
    Author.objects.bulk_create([Author(name=f"n{n}", born=dt.date(2000, 1, 1)) for n in range(10)], **again)
    Author.objects.bulk_create([Author(name="n1")], ignore_conflicts=True)
    assert Author.objects.filter(born__year=2000).count() == 10
    assert Book.objects.filter(pages__gt=50).update(price=F("price") * 2) == 49
    some = list(Book.objects.order_by("id")[:5])
    for one in some:
        one.title += "!"
    Book.objects.bulk_update(some, ["title"])
    assert Book.objects.filter(title__endswith="!").count() == 5
    Author.objects.update_or_create(name="Bob", defaults={"born": None})
    assert Author.objects.get_or_create(name="Bob")[1] is False


@check
def aggregates_and_windows():
    totals = Book.objects.aggregate(
        total=Sum("price"), average=Avg("pages"), last=Max("added"), many=Count("id", filter=Q(pages__gt=50)),
        spread=StdDev("weight"),
    )  # fmt: skip
    assert totals["many"] == 49 and totals["spread"] == 0
    best = Author.objects.annotate(n=Count("books"), last=Max("books__added")).filter(n__gt=1).order_by("-n")
    assert [author.n for author in best] == [101]
    ranked = Book.objects.annotate(
        rank=Window(RowNumber(), partition_by=F("author"), order_by=[F("price").desc(), F("id")])
    )
    assert len(ranked.filter(rank__lte=3)) == 3
    months = Book.objects.annotate(month=TruncMonth("added"), year=ExtractYear("added"), week=ExtractWeek("added"))
    assert sum(row["count"] for row in months.values("month", "year", "week").annotate(count=Count("*"))) == 101
    sizes = Book.objects.annotate(size=Case(When(pages__gt=5, then=Value("big")), default=Value("small")))
    assert {row["size"]: row["n"] for row in sizes.values("size").annotate(n=Count("*"))} == {"big": 95, "small": 6}


@check
def lookups_and_subqueries():
    today = dt.datetime.now(dt.timezone.utc).date()
    for lookup, count in [
        ({"title__icontains": "B1"}, 11), ({"title__istartswith": "b"}, 100), ({"title__regex": "^b[0-9]$"}, 6),
        ({"title__iregex": "^B9"}, 11), ({"added__date__lte": today}, 101), ({"pages__in": [1, 2]}, 2),
        ({"pages__range": (1, 3)}, 3), ({"author__name__iexact": "ann"}, 101), ({"took__gt": dt.timedelta(1)}, 0),
        ({"pages__isnull": True}, 0), ({"at__minute": 2}, 1), ({"facts__k__1__z": 2}, 1), ({"facts__has_key": "k"}, 1),
        ({"facts__contains": {"k": [1]}}, 1), ({"tags__label": "x"}, 1),
    ]:  # fmt: skip
        assert Book.objects.filter(**lookup).count() == count, (lookup, Book.objects.filter(**lookup).count())
    dear = Book.objects.filter(author=OuterRef("pk"), price__gt=3)
    assert [author.name for author in Author.objects.filter(Exists(dear))] == ["Ann"]
    titles = Book.objects.filter(author=OuterRef("pk")).order_by("id").values("title")[:1]
    assert Author.objects.annotate(first=Subquery(titles)).get(name="Ann").first == "T!"
    assert len(list(Book.objects.select_related("author").prefetch_related("tags")[:3])) == 3
    assert len(list(Book.objects.distinct("author").order_by("author", "-price"))) == 1
    one, two = Book.objects.filter(pages=1), Book.objects.filter(pages=2)
    assert one.union(two).count() == 2 and one.intersection(two).count() == 0 and one.difference(two).count() == 1
    assert len(Book.objects.in_bulk()) == 101 and sum(1 for _ in Book.objects.iterator(chunk_size=10)) == 101
    assert len(Book.objects.dates("added", "month")) == 1
    assert "Scan" in Book.objects.filter(pages=1).explain()


@check
def functions():
    words = Book.objects.annotate(
        joined=Concat("title", Value("-"), Cast("pages", TextField()), output_field=TextField()),
        pages_or=Coalesce("pages", 0), length=Length("title"), left=Left("title", 2), md5=MD5("title"),
        padded=LPad("title", 5, Value("*"), output_field=TextField()), most=Greatest("pages", 5), later=Now() + F("took"),
        rounded=Round("price", 1), other=Replace("title", Value("b"), Value("c"), output_field=TextField()), back=Reverse("title"),
        place=StrIndex("title", Value("7")), none=NullIf("pages", 7), lower=Lower("title"),
        text=Cast("price", CharField(max_length=20)),
    )  # fmt: skip
    book = words.get(pages=7)
    found = (book.joined, book.length, book.left, book.padded, book.most, book.back, book.place, book.none, book.text)
    assert found == ("b7-7", 2, "b7", "***b7", 7, "7b", 2, None, "7.00"), found


@check
def locks_and_savepoints():
    with transaction.atomic():
        list(Book.objects.select_for_update(skip_locked=True, of=("self",)).select_related("author")[:2])
        list(Book.objects.select_for_update(nowait=True, no_key=True)[:1])

        def twice():
            with transaction.atomic():
                Author.objects.create(name="Ann")

        raises(IntegrityError, twice)
        assert Author.objects.filter(name="Ann").count() == 1
    raises(IntegrityError, lambda: Author.objects.create(name=""))

    def dangling():
        with transaction.atomic():
            Book.objects.create(author_id=10**9, title="of nobody")

    raises(IntegrityError, dangling)


@check
def schema_changes():
    class Thing(models.Model):
        a = models.IntegerField()

        class Meta:
            app_label = "django_app"

    with connection.schema_editor() as editor:
        editor.create_model(Thing)
        word = models.CharField(max_length=10, default="x")
        word.set_attributes_from_name("b")
        editor.add_field(Thing, word)
        longer = models.CharField(max_length=20, default="x")
        longer.set_attributes_from_name("b")
        editor.alter_field(Thing, word, longer)
        owner = models.ForeignKey(Author, null=True, on_delete=models.CASCADE)
        owner.set_attributes_from_name("owner")
        editor.add_field(Thing, owner)
        editor.remove_field(Thing, owner)
        index = models.Index(fields=["a"], name="thing_a")
        editor.add_index(Thing, index)
        editor.rename_index(Thing, index, models.Index(fields=["a"], name="thing_a2"))
        editor.add_constraint(Thing, models.UniqueConstraint(fields=["a"], name="thing_once"))
        editor.add_constraint(Thing, models.CheckConstraint(condition=Q(a__gt=0), name="thing_above"))
        editor.alter_db_table(Thing, "django_app_thing", "django_app_thing2")
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, "django_app_thing2")
        assert {"thing_a2", "thing_once", "thing_above"} <= set(constraints)
    with connection.schema_editor() as editor:
        editor.execute("drop table django_app_thing2")


@check
def introspection():
    assert "class DjangoAppBook(models.Model)" in output_of("inspectdb")
    with connection.cursor() as cursor:
        [sequence] = connection.introspection.get_sequences(cursor, "django_app_book")
        assert sequence["column"] == "id"
        assert connection.introspection.get_relations(cursor, "django_app_book") == {
            "author_id": ("id", "django_app_author")
        }
        assert connection.introspection.get_primary_key_columns(cursor, "django_app_book") == ["id"]


@check
def users_and_data():
    user = User.objects.create_superuser("root", "root@example.org", "secret")
    assert user.has_perm("django_app.add_book") and User.objects.get(username="root").check_password("secret")
    dumped = output_of("dumpdata", "django_app.author", "django_app.book")
    assert dumped.count('"model": "django_app.book"') == 101
    output_of("sqlsequencereset", "django_app")
    call_command("flush", interactive=False, verbosity=0)
    assert Book.objects.count() == 0


sys.exit(run())
