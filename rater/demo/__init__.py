"""The demo: a real broker, a real worker, lifelike traffic, and a proof at the end."""
