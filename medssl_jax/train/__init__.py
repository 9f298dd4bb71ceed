"""Training that knows no method by name: state, step, loop, optimizer, mesh, checkpoints, logging."""
