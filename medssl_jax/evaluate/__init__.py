"""How good a network is: metrics, probes of frozen features, the collapse panel, paired statistics and levels to beat."""

from medssl_jax.evaluate.collapse import collapse_panel, collapse_warning, directions
from medssl_jax.evaluate.metrics import METRICS_VERSION, classification_metrics, dice, iou, pooled_dice, segmentation_metrics
from medssl_jax.evaluate.probes import PROBE_VERSION, knn_accuracy, ridge_accuracy
from medssl_jax.evaluate.statistics import PairedDifference, holm, paired_difference

__all__ = [
    "METRICS_VERSION",
    "PROBE_VERSION",
    "PairedDifference",
    "classification_metrics",
    "collapse_panel",
    "collapse_warning",
    "dice",
    "directions",
    "holm",
    "iou",
    "knn_accuracy",
    "paired_difference",
    "pooled_dice",
    "ridge_accuracy",
    "segmentation_metrics",
]
