"""Jobs, immutable versions of their code, and the retirement of versions."""
