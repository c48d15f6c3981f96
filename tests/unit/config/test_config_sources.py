from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.config.settings import CookieSettings, SessionSettings, Settings
from stickygw.config.sources import Loaded, load_settings
from stickygw.errors import SettingsError

PASSWORD = "hunter2hunter2"


def load(
    folder: Path,
    *,
    file: str | None = None,
    variables: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
    spelled: dict[str, str] | None = None,
) -> Loaded:
    if file is not None:
        (folder / "stickygw.toml").write_text(file)
    return load_settings(flags or {}, spelled=spelled, environ=variables or {}, directory=folder)


def problems(folder: Path, **sources: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(folder, **sources)
    return str(caught.value).splitlines()


def test_without_any_source_the_settings_are_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.settings == Settings()
    assert type(loaded.settings) is Settings
    assert (loaded.config_file, dict(loaded.origins)) == (None, {})


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        ((), 20.0, "the default"),
        (("file",), 1.0, "file {folder}/stickygw.toml"),
        (("variable",), 2.0, "variable STICKYGW_PING_INTERVAL"),
        (("flag",), 3.0, "flag --ping-interval"),
        (("file", "variable"), 2.0, "variable STICKYGW_PING_INTERVAL"),
        (("file", "flag"), 3.0, "flag --ping-interval"),
        (("variable", "flag"), 3.0, "flag --ping-interval"),
        (("file", "variable", "flag"), 3.0, "flag --ping-interval"),
    ],
)
def test_the_stronger_source_wins(tmp_path: Path, sources: tuple[str, ...], value: float, origin: str) -> None:
    loaded = load(
        tmp_path,
        file="ping_interval = 1.0" if "file" in sources else None,
        variables={"STICKYGW_PING_INTERVAL": "2"} if "variable" in sources else {},
        flags={"ping_interval": "3"} if "flag" in sources else {},
    )
    assert loaded.settings.ping_interval == value
    assert loaded.origin("ping_interval") == origin.format(folder=tmp_path)


def test_the_settings_of_one_section_may_come_from_all_sources(tmp_path: Path) -> None:
    redis = load(
        tmp_path,
        file='[redis]\nurl = "redis://file"\nprefix = "file"\ntimeout = 9',
        variables={"STICKYGW_REDIS_URL": "redis://variable", "STICKYGW_REDIS_PREFIX": "variable"},
        flags={"redis.url": "redis://flag"},
    ).settings.redis
    assert redis.url is not None
    assert (redis.url.get_secret_value(), redis.prefix, redis.timeout) == ("redis://flag", "variable", 9.0)


@pytest.mark.parametrize(
    ("variable", "value", "wire"),
    [
        ("STICKYGW_HEADER_TIMEOUT", "5", {"header_timeout": 5.0}),
        ("STICKYGW_MAX_PENDING_PER_ADDRESS", "5", {"max_pending_per_address": 5}),
        ("STICKYGW_COOKIE_SAME_SITE", "Strict", {"cookie": CookieSettings(same_site="Strict").model_dump()}),
        ("STICKYGW_SESSION_TTL", "5", {"session": SessionSettings(ttl=5).model_dump()}),
        ("STICKYGW_WORKERS", "4", {"workers": 4}),
        ("STICKYGW_WORKERS", "auto", {"workers": "auto"}),
        ("STICKYGW_COMPRESSION", "true", {"compression": True}),
        ("STICKYGW_BIND", "[::1]:80, 127.0.0.1:80", {"bind": ["[::1]:80", "127.0.0.1:80"]}),
        ("STICKYGW_BIND", '["[::1]:80", "unix:/a,b"]', {"bind": ["[::1]:80", "unix:/a,b"]}),
        ("STICKYGW_TRUSTED_PROXIES", "[]", {"trusted_proxies": []}),
        ("STICKYGW_SECRET", "new,old", {"secret": ["new", "old"]}),
        ("STICKYGW_REDIS_URL", "", {}),
        ("stickygw_bind", "ignored: variables are upper case", {}),
        ("OTHER_BIND", "ignored", {}),
    ],
)
def test_a_variable_gives_the_setting_of_its_name(
    tmp_path: Path, variable: str, value: str, wire: dict[str, Any]
) -> None:
    assert load(tmp_path, variables={variable: value}).settings.to_wire() == Settings().to_wire() | wire


