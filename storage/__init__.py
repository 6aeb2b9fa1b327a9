"""Ground floor, bytes at rest: fsspec objects, codecs, shards, manifests. Knows nothing of torch, Beam or Prefect."""
