"""Builders of everything Kubernetes is asked for. Pure; `record` is where a revision is rendered."""
