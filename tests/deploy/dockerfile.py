"""A Dockerfile as a script in a clean folder, for machines where no image can be built.

Each stage is a folder that stands for `/`; a base image is a Python with pip, made anew. RUN lines
run in a shell, with nothing in their environment but what the file says and how this machine
reaches its package registry. An instruction that is not known here is refused, so that the file
can't grow past its test. What is not tried: the base image itself, and its Python's version.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

import dev

NETWORK = re.compile(r"(PIP|UV|SSL)_|(https?|no)_proxy$", re.IGNORECASE)
ABSOLUTE = re.compile(r"(?<![\w./$])/(?=\w)")  # where a path of the image begins
NOTES = ("VOLUME", "EXPOSE", "STOPSIGNAL")


def instructions(text):
    """Pairs of a word and its argument; comments are gone, continued lines are one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in whole.splitlines() if line.strip()]


def context(source, ignore, target):
    """Copy what the builder would be sent: a file goes by the last pattern that means it."""
    rules = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    for name in [rule[1:] for rule in rules if rule.startswith("!")]:
        found = source / name
        for path in found.rglob("*") if found.is_dir() else [found]:
            inside = path.relative_to(source)
            if path.is_file() and _sent(inside, rules):
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / inside)


def _sent(path, rules):
    """Whether a file is sent. A pattern for a folder means all that is in it."""
    sent = True
    for rule in rules:
        pattern = rule.lstrip("!").removeprefix("**/")
        meant = path.parts if "**/" in rule else [path, *path.parents]
        if any(fnmatch.fnmatchcase(str(name), pattern) for name in meant):
            sent = rule.startswith("!")
    return sent


def python_for(user):
    """A Python that this user may run: the tests' own may lie in root's home."""
    for found in (sys._base_executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        code = "import sys; sys.exit(sys.version_info < (3, 11))"
        command = ["env", str(found), "-c", code]  # env says by its exit code that it may not
        if subprocess.run(command, stderr=subprocess.DEVNULL, **as_user(user)).returncode == 0:
            return found
    raise LookupError("no Python 3.11 can be run by everybody")


def as_user(user):
    """What starts a process as another user; nothing if we are not root and can't."""
    if os.geteuid() or not user:
        return {"cwd": "/"}
    uid, _, gid = str(user).partition(":")
    return {"user": int(uid), "group": int(gid or uid), "extra_groups": [], "cwd": "/"}


class Image:
    """What a Dockerfile makes, in `folder`."""

    def __init__(self, dockerfile, source, folder):
        self.folder, self.root = folder, folder / "root"
        self.user, self.cwd, self.env, self.args, self.notes = "", Path(), {}, {}, {}
        self.entrypoint, self.command, self.check, self._stage = [], [], [], ""
        self._steps = instructions(dockerfile.read_text("utf-8"))
        ignore = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text("utf-8")
        context(source, ignore, folder / "context")

    def build(self):
        """From nothing, with a Python that the image's user may run."""
        uids = [argument for word, argument in self._steps if word == "USER"]
        self._make_base(python_for(uids[-1]))
        return self.follow()

    def follow(self):
        """One instruction after the other."""
        for word, argument in self._steps:
            if word in NOTES:
                self.notes[word] = argument
                continue
            getattr(self, f"_{word.lower()}", self._unknown(word))(argument)
        return self

    def start(self, *arguments, env=(), **more):
        """A container: its entry point, with these arguments instead of CMD."""
        return self.start_command([*self.entrypoint, *(arguments or self.command)], env, **more)

    def start_command(self, command, env=(), **more):
        """Another program in it."""
        place = as_user(self.user) | {"cwd": self.cwd}
        return subprocess.Popen(command, env={**self.env, **dict(env)}, text=True, **place, **more)

    def inside(self, text):
        """A text of the file, with the image's paths as they are here, and its variables filled."""
        here = ABSOLUTE.sub(f"{self.root}/", text)
        return string.Template(here).safe_substitute(self.env | self.args)

    def _make_base(self, python):
        base = self.folder / "base"
        subprocess.run([python, "-m", "venv", "--without-pip", base], check=True)
        failures = (dev._failure([*installer, "pip"]) for installer in dev._installers(base))
        if all(failures):  # up to the first that is none
            raise LookupError("no pip was found, or it can't reach its registry")

    def _unknown(self, word):
        def refuse(argument):
            raise ValueError(f"an instruction that is not followed here: {word} {argument}")

        return refuse

    def _from(self, argument):
        image, *named = argument.split(" AS ")
        assert re.fullmatch(r"python:3\.\d+-slim", image), image
        if self.root.exists():  # paths in an environment are absolute: each stage is at one place
            self.root.rename(self.folder / self._stage)
        self.root.mkdir()
        self._stage, self.args, self.cwd = (named or ["last"])[0], {}, self.root
        self.env = {"PATH": f"{self.folder}/base/bin:/usr/bin:/bin", "HOME": str(self.root)}

    def _arg(self, argument):
        name, _, value = argument.partition("=")
        self.args[name] = value

    def _env(self, argument):
        self.env |= dict(pair.split("=", 1) for pair in shlex.split(self.inside(argument)))

    def _workdir(self, argument):
        self.cwd = Path(self.inside(argument))
        self.cwd.mkdir(parents=True, exist_ok=True)

    def _user(self, argument):
        self.user = argument

    def _copy(self, argument):
        parts = shlex.split(argument)
        flags = dict(part[2:].split("=") for part in parts if part.startswith("--"))
        *names, target = [part for part in parts if not part.startswith("--")]
        source = self.folder / flags.get("from", "context")
        into = Path(self.inside(target)) if target.startswith("/") else self.cwd / target
        for name in names:
            found = source / name.lstrip("/")
            place = into / found.name if target.endswith("/") and found.is_file() else into
            self._put(found, place, flags.get("chown"))

    def _put(self, found, place, owner):
        place.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(found, place)
        if owner and os.geteuid() == 0:
            os.chown(place, *map(int, owner.split(":")))

    def _run(self, argument):
        env = self.env | self.args | {k: v for k, v in os.environ.items() if NETWORK.match(k)}
        command = ["/bin/sh", "-c", ABSOLUTE.sub(f"{self.root}/", argument)]
        done = subprocess.run(command, cwd=self.cwd, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"RUN {argument}\n{done.stdout}{done.stderr}"

    def _healthcheck(self, argument):
        self.check = self._exec_form(argument.partition("CMD ")[2])

    def _entrypoint(self, argument):
        self.entrypoint = self._exec_form(argument)

    def _cmd(self, argument):
        self.command = self._exec_form(argument)

    def _exec_form(self, argument):
        """A list. A text would be run by a shell, which keeps signals to itself."""
        return [self.inside(word) for word in json.loads(argument)]
