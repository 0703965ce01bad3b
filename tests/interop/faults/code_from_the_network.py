"""A primary that sends a pickle with a call in it."""

import os

from ends import accept_by_hand, leave, listen_by_hand, open_secondary, open_storage, send, wait_for


class Call:
    def __reduce__(self):
        return os.mkdir, ("made by the primary",)


listener = listen_by_hand()
secondary = open_secondary(open_storage("secondary"))
send(accept_by_hand(listener), Call())
wait_for(lambda: os.path.exists("made by the primary"))
print("the secondary has called os.mkdir")
leave()
