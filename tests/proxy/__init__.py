"""Tests of what leaves the machine; most drive a running proxy with raw bytes and look at what reached the upstream."""
