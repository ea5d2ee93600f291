"""Threads and turns: what is decided, without knowing how it is carried."""
