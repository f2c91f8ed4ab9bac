"""What the engine shows to the operator: models, faults and the control-plane port, and nothing else."""
