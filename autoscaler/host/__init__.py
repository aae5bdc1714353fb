"""The load of the host this daemon runs on."""
