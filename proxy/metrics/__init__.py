"""Counts and times of a run, for collectors: Prometheus text, and OpenTelemetry. No secret, no path, no identity."""
