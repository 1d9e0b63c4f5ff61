"""What the Python clients share: where the cluster is, and how checks are run and counted.

A program prints `ok NAME` or `FAIL NAME: reason` for each check and exits with 1 when one failed.
"""

import os
import sys
import traceback

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
USER = os.environ["PGUSER"]
DATABASE = os.environ["PGDATABASE"]
# The ports of all nodes.
PORTS = [int(port) for port in os.environ["CLIENT_PORTS"].split(",")]

_checks = []


def check(function):
    """Marks a check; checks run in the order in which they are written."""
    _checks.append(function)
    return function


def raises(error, call):
    """Calls and gives back the error, which must be of that class."""
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__} was raised")


def run(call=lambda function: function(), prefix=""):
    """Runs every check and ends the program."""
    failed = False
    for function in _checks:
        name = prefix + function.__name__
        try:
            call(function)
            print(f"ok {name}", flush=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure of this check alone
            failed = True
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())
            print(f"FAIL {name}: {type(error).__name__} {text} ({place.name}:{place.lineno})", flush=True)
    return failed
