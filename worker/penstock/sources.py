"""Where records come from: `env.source(sources.Files("access.log"), uid="lines")`."""

from penstock.connectors.files import Files
from penstock.connectors.generator import Generator
from penstock.connectors.socket import Socket
from penstock.dataflow.connector import Source

__all__ = ["Files", "Generator", "Socket", "Source"]
