__version__ = "0.1.0"
# The published documentation, without a slash at its end.
DOCS_URL = "https://precisionbench.readthedocs.io/en/latest"
