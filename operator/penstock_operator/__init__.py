"""The Kubernetes operator: keeps every StreamJob as its object says."""
