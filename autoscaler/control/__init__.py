"""The control socket: how commands on the same machine speak to the daemon."""
