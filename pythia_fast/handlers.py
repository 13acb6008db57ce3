"""What a handler asks for: the annotation of its parameter picks the view of the batch that it is given.

| annotation                            | the handler gets                                                 |
|---------------------------------------|------------------------------------------------------------------|
| ``Batch[Order]``, ``Batch``, none     | the Batch                                                        |
| ``list[Order]``, ``Sequence[Order]``  | a list of Structs, or of what the decoder makes of payloads      |
| ``polars.DataFrame``                  | a data frame over the batch's memory                             |
| ``pyarrow.RecordBatch``, ``.Table``   | the same                                                         |
| ``pandas.DataFrame``                  | the same; ``Optional`` fields have pandas' own types with nulls  |

A handler is a function of one parameter, or a class: made once in each pool process, ``setup()`` before
its first batch and ``teardown()`` after its last, where it has them, and called with each batch. What ``setup()``
raises ends the run; what ``teardown()`` raises is told as an event of the run, for all batches are done.
"""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import msgspec
import numpy as np

from pythia_fast.batch import Batch
from pythia_fast.errors import ConfigError
from pythia_fast.schema import SchemaLike

View = Callable[[Batch[Any]], Any]


class HandlerCall:
    """A handler ready to be called with batches, in the process that does so."""

    def __init__(self, target: Any, view: View | None) -> None:
        self._target = target
        self._view = view

    def setup(self) -> None:
        """Run the handler's own ``setup()``, if it has one."""
        _optional(self._target, "setup")

    def teardown(self) -> None:
        """Run the handler's own ``teardown()``, if it has one."""
        _optional(self._target, "teardown")

    def __call__(self, batch: Batch[Any]) -> Any:
        """What the handler returned for the view of ``batch`` that it asked for."""
        return self._target(batch if self._view is None else self._view(batch))


@dataclass(frozen=True, slots=True)
class Adapter:
    """A handler and the view that it wants."""

    function: Callable[..., Any]  #: as registered: a function, an object, or a class to make one of
    view: str  #: "batch", "rows", "polars", "pyarrow", "pyarrow_table" or "pandas"
    convert: View | None  #: None: the Batch itself
    schema: SchemaLike  #: as given, or else taken from the annotation; None where neither says

    def build(self) -> HandlerCall:
        """Make the handler callable: a class is instantiated here, once in each process."""
        target = self.function() if inspect.isclass(self.function) else self.function
        return HandlerCall(target, self.convert)


def inspect_handler(
    function: Callable[..., Any], schema: SchemaLike, where: str, row_type: type | None = None
) -> Adapter:
    """Read a handler's signature. ``where`` begins every message: ``handler 'score'``. ``row_type``: what the decoder
    makes of payloads where there is no schema, other than bytes.

    Raises ConfigError for a handler that cannot be called with one batch, an annotation that is no view of a
    batch or contradicts ``schema``, and a library that is not installed.
    """
    called, unbound = _called(function, where)
    parameter = _parameter(called, unbound, where)
    for name in ("setup", "teardown"):
        _check_optional(function, name, where)
    annotation, unresolved = _annotation(called, parameter, where)
    if unresolved and schema is None:
        raise ConfigError(unresolved)
    view, element = _view_of(annotation, where)
    told = None
    if row_type is None or schema is not None or (typing.get_origin(element) or element) is not row_type:
        told = _schema_of(element, schema, f"{where}: its parameter {parameter.name!r} is annotated with")
    return Adapter(function, view, _VIEWS[view](where), told if schema is None else schema)


def _optional(target: Any, name: str) -> None:
    method = getattr(target, name, None)
    if method is not None:
        method()


# -- the signature

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def _called(function: Callable[..., Any], where: str) -> tuple[Callable[..., Any], bool]:
    """The function whose signature tells what a batch is handed over as; whether its first parameter is the object."""
    unbound = False
    if inspect.isclass(function):
        if "__call__" not in dir(function):
            raise ConfigError(f"{where}: class {function.__name__} needs a method __call__(self, batch)")
        try:
            inspect.signature(function).bind()
        except TypeError as error:
            raise ConfigError(
                f"{where}: class {function.__name__} is made without arguments in each pool process: {error}; "
                "open what it needs in setup()"
            ) from error
        called: Callable[..., Any] = cast(Any, function).__call__
        unbound = _is_unbound(function, "__call__")
    elif not callable(function):
        raise ConfigError(f"{where}: {function!r} is not callable; register a function or a class with __call__")
    elif inspect.isroutine(function) or isinstance(function, functools.partial):
        called = function
    else:
        called = cast(Any, function).__call__
    if inspect.isgeneratorfunction(called):
        raise ConfigError(f"{where}: a batch handler returns its results at once, and does not yield them")
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigError(f"{where}: a batch handler is a plain function, not async: a process handles one batch")
    return called, unbound


