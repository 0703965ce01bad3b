"""A blob whose file cannot be opened."""

import os

from ends import commit, have_all, leave, open_primary, open_secondary, open_storage, wait_for
from ZODB.blob import Blob

primary = open_primary(open_storage("primary"))
commit(primary, blob=Blob(b"a picture"))
path = primary.loadBlob(bytes(7) + b"\1", primary.lastTransaction())
os.unlink(path)
# There is something, and it cannot be opened as a file.
os.mkdir(path)
secondary = open_secondary(open_storage("secondary"))
wait_for(lambda: have_all(primary, secondary))
blobs = [name for _, _, names in os.walk("secondary.blobs") for name in names if ".blob" in name]
print("the secondary has all transactions, and these blobs:", blobs)
leave()
