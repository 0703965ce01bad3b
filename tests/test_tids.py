from zrs_core.tids import describe_tid


def test_a_tid_is_described_with_its_time():
    assert describe_tid(b"\0" * 8) == "0x0000000000000000 (1900-01-01 00:00:00.000000)"
    assert describe_tid(bytes.fromhex("036c6b90f7777777")).startswith("0x036c6b90f7777777 (20")


def test_any_eight_bytes_are_described():
    assert describe_tid(b"\xff" * 8).startswith("0xffffffffffffffff (")
