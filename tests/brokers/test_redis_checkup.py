"""What a Redis is asked before a run, on a real server: and that it is as it was afterwards."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from pythia_fast import RedisStreamsConsumer
from pythia_fast.brokers.redis import RedisStreamsProducer
from tests.support.checkup import bad, context, found, told
from tests.support.kafka_broker import free_ports
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

NOT_KEPT = "nothing is kept on disk (appendonly no, save '')"  # as the tests' server is configured


@pytest.fixture
def stream() -> str:
    return f"checkup-{uuid.uuid4().hex[:8]}"


def test_a_stream_that_fits(tmp_path: Path, stream: str) -> None:
    with RedisServerProcess(tmp_path, {"appendonly": "yes"}) as server:
        client = server.client()
        for number in range(5):
            client.xadd(stream, {"data": str(number)})
        client.xgroup_create(stream, "shop-score", id="0")
        client.xreadgroup("shop-score", "one", {stream: ">"}, count=2)
        findings = found(RedisStreamsConsumer(stream, url=server.url))
    assert bad(findings) == []
    told(findings, "ok", f"Redis 7.0.15 at 127.0.0.1:{server.port} let us in after ")
    told(findings, "ok", "in the append-only file")
    told(findings, "ok", f"stream {stream} has 5 entries, group shop-score has 3 entries to read and 2 pending")
    told(findings, "note", "has 1 other consumers, which share its entries")


def test_asking_changes_nothing(redis: RedisServerProcess, stream: str) -> None:
    client = redis.client()
    client.xadd(stream, {"data": "1"})
    client.xgroup_create(stream, "shop-score", id="0")
    before = client.xinfo_stream(stream, full=True), client.dbsize()
    found(RedisStreamsConsumer(stream, url=redis.url))
    found(RedisStreamsProducer(stream, url=redis.url), context(role="sink"))
    found(RedisStreamsConsumer(f"{stream}-none", url=redis.url))
    found(RedisStreamsProducer(f"{stream}-none", url=redis.url), context(role="sink"))
    assert (client.xinfo_stream(stream, full=True), client.dbsize()) == before


def test_what_is_missing(redis: RedisServerProcess, stream: str) -> None:
    findings = found(RedisStreamsConsumer(stream, url=redis.url))
    told(findings, "note", f"stream {stream} does not exist yet")
    told(findings, "note", f"stream {stream} has no group shop-score yet; a run makes it, at 0")
    strict = found(RedisStreamsConsumer(stream, url=redis.url, create_group=False))
    finding = told(strict, "problem", f"stream {stream} has no group shop-score, and create_group=False")
    assert finding.change == f"XGROUP CREATE {stream} shop-score 0 MKSTREAM"


def test_a_key_that_is_no_stream(redis: RedisServerProcess, stream: str) -> None:
    redis.client().set(stream, "text")
    told(found(RedisStreamsConsumer(stream, url=redis.url)), "problem", f"key {stream} holds something else")
    told(found(RedisStreamsProducer(stream, url=redis.url)), "problem", f"key {stream} holds something else")


def test_wrong_credentials(redis: RedisServerProcess) -> None:
    findings = found(RedisStreamsConsumer("orders", url=redis.url, username="nobody", password="wrong-password"))
    (finding,) = findings
    assert finding.grade == "problem"
    assert "refuses the credentials" in finding.what
    assert "wrong-password" not in repr(finding)


def test_a_user_without_rights(redis: RedisServerProcess, stream: str) -> None:
    client = redis.client()
    client.xadd(stream, {"data": "1"})
    client.xgroup_create(stream, "shop-score", id="0")
    user = f"user-{stream}"
    client.execute_command(
        "ACL", "SETUSER", user, "on", ">secret", f"~{stream}", "+ping", "+xinfo", "+xreadgroup", "+hello"
    )
    reads = found(RedisStreamsConsumer(stream, url=redis.url, username=user, password="secret"))
    told(reads, "note", "the user may not ask INFO")
    for doing in ("acknowledge entries of", "see what is pending of", "reclaim entries of"):
        told(reads, "problem", f"the user may not {doing} stream {stream}")
    assert not any("may not read stream" in finding.what for finding in reads)
    writes = found(RedisStreamsProducer(stream, url=redis.url, username=user, password="secret"), context(role="sink"))
    assert told(writes, "problem", f"the user may not write to stream {stream}").change.endswith(f"+xadd ~{stream}")
    elsewhere = found(RedisStreamsConsumer("other", url=redis.url, username=user, password="secret"))
    told(elsewhere, "problem", "the user may not read stream other")


def test_nobody_listens() -> None:
    (port,) = free_ports(1)
    (finding,) = found(RedisStreamsConsumer("orders", port=port))
    assert finding.grade == "problem"
    assert f"no Redis answers at localhost:{port}" in finding.what


def test_a_server_that_does_not_answer(redis: RedisServerProcess) -> None:
    with TcpProxy(redis.port) as proxy:
        proxy.freeze()
        begun = time.monotonic()
        (finding,) = found(RedisStreamsConsumer("orders", host="127.0.0.1", port=proxy.port), context(timeout_s=1))
        assert time.monotonic() - begun < 20
    assert finding.grade == "problem"
    assert f"no Redis answers at 127.0.0.1:{proxy.port}" in finding.what


def test_a_replica(tmp_path: Path, redis: RedisServerProcess, stream: str) -> None:
    with RedisServerProcess(tmp_path, {"replicaof": f"127.0.0.1 {redis.port}"}) as replica:
        told(found(RedisStreamsConsumer(stream, url=replica.url)), "problem", "is a replica, which takes no writes")


def test_settings_that_lose_entries(tmp_path: Path, stream: str) -> None:
    with RedisServerProcess(tmp_path, {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as server:
        findings = found(RedisStreamsConsumer(stream, url=server.url))
        server.client().config_set("save", "60 1")
        saved = found(RedisStreamsConsumer(stream, url=server.url))
    told(findings, "warning", "maxmemory-policy allkeys-lru: when its 104,857,600 bytes are full, Redis removes keys")
    told(findings, "warning", NOT_KEPT)
    told(saved, "warning", "appendonly is no: a crash forgets what was written")


def test_trimming_that_overtook_the_group(redis: RedisServerProcess, stream: str) -> None:
    client = redis.client()
    client.xadd(stream, {"data": "0"})
    client.xgroup_create(stream, "shop-score", id="0")
    client.xreadgroup("shop-score", "one", {stream: ">"}, count=1)
    for number in range(10):
        client.xadd(stream, {"data": str(number)})
    client.xtrim(stream, maxlen=4, approximate=False)
    told(found(RedisStreamsConsumer(stream, url=redis.url)), "warning", f"6 entries of {stream} were trimmed before")
    sink = found(RedisStreamsProducer(stream, url=redis.url, maxlen=5), context(role="sink"))
    told(sink, "warning", "group shop-score is ")


def test_entries_that_somebody_left(redis: RedisServerProcess, stream: str) -> None:
    client = redis.client()
    client.xadd(stream, {"data": "0"})
    client.xgroup_create(stream, "shop-score", id="0")
    client.xreadgroup("shop-score", "dead", {stream: ">"})
    time.sleep(1.1)  # longer than min_idle, which is a second at least
    findings = found(RedisStreamsConsumer(stream, url=redis.url, min_idle=1))
    told(findings, "note", f"1 entries of {stream} are pending for consumers idle for more than min_idle=1 s (dead)")


def test_a_consumer_of_the_same_name(redis: RedisServerProcess, stream: str) -> None:
    other = redis.client()
    other.client_setname("pythia_fast:shop-score:same")
    findings = found(RedisStreamsConsumer(stream, url=redis.url, consumer_name="same"))
    told(findings, "warning", "a consumer named 'same' is connected now")
    other.close()


def test_a_sink_that_grows(redis: RedisServerProcess, stream: str) -> None:
    redis.client().xadd(stream, {"data": "0"})
    findings = found(RedisStreamsProducer(stream, url=redis.url), context(role="sink"))
    told(findings, "note", f"stream {stream} has 1 entries and maxlen= is not given")
    bounded = found(RedisStreamsProducer(stream, url=redis.url, maxlen=100), context(role="sink"))
    told(bounded, "ok", "is trimmed to about 100")
    assert bad(bounded) == [line for line in bad(bounded) if NOT_KEPT in line]
