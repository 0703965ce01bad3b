"""What a test leaves behind: threads, descriptors, temporary files."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds for threads to end that were told to.
DEADLINE = 60.0

# Seconds after which what nobody refers to is collected: some of ZODB's storages tidy up only then.
# A file that was not closed is a warning.
_PATIENCE = 0.1

_DESCRIPTORS = "/proc/self/fd"

# Twisted opens it once, to have a descriptor to give up when there are no others.
_KEPT = f"descriptor of {os.devnull}"

# The directory of a PostgreSQL server, which is started for the first test that needs it.
_OF_ALL_TESTS = "zrs-pg-"


@contextmanager
def own_temporary_directory() -> Iterator[None]:
    """A directory for the temporary files of this process and of those that it starts alone."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="zrs-") as directory:
        # Who runs as root has a PostgreSQL server that runs as somebody else.
        os.chmod(directory, 0o711)
        tempfile.tempdir = os.environ["TMPDIR"] = directory
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR")
            if variable is not None:
                os.environ["TMPDIR"] = variable


def belongings() -> Counter[str]:
    """What this process has now, by names that tell what it is."""
    found = Counter(f"thread {each.name} ({each.ident})" for each in threading.enumerate())
    directory = tempfile.gettempdir()
    found.update(
        f"temporary file {directory}/{each}"
        for each in os.listdir(directory)
        if not each.startswith(_OF_ALL_TESTS)
    )
    # Where the system does not tell of descriptors, none are found.
    for descriptor in os.listdir(_DESCRIPTORS) if os.path.isdir(_DESCRIPTORS) else []:
        try:
            found[f"descriptor of {os.readlink(f'{_DESCRIPTORS}/{descriptor}')}"] += 1
        except FileNotFoundError:
            # That of the listing itself, for one.
            continue
    del found[_KEPT]
    return found


def leaks(before: Counter[str]) -> list[str]:
    """What there is more than before, once what is ending has ended."""
    begin = time.monotonic()
    collected = False
    while more := belongings() - before:
        waited = time.monotonic() - begin
        if waited > DEADLINE:
            break
        if waited > _PATIENCE and not collected:
            collected = True
            gc.collect()
        time.sleep(0.005)
    return sorted(more.elements())
