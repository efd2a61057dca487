"""How are features scored outside of training? ONNX Runtime over the exported graph; needs neither torch nor ray."""

import numpy as np
import onnxruntime

from app.data.features import FeaturePlan
from app.types import UNSEEN_ID, CategoryMatrix, Features, NumberMatrix, Scores, UserError

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ROWS_AT_ONCE = {_CPU: 256, _CUDA: 65_536}  # a CPU's cache holds what lies between two nodes of so many rows


class Runtime:
    """A graph ready to score. Thread-safe: sessions hold no state between calls."""

    def __init__(self, onnx: bytes, plan: FeaturePlan, use_gpu: bool = False, threads: int = 1) -> None:
        """Load a graph; raises UserError when a GPU is demanded and ONNX Runtime has none."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A waiting thread sleeps: the core belongs to the neighbour replica.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider = _choose_provider(use_gpu)
        self.plan = plan
        self._session = onnxruntime.InferenceSession(onnx, options, providers=[provider])
        if provider not in self._session.get_providers():
            raise UserError("use_gpu: ONNX Runtime was built for CUDA but could not start it; see its log above")
        self._rows_at_once = _ROWS_AT_ONCE[provider]
        self.device = "cuda" if provider == _CUDA else "cpu"

    def score(self, features: Features) -> Scores:
        """Return calibrated scores of n rows, binary and regression (n,), multiclass (n, K); n may be 0.

        Large batches go through piece by piece, so that memory does not grow with n.
        """
        number, category = features
        rows, piece = len(number), self._rows_at_once
        if rows <= piece:
            return self._run(number, category)
        outputs = self.plan.target.outputs
        scores = np.empty((rows, outputs) if self.plan.target.task == "multiclass" else rows, np.float32)
        for start in range(0, rows, piece):
            part = slice(start, start + piece)
            scores[part] = self._run(number[part], category[part])
        return scores

    def _run(self, number: NumberMatrix, category: CategoryMatrix) -> Scores:
        scores: Scores = self._session.run(["score"], {"number": number, "category": category})[0]
        return scores

    def warm(self) -> None:
        """Score a row and a full piece once, so that the first request does not pay for memory."""
        for rows in (1, self._rows_at_once):
            number = np.full((rows, len(self.plan.number)), np.nan, np.float32)
            self._run(number, np.full((rows, len(self.plan.category)), UNSEEN_ID, np.int64))


def _choose_provider(use_gpu: bool) -> str:
    if not use_gpu:
        return _CPU
    available = onnxruntime.get_available_providers()
    if _CUDA not in available:
        raise UserError(
            f"use_gpu: ONNX Runtime has no CUDA here, only {', '.join(available)}; install onnxruntime-gpu, or "
            "declare use_gpu: auto or false"
        )
    onnxruntime.preload_dlls()  # finds the CUDA libraries that other packages brought along
    return _CUDA
