"""A subscriber for Zope: requests that only read succeed on a replica, although they write.

Zope applications write in requests that only read: Plone stores the scale of an image when it is
first asked for, and the time of a login. On a read-only database the commit of such a request
fails. `replica.zcml` registers `drop_writes`, which aborts the transaction before that, so that
Zope delivers the response and commits nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import transaction
from ZODB.Connection import Connection

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
    """Abort the transaction of a read or a login that has changed a read-only database.

    Whatever else the transaction has changed is dropped with that: a writable database that is
    mounted beside the replica must not refer to an object that was not stored. A transaction that
    has changed writable databases only is left as it is, and so is every other request's.

    :param before_commit: ZPublisher's `PubBeforeCommit`.
    """
    # Not the attributes of the request, in whose place a form may put fields of its own.
    environ = before_commit.request.environ
    method = environ.get("REQUEST_METHOD", "GET").upper()
    path = environ.get("PATH_INFO", "")
    if method not in READING and not _is_login(path):
        return
    # What `commit` would commit. The transaction has no public name for it.
    for resource in transaction.get()._resources:
        if isinstance(resource, Connection) and resource.isReadOnly():
            name = resource.db().getName()
            log.debug(
                "%s %r: dropping what the request has written: %s is read-only",
                method,
                path,
                name,
                extra=event("writes-dropped", storage=name, method=method, path=path),
            )
            # Not `doom`: a transaction that has failed to make a savepoint refuses that.
            transaction.abort()
            # In explicit mode the publisher would otherwise find no transaction to commit.
            transaction.begin()
            return


def _is_login(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].lstrip("@") in LOGINS
