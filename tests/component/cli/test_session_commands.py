"""``stickygw sessions …`` as processes, on a real store, beside a gateway that always answers the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from support.commands import Done, default_dir, stickygw
from support.fake_primary import FakePrimary, fake_primary
from support.many_sessions import DAY, fill, session_id
from support.valkey import ValkeyServer

from stickygw.errors import ExitCode, SessionEnded
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.values import pack
from stickygw.types import SessionId
from stickygw.wire.control import Request

ADA = SessionId("ada" + "0" * 29)
BOB = SessionId("b0b" + "0" * 29)
NOBODY = SessionId("f" * 32)


@pytest.fixture
async def store(valkey: ValkeyServer, prefix: str) -> AsyncIterator[RedisSessionStore]:
    store = RedisSessionStore.from_url(valkey.url, prefix=prefix, timeout=5.0)
    yield store
    await store.close()


@pytest.fixture
async def primary(short_dir: Path, valkey: ValkeyServer, prefix: str) -> AsyncIterator[FakePrimary]:
    """Of whose workers one has Ada's WebSockets, and of two sessions in use; the other has nothing."""

    async def in_use(request: Request) -> dict[str, Any]:
        ids = request.arguments["ids"]
        if ids is None:
            return {"answers": {0: 2, 1: 0}, "silent": {}}
        return {"answers": {0: {id: 3 for id in ids if id == ADA}, 1: {}}, "silent": {}}

    async with fake_primary(default_dir(short_dir)) as primary:
        primary.answers["sessions.store"] = {"url": valkey.url, "prefix": prefix, "lifetime": DAY}
        primary.answers["sessions.in_use"] = in_use
        yield primary


@pytest.fixture
async def of_ada_and_bob(store: RedisSessionStore) -> None:
    fields = {"name": "ada", "cart": [1, b"\xff"], "note": "\x1b[2J" + "x" * 300, "photo": b"\0"}
    await store.write(ADA, {name: pack(name, value) for name, value in fields.items()}, (), DAY, is_new=True)
    await store.write(BOB, {"name": pack("name", "bob")}, (), 100, is_new=True)


@pytest.mark.usefixtures("of_ada_and_bob", "primary")
class TestOfTwo:
    """Two sessions are stored."""

    async def test_they_are_counted(self, short_dir: Path) -> None:
        done = await stickygw(short_dir, "sessions")
        assert done == Done(0, "2 sessions stored; in use: 2 on slot 0, 0 on slot 1\n", "")
        done = await stickygw(short_dir, "sessions", "--json")
        assert json.loads(done.out) == {"stored": 2, "in_use": {"0": 2, "1": 0}}

    async def test_they_are_listed_with_what_the_store_and_the_gateway_know(self, short_dir: Path) -> None:
        done = await stickygw(short_dir, "sessions", "list")
        assert (done.code, done.err) == (0, "")
        header, *lines = done.out.splitlines()
        assert header.split() == ["id", "age", "ttl", "fields", "bytes", "conns", "slots"]
        ada, bob = sorted((line.split() for line in lines), key=lambda line: line[0])
        assert (ada[0], ada[3], ada[5:]) == (ADA, "4", ["3", "0"])
        assert (bob[0], bob[3], bob[5:]) == (BOB, "1", ["0", "–"])
        assert bob[2].startswith("1m")  # 100 s or less

    async def test_a_list_as_json_is_one_array(self, short_dir: Path) -> None:
        done = await stickygw(short_dir, "sessions", "list", "--json")
        ada, bob = sorted(json.loads(done.out), key=lambda session: session["id"])
        assert 0 <= ada["age"] < 60
        assert DAY - 60 < ada["ttl"] <= DAY
        assert ada["bytes"] > bob["bytes"] > 0
        assert {name: bob[name] for name in ("id", "fields", "connections")} == {
            "id": BOB,
            "fields": 1,
            "connections": {},
        }
        assert ada["connections"] == {"0": 3}

    async def test_a_limit_is_kept_and_told(self, short_dir: Path) -> None:
        done = await stickygw(short_dir, "sessions", "list", "--limit", "1")
        assert len(done.out.splitlines()) == 2
        assert done.err == "there may be more: --limit 0 lists all\n"
        assert len(json.loads((await stickygw(short_dir, "sessions", "list", "--json", "--limit", "1")).out)) == 1

    async def test_one_is_shown_with_its_values_cut_and_harmless_to_the_terminal(self, short_dir: Path) -> None:
        done = await stickygw(short_dir, "sessions", "show", ADA)
        assert (done.code, done.err) == (0, "")
        assert ADA in done.out
        shown = done.out.partition("\n\n")[2].splitlines()
        assert shown[0] == r"cart: [1, b'\xff']"
        assert shown[1] == "name: 'ada'"
        assert shown[2].startswith(r"note: '\x1b[2Jxxx")
        assert shown[2].endswith("… (307 bytes)")
        assert len(shown[2]) < 240

    async def test_all_of_one_is_shown_as_json(self, short_dir: Path) -> None:
        facts = json.loads((await stickygw(short_dir, "sessions", "show", ADA, "--json")).out)
        assert (facts["id"], facts["connections"], facts["fields"]) == (ADA, {"0": 3}, 4)
        assert facts["values"] == {
            "name": "ada",
            "cart": [1, {"base64": "/w=="}],
            "note": "\x1b[2J" + "x" * 300,
            "photo": {"base64": "AA=="},
        }

    async def test_a_killed_one_stays_dead(self, short_dir: Path, store: RedisSessionStore) -> None:
        done = await stickygw(short_dir, "sessions", "kill", ADA, BOB, ADA)
        assert done == Done(0, f"{ADA}: ended\n{BOB}: ended\n", "")
        with pytest.raises(SessionEnded):
            await store.load(ADA)
        done = await stickygw(short_dir, "sessions", "show", ADA)
        assert done == Done(ExitCode.COMMAND, "", f"error: {ADA}: there is no such session\n")

    async def test_a_kill_tells_which_was_not_there_and_ends_the_others(
        self, short_dir: Path, store: RedisSessionStore
    ) -> None:
        done = await stickygw(short_dir, "sessions", "kill", NOBODY, BOB)
        assert done == Done(ExitCode.COMMAND, f"{BOB}: ended\n", f"error: {NOBODY}: there is no such session\n")
        done = await stickygw(short_dir, "sessions", "kill", BOB, ADA, "--json")
        assert done.code == ExitCode.COMMAND
        assert json.loads(done.out) == {"ended": [ADA], "missing": [BOB]}


