"""Coverage-guided fuzzing: `python -m fuzz`.

For: finding octets that break what the parsers and the session promise. A target takes
octets, tries one thing with them and fails with an exception; what it holds the code to is
written in the target, slowly and obviously. Targets need nothing but the standard library,
so `make test` replays the corpus; only looking for new inputs needs atheris.
"""
