"""Helpers for tests and executable documentation: a throwaway site, and what to do with it."""
