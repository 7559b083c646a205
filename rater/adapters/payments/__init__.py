"""Payment gateways: how money is taken from a card. `gateway` says what all of them promise."""
