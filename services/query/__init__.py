"""The query front: the read path. It routes each read to the version that serves it and says which one answered."""
