"""The fuzz targets and their corpus, and a fuzzer of the running server."""