def test_a_list_in_the_file_may_be_a_list_or_one_text(tmp_path: Path) -> None:
    assert load(tmp_path, file='bind = ["a:1", "b:2"]').settings.bind == ("a:1", "b:2")
    assert load(tmp_path, file='bind = "a:1, b:2"').settings.bind == ("a:1", "b:2")


def test_a_named_file_is_read_instead_of_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / "stickygw.toml").write_text("workers = 2")
    (tmp_path / "other.toml").write_text("workers = 3")
    loaded = load_settings({}, config_file=tmp_path / "other.toml", environ={}, directory=tmp_path)
    assert (loaded.settings.workers, loaded.config_file) == (3, tmp_path / "other.toml")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml: no such settings file"):
        load_settings({}, config_file=tmp_path / "nowhere.toml", environ={}, directory=tmp_path)


def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, file="workers = 2\nbind = [\n\nkeys = 3") == [
        f"{tmp_path}/stickygw.toml: Invalid value (at line 4, column 1)"
    ]


def test_a_wrong_value_tells_setting_value_source_and_what_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "stickygw.toml"
    seconds = "allowed: a number above 0 and at most 86400"
    assert sorted(
        problems(
            tmp_path,
            file='ping_timeout = 0\n[cookie]\nsame_site = "lax"',
            variables={"STICKYGW_HEADER_TIMEOUT": "ten", "STICKYGW_SLOT_WAIT": "nan"},
            flags={"workers": "0", "redis.prefix": "a b", "keys": ()},
            spelled={"keys": "--key", "redis.prefix": "--set redis.prefix"},
        )
    ) == sorted(
        [
            f"ping_timeout: 0 is not allowed (from file {file}); {seconds}",
            f'cookie.same_site: "lax" is not allowed (from file {file}); allowed: one of Lax, Strict, None',
            f'header_timeout: "ten" is not allowed (from variable STICKYGW_HEADER_TIMEOUT); {seconds}',
            f'slot_wait: "nan" is not allowed (from variable STICKYGW_SLOT_WAIT); {seconds}',
            'workers: "0" is not allowed (from flag --workers); '
            "allowed: a whole number from 1 to 1024 or one of auto, auto-1",
            'redis.prefix: "a b" is not allowed (from flag --set redis.prefix); '
            "allowed: text that matches ^[A-Za-z0-9_.-]{1,64}$",
            "keys: [] is not allowed (from flag --key); allowed: a list of at least one",
        ]
    )


def test_a_wrong_entry_of_a_list_is_named_under_the_list(tmp_path: Path) -> None:
    assert problems(tmp_path, file='bind = ["a:1", 7]') == [
        f"bind: 7 is not allowed (from file {tmp_path}/stickygw.toml); allowed: a list of at least one"
    ]


def test_a_value_in_place_of_a_section_is_told_what_the_section_has(tmp_path: Path) -> None:
    assert problems(tmp_path, file="redis = 5") == [
        f"redis: the value (hidden) is not allowed (from file {tmp_path}/stickygw.toml); "
        "allowed: a section [redis] with url, prefix, sign, timeout"
    ]


def test_an_unknown_name_is_an_error_with_the_nearest_good_one(tmp_path: Path) -> None:
    assert sorted(
        problems(
            tmp_path,
            file="hedder_timeout = 3\n[redis]\nurll = 3\n[nothing_like_it]\nx = 1",
            variables={"STICKYGW_REDIS_ULR": PASSWORD, "STICKYGW_REDIS": "x"},
            flags={"ping_intervall": "3"},
            spelled={"ping_intervall": "--set ping_intervall"},
        )
    ) == sorted(
        [
            f"hedder_timeout: no such setting (from file {tmp_path}/stickygw.toml); did you mean header_timeout?",
            f"redis.urll: no such setting (from file {tmp_path}/stickygw.toml); did you mean redis.url?",
            f"nothing_like_it: no such setting (from file {tmp_path}/stickygw.toml)",
            "STICKYGW_REDIS_ULR: no such setting (from the environment); did you mean STICKYGW_REDIS_URL?",
            "STICKYGW_REDIS: no such setting (from the environment); did you mean STICKYGW_REDIS_URL?",
            "ping_intervall: no such setting (from flag --set ping_intervall); did you mean ping_interval?",
        ]
    )


