"""Payment gateways, which charge cards. `gateway` defines the interface and what every gateway promises."""
