"""What can be seen of a running server: counts, health, and the pages that show them."""