def test_a_long_or_hostile_value_cannot_break_the_line(tmp_path: Path) -> None:
    [line] = problems(tmp_path, flags={"log_level": "x\n\x1b[31m" + "y" * 10_000})
    assert len(line) < 400
    assert line.isprintable()


@pytest.mark.parametrize(
    "sources",
    [
        {"file": f'secret = [["{PASSWORD}"]]'},
        {"file": f'[secret]\nvalue = "{PASSWORD}"'},
        {"file": f'redis = "redis://:{PASSWORD}@host"'},
        {"file": f'[redis]\nurl = ["redis://:{PASSWORD}@host"]'},
        {"file": f'[redis]\npassword = "{PASSWORD}"'},
        {"variables": {"STICKYGW_SECRET": f'[["{PASSWORD}"]]'}},
        {"variables": {"STICKYGW_SECRETS": PASSWORD}},
        {"flags": {"redis.prefix": f"redis://user:{PASSWORD}@host"}},
        {"flags": {"redis.urll": f"redis://user:{PASSWORD}@host"}},
    ],
)
def test_an_error_never_tells_a_secret_not_even_in_its_traceback(tmp_path: Path, sources: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **sources)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_settings_show_no_secret() -> None:
    settings = Settings.from_wire({"secret": [PASSWORD], "redis": {"url": f"redis://:{PASSWORD}@host"}})
    assert PASSWORD not in f"{settings!r} {settings} {settings.redis!r}"
    with pytest.raises(ValueError, match="secret") as caught:
        Settings.from_wire({"secret": [[PASSWORD]]})
    assert PASSWORD not in str(caught.value)


_SECONDS = st.floats(min_value=0.001, max_value=86_400)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "bind": st.lists(st.text(min_size=1), min_size=1),
            "workers": st.integers(1, 1024) | st.just("auto"),
            "secret": st.lists(st.text()),
            "slot_wait": _SECONDS,
            "runtime_dir": st.just("/run/x"),
            "redis": st.fixed_dictionaries({"url": st.text(), "timeout": _SECONDS}),
        },
    )
)
def test_settings_come_off_the_wire_as_they_went_on(values: dict[str, Any]) -> None:
    settings = Settings.from_wire(values)
    assert Settings.from_wire(settings.to_wire()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STICKYGW_SERVICE_HOST", "10.0.0.1"),
        ("STICKYGW_SERVICE_PORT", "8000"),
        ("STICKYGW_SERVICE_PORT_HTTP", "8000"),
        ("STICKYGW_PORT", "tcp://10.0.0.1:8000"),
        ("STICKYGW_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("STICKYGW_PORT_8000_TCP_PROTO", "tcp"),
        ("STICKYGW_PORT_8000_TCP_PORT", "8000"),
        ("STICKYGW_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("STICKYGW_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("STICKYGW_REDIS_PORT", "tcp://10.0.0.2:6379"),
        ("STICKYGW_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
    ],
)
def test_variables_that_kubernetes_makes_for_a_service_of_our_name_are_passed_over(
    tmp_path: Path, name: str, value: str
) -> None:
    assert load(tmp_path, variables={name: value}).settings == Settings()


@pytest.mark.parametrize("name", ["STICKYGW_PORT", "STICKYGW_REDIS_PORT", "STICKYGW_SERVICE", "STICKYGW_PORTS"])
def test_a_variable_that_only_looks_like_one_of_kubernetes_is_unknown(tmp_path: Path, name: str) -> None:
    [problem] = problems(tmp_path, variables={name: "8000"})
    assert problem.startswith(f"{name}: no such setting (from the environment)")
