"""The spool: the durable queue, and the intake that fills it from the door."""
