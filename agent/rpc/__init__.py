"""JSON-RPC with desktop clients, in the dialect of the original app-server: no `jsonrpc` member, both sides ask."""
