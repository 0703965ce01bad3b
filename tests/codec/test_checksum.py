import hashlib

from zrs_core.codec.checksum import RunningChecksum


def test_it_begins_with_the_start_id_and_runs_over_what_follows():
    checksum = RunningChecksum(b"start id")
    assert checksum.digest() == hashlib.md5(b"start id").digest()
    checksum.update(b"one")
    checksum.update(b"")
    checksum.update(b"two")
    assert checksum.digest() == hashlib.md5(b"start idonetwo").digest()


def test_asking_for_the_digest_changes_nothing():
    checksum = RunningChecksum(b"start id")
    assert checksum.digest() == checksum.digest()
