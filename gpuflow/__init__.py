"""gpuflow: GPU-first streaming dataflow for multimodal inference servers."""
