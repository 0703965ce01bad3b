"""A connection that is lost within a blob."""

import os

from ends import accept_by_hand, leave, listen_by_hand, open_secondary, open_storage, send

listener = listen_by_hand()
secondary = open_secondary(open_storage("secondary"))
connection = accept_by_hand(listener)
tid, oid = bytes.fromhex("036c6b90f3333333"), bytes(8)
send(connection, ("T", (tid, " ", b"", b"", {})))
send(connection, ("B", (oid, tid, "", None, 2)))
send(connection, b"\x80\x03cZODB.blob\nBlob\nq\0.N.")
send(connection, bytes(65536))
connection.close()
accept_by_hand(listener)
print("transactions:", len(list(secondary.iterator())))
files = [os.path.getsize(each) for each in os.scandir("secondary.blobs/tmp")]
print("bytes of temporary files:", files)
leave()
