"""The read-only web server: metrics, health and status."""
