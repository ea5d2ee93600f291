"""Holds the loopback that the other containers share, and does nothing else: they can restart, and it stays."""

import signal

ENDS = {signal.SIGTERM, signal.SIGINT}
# The first process of a container is not ended by a signal that it does not handle.
signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
signal.sigwait(ENDS)
