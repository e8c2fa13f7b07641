"""What every process of postroom starts with: its settings, places to listen, its log."""
