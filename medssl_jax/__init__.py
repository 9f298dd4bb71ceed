"""Self-supervised pretraining and few-label learning for biomedical images, in JAX."""
