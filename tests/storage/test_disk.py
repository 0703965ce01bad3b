"""What is made sure to be on disk, and what a disk writes as a whole."""

from __future__ import annotations

import _thread
import os
import threading

import pytest

from zrs_core.storage import disk


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


class TestBlockSize:
    @pytest.fixture
    def told(self, monkeypatch):
        """What the system tells, by what its names end with."""
        told = {"/alignment_offset": 0, "/queue/physical_block_size": 4096}

        def number(path):
            assert path.startswith("/sys/dev/block/")
            for name, value in told.items():
                if path.endswith(name) and ".." not in path.removesuffix(name):
                    return value
            raise FileNotFoundError(path)

        monkeypatch.setattr(disk, "_number", number)
        return told

    def file_system(self, monkeypatch, size):
        real = os.fstatvfs

        def fstatvfs(fd):
            found = [*real(fd)]
            found[1] = size
            return os.statvfs_result(found)

        monkeypatch.setattr(os, "fstatvfs", fstatvfs)

    @pytest.mark.parametrize(
        ("physical", "file_system", "expected"),
        [
            (512, 4096, 512),
            (4096, 4096, 4096),
            (4096, 1024, 1024),
            (16384, 4096, 4096),
            (0, 4096, 512),
        ],
    )
    def test_it_is_the_smaller_of_the_disk_s_and_the_file_system_s(
        self, physical, file_system, expected, told, fd, monkeypatch
    ):
        told["/queue/physical_block_size"] = physical
        self.file_system(monkeypatch, file_system)
        assert disk.block_size(fd) == expected

    def test_a_partition_has_that_of_its_disk(self, told, fd, monkeypatch):
        self.file_system(monkeypatch, 4096)
        del told["/queue/physical_block_size"]
        told["/../queue/physical_block_size"] = 4096
        assert disk.block_size(fd) == 4096

    @pytest.mark.parametrize("offset", [512, -1])
    def test_where_blocks_do_not_begin_at_multiples_it_is_a_sector(
        self, offset, told, fd, monkeypatch
    ):
        self.file_system(monkeypatch, 4096)
        told["/alignment_offset"] = offset
        assert disk.block_size(fd) == disk.SECTOR

    @pytest.mark.parametrize("missing", ["/alignment_offset", "/queue/physical_block_size"])
    def test_where_the_system_does_not_tell_it_is_a_sector(self, missing, told, fd, monkeypatch):
        self.file_system(monkeypatch, 4096)
        del told[missing]
        assert disk.block_size(fd) == disk.SECTOR

    def test_what_is_no_number_is_not_believed(self, fd, monkeypatch):
        monkeypatch.setattr(disk, "_number", lambda path: int("?"))
        assert disk.block_size(fd) == disk.SECTOR

    def test_of_this_machine_it_is_a_power_of_two(self, fd):
        size = disk.block_size(fd)
        assert size >= disk.SECTOR
        assert size & (size - 1) == 0


class TestBeside:
    def test_it_is_done_in_a_thread_of_its_own(self):
        may_end, where = threading.Event(), []

        def function():
            where.append(threading.get_ident())
            assert may_end.wait(60)

        beside = disk.Beside(function)
        assert not beside.is_over()
        may_end.set()
        beside.wait()
        assert beside.is_over()
        beside.wait()
        assert where != [threading.get_ident()]

    @pytest.mark.parametrize("error", [OSError("full"), MemoryError(), SystemExit(1)])
    def test_what_it_raises_is_raised_to_who_waits(self, error):
        def function():
            raise error

        beside = disk.Beside(function)
        for _ in range(2):
            with pytest.raises(type(error)):
                beside.wait()

    def test_without_threads_it_is_done_at_once(self, monkeypatch):
        def none(function, arguments):
            raise RuntimeError("can't start new thread")

        done = []
        monkeypatch.setattr(_thread, "start_new_thread", none)
        beside = disk.Beside(lambda: done.append(threading.get_ident()))
        assert done == [threading.get_ident()]
        assert beside.is_over()
        beside.wait()
