"""An undo that reaches a secondary which was packed."""

import time

from ends import (
    Counted,
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
secondary.pack(time.time(), referencesf)
undo(primary)
before = Counted.connections
wait_for(lambda: Counted.connections > before + 3)
print("it has the undo after more connections:", have_all(primary, secondary))
leave()
