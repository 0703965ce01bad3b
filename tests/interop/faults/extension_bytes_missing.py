"""A secondary with ZODB 5.6 or later."""

import threading

from ends import Counted, commit, leave, open_primary, open_secondary, open_storage, wait_for

primary = open_primary(open_storage("primary"))
commit(primary)
secondary = open_secondary(open_storage("secondary"))
# The first message of the first connection, and the first of the second.
wait_for(lambda: Counted.messages == 2)
print("transactions begun:", Counted.messages, "- held:", len(list(secondary.iterator())))
answered = threading.Event()
secondary._reactor.callFromThread(answered.set)
print("the reactor answers:", answered.wait(5))
leave()
