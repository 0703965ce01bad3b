import inspect
import re

import pytest

from zrs_core import errors

LOW, START, HIGH = (bytes(7) + bytes((n,)) for n in (1, 2, 3))


def drawn_tree():
    """(name, name of its parent) of each class in the tree that the module's docstring draws."""
    parents = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ( *)([A-Z][A-Za-z]+)( {2,}|$)", line)
        if found:
            level = len(found[1]) // 2
            del parents[level:]
            yield found[2], parents[-1] if parents else "Exception"
            parents.append(found[2])


def test_the_family_is_as_the_docstring_draws_it():
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    assert dict(drawn_tree()) == {name: cls.__bases__[0].__name__ for name, cls in classes.items()}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.RemoteProtocolError("reason"), "reason (at byte 0 of the stream)"),
        (
            errors.LimitExceeded("reason", tid=START, offset=17),
            "reason (at byte 17 of the stream, in transaction 0x0000000000000002)",
        ),
        (
            errors.TidTooHigh(START, LOW),
            "the secondary holds 0x0000000000000002, which is later than this primary's "
            "last one 0x0000000000000001: it replicates another database, or this primary has "
            "lost transactions. Check the address; to go on from this primary, replicate into "
            "an empty storage",
        ),
        (
            errors.Diverged(START, LOW, HIGH),
            "the histories have diverged: the secondary holds 0x0000000000000002, which "
            "is not in this primary. The nearest transactions here are 0x0000000000000001 before "
            "it and 0x0000000000000003 after it; the secondary may have neither, and logs the last "
            "one that both have. Keep the secondary's files if their newest transactions matter; "
            "to go on from this primary, replicate into an empty storage",
        ),
    ],
)
def test_an_error_says_what_and_where(error, text):
    assert str(error) == text


def test_a_divergence_at_an_end_of_the_history_has_one_neighbour():
    text = str(errors.Diverged(START, None, HIGH))
    assert "none before it and 0x0000000000000003 after it" in text


def test_an_error_keeps_what_it_was_made_of():
    remote = errors.ChecksumError("reason", tid=START, offset=17)
    assert (remote.reason, remote.tid, remote.offset) == ("reason", START, 17)
    too_high = errors.TidTooHigh(START, LOW)
    assert (too_high.start, too_high.last) == (START, LOW)
    diverged = errors.Diverged(START, LOW, HIGH)
    assert (diverged.start, diverged.before, diverged.after) == (START, LOW, HIGH)
    assert isinstance(errors.ListenError(), OSError)
    assert isinstance(errors.InvalidMessage(), ValueError)
    assert isinstance(errors.ConfigurationError(), ValueError)
