"""The demo: a real broker, a real worker, realistic traffic, and an audit at the end."""
