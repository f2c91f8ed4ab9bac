"""The operator: converges protected machines on the manifests that a team commits."""
