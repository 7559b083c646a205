"""What operators and administrators do: commands and their outcome, look-ups, dead letters put back. For `cli` and `web`."""
