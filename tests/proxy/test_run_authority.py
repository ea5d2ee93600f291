"""The authority of a run, which lasts for hours, and what is done before they are over."""

import asyncio
import datetime as dt
import logging
import ssl
import stat
from pathlib import Path

import pytest
import trustme

from certs.authority import CA_WITH_KEY
from certs.trust import client_context, trust_also
from proxy.run_authority import RunAuthority
from tests.proxy.origin import Origin, echoing
from tests.proxy.wire import post, tunnel, upgrade

NOW = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
LIFETIME = dt.timedelta(hours=72)


@pytest.fixture
def authority(tmp_path):
    """One that has been issued."""
    tmp_path.chmod(0o700)
    it = RunAuthority(tmp_path, ["chatgpt.com"], None, LIFETIME)
    it.issue(NOW)
    return it


def certificates(path):
    return Path(path).read_text().count("BEGIN CERTIFICATE")


def test_another_one_is_due_hours_before_the_last_one_ends(authority):
    assert authority.expires_at == NOW + LIFETIME
    assert authority.due_at == NOW + dt.timedelta(hours=66)


def test_children_that_start_after_the_renewal_trust_the_new_one(authority):
    former, length = authority.ca_pem, certificates(authority.bundle_file)
    authority.issue(NOW + dt.timedelta(hours=66))
    assert authority.expires_at == NOW + dt.timedelta(hours=138)
    assert authority.ca_file.read_bytes() == authority.ca_pem != former
    for path in (authority.bundle_file, authority.node_file):
        assert authority.ca_pem in path.read_bytes() and former not in path.read_bytes()
    assert certificates(authority.bundle_file) == length


def test_each_key_is_only_for_its_owner(authority):
    authority.issue(NOW)
    for directory in (authority.directory, authority.directory.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / CA_WITH_KEY).stat().st_mode) == 0o600


def test_what_the_user_gave_to_node_stays(tmp_path, monkeypatch):
    """It was once replaced, and a company's own hosts were not reachable any more."""
    company = tmp_path / "company.pem"
    company.write_bytes(trustme.CA().cert_pem.bytes() + b"-----BEGIN PRIVATE KEY-----\nsecret\n")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(company))
    tmp_path.chmod(0o700)
    authority = RunAuthority(tmp_path, ["chatgpt.com"], None, LIFETIME)
    authority.issue(NOW)
    assert certificates(authority.node_file) == 2 and authority.ca_pem in authority.node_file.read_bytes()
    assert "PRIVATE" not in authority.node_file.read_text()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_what_cannot_be_read_of_it_is_left_out_as_node_does(tmp_path, monkeypatch, caplog, content):
    if content is not None:
        (tmp_path / "company.pem").write_text(content)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(tmp_path / "company.pem"))
    tmp_path.chmod(0o700)
    authority = RunAuthority(tmp_path, ["chatgpt.com"], None, LIFETIME)
    authority.issue(NOW)
    assert authority.node_file.read_bytes() == authority.ca_pem
    assert "company.pem" in caplog.text


# In a running proxy


def test_after_a_renewal_new_connections_are_the_new_ones_and_open_ones_go_on(run, stage):
    async def scenario():
        renewed = []
        async with stage(Origin(echoing), on_renewed=renewed.append) as it:
            former = it.proxy.ca_pem
            context = client_context(former)
            async with tunnel(it.proxy) as before:
                await before.exchange(upgrade())
                it.proxy.renew_authority()
                assert renewed == [it.proxy.ca_pem] != [former]
                with pytest.raises(ssl.SSLCertVerificationError):
                    async with tunnel(it.proxy, trusted=former):
                        pass
                async with tunnel(it.proxy) as after:
                    assert (await after.exchange(post())).status == 200
                await before.send(b"ping")
                assert await before.receive() == b"ping"
            trust_also(context, renewed[0])  # as the app-server does
            assert len(context.get_ca_certs()) == 2

    run(scenario())


def test_it_is_renewed_by_itself_before_it_ends(run, stage):
    async def scenario():
        renewed = asyncio.Event()
        lifetime = dt.timedelta(seconds=0.6)
        async with stage(ca_lifetime=lifetime, on_renewed=lambda _: renewed.set()):
            await renewed.wait()
        return renewed.is_set()

    assert run(scenario())


def test_where_nobody_can_be_told_the_log_says_in_time_that_it_ends(run, stage, caplog):
    async def scenario():
        said = asyncio.Event()

        class Said(logging.Handler):
            def emit(self, record):
                if "authority ends at" in record.getMessage():
                    said.set()

        logger = logging.getLogger("proxy.server")
        logger.addHandler(handler := Said())
        try:
            async with stage(ca_lifetime=dt.timedelta(seconds=0.6)) as it:
                first = it.proxy.ca_pem
                await said.wait()
                assert it.proxy.ca_pem == first
        finally:
            logger.removeHandler(handler)

    run(scenario())
    assert [record.levelno for record in caplog.records if "authority ends" in record.getMessage()] == [logging.ERROR]
