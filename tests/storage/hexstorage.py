"""A storage that keeps the records of another one in hexadecimal form, as ZODB documents it."""

from __future__ import annotations

from binascii import hexlify, unhexlify

from ZODB.interfaces import IStorageWrapper
from ZODB.utils import load_current
from zope.interface import alsoProvides, directlyProvides, providedBy

# No pickle begins so.
_MARK = b".h"


def transform(data):
    return _MARK + hexlify(data)


def untransform(data):
    return unhexlify(data[len(_MARK) :])


class HexStorage:
    """Wraps `base`; what it does not change itself is that storage's."""

    def __init__(self, base):
        self._base = base
        self._db = None
        base.registerDB(self)
        directlyProvides(self, providedBy(base))
        alsoProvides(self, IStorageWrapper)

    def __getattr__(self, name):
        return getattr(self._base, name)

    def __len__(self):
        return len(self._base)

    # -- records

    load = load_current

    def loadBefore(self, oid, tid):
        found = self._base.loadBefore(oid, tid)
        return found and (untransform(found[0]), *found[1:])

    def loadSerial(self, oid, serial):
        return untransform(self._base.loadSerial(oid, serial))

    def store(self, oid, serial, data, version, transaction):
        return self._base.store(oid, serial, transform(data), version, transaction)

    def storeBlob(self, oid, serial, data, path, version, transaction):
        return self._base.storeBlob(oid, serial, transform(data), path, version, transaction)

    def pack(self, time, references):
        self._base.pack(time, lambda data, oids=None: references(untransform(data), oids))

    # -- for the storage below

    def registerDB(self, db):
        self._db = db

    def invalidate(self, tid, oids):
        if self._db is not None:
            self._db.invalidate(tid, oids)

    def invalidateCache(self):
        if self._db is not None:
            self._db.invalidateCache()

    def references(self, data, oids=None):
        return self._db.references(untransform(data), oids)

    def transform_record_data(self, data):
        return transform(data)

    def untransform_record_data(self, data):
        return untransform(data)
