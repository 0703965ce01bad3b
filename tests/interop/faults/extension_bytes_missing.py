"""A secondary with ZODB 5.6 or later."""

import threading

from ends import commit, leave, open_primary, open_secondary, open_storage, wait_for
from zc.zrs.secondary import SecondaryProtocol

received = []


class Counted(SecondaryProtocol):
    def messageReceived(self, message):
        received.append(message)
        super().messageReceived(message)


primary = open_primary(open_storage("primary"))
commit(primary)
secondary = open_secondary(open_storage("secondary"), protocol=Counted)
# The first message of the first connection, and the first of the second.
wait_for(lambda: len(received) == 2)
print("transactions begun:", len(received), "- held:", len(list(secondary.iterator())))
answered = threading.Event()
secondary._reactor.callFromThread(answered.set)
print("the reactor answers:", answered.wait(5))
leave()