def _is_unbound(owner: Any, name: str) -> bool:
    """Whether the attribute of a class takes an object of the class first."""
    found = inspect.getattr_static(owner, name, None)
    return inspect.isclass(owner) and hasattr(found, "__get__") and not isinstance(found, (staticmethod, classmethod))


def _check_optional(function: Callable[..., Any], name: str, where: str) -> None:
    """Raise ConfigError for a ``setup`` or ``teardown`` that cannot be called, or whose work would not be done."""
    method = getattr(function, name, None)
    if method is None or isinstance(method, property):
        return
    if not callable(method):
        raise ConfigError(f"{where}: its {name} is {method!r}, which cannot be called; give it another name")
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise ConfigError(f"{where}: {name}() is a plain method, not async; asyncio.run() in it runs what is")
    if inspect.isgeneratorfunction(method):
        raise ConfigError(f"{where}: {name}() does its work when it is called, and does not yield")
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except ValueError:  # a builtin that tells none
        return
    if _is_unbound(function, name):
        if not any(p.kind in _POSITIONAL for p in parameters):
            raise ConfigError(f"{where}: {name}() needs the object as its first parameter: def {name}(self)")
        parameters = parameters if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL else parameters[1:]
    asked = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if asked:
        raise ConfigError(
            f"{where}: {name}() is called without arguments, and asks for {', '.join(asked)}: give defaults"
        )


def _parameter(called: Callable[..., Any], unbound: bool, where: str) -> inspect.Parameter:
    parameters = list(inspect.signature(called).parameters.values())[1 if unbound else 0 :]
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not positional or any(p is not positional[0] for p in needed):
        asked = ", ".join(p.name for p in parameters) or "none"
        raise ConfigError(f"{where}: it is called with one argument, the batch; its parameters are: {asked}")
    return positional[0]


def _annotation(called: Callable[..., Any], parameter: inspect.Parameter, where: str) -> tuple[Any, str]:
    """The parameter's annotation, evaluated if it is a string. Only this one: others may not even be importable.

    With it why what stands between its brackets cannot be evaluated, in a sentence; empty where it can.
    """
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return None, ""
    if not isinstance(annotation, str):
        return annotation, ""
    function = inspect.unwrap(called.func if isinstance(called, functools.partial) else called)
    function = getattr(function, "__func__", function)
    names = dict(getattr(function, "__globals__", {}))
    closure = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars if closure else (), closure, strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            names[name] = cell.cell_contents
    outer = annotation.partition("[")[0]  # all that matters when schema= names the Struct, local to some function
    unresolved = ""
    for text in (annotation, outer):
        try:
            found = eval(text, names)  # the user's own annotation, as typing.get_type_hints evaluates it
            # Quotes of its own, under ``from __future__ import annotations``.
            return (eval(found, names) if isinstance(found, str) else found), unresolved
        except NameError as error:
            unresolved = unresolved or (
                f"{where}: the annotation {annotation!r} of {parameter.name!r} cannot be evaluated ({error}); "
                "import what it names at the top of the module, not under TYPE_CHECKING or inside a function"
            )
        except Exception as error:
            raise ConfigError(f"{where}: the annotation {annotation!r} of {parameter.name!r} fails: {error}") from error
    raise ConfigError(unresolved)


# -- the views


