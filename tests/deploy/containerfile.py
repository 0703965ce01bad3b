"""A container file, run step by step on this machine, with a directory for each stage's root.

No engine and no image: the programs are this machine's, and an absolute path of any command is one
below the root of its stage, unless it is where systems have their own files.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dockerfile_parse import DockerfileParser

# An absolute path that nothing stands before, not in such a directory.
_PATH = re.compile(r"(?<![\w./])/(?!(?:bin|dev|etc|lib|proc|sbin|sys|tmp|usr)\b)(?=\w)")


class Instruction(NamedTuple):
    name: str
    value: str


def instructions(path: Path) -> list[Instruction]:
    """All but comments, in their order, with lines that go on put together."""
    with path.open("rb") as file:
        return [
            Instruction(each["instruction"], each["value"])
            for each in DockerfileParser(fileobj=file).structure
            if each["instruction"] != "COMMENT"
        ]


class Stage:
    """What one FROM begins.

    :param root: stands for `/`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = "/"
        self.environment: dict[str, str] = {}
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []
        self.user = "root"
        self.volumes: list[str] = []

    def inside(self, path: str) -> Path:
        """Where a path of the image is; relative ones are below the WORKDIR."""
        return self.root / os.path.join(self.directory, path).lstrip("/")

    def substitute(self, text: str) -> str:
        """`text` with the paths in it below the root of this stage."""
        return _PATH.sub(lambda found: f"{self.root}/", text)

    def variables(self) -> dict[str, str]:
        # The Python of the image is this one.
        own = str(Path(sys.executable).parent)
        here = {**os.environ, "PATH": f"{own}:{os.environ['PATH']}"}
        # Of what is installed here little is run.
        here["PIP_NO_COMPILE"] = "1"
        for name, value in self.environment.items():
            value = self.substitute(value)
            here[name] = re.sub(r"\$(\w+)", lambda found: here.get(found[1], ""), value)
        return here

    def popen(self, arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
        """What a container runs for these arguments."""
        return self._popen(self.entrypoint + arguments, **options)

    def is_healthy(self) -> bool:
        """Whether an engine would call it so."""
        with self._popen(self.health, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
            return it.wait() == 0

    def _popen(self, words: list[str], **options: object) -> subprocess.Popen[bytes]:
        words = [self.substitute(each) for each in words]
        variables = self.variables()
        program = shutil.which(words[0], path=variables["PATH"])
        assert program is not None, words
        return subprocess.Popen(
            [program, *words[1:]], cwd=self.inside("."), env=variables, **options
        )


def build(path: Path, context: Path, directory: Path) -> Stage:
    """Run the steps of the file; the last stage.

    :param context: what COPY copies from.
    :param directory: where the roots of the stages are made.
    """
    stages: dict[str, Stage] = {}
    stage = Stage(directory)
    for name, value in instructions(path):
        if name == "FROM":
            _, _, alias = value.partition(" AS ")
            stage = Stage(directory / f"stage{len(stages)}")
            stage.root.mkdir()
            stages[alias or str(len(stages))] = stage
        elif name == "WORKDIR":
            stage.directory = os.path.join(stage.directory, value)
            stage.inside(".").mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            _copy(stage, stages, context, shlex.split(value))
        elif name == "RUN":
            _run(stage, value)
        elif name == "ENV":
            key, _, text = value.partition("=")
            stage.environment[key] = text
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(value)
        elif name == "CMD":
            stage.command = json.loads(value)
        elif name == "HEALTHCHECK":
            stage.health = json.loads(value.partition(" CMD ")[2])
        elif name == "USER":
            stage.user = value
        elif name == "VOLUME":
            stage.volumes += value.split()
        else:
            assert name in {"EXPOSE", "STOPSIGNAL"}, name
    return stage


def _copy(stage: Stage, stages: dict[str, Stage], context: Path, words: list[str]) -> None:
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")]
        sources = [origin.inside(each) for each in words[:-1]]
    else:
        sources = [context / each for each in words[:-1]]
    target = stage.inside(words[-1])
    for source in sources:
        if source.is_dir():
            # As an engine does: what is in the directory.
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            (target if words[-1].endswith("/") or len(sources) > 1 else target.parent).mkdir(
                parents=True, exist_ok=True
            )
            shutil.copy2(source, target)
    if words[0].startswith("/"):
        _moved(target, str(sources[0]), str(target))


def _moved(target: Path, old: str, new: str) -> None:
    """Scripts of a virtual environment name their interpreter, which is elsewhere here."""
    for script in (target / "bin").glob("*"):
        if script.is_file() and not script.is_symlink():
            text = script.read_bytes()
            script.write_bytes(text.replace(old.encode(), new.encode()))


def _run(stage: Stage, command: str) -> None:
    if os.geteuid() != 0:
        # Nobody else can give away what is his.
        command = re.sub(r" -[og] \d+", "", command)
    subprocess.run(
        ["/bin/sh", "-e", "-c", stage.substitute(command)],
        cwd=stage.inside("."),
        env=stage.variables(),
        check=True,
    )
