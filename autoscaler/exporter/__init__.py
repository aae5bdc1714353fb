"""Prometheus metrics, made from snapshots."""
