"""Delivery: from one message to all of its recipients, over SMTP."""
