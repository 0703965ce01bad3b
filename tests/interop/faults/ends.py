"""What the scripts beside this one share: ends of zc.zrs, or played by hand.

They work in a directory that is thrown away, over a Unix socket in it.
"""

import logging
import os
import pickle
import socket
import struct
import sys
import tempfile
import time

import transaction
from zc.zrs.primary import Primary
from zc.zrs.secondary import Secondary, SecondaryFactory, SecondaryProtocol
from ZODB import DB
from ZODB.FileStorage import FileStorage

ADDRESS = "zrs.sock"

# The greeting of a secondary that has nothing yet, as it is on the wire.
GREETING = b"\0\0\0\6zrs2.1" + b"\0\0\0\10" + bytes(8)

logging.disable()
_directory = tempfile.TemporaryDirectory()
os.chdir(_directory.name)


class Counted(SecondaryProtocol):
    """Counts the connections of secondaries and what they have received."""

    connections = messages = 0

    def connectionMade(self):
        Counted.connections += 1
        super().connectionMade()

    def messageReceived(self, message):
        Counted.messages += 1
        super().messageReceived(message)


SecondaryFactory.protocol = Counted


def open_storage(name):
    return FileStorage(f"{name}.fs", blob_dir=f"{name}.blobs")


def open_primary(storage):
    primary = Primary(storage, ADDRESS)
    wait_for(lambda: os.path.exists(ADDRESS))
    return primary


def open_secondary(storage):
    return Secondary(storage, ADDRESS, reconnect_delay=0.1)


def commit(storage, **values):
    """One transaction, in a database that stays open."""
    connection = DB(storage).open(transaction.TransactionManager())
    connection.root().update(values)
    connection.transaction_manager.commit()


def undo(storage):
    """Undo the last transaction of a database that stays open."""
    db = DB(storage)
    manager = transaction.TransactionManager()
    db.undo(db.undoLog(0, 1)[0]["id"], manager.get())
    manager.commit()


def wait_for(condition):
    """Wait for a minute at most."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    print("waited in vain")
    leave()


def have_all(primary, secondary):
    return secondary.lastTransaction() == primary.lastTransaction()


def listen_by_hand():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(ADDRESS)
    listener.listen()
    return listener


def accept_by_hand(listener):
    """A secondary that has said its greeting."""
    connection = listener.accept()[0]
    connection.recv(len(GREETING), socket.MSG_WAITALL)
    return connection


def connect_by_hand():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(ADDRESS)
    connection.sendall(GREETING)
    return connection


def send(connection, message):
    """A message: bytes as they are, anything else as its pickle."""
    payload = message if isinstance(message, bytes) else pickle.dumps(message, 1)
    connection.sendall(struct.pack(">I", len(payload)) + payload)


def receive(connection):
    """The bytes of a message, or None if there is no more."""
    prefix = connection.recv(4, socket.MSG_WAITALL)
    return connection.recv(*struct.unpack(">I", prefix), socket.MSG_WAITALL) if prefix else None


def leave():
    """End the process, whatever the reactor does."""
    sys.stdout.flush()
    _directory.cleanup()
    os._exit(0)
