from zrs_core.transports.sockets import FIRST_READ_SIZE, READ_SIZE, next_read_size


def test_a_read_that_was_full_is_followed_by_a_large_one():
    assert next_read_size(1) == next_read_size(FIRST_READ_SIZE - 1) == FIRST_READ_SIZE
    assert next_read_size(FIRST_READ_SIZE) == next_read_size(READ_SIZE) == READ_SIZE
