"""An extension in which two values are the same object."""

from ends import have_all, leave, open_primary, open_secondary, open_storage, wait_for
from ZODB.Connection import TransactionMetaData


def extension_in(name):
    """Its bytes, as they are in the file."""
    with open(f"{name}.fs", "rb") as file:
        file.seek(4 + 17)
        user, description, extension = (int.from_bytes(file.read(2), "big") for _ in range(3))
        file.seek(user + description, 1)
        return file.read(extension)


primary = open_primary(open_storage("primary"))
secondary = open_secondary(open_storage("secondary"))
word = "twice"
metadata = TransactionMetaData(extension={"one": [word], "two": [word]})
primary.tpc_begin(metadata)
primary.store(bytes(8), bytes(8), b"a record", "", metadata)
primary.tpc_vote(metadata)
primary.tpc_finish(metadata)
wait_for(lambda: have_all(primary, secondary))
print("primary:", extension_in("primary"))
print("secondary:", extension_in("secondary"))
leave()
