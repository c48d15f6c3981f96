"""What tells one gateway from the others: its id, the ids it mints, its own URL, and the 421 that names another."""

from __future__ import annotations

import pytest

from stickygw import App, Connection, Refuse
from stickygw.testing import AppClient, HandshakeRefused

ELSEWHERE = "https://eu2.example.com:8443/match/0123abcd.x"


async def test_an_application_knows_which_ids_its_gateway_has_minted() -> None:
    app = App()
    async with AppClient(app):
        id = app.mint_id()
        assert id.startswith(f"{app.gateway_id}.")
        assert app.minted_here(id)
        assert not app.minted_here("0123abcd" + id[8:])
        assert not app.minted_here(app.gateway_id)


async def test_the_gateway_s_own_url_is_what_the_setting_says() -> None:
    app = App()
    async with AppClient(app):
        assert app.public_url is None
    async with AppClient(app, public_url="https://eu1.example.com"):
        assert app.public_url == "https://eu1.example.com"


@pytest.mark.parametrize("name", ["public_url", "gateway_id", "redis"])
def test_outside_a_worker_there_is_no_gateway(name: str) -> None:
    with pytest.raises(RuntimeError, match="the application is not running"):
        getattr(App(), name)


async def test_a_client_that_belongs_elsewhere_is_told_where() -> None:
    app = App()

    @app.on_handshake
    def own_only(request, session):
        if not app.minted_here(request.path_params["id"]):
            raise Refuse.misdirected(ELSEWHERE)

    @app.on_connect("/match/{id}")
    async def enter(conn: Connection, id: str) -> None:
        await conn.send(id)

    async with AppClient(app) as client:
        own = app.mint_id()
        async with client.connect(f"/match/{own}") as conn:
            assert await conn.receive() == own
        with pytest.raises(HandshakeRefused) as refused:
            async with client.connect("/match/0123abcd.x"):
                pass
        assert (refused.value.status, refused.value.body) == (421, f"{ELSEWHERE}\n")
        assert refused.value.headers["Location"] == ELSEWHERE
        assert client.counters.value("handshakes_refused", "421") == 1


@pytest.mark.parametrize("url", ["", "https://e.com/\r\nSet-Cookie: a=b", "https://exämple.com"])
def test_a_client_is_sent_to_no_url_that_no_field_can_carry(url: str) -> None:
    with pytest.raises(ValueError, match=r"told a URL|printable ASCII only"):
        Refuse.misdirected(url)
