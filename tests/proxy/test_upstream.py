import pytest

from proxy.scope import Target
from proxy.upstream import UpstreamMap, refused_address

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("entry", "target", "address"),
    [
        ("chatgpt.com=127.0.0.1:8443", Target("chatgpt.com", 443), ("127.0.0.1", 8443)),
        ("chatgpt.com:8443=127.0.0.1:1", Target("chatgpt.com", 8443), ("127.0.0.1", 1)),
        (" ChatGPT.com = localhost:65535 ", Target("chatgpt.com", 443), ("localhost", 65535)),
        ("chatgpt.com=[::1]:8443", Target("chatgpt.com", 443), ("::1", 8443)),
    ],
)
def test_an_entry_maps_a_target_to_an_address(entry, target, address):
    assert UpstreamMap.parse([entry]).addresses == {target: address}


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "chatgpt.com",
        "chatgpt.com=",
        "=127.0.0.1:8443",
        "chatgpt.com=127.0.0.1",  # the address needs its port
        "chatgpt.com=127.0.0.1:0",
        "chatgpt.com=127.0.0.1:65536",
        "chatgpt.com=127.0.0.1:x",
        "chatgpt.com.=127.0.0.1:8443",
        "*.chatgpt.com=127.0.0.1:8443",
        "https://chatgpt.com=127.0.0.1:8443",
        "chatgpt.com=2130706433:8443",
    ],
)
def test_a_malformed_entry_is_refused_with_its_text(entry):
    with pytest.raises(ValueError) as refusal:
        UpstreamMap.parse([entry])
    assert repr(entry) in str(refusal.value)


def test_a_target_with_two_addresses_is_refused_and_the_same_entry_twice_is_not():
    UpstreamMap.parse(["a.example=127.0.0.1:1", "a.example=127.0.0.1:1"])
    with pytest.raises(ValueError, match="a.example:443 twice"):
        UpstreamMap.parse(["a.example=127.0.0.1:1", "a.example=127.0.0.1:2"])


def test_the_ca_file_must_hold_certificates(tmp_path):
    (tmp_path / "ca.pem").write_text(PEM)
    assert UpstreamMap.parse([], tmp_path / "ca.pem").ca_file == tmp_path / "ca.pem"
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ValueError, match="holds none"):
        UpstreamMap.parse([], tmp_path / "ca.pem")
    with pytest.raises(FileNotFoundError):
        UpstreamMap.parse([], tmp_path / "missing.pem")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",  # where clouds keep their credentials
        "100.64.0.1",
        "192.0.0.8",
        "192.88.99.1",  # the anycast of 6to4 relays
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "198.18.0.1",
        "198.19.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "2001:db8::1",
        "fec0::1",  # site-local, which Python's is_global lets through
        "feff::1",
        "::127.0.0.1",  # IPv4-compatible
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",  # 6to4 around 127.0.0.1
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1",  # NAT64 around 127.0.0.1
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo around 192.0.2.45
        "100::1",
        "3fff::1",  # documentation, also global for Python
        "3fff:fff:ffff::1",
        "5f00::1",
        "",
        "localhost",
        "2130706433",
        "0x7f.1",
        "not an address",
    ],
)
def test_an_address_that_no_public_name_should_have_is_refused(address):
    assert refused_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "104.18.32.47",
        "172.32.0.1",
        "172.15.255.255",
        "100.128.0.1",
        "192.88.98.255",
        "192.88.100.0",
        "2606:4700::6812:202f",
        "::ffff:104.18.32.47",
        "64:ff9b::808:808",
    ],
)
def test_a_public_address_is_not(address):
    assert not refused_address(address)
