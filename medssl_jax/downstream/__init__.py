"""Supervised tasks on pretrained or random weights: fine-tuning and prediction."""
