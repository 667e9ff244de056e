"""Training runs and engines: Ray, vLLM, FSDP2 and TransferQueue on a tiny model."""
