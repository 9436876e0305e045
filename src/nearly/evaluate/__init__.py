"""The oracle: truth, recall, intrinsic dimension, data sets. Plain NumPy, so that it shares no bug with the engine."""

from nearly.evaluate.dataset import Dataset
from nearly.evaluate.datasets import DATASETS, data_folder, load, read_dataset, write_dataset
from nearly.evaluate.dimension import ESTIMATORS, intrinsic_dimension, lid, local_radii, mean_lid, mle_dimension, two_nn
from nearly.evaluate.files import FORMATS, read, write
from nearly.evaluate.recall import (
    recall_at_k,
    recall_by_distance,
    recall_lower_bound,
    recalls_at_k,
    recalls_by_distance,
)
from nearly.evaluate.truth import exact, exact_range, pair_distances

__all__ = [
    "DATASETS",
    "ESTIMATORS",
    "FORMATS",
    "Dataset",
    "data_folder",
    "exact",
    "exact_range",
    "intrinsic_dimension",
    "lid",
    "load",
    "local_radii",
    "mean_lid",
    "mle_dimension",
    "pair_distances",
    "read",
    "read_dataset",
    "recall_at_k",
    "recall_by_distance",
    "recall_lower_bound",
    "recalls_at_k",
    "recalls_by_distance",
    "two_nn",
    "write",
    "write_dataset",
]
