"""From MODULE:APP, as typed, to the App."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pythia_fast
from pythia_fast.cli.early_stop import StoppedBeforeStart
from pythia_fast.cli.exit_codes import AppImportError
from pythia_fast.errors import ConfigError
from pythia_fast.outlet import say_last
from pythia_fast.pool import keep_to_one_thread
from pythia_fast.pool.import_watch import SLOW_IMPORT_S, ImportWatch
from pythia_fast.runtime.stalls import Pace

if TYPE_CHECKING:
    from pythia_fast.app import App

LOOK_S = 1.0  #: between looks at how long an import has taken


def load_app(target: str) -> App:
    """Import the App that ``target`` names.

    ``orders:app`` and ``shop.orders:app`` are modules, looked up on sys.path with the working directory first;
    ``orders.py:app`` and ``src/orders.py:app`` are files, imported under the name that they have in their
    package. ``:app`` may be left out where the module holds one App only.

    Raises:
        AppImportError: says what was looked for and where.
    """
    where, _, name = target.partition(":")
    if not where:
        raise AppImportError(f"{target!r} names no module: write MODULE:APP, for example orders:app")
    keep_to_one_thread()
    working = str(Path.cwd())
    if working not in sys.path:
        sys.path.insert(0, working)
    is_file = where.endswith(".py") or "/" in where
    module = _import_file(where) if is_file else _import_module(where, looked_in=working)
    return _app_of(module, name, target)


def _import_file(where: str) -> ModuleType:
    path = Path(where).resolve()
    if not os.path.isfile(path):
        raise AppImportError(f"there is no file {path}{_near_files(path)}")
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    name = ".".join(parts)
    module = _import_module(name, looked_in=str(root))
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path:
        raise AppImportError(
            f"{where} would be imported as module {name!r}, but that name belongs to {found or 'a built-in module'}: "
            "rename the file"
        )
    return module


def _import_module(name: str, *, looked_in: str) -> ModuleType:
    try:
        with ImportWatch(_SlowImport(name).look, LOOK_S):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module asked for (or a package on the way to it) is missing; a missing import inside of it is its own.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise AppImportError(f"importing module {name!r} failed") from error
        missing = error.name.replace(".", "/")
        near = _near_files(Path(looked_in) / f"{missing}.py")
        raise AppImportError(
            f"cannot find module {name!r}: there is no {missing}.py and no package {missing} in {looked_in} "
            f"or on sys.path{near}"
        ) from None
    except (KeyboardInterrupt, GeneratorExit, StoppedBeforeStart):
        raise
    except ConfigError as error:
        place = _place_of(error)
        if not place:
            raise AppImportError(f"importing module {name!r} failed") from error
        raise AppImportError(f"{place}: {error}") from None
    except BaseException as error:  # also SystemExit: a script that calls sys.exit() when imported
        raise AppImportError(f"importing module {name!r} failed") from error


class _SlowImport:
    """Tells on stderr of an import that takes long, as the runtime does where the pool's parent imports the app."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()
        self._pace = Pace(SLOW_IMPORT_S)

    def look(self, stack: str) -> None:
        now = time.monotonic()
        if self._pace.due(now, now - self._began):
            text = (
                f"module {self._name!r} has been importing for {now - self._began:.0f} s, and nothing begins before it "
                f"has. Stop it with Ctrl-C or SIGTERM. It is there:\n{stack}\n"
            )
            say_last(sys.stderr, text, timeout=0.0)  # the import goes on, whether somebody reads it or not


def _place_of(error: ConfigError) -> str:
    """The line of the user's that declares what cannot work, as ``shop.py line 7``; empty where there is none."""
    package = str(Path(pythia_fast.__file__).parent) + os.sep
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((package, importlib.__path__[0], "<frozen")):
            path = Path(frame.filename)
            return f"{os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path} line {frame.lineno}"
    return ""


def _near_files(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return ""
    names = [entry.stem for entry in path.parent.glob("*.py")]
    near = get_close_matches(path.stem, names, n=1)
    return f"; did you mean {near[0]}.py?" if near else ""


def _app_of(module: ModuleType, name: str, target: str) -> App:
    from pythia_fast.app import App

    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    held = f"module {module.__name__!r} holds {_listing(list(apps))}"
    if not name:
        if len(set(map(id, apps.values()))) != 1:
            raise AppImportError(
                f"{target!r} does not say which App to run, and {held}: write {target.rstrip(':')}:NAME"
            )
        return next(iter(apps.values()))
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise AppImportError(f"{target!r}: module {module.__name__!r} has no {name!r}; {held}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise AppImportError(f"{target!r} is of type {type(found).__name__}, not an App; {held}")
    return found


def _listing(names: list[str]) -> str:
    if not names:
        return "no App"
    return ("the App " if len(names) == 1 else "the Apps ") + ", ".join(names)
