"""TLS: stock agents that check whom they speak to."""

from __future__ import annotations

import pytest
import pytest_twisted

from latent.errors import ConfigError
from latent.model import Result
from tests.certificates import certificate
from tests.gateways.buildbot.raw import HELLO, connected
from tests.gateways.buildbot.site import MASTER, Site, StockAgent, until


@pytest_twisted.async_yield_fixture
async def tls_site(tmp_path):
    certificate(tmp_path)
    tls = '"tls": {"certificate": "server.pem", "key": "server.key"}, "keepalive_interval"'
    site = Site(tmp_path, MASTER.replace('"keepalive_interval"', tls))
    await site.start()
    yield site
    await site.stop()


def stock(site, folder, protocol, trusted, **changes):
    connection = f"tls:host=127.0.0.1:port={site.port(protocol)}:trustRoots={trusted}"
    return StockAgent(folder, None, protocol, connection=connection, **changes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_a_build_over_tls(tls_site, tmp_path, protocol):
    """An agent that trusts the certificate builds, and comes back after it was dropped."""
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "server.pem").write_bytes((tmp_path / "server.pem").read_bytes())
    build = await tls_site.submit("seq 1000")
    async with stock(tls_site, tmp_path / "agent", protocol, tmp_path / "trusted"):
        assert (await tls_site.finished(build)).result is Result.SUCCESS
        assert tls_site.lines(await tls_site.run_of(build)) == [str(number) for number in range(1, 1001)]
        await tls_site.stop()
        await tls_site.start()
        assert (await tls_site.finished(await tls_site.submit("true"))).result is Result.SUCCESS


@pytest_twisted.ensureDeferred
async def test_an_agent_that_does_not_trust_us(tls_site, tmp_path, protocol):
    """It never logs in; nor does one that speaks no TLS, or noise."""
    other = tmp_path / "other"
    other.mkdir()
    certificate(other)
    async with stock(tls_site, tmp_path / "agent", protocol, other):
        async with StockAgent(tmp_path / "plain", tls_site.port(protocol), protocol):
            raw = await connected(tls_site.port(protocol))
            raw.write(HELLO * 100)
            await raw.until_lost()
            listener = tls_site.assembly._gateways[protocol]._listener
            seen = set()

            def several():
                seen.update(connection.address for connection in listener._connections)
                return len(seen) > 2

            await until(several)
        assert tls_site.status("plain").session is None


@pytest.mark.parametrize("broken", ["other key", "no certificate", "gone"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_can_not_be_used(tmp_path, broken):
    """The configuration is refused, and says so."""
    certificate(tmp_path)
    if broken == "other key":
        certificate(tmp_path, "another")
        (tmp_path / "server.key").write_bytes((tmp_path / "another.key").read_bytes())
    elif broken == "no certificate":
        (tmp_path / "server.pem").write_text("hello\n")
    else:
        (tmp_path / "server.pem").unlink()
    site = Site(tmp_path, MASTER.replace('"pb": {', '"pb": {"tls": {"certificate": "server.pem", "key": "server.key"}, '))
    with pytest.raises(ConfigError, match=r"c\['protocols'\]\['pb'\]\['tls'\]"):
        await site.start()
