from datetime import datetime, timedelta, timezone

import pytest

from zrs_core.messages import MAX_TID, NO_TID
from zrs_core.tids import describe_tid, parse_span, parse_tid, tid_of, time_of


def test_a_tid_is_described_with_its_time():
    assert describe_tid(b"\0" * 8) == "0x0000000000000000 (1900-01-01 00:00:00.000000)"
    assert describe_tid(bytes.fromhex("036c6b90f7777777")).startswith("0x036c6b90f7777777 (20")


def test_any_eight_bytes_are_described():
    assert describe_tid(b"\xff" * 8).startswith("0xffffffffffffffff (")


def test_a_tid_is_parsed():
    tid = bytes.fromhex("036c6b90f77777ab")
    assert parse_tid("0x036c6b90f77777ab") == parse_tid("0X036C6B90F77777AB") == tid


@pytest.mark.parametrize(
    "text",
    ["", "036c6b90f77777ab", "0x036c6b90f77777a", "0x036c6b90f77777abc", "0x036c6b90f77777ag"],
)
def test_what_is_no_tid(text):
    with pytest.raises(ValueError, match="is no tid: one is 0x and 16 hex digits"):
        parse_tid(text)


@pytest.mark.parametrize("tid", [b"\0" * 8, bytes.fromhex("036c6b90f7777777"), b"\x7f" * 8])
def test_the_time_of_a_tid(tid):
    assert describe_tid(tid).endswith(f" ({time_of(tid):%Y-%m-%d %H:%M:%S.%f})")
    # It is shown more coarsely than it is.
    assert abs(time_of(tid_of(time_of(tid))) - time_of(tid)) <= timedelta(microseconds=1)


def test_the_time_of_a_day_that_there_is_not():
    # The 31st of February.
    tid = (((((2026 - 1900) * 12 + 1) * 31 + 30) * 24 * 60) << 32).to_bytes(8, "big")
    assert "2026-02-31" in describe_tid(tid)
    assert time_of(tid) == datetime(2026, 3, 3, tzinfo=timezone.utc)


def test_the_tid_of_a_time_elsewhere():
    here = datetime(2026, 1, 31, 12, 30, 15, 250_000, tzinfo=timezone.utc)
    assert tid_of(here.astimezone(timezone(timedelta(hours=5)))) == tid_of(here)
    assert time_of(tid_of(here)) == here


@pytest.mark.parametrize(
    ("text", "tid"),
    [
        ("0001-01-01T00:00:00+14:00", NO_TID),
        ("0001-01-01", NO_TID),
        ("1899-12-31T23:59:59.999999", NO_TID),
        ("5908-12-31", MAX_TID),
        ("5909-01-01", MAX_TID),
        ("9917-01-01", MAX_TID),
        ("9999-12-31T23:59:59.999999", MAX_TID),
        ("9999-12-31T23:59:59.999999-14:00", MAX_TID),
    ],
)
def test_times_that_no_tid_has(text, tid):
    first, last = parse_span(text)
    assert last == tid
    assert int.from_bytes(tid, "big") - int.from_bytes(first, "big") in (0, 36)


def test_tids_rise_with_their_times():
    times = [datetime(year, 1, 1, tzinfo=timezone.utc) for year in range(1, 10_000)]
    tids = [tid_of(each) for each in times]
    assert tids == sorted(tids)
    assert tids[1899] == NO_TID < tids[1900] < tids[5907] < tids[5908] == MAX_TID


def test_the_tids_of_a_microsecond():
    first, last = parse_span("2026-01-31T12:00:00.000001Z")
    assert first < last < parse_span("2026-01-31T13:00:00.000002+01:00")[1]
    when = datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=timezone.utc)
    assert first < tid_of(when) < last


def test_a_time_that_is_shown_includes_its_tid():
    start = int.from_bytes(tid_of(datetime(2026, 1, 31, tzinfo=timezone.utc)), "big")
    for number in range(0, 1000, 7):
        tid = (start + number).to_bytes(8, "big")
        first, last = parse_span(f"{time_of(tid):%Y-%m-%d %H:%M:%S.%f}")
        assert first <= tid <= last


def test_a_tid_stands_for_itself():
    tid = bytes.fromhex("036c6b90f77777ab")
    assert parse_span("0x036c6b90f77777ab") == (tid, tid)


@pytest.mark.parametrize("text", ["", "yesterday", "0x12", "12:00", "2026-02-30", "Z"])
def test_what_stands_for_no_tid(text):
    with pytest.raises(ValueError, match=r"."):
        parse_span(text)
