"""A subscriber for Zope: requests that only read succeed on a replica, although they write.

Zope applications write in requests that only read: Plone stores the scale of an image when it is
first asked for, and the time of a login. On a read-only database the commit of such a request
fails. `replica.zcml` registers `drop_writes`, which aborts the transaction instead, so that Zope
delivers the response and commits nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import transaction
from ZODB.POSException import ReadOnlyError

from .logs import event

log = logging.getLogger("zrs_core.zope")

#: The methods of requests that ask for no change.
READING = frozenset({"GET", "HEAD"})

#: The names under which Plone and Zope's user folders publish a login, without leading `@`.
LOGINS = frozenset(
    {
        "login",
        "login_form",
        "logged_in",
        "require_login",
        "failsafe_login",
        "failsafe_login_form",
    }
)


def drop_writes(before_commit: Any) -> None:
    """Commit a read or a login on a replica, and abort it if the database is read-only.

    The last subscriber before the commit does that commit: objects may still change in its hooks,
    and databases that are mounted in the site take part in it. All of them are committed, or none:
    a writable database must not refer to an object that was not stored. Other requests, and sites
    in which no database is read-only, are left to the publisher.

    :param before_commit: ZPublisher's `PubBeforeCommit`.
    """
    request = before_commit.request
    # Not the attributes of the request, in whose place a form may put fields of its own.
    method = request.environ.get("REQUEST_METHOD", "GET").upper()
    path = request.environ.get("PATH_INFO", "")
    if method not in READING and not _is_login(path):
        return
    name = _read_only_database(request)
    if name is None or transaction.isDoomed():
        return
    try:
        transaction.commit()
    except ReadOnlyError:
        log.debug(
            "%s %r: dropping what the request has written: %s is read-only",
            method,
            path,
            name,
            extra=event("writes-dropped", storage=name, method=method, path=path),
        )
        transaction.abort()
    # In explicit mode the publisher would otherwise find no transaction to commit.
    transaction.begin()


def _is_login(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].lstrip("@") in LOGINS


def _read_only_database(request: Any) -> str | None:
    """Return the name of the first one of the site that is read-only."""
    connection = getattr(request["PARENTS"][-1], "_p_jar", None)
    if connection is not None:
        for each in connection.connections.values():
            if each.isReadOnly():
                name: str = each.db().getName()
                return name
    return None
