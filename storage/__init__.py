"""Ground floor, bytes at rest: objects, codecs, shards, manifests. Knows no torch, Beam or Prefect."""
