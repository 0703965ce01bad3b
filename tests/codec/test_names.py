"""`import zrs_core.codec as zrs` gives all that a program needs."""

import typing

import zrs_core.codec as zrs
from zrs_core import errors, messages


def test_all_names_are_there_once():
    assert len(zrs.__all__) == len({*zrs.__all__}) <= 30
    assert {*zrs.__all__} <= {*dir(zrs)}


def test_every_message_is_there():
    sent = typing.get_args(messages.SecondaryMessage) + typing.get_args(messages.PrimaryMessage)
    assert len(sent) == 8
    assert sent == tuple(getattr(zrs, each.__name__) for each in sent)
    assert {each.__name__ for each in sent} <= {*zrs.__all__}


def test_every_error_of_a_connection_is_there():
    kinds = [errors.ReplicationError, errors.InvalidMessage, errors.ProtocolError]
    kinds += [each for kind in kinds[1:] for each in kind.__subclasses__()]
    kinds += errors.RemoteProtocolError.__subclasses__()
    assert len(kinds) == 9
    assert kinds == [getattr(zrs, each.__name__) for each in kinds]
    assert {each.__name__ for each in kinds} <= {*zrs.__all__}
