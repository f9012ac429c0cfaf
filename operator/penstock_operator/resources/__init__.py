"""The Kubernetes side of the API: StreamJob and Savepoint with their status; models only."""
