"""Front doors: msgspec structs of each wire format and their way into the core."""
