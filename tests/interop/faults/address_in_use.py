"""A primary whose address is taken."""

import threading

from ends import ADDRESS, commit, leave, listen_by_hand, open_storage
from zc.zrs.primary import Primary

listener = listen_by_hand()
primary = Primary(open_storage("primary"), ADDRESS)
tried = threading.Event()
primary._reactor.callFromThread(tried.set)
tried.wait()
commit(primary)
print("it has committed:", len(list(primary.iterator())))
print("it listens:", primary._listener)
leave()
