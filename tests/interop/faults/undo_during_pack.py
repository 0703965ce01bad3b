"""An undo that reaches a secondary while that is packed."""

import time

from ends import (
    commit,
    have_all,
    leave,
    open_primary,
    open_secondary,
    open_storage,
    undo,
    wait_for,
)
from ZODB.serialize import referencesf

primary = open_primary(open_storage("primary"))
secondary = open_secondary(open_storage("secondary"))
commit(primary, title="first")
commit(primary, title="second")
wait_for(lambda: have_all(primary, secondary))
done = []


def undo_meanwhile(data, oids=None):
    if not done:
        done.append(undo(primary))
        wait_for(lambda: have_all(primary, secondary))
    return referencesf(data, oids)


try:
    secondary.pack(time.time() + 1, undo_meanwhile)
except Exception as error:
    print(type(error).__name__, error)
leave()
