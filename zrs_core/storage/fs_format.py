"""The on-disk layout of a FileStorage data file (``ZODB.FileStorage.format``).

All numbers are big-endian::

    4 bytes  magic, FS30
    then transactions:
        8  tid
        8  length of the transaction without its trailing length
        1  status: ' ', 'p' packed, 'u' undone, 'c' voted and not finished
        2  length of user     2  length of description     2  length of extension
           user, description, extension
        data records:
            8  oid      8  tid      8  position of the object's previous record
            8  position of the transaction
            2  zero (once the length of a version)
            8  length of the data
               the data; or, where the length is 0, the 8-byte position of the record that has
               the data, which is 0 for a record without data
        8  length of the transaction again

This module is the only declaration of the layout. All other modules import it from here.
"""

from __future__ import annotations

import struct
from typing import Final

MAGIC: Final = b"FS30"
#: The position of the first transaction.
FIRST_OFFSET: Final = len(MAGIC)

#: A transaction's header without its texts: tid, length, status, and the lengths of the texts.
TRANSACTION_HEADER: Final = struct.Struct(">8sQcHHH")
#: The first bytes of a transaction's header, up to its length, which is the only value unpacked.
TRANSACTION_LENGTH: Final = struct.Struct(">8xQ")
#: A data record's header: oid, tid, previous record, transaction, version length, data length.
RECORD_HEADER: Final = struct.Struct(">8s8sQQHQ")
#: A length or a position.
U64: Final = struct.Struct(">Q")

#: Positions of the length and the status in a transaction's header.
LENGTH_OFFSET: Final = 8
STATUS_OFFSET: Final = 16

#: The statuses of a transaction that is complete, and the one of a transaction that is not.
FINISHED: Final = (b" ", b"p", b"u")
UNFINISHED: Final = b"c"
