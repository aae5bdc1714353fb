"""A simulated world that answers like a hypervisor, on a clock of its own."""
