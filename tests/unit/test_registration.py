"""What is registered is checked at once, and every refusal names the option and what to do."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pythia_fast import App, MemoryConsumer, MemoryProducer
from pythia_fast.errors import ConfigError, HandlerError, OutputValueError, SchemaError, UnknownOptionError
from pythia_fast.runtime.engine import share_workers


class Order(msgspec.Struct):
    price: float


def register(**options):
    app = App("test")
    options.setdefault("source", MemoryConsumer([]))
    options.setdefault("schema", Order)

    @app.batch_handler(**options)
    def handler(batch):
        return None

    return app.handlers[options.get("name") or "handler"]


def test_defaults():
    handler = register()
    assert (handler.batch_size, handler.batch_timeout, handler.ordering, handler.on_error) == (
        4096,
        0.005,
        "unordered",
        "isolate",
    )
    assert handler.max_batch_bytes == 4096 * 256
    assert handler.output_rows == "same"
    assert handler.name == "handler"
    assert handler.decoding.name == "json"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bach_size": 3}, UnknownOptionError, "did you mean 'batch_size'"),
        ({"ordering": "keys"}, ConfigError, "did you mean 'key'"),
        ({"on_error": "ignore"}, ConfigError, "there are: dead_letter, isolate, stop"),
        ({"tombstones": "row"}, ConfigError, "did you mean 'rows'"),
        ({"tombstones": True}, ConfigError, "tombstones=True"),
        ({"output_rows": "sane"}, ConfigError, "did you mean 'same'"),
        ({"output_rows": "fewer"}, ConfigError, "there are: any, same"),
        ({"output_row": "any"}, UnknownOptionError, "did you mean 'output_rows'"),
        ({"batch_size": 0}, ConfigError, "batch_size=0: a whole number of rows from 1"),
        ({"batch_size": True}, ConfigError, "batch_size=True"),
        ({"batch_timeout": -1}, ConfigError, "batch_timeout=-1"),
        ({"max_batch_bytes": 0}, ConfigError, "max_batch_bytes=0"),
        ({"retry": 3}, ConfigError, r"retry=3: a RetryPolicy\(max_attempts"),
        ({"workers": 0}, ConfigError, "workers=0"),
        ({"source": "orders"}, ConfigError, "source must be a consumer"),
        ({"sink": MemoryConsumer([])}, ConfigError, "sink must be a producer"),
        ({"dead_letter": "file"}, ConfigError, "dead_letter must be a producer"),
        ({"decoder": "jsn"}, UnknownOptionError, "did you mean 'json'"),
        ({"schema": None}, ConfigError, "needs schema="),
        ({"schema": dict}, SchemaError, "Struct"),
        ({"name": "a b"}, ConfigError, "name="),
        ({"name": ""}, ConfigError, "batch_handler: name='': letters, digits"),
        ({"name": 3}, ConfigError, "batch_handler: name=3: letters, digits"),
        ({"name": "..."}, ConfigError, "a letter or digit among them"),
        ({"ordering": None}, ConfigError, "ordering=None; there are: key, partition, unordered"),
        ({"ordering": np.zeros(2)}, ConfigError, "ordering=array"),
        ({"on_error": ["stop"]}, ConfigError, "on_error="),
        ({"batch_size": "many"}, ConfigError, "batch_size='many': a whole number of rows from 1 to 1,048,576"),
        ({"batch_size": 4096.0}, ConfigError, "batch_size=4096.0"),
        ({"batch_size": None}, ConfigError, "batch_size=None"),
        ({"batch_size": 1 << 40}, ConfigError, "batch_size=1099511627776"),
        ({"batch_timeout": math.nan}, ConfigError, "batch_timeout=nan: seconds, from 0 to 3,600"),
        ({"batch_timeout": math.inf}, ConfigError, "batch_timeout=inf"),
        ({"batch_timeout": True}, ConfigError, "batch_timeout=True"),
        ({"busy_poll": -1}, ConfigError, "busy_poll=-1: seconds, from 0 to 1"),
        ({"busy_poll": 2}, ConfigError, "busy_poll=2: seconds, from 0 to 1"),
        ({"batch_timeout": "5ms"}, ConfigError, "batch_timeout='5ms'"),
        ({"batch_timeout": 10**400}, ConfigError, "batch_timeout=1000"),
        ({"max_batch_bytes": 1.5}, ConfigError, "max_batch_bytes=1.5"),
        (
            {"batch_deadline": -1},
            ConfigError,
            "batch_deadline=-1: seconds, more than 0 and at most 1,000,000,000, or None",
        ),
        (
            {"setup_deadline": 0},
            ConfigError,
            "setup_deadline=0: seconds, more than 0 and at most 1,000,000,000, or None",
        ),
        ({"max_memory_mb": 0.5}, ConfigError, "max_memory_mb=0.5: megabytes, from 1"),
        ({"workers": 1025}, ConfigError, "workers=1025: a whole number of processes from 1 to 1,024"),
        ({"workers": "2"}, ConfigError, "workers='2'"),
        ({"source": None}, ConfigError, "source=None: source must be a consumer"),
        ({"source": MemoryConsumer}, ConfigError, "source=<class .*source must be a consumer"),
        ({"sink": 3}, ConfigError, "sink=3: sink must be a producer"),
        ({"decoder": None}, SchemaError, "decoder=None is neither a decoder's name nor a NumPy dtype"),
        ({"decoder": True}, SchemaError, "decoder=True is neither"),
        ({"decoder": ""}, UnknownOptionError, "has no option ''"),
        ({"decoder": [("a", "i4"), ("a", "i4")], "schema": None}, SchemaError, "is neither"),
        ({"schema": 3}, SchemaError, "schema must be a msgspec.Struct type, not 3"),
        ({"schema": "Order"}, SchemaError, "schema must be a msgspec.Struct type"),
        ({"schema": Order(1.0)}, SchemaError, "schema must be a msgspec.Struct type"),
        ({"schema": np.zeros(2)}, SchemaError, "schema must be a msgspec.Struct type"),
    ],
)
def test_options_that_cannot_work_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        register(**options)


def test_numbers_of_numpy_are_numbers():
    handler = register(batch_size=np.int64(7), batch_timeout=np.float32(0.5))
    assert (handler.batch_size, type(handler.batch_size)) == (7, int)
    assert (handler.batch_timeout, type(handler.batch_timeout)) == (0.5, float)
    assert register(max_memory_mb=99.5).max_memory_mb == 99.5


def test_an_app_takes_a_name_and_no_more():
    with pytest.raises(UnknownOptionError, match="App has no option 'nme'; did you mean 'name'"):
        App(nme="orders")
    with pytest.raises(ConfigError, match="App: missing a required argument: 'name'; it takes name"):
        App()
    with pytest.raises(ConfigError, match="batch_handler: too many positional arguments"):
        App("orders").batch_handler(MemoryConsumer([]))


def test_a_name_is_used_once():
    app = App("test")

    def handler(batch):
        return None

    app.batch_handler(source=MemoryConsumer([]), decoder="raw")(handler)
    with pytest.raises(ConfigError, match="already"):
        app.batch_handler(source=MemoryConsumer([]), decoder="raw")(handler)


def test_registering_leaves_the_function_as_it_is():
    app = App("test")

    def handler(batch):
        return 42

    assert app.batch_handler(source=MemoryConsumer([]), decoder="raw")(handler) is handler


@pytest.mark.parametrize("name", ["", "a/b", "white space", "..", "x" * 81, None, 3])
def test_an_app_needs_a_name_that_can_be_a_folder(name):
    with pytest.raises(ConfigError, match="App: name="):
        App(name)


def test_running_an_app_without_handlers_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError, match="has no handler"):
        App("empty").run(state_dir=tmp_path)


class Sized:
    def __init__(self, workers):
        self.workers = workers
        self.name = "h"


@pytest.mark.parametrize(
    ("asked", "workers", "shares"),
    [
        ([None], 4, [4]),
        ([None, None], 5, [3, 2]),
        ([2, None], 5, [2, 3]),
        ([None, 1, None], 4, [2, 1, 1]),
        ([3], "auto", [3]),
        ([None, None, None], 3, [1, 1, 1]),
    ],
)
def test_the_pool_is_shared_out(asked, workers, shares):
    assert share_workers([Sized(n) for n in asked], workers) == shares


def test_every_handler_gets_a_process_even_on_one_core():
    assert min(share_workers([Sized(None)] * 5, "auto")) == 1


@pytest.mark.parametrize(
    ("asked", "workers", "why"),
    [
        ([None, None], 1, "2 handlers need at least one process each. Give workers=2"),
        ([2, 2], 3, "the handlers with workers= ask for 4. Give workers=4"),
        ([2, None], 2, "the handlers with workers= ask for 2, and one other needs one. Give workers=3"),
        (
            [2, None, None],
            3,
            "the handlers with workers= ask for 2, and 2 others need one each. Give workers=4",
        ),
    ],
)
def test_too_few_workers_are_refused_with_what_takes_them(asked: list[int | None], workers: int, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        share_workers([Sized(n) for n in asked], workers)
    assert str(raised.value) == f"workers={workers} is too few: {why} or more, or run fewer of them (--handler)"


def test_app_test_refuses_a_result_that_would_end_a_run():
    app = App("test")

    @app.batch_handler(source=MemoryConsumer([]), sink=MemoryProducer(), schema=Order)
    def wrong(batch):
        return {"x": np.zeros(len(batch), complex)}

    with pytest.raises(HandlerError, match=r"column 'x' of dtype complex128 cannot be sent on"):
        app.test(wrong, [b'{"price": 1}'])


def test_app_test_runs_a_handler_in_this_process():
    app = App("test")
    made = []

    @app.batch_handler(source=MemoryConsumer([]), sink=MemoryProducer(), schema=Order)
    class Score:
        def setup(self):
            made.append("setup")

        def __call__(self, batch):
            batch.reject(batch["price"] > 10, reason="dear")
            batch.retry(batch["price"] == 5)
            return {"double": batch["price"] * 2}

        def teardown(self):
            made.append("teardown")

    payloads = [b'{"price": 1}', b"nonsense", b'{"price": 5}', b'{"price": 11.5}', None]
    for handler in (Score, "Score"):
        trial = app.test(handler, payloads)
        assert trial.returned["double"].tolist() == [2.0, 10.0, 23.0]
        assert trial.rejected == {3: "dear"}
        assert trial.retried == [2]
        assert [bad.index for bad in trial.bad] == [1, 4]
    assert made == ["setup", "teardown"] * 2
    with pytest.raises(ConfigError, match="did you mean 'Score'"):
        app.test("Scor", [])
    with pytest.raises(ConfigError, match="is not a handler of app"):
        app.test(print, [])
    with pytest.raises(ConfigError, match=r"payloads=b'x': a sequence of payloads: \[payload\] for one"):
        app.test(Score, b"x")
    with pytest.raises(UnknownOptionError, match=r"App.test has no option 'payload'; did you mean 'payloads'"):
        app.test(Score, payload=[])
    for name in (3, None, []):
        with pytest.raises(ConfigError, match="has no handler"):
            app.handler(name)


@pytest.mark.parametrize(
    ("options", "returned", "message"),
    [
        ({}, {"a": [1]}, "'handler' got a batch of 2 rows and returned 1"),
        ({}, {"a": [1, 2], "b": [1]}, "equally long"),
        ({}, 17.5, "cannot return float"),
        ({"sink": None}, [b"", b""], "has no sink"),
        ({"output_rows": "any"}, {"a": [1]}, None),
        ({}, {"a": [1, 2]}, None),
        ({}, None, None),
    ],
)
def test_app_test_refuses_what_would_end_a_run(options, returned, message):
    app = App("test")

    def handler(batch):
        return returned

    app.batch_handler(**{"source": MemoryConsumer([]), "sink": MemoryProducer(), "decoder": "raw", **options})(handler)
    if message is None:
        assert app.test(handler, [b"1", b"2"]).returned is returned
    else:
        with pytest.raises(HandlerError, match=message):
            app.test(handler, [b"1", b"2"])


def trial_of_bad_values(**options):
    app = App("test")

    @app.batch_handler(source=MemoryConsumer([]), sink=MemoryProducer(), schema=Order, **options)
    def sums(batch):
        batch.reject(batch["price"] == 4, reason="four")
        return {"sum": [object() if price in (3, 4) else "x" * int(price) for price in batch["price"]]}

    return app.test(sums, [b'{"price": 1}', b"nonsense", b'{"price": 3}', b'{"price": 4}', b'{"price": 2000000}'])


def test_app_test_names_the_rows_that_a_run_would_give_up_for_what_was_returned():
    trial = trial_of_bad_values(max_batch_bytes=1 << 20)
    assert trial.rejected == {3: "four"}
    assert sorted(trial.failed) == [2, 4]
    assert trial.failed[2] == "column 'sum', row 2: TypeError: object has no JSON or MessagePack form"
    assert trial.failed[4].startswith("row 4: its record takes 2000")
    assert trial.failed[4].endswith("or raise max_batch_bytes")


@pytest.mark.parametrize("options", [{"on_error": "dead_letter"}, {"on_error": "stop"}, {"output_rows": "any"}])
def test_app_test_raises_for_a_value_whose_row_a_run_would_not_give_up_alone(options):
    with pytest.raises(OutputValueError, match="column 'sum', row 1: TypeError: object has no JSON"):
        trial_of_bad_values(**options)


def test_a_handler_without_a_name_is_asked_for_one():
    with pytest.raises(ConfigError, match=r'functools\.partial.* has no name of its own.*give it one, name="\.\.\."'):
        App("test").batch_handler(source=MemoryConsumer([]), decoder="raw")(functools.partial(print))
    App("test").batch_handler(source=MemoryConsumer([]), decoder="raw", name="prints")(functools.partial(print))
