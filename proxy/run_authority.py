"""The authority of one run, and the files that make clients and upstream connections trust the right ones.

An authority lasts for hours (certs.authority), so a process that runs for days needs another one before that.
"""

import datetime as dt
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import certifi

from certs.authority import CA_CERTIFICATE, LocalAuthority
from certs.trust import platform_roots, write_bundle

logger = logging.getLogger(__name__)


class RunAuthority:
    """What is trusted in this run. Nothing is there before the first `issue`.

    `directory` is where the current authority's key is, under mitmproxy's names.

    Args:
        run_directory: A 0700 directory.
        names: The hosts that an authority may speak for.
        upstream_ca: PEM authorities that upstream connections, and children, trust besides the platform's.
    """

    def __init__(
        self, run_directory: Path, names: Iterable[str], upstream_ca: Path | None, lifetime: dt.timedelta
    ) -> None:
        self.directory = run_directory
        self.bundle_file = run_directory / "bundle.pem"
        self.node_file = run_directory / "node-extra.pem"
        self.upstream_roots = run_directory / "upstream-roots.pem"
        self.expires_at = dt.datetime.min.replace(tzinfo=dt.UTC)
        self.ca_pem = b""
        self._run_directory = run_directory
        self._names = tuple(names)
        self._upstream_ca = upstream_ca
        self._lifetime = lifetime
        self._issued = 0

    @property
    def ca_file(self) -> Path:
        """The authority's certificate alone."""
        return self.directory / CA_CERTIFICATE

    @property
    def due_at(self) -> dt.datetime:
        """When another one should be issued, or somebody be told: six hours before the end of 72."""
        return self.expires_at - self._lifetime / 12

    def issue(self, now: dt.datetime) -> None:
        """Make a new authority and write all files; children that are given them afterwards trust it.

        Raises:
            OSError: A file cannot be read or written; the text names it.
            ValueError: A bundle that should hold certificates holds none.
        """
        authority = LocalAuthority.create(self._names, now, self._lifetime)
        extra = [] if self._upstream_ca is None else [self._upstream_ca.read_bytes()]
        trusted = [authority.certificate_pem, *extra]
        directory = self._run_directory
        if self._issued:
            directory = self._run_directory / f"authority-{self._issued + 1}"
            directory.mkdir(mode=0o700)
        authority.write(directory)
        _put_bundle(self.bundle_file, platform_roots(), trusted)
        _put_bundle(self.upstream_roots, Path(certifi.where()), extra)
        self._put_node_extra(directory / CA_CERTIFICATE, trusted)
        self.directory, self.ca_pem, self.expires_at = directory, authority.certificate_pem, now + self._lifetime
        self._issued += 1

    def _put_node_extra(self, ca_file: Path, trusted: list[bytes]) -> None:
        """Node adds these to roots of its own. What the user added already stays, if it can be read."""
        own = os.environ.get("NODE_EXTRA_CA_CERTS")
        if own:
            try:
                _put_bundle(self.node_file, Path(own), trusted)
                return
            except (OSError, ValueError) as exc:
                logger.warning("NODE_EXTRA_CA_CERTS is left out: %s", exc)
        _put_bundle(self.node_file, ca_file, trusted[1:])


def _put_bundle(path: Path, roots: Path, authorities: list[bytes]) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    write_bundle(fresh, roots, authorities)
    fresh.rename(path)  # whoever opens it finds the old one or the new one, whole
