"""The data pipelines: from source code to token records, on Apache Beam."""

import logging
import os

# Beam warns at every import where its optional Google Cloud client (`apache-beam[gcp]`) isn't installed.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())

# Arrow's own allocator keeps what threads that have ended freed: 105 MB after the near duplicates of 1 GB, and more
# with more. It's chosen when Arrow is loaded, here and in workers.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
