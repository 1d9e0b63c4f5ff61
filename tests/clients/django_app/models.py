"""Models with every kind of field and relation that the tests need."""

from django.db import models
from django.db.models import Q


class Author(models.Model):
    name = models.CharField(max_length=50, unique=True)
    born = models.DateField(null=True)

    class Meta:
        indexes = [models.Index(fields=["born"], name="author_born")]
        constraints = [models.CheckConstraint(condition=~Q(name=""), name="name_filled")]


class Tag(models.Model):
    label = models.SlugField()


class Book(models.Model):
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    tags = models.ManyToManyField(Tag)
    title = models.TextField()
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    added = models.DateTimeField(auto_now_add=True)
    pages = models.PositiveIntegerField(null=True)
    took = models.DurationField(null=True)
    raw = models.BinaryField(null=True)
    uid = models.UUIDField(null=True)
    flag = models.BooleanField(default=False)
    weight = models.FloatField(null=True)
    at = models.TimeField(null=True)
    facts = models.JSONField(default=dict)
