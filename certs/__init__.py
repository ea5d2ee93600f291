"""The local certificate authority and what trusts it. Nothing here is written to a system store."""
