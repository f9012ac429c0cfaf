"""Sources and sinks, unaware of each other; each fills the port `penstock.dataflow.connector`."""
