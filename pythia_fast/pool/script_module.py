"""The program's own file as a module of a new interpreter of the pool: under another name than ``__main__``, so that
its guard holds, and to be found by both names."""

from __future__ import annotations

import io
import pkgutil
import sys
from types import CodeType, ModuleType

#: What multiprocessing calls it in processes that it starts: those that a handler starts find what was pickled here.
SCRIPT_NAME = "__mp_main__"


def import_script(path: str) -> ModuleType:
    """Run the file. Its module stays where names are looked up by ``pickle`` and ``typing``, from the first line on, as
    ``__main__``, too: the runtime pickles what it defines under that name."""
    module = ModuleType(SCRIPT_NAME)
    module.__file__ = path
    module.__package__ = ""
    vars(module)["__cached__"] = None
    code = _code_of(path)
    sys.modules["__main__"] = sys.modules[SCRIPT_NAME] = module
    typed = sys.argv[:1]
    sys.argv[:1] = [path]
    try:
        exec(code, vars(module))
    finally:
        sys.argv[:1] = typed
    return module


def _code_of(path: str) -> CodeType:
    with io.open_code(path) as file:
        compiled = pkgutil.read_code(file)
    if isinstance(compiled, CodeType):  # ``python orders.pyc``
        return compiled
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def answer_to_script_name() -> None:
    """Have this program found by the name that it has in the pool: what was pickled there can be loaded here."""
    sys.modules.setdefault(SCRIPT_NAME, sys.modules["__main__"])
