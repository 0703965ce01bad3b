"""A blob without bytes."""

import os

from ends import commit, have_all, leave, open_primary, open_secondary, open_storage, wait_for
from ZODB.blob import Blob
from ZODB.POSException import POSKeyError


def size_of_blob(storage):
    try:
        return os.path.getsize(storage.loadBlob(bytes(7) + b"\1", storage.lastTransaction()))
    except POSKeyError:
        return None


primary = open_primary(open_storage("primary"))
secondary = open_secondary(open_storage("secondary"))
commit(primary, blob=Blob(b""))
wait_for(lambda: have_all(primary, secondary))
print("bytes on the primary:", size_of_blob(primary))
print("bytes on the secondary:", size_of_blob(secondary))
leave()
