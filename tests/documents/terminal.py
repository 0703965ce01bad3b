"""A terminal as a reader has it in front of him: bash, a screen, keys."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

#: Seconds for what takes longest, an installation.
DEADLINE = 300.0

#: Wide enough for each line of the documents, high enough for all that one of them does.
COLUMNS, LINES = 500, 1000

#: What stands before what is typed: into the shell, and into a program or within a command.
PROMPTS = ("$ ", "> ")
_INTERRUPT = "^C"
_ANYTHING = "..."
# Who runs the tests in the background may have them ignore what a key sends.
_DEFAULT_SIGNALS = ("env", "--default-signal=INT")
_SHELL = ("bash", "--noprofile", "--norc", "--noediting", "-i")
# A last line that is no answer: a prompt that waits, or the cursor at the begin of a line.
_BARE = ("", *(each.rstrip() for each in PROMPTS))


class Terminal:
    """A bash of its own on a pseudo-terminal of its own; a context that ends it.

    :param directory: where it starts.
    :param path: its `PATH`.
    """

    def __init__(self, directory: Path, path: str) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        #: The first line of the screen that nobody has looked at.
        self._row = 0
        self._master, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        # What is meant for the Python that runs the tests alone.
        ours = ("PYTHON", "PYTEST", "COV", "VIRTUAL_ENV")
        environment = {name: each for name, each in os.environ.items() if not name.startswith(ours)}
        environment |= {"PATH": path, "TERM": "linux", "LANG": "C.UTF-8"}
        # No two readers have the same prompt.
        environment |= {"PS1": PROMPTS[0], "PS2": PROMPTS[1], "VIRTUAL_ENV_DISABLE_PROMPT": "1"}
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", *_DEFAULT_SIGNALS, *_SHELL],
            cwd=directory,
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # With its terminal, the system takes what runs in it along.
        os.close(self._master)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(DEADLINE)
        self._shell.kill()
        self._shell.wait()

    def follow(self, text: str) -> None:
        """Type what a block shows as typed, and see all the rest of it appear, and no more.

        A line that begins with a prompt is typed; `^C` is a key, which a program may answer in the
        same line. In what appears, `...` stands for any part of a line, and for any lines where it
        is alone: at the end, for all until the next prompt.

        :raises AssertionError: something else appears.
        """
        for typed, answer in _exchanges(text):
            if typed is not None:
                self._type(typed)
            self._see(([typed] if typed is not None else []) + answer)

    def finish(self) -> None:
        """See that everything has ended that was begun here, and leave.

        :raises AssertionError: it has not, or something has appeared since.
        """
        self._type("$ exit")
        self._shell.wait(DEADLINE)

    def _type(self, line: str) -> None:
        prompt = next((each for each in PROMPTS if line.startswith(each)), "")
        self._wait(lambda: self._appeared() == [prompt.rstrip()], [prompt])
        text, interrupt, _ = line.removeprefix(prompt).partition(_INTERRUPT)
        keys = text + ("\x03" if interrupt else "\n")
        os.write(self._master, keys.encode())

    def _see(self, expected: list[str]) -> None:
        pattern = re.compile(_pattern(expected))

        def seen() -> bool:
            lines = self._appeared()
            if expected[-1] == _ANYTHING and lines[-1] not in _BARE[1:]:
                return False
            if lines[-1] in _BARE:
                lines = lines[:-1]
            return pattern.fullmatch("".join(f"{each}\n" for each in lines)) is not None

        def ended() -> bool:
            # When the shell asks for more, all has been said.
            return len(self._appeared()) > 1 and self._appeared()[-1] == PROMPTS[0].rstrip()

        self._wait(lambda: seen() or ended(), expected)
        assert seen(), self._compared(expected)
        row = self._screen.cursor.y
        self._row = row if self._appeared()[-1] in _BARE else row + 1

    def _appeared(self) -> list[str]:
        """The lines that are new, up to that with the cursor."""
        end = max(self._screen.cursor.y, self._row)
        return [self._line(number) for number in range(self._row, end + 1)]

    def _line(self, number: int) -> str:
        cells = self._screen.buffer[number]
        return "".join(cells[column].data for column in range(COLUMNS)).rstrip()

    def _wait(self, condition: Callable[[], bool], expected: list[str]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            remaining = deadline - time.monotonic()
            assert self._read(remaining), self._compared(expected)

    def _compared(self, expected: list[str]) -> str:
        return "\n".join(["expected:", *expected, "", "appeared:", *self._appeared()])

    def _read(self, timeout: float) -> bool:
        """More of what is written to the screen; False if nothing comes."""
        readable, _, _ = select.select([self._master], [], [], max(timeout, 0))
        if not readable:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # Nobody has the other side open any more.
            return False
        self._stream.feed(data)
        return bool(data)


def _exchanges(text: str) -> list[tuple[str | None, list[str]]]:
    """What is typed, None for nothing, and what appears after it."""
    exchanges: list[tuple[str | None, list[str]]] = []
    for line in text.splitlines():
        if line.startswith((*PROMPTS, _INTERRUPT)):
            exchanges.append((line, []))
        elif not exchanges:
            exchanges.append((None, [line]))
        else:
            exchanges[-1][1].append(line)
    return exchanges


def _pattern(lines: list[str]) -> str:
    return "".join(
        "(?:.*\n)*" if line == _ANYTHING else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in lines
    )
