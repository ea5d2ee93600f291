"""What leaves the machine: which requests are stamped, which hosts may pass, and what is kept of an exchange.

The embedded mitmproxy lives here and nowhere else. This room knows nothing of the agent; it is given an
`AttestationProvider` and asks it.
"""
