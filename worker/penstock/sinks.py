"""Where records go: `counts.sink(sinks.Files("out", formats.Json()), uid="out")`."""

from penstock.connectors.collect import Collect
from penstock.connectors.files_sink import Files
from penstock.connectors.print import Print
from penstock.dataflow.connector import Sink

__all__ = ["Collect", "Files", "Print", "Sink"]
