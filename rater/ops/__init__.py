"""What operations sees of a process: its metrics and its health."""
