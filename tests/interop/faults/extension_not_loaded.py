"""An extension of a class that the primary's process cannot import."""

from ends import connect_by_hand, leave, open_primary, open_storage, receive
from ZODB.Connection import TransactionMetaData

primary = open_primary(open_storage("primary"))
metadata = TransactionMetaData(extension=b"}X\5\0\0\0otherccatalog\nTicket\n)\x81s.")
primary.tpc_begin(metadata)
primary.store(bytes(8), bytes(8), b"a record", "", metadata)
primary.tpc_vote(metadata)
primary.tpc_finish(metadata)
for attempt in ("first", "second"):
    print(attempt, "attempt:", receive(connect_by_hand()))
leave()
