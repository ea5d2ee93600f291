"""The agent around the proxy: JSON-RPC to the desktop, turns, the model client, and the commands."""
