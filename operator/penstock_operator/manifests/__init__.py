"""Pure builders of the Kubernetes objects that a StreamJob is made of."""