@pytest.mark.usefixtures("primary")
async def test_without_sessions_there_is_nothing_to_list(short_dir: Path) -> None:
    assert json.loads((await stickygw(short_dir, "sessions", "list", "--json")).out) == []
    assert len((await stickygw(short_dir, "sessions", "list")).out.splitlines()) == 1
    assert (await stickygw(short_dir, "sessions")).out.startswith("0 sessions stored; ")


async def test_the_gateway_is_asked_for_500_at_a_time(
    short_dir: Path, store: RedisSessionStore, primary: FakePrimary
) -> None:
    await fill(store, 1200)
    found = json.loads((await stickygw(short_dir, "sessions", "list", "--json")).out)
    assert {session["id"] for session in found} == {session_id(number) for number in range(1200)}
    batches = [len(asked["ids"]) for asked in primary.asked("sessions.in_use")]
    assert max(batches) == 500
    assert sum(batches) == len(found)
    done = await stickygw(short_dir, "sessions", "list")
    assert len(done.out.splitlines()) == 101
    assert len((await stickygw(short_dir, "sessions", "list", "--limit", "0")).out.splitlines()) > 1200


async def test_a_worker_that_does_not_answer_is_named_and_waited_for_once(
    short_dir: Path, store: RedisSessionStore, primary: FakePrimary
) -> None:
    primary.answers["sessions.in_use"] = {"answers": {0: {}}, "silent": {1: "no answer within 2 s"}}
    await fill(store, 600)
    done = await stickygw(short_dir, "sessions", "list", "--json")
    assert (done.code, len(json.loads(done.out))) == (0, 600)
    assert done.err == "slot 1 did not say what it has in use: no answer within 2 s\n"
    first, second = primary.asked("sessions.in_use")
    assert first["timeout"] > 10 * second["timeout"]


@pytest.mark.usefixtures("of_ada_and_bob", "primary")
async def test_another_program_s_keys_and_bytes_are_borne(short_dir: Path, valkey: ValkeyServer, prefix: str) -> None:
    async with Redis.from_url(valkey.url) as client:
        await client.hset(f"{prefix}:session:{{not hex}}", "a", "b")
        await client.hset(f"{prefix}:session:{{{BOB}}}", mapping={b"\xff": b"\xc1", "_c": "soon"})
        await client.persist(f"{prefix}:session:{{{BOB}}}")
    assert (await stickygw(short_dir, "sessions")).out.startswith("2 sessions stored; ")
    facts = json.loads((await stickygw(short_dir, "sessions", "show", BOB, "--json")).out)
    assert (facts["age"], facts["ttl"]) == (None, None)
    assert facts["values"] == {"name": "bob", "\\xff": {"packed_base64": "wQ=="}}
    done = await stickygw(short_dir, "sessions", "show", BOB)
    assert done.out.splitlines()[-1] == r"\udcff: no msgpack: b'\xc1'"


@pytest.mark.parametrize("arguments", [["show", "f" * 31], ["kill", NOBODY, "F" * 32], ["--json", "list"]])
async def test_a_wrong_command_line_is_refused_before_anything_is_asked(
    short_dir: Path, primary: FakePrimary, arguments: list[str]
) -> None:
    done = await stickygw(short_dir, "sessions", *arguments)
    assert (done.code, done.out, primary.requests) == (ExitCode.USAGE, "", [])


@pytest.mark.parametrize("command", [[], ["list"], ["list", "--json"], ["show", ADA], ["kill", ADA]])
async def test_a_store_that_is_away_is_one_line_without_its_password(
    short_dir: Path, primary: FakePrimary, command: list[str]
) -> None:
    primary.answers["sessions.store"] = {"url": "redis://:sesame@127.0.0.1:1/0", "prefix": "p", "lifetime": DAY}
    done = await stickygw(short_dir, "sessions", *command)
    assert done.code == ExitCode.STORE
    assert done.err.startswith("error: the session store failed: ")
    assert len(done.err.splitlines()) == 1
    assert "sesame" not in done.err
