"""What joins the core and the engine."""