def _view_of(annotation: Any, where: str) -> tuple[str, Any]:
    """(view, what the annotation says that its rows are or None)."""
    annotation = _unannotated(annotation)
    origin = typing.get_origin(annotation) or annotation
    elements = typing.get_args(annotation)
    element = _unannotated(elements[0]) if len(elements) == 1 else None
    if annotation is None or annotation is Any or origin is Batch:
        return "batch", element
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return "rows", element
    library = getattr(origin, "__module__", "").partition(".")[0]
    view = _FRAMES.get((library, getattr(origin, "__name__", "")))
    if view is None:
        raise ConfigError(
            f"{where}: {_spell(annotation)} is no view of a batch; annotate the parameter with Batch[...], list[...], "
            "polars.DataFrame, pyarrow.RecordBatch, pyarrow.Table or pandas.DataFrame"
        )
    return view, None


def _unannotated(annotation: Any) -> Any:
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _schema_of(element: Any, schema: SchemaLike, annotated: str) -> SchemaLike:
    """The schema that the annotation names, or None.

    Raises ConfigError where it names another one than ``schema``, or what no row will be.
    """
    if _is_struct(element):
        if schema is not None and element != schema:
            raise ConfigError(f"{annotated} {_spell(element)}, but schema={_spell(schema)}; make them the same")
        return cast(SchemaLike, element)
    if element is None or element is Any or element is object:
        return None
    if isinstance(element, (str, typing.ForwardRef, typing.TypeVar)):  # not known here
        return None
    if _is_struct(schema):
        raise ConfigError(
            f"{annotated} rows of {_spell(element)}, but each is decoded as {_spell(schema)}: name that in its place"
        )
    if not (isinstance(element, type) and issubclass(element, (bytes, np.void))):
        raise ConfigError(
            f"{annotated} rows of {_spell(element)}; they are a msgspec.Struct, which is the schema, bytes with "
            "decoder='raw', or numpy.void in a fixed layout"
        )
    return None


_FRAMES = {
    ("polars", "DataFrame"): "polars",
    ("pyarrow", "RecordBatch"): "pyarrow",
    ("pyarrow", "Table"): "pyarrow_table",
    ("pandas", "DataFrame"): "pandas",
}


def _require(module: str, extra: str, where: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{where}: its annotation needs {module}, which cannot be imported ({error}); "
            f"pip install 'pythia-fast[{extra}]'"
        ) from error


def _as_batch(where: str) -> None:
    return None


def _as_rows(where: str) -> View:
    return lambda batch: list(batch.rows())


def _as_polars(where: str) -> View:
    _require("polars", "polars", where)
    # Looked up again at each call: the process that registers a handler is not the one that calls it.
    return lambda batch: sys.modules["polars"].DataFrame(batch)


def _as_record_batch(where: str) -> View:
    _require("pyarrow", "arrow", where)
    return lambda batch: sys.modules["pyarrow"].record_batch(batch)


def _as_table(where: str) -> View:
    _require("pyarrow", "arrow", where)
    return lambda batch: sys.modules["pyarrow"].table(batch)


def _as_pandas(where: str) -> View:
    _require("pandas", "pandas", where)
    _require("pyarrow", "pandas", where)
    return _pandas_frame


def _pandas_frame(batch: Batch[Any]) -> Any:
    """Integers and bools that may be null are of pandas' types that hold nulls, even where this batch has none: as
    floats they would be rounded beyond 2**53, and change their type from batch to batch."""
    pandas, arrow = sys.modules["pandas"], sys.modules["pyarrow"]
    types = {arrow.bool_(): pandas.BooleanDtype()}
    for bits in (8, 16, 32, 64):
        types[getattr(arrow, f"int{bits}")()] = getattr(pandas, f"Int{bits}Dtype")()
        types[getattr(arrow, f"uint{bits}")()] = getattr(pandas, f"UInt{bits}Dtype")()
    record = arrow.record_batch(batch)
    columns = {
        field.name: record.column(at).to_pandas(types_mapper=types.get if field.nullable else None)
        for at, field in enumerate(record.schema)
    }
    return pandas.DataFrame(columns, copy=False)


_VIEWS: dict[str, Callable[[str], View | None]] = {
    "batch": _as_batch,
    "rows": _as_rows,
    "polars": _as_polars,
    "pyarrow": _as_record_batch,
    "pyarrow_table": _as_table,
    "pandas": _as_pandas,
}


def _is_struct(element: Any) -> bool:
    origin = typing.get_origin(element) or element
    return isinstance(origin, type) and issubclass(origin, msgspec.Struct)


def _spell(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", None) or annotation)
